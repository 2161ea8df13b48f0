"""The tokens that a replay trains on: FineWeb, the synthetic source, or a corpus of one's own, named by a manifest."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from harness.archive import places
from harness.errors import UserError
from harness.tokens.manifest import TRAIN_SHARDS, Manifest, fingerprint, read_manifest, shards_on_disk
from harness.tokens.shards import ShardError, read_header
from harness.tokens.synthetic import ensure_synthetic
from timing.text import printable

__all__ = ["Manifest", "check", "describe", "ensure_fineweb", "ensure_synthetic", "read_manifest"]

NAME = "fineweb10B"
SPARE_BYTES = 1 << 28  # left free on the disk for everything else

VAL_FILE = "fineweb_val_000000.bin"


def train_file(number: int) -> str:
    """Name of the train shard `number`, counted from 1."""
    return f"fineweb_train_{number:06d}.bin"


def ensure_fineweb(data_dir: Path | str, shards: int, progress: bool = True) -> Manifest:
    """The validation shard and the first `shards` train shards of FineWeb in `data_dir`, fetched where missing.

    What is there already is used without a network. The first call pins the data set's revision in the manifest, and
    later ones stay with it. Raises UserError in one line for every way in which disk, network or Hub can fail; shards
    that arrived before the failure stay, and so do the parts.
    """
    if not 1 <= shards <= TRAIN_SHARDS:
        raise UserError(f"FineWeb has 1 to {TRAIN_SHARDS} train shards, not {shards}")
    data_dir = Path(data_dir)
    wanted = [VAL_FILE, *map(train_file, range(1, shards + 1))]
    with _sole_user(data_dir):
        manifest = read_manifest(data_dir)
        if manifest is not None and manifest.name != NAME:
            raise UserError(f"{data_dir} holds {manifest.name}, not FineWeb: name another folder (--data-dir)")
        if manifest is None or not all(_at_hand(data_dir, manifest, name) for name in wanted):
            manifest = _complete(data_dir, manifest, wanted, progress)
    return manifest


def check(data_dir: Path | str) -> Manifest:
    """Read every byte of a data folder and hold it against its manifest. Raises UserError for the first defect."""
    data_dir = Path(data_dir)
    manifest = read_manifest(data_dir)
    if manifest is None:
        raise UserError(f"{data_dir} has no manifest.json: `harness data` fetches FineWeb and writes one")
    on_disk = shards_on_disk(data_dir)
    if lost := set(manifest.files) - on_disk:
        raise UserError(f"{data_dir / min(lost)} is missing, though the manifest lists it: fetch or make it again")
    if unlisted := on_disk - set(manifest.files):
        raise UserError(f"{data_dir / min(unlisted)} is not in the manifest, and a run would read it: remove it")
    for name, found in _fingerprints(data_dir, sorted(manifest.files)).items():
        if found != manifest.files[name]:
            raise UserError(f"{data_dir / name} is not the file of the manifest (SHA-256 differs): fetch it again")
    return manifest


def describe(data_dir: Path | str, name: str, origin: str = "") -> Manifest:
    """Write the manifest of shards that came from elsewhere, so that replays can say what they ran on."""
    data_dir = Path(data_dir)
    files = sorted(shards_on_disk(data_dir))
    if not any("_val_" in file for file in files) or not any("_train_" in file for file in files):
        raise UserError(f"{data_dir} needs shards named fineweb_train_*.bin and fineweb_val_*.bin to be a data folder")
    if not name.strip() or printable(name, 300) != name:
        raise UserError("a corpus needs a name that can be shown: give --describe plain text")
    if name in (NAME, "synthetic"):
        raise UserError(f"{name} is the name of a known source: give this corpus one of its own")
    manifest = Manifest(name, origin or "local", "", _fingerprints(data_dir, files))
    manifest.write(data_dir)
    return manifest


def prepare(
    data_dir: Path | None,
    *,
    shards: int,
    only_check: bool,
    synthetic: bool,
    seed: int,
    name: str,
    gpt2_tokens: bool = False,
    progress: bool = True,
) -> str:
    """What `harness data` does: get, make, check or describe a data folder, and say what it holds in two lines."""
    if only_check + synthetic + bool(name) > 1:
        raise UserError("choose one of --check, --synthetic and --describe")
    data_dir = data_dir or places.data_dir("synthetic" if synthetic else NAME)
    if only_check:
        manifest = check(data_dir)
    elif synthetic:
        manifest = ensure_synthetic(data_dir, seed=seed)
    elif name:
        manifest = describe(data_dir, name)
    else:
        manifest = ensure_fineweb(data_dir, shards, progress)
    if gpt2_tokens:
        from harness.tokens.gpt2 import ensure_gpt2_tokens

        ensure_gpt2_tokens(data_dir)
    return _summary(data_dir, manifest)


def _summary(data_dir: Path, manifest: Manifest) -> str:
    counts = f"{manifest.tokens('train'):,} train tokens, {manifest.tokens('val'):,} validation tokens"
    floor = "" if manifest.entropy_nats is None else f", entropy {manifest.entropy_nats:.4f} nats a token"
    revision = f" at {manifest.revision}" if manifest.revision else ""
    return f"{places.shown(data_dir)}: {manifest.name}{revision}\n{counts}{floor}; manifest {manifest.digest[:16]}"


def _at_hand(data_dir: Path, manifest: Manifest, name: str) -> bool:
    """Whether a shard is listed and on disk with the tokens that it should have (`check` reads all of it)."""
    try:
        return name in manifest.files and read_header(data_dir / name) == manifest.files[name]["tokens"]
    except ShardError:
        return False


def _complete(data_dir: Path, manifest: Manifest | None, wanted: list[str], progress: bool) -> Manifest:
    """Fetch what is missing of `wanted` and write the manifest of all FineWeb shards that are then in place."""
    from harness.tokens import hub, transfer  # the library's import alone takes half a second

    remote = hub.list_files(manifest.revision if manifest else None)
    absent = [name for name in wanted if name not in remote]
    if absent:
        raise UserError(f"{hub.endpoint()} has no {absent[0]} in {hub.REPOSITORY}")
    known = set(manifest.files) if manifest else set()
    names = sorted(known | set(wanted))
    present = [name for name in names if (data_dir / name).is_file()]
    good = _fingerprints(data_dir, present, lenient=True)
    good = {name: entry for name, entry in good.items() if name in remote and entry["sha256"] == remote[name].sha256}
    for name in set(present) - set(good) - known:
        raise UserError(f"{data_dir / name} is not FineWeb's: move it away, or name another folder (--data-dir)")
    missing = [remote[name] for name in names if name in remote and name not in good]
    _require_space(data_dir, missing)
    origin = f"{hub.endpoint()}/datasets/{hub.REPOSITORY}"
    try:
        for name, entry in transfer.fetch_all(missing, data_dir, progress):
            good[name] = entry
    finally:
        manifest = Manifest(NAME, origin, remote[VAL_FILE].revision, good)
        if good:
            with contextlib.suppress(OSError):  # a full disk has its own error already
                manifest.write(data_dir)
    return manifest


def _require_space(data_dir: Path, files: list) -> None:
    """Raises UserError when the disk cannot hold what is to be fetched; parts that have arrived count as there."""
    parts = sum(path.stat().st_size for path in data_dir.glob(".fineweb_*.part"))
    needed = sum(file.size for file in files) - parts
    free = shutil.disk_usage(data_dir).free
    if files and needed + SPARE_BYTES > free:
        raise UserError(
            f"{data_dir} has {free / 1e9:.1f} GB free and the shards need {needed / 1e9:.1f} GB: free space"
        )


def _fingerprints(data_dir: Path, names: Iterable[str], lenient: bool = False) -> dict[str, dict]:
    """The manifest's entry of each shard, read in parallel. Raises UserError for a bad one, or leaves it out."""

    def of(name: str) -> dict | None:
        try:
            return fingerprint(data_dir / name)
        except ShardError:
            if lenient:
                return None
            raise

    pool = ThreadPoolExecutor()
    try:
        found = dict(zip(names := list(names), pool.map(of, names)))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the shards that are being read, not for all of them
    return {name: entry for name, entry in found.items() if entry is not None}


@contextlib.contextmanager
def _sole_user(data_dir: Path) -> Iterator[None]:
    """Make the folder, and wait until no other process fetches into it; that there is one is said at once."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(data_dir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{data_dir} cannot be used as a data folder: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo(f"another process is at work in {data_dir}: waiting until it is done", err=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
