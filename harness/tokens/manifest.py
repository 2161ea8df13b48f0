"""What a data folder holds: `manifest.json`, by which a replay says on which tokens it ran."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UserError
from harness.files import write_whole
from harness.tokens.shards import check_shard
from timing.text import printable

FILE_NAME = "manifest.json"
GPT2_TOKENS = "gpt2.tiktoken"  # what it may hold beside the shards, see `gpt2`
TRAIN_SHARDS = 103  # of FineWeb, 100M tokens each


@dataclass(frozen=True)
class Manifest:
    """The shards of one data folder and where they come from.

    `files` maps a file's name to {"sha256": hex digest, "tokens": count}. `synthetic` holds the figures of a synthetic
    source ({"seed", "entropy_nats", "unigram_nats", "vocabulary", ...}) and is None for text.
    """

    name: str
    origin: str
    revision: str
    files: dict[str, dict] = field(default_factory=dict)
    synthetic: dict | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the name and the files, independent of their order and of where they were fetched from."""
        canonical = json.dumps({"name": self.name, "files": self.files}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def entropy_nats(self) -> float | None:
        """Entropy rate of the source in nats per token, which no honest loss stays under; None where it is unknown."""
        return None if self.synthetic is None else self.synthetic["entropy_nats"]

    def tokens(self, split: str) -> int:
        """Tokens of one split, "train" or "val", in all its shards together."""
        return sum(entry["tokens"] for name, entry in self.files.items() if f"_{split}_" in name)

    def write(self, data_dir: Path) -> None:
        """Write `manifest.json` into `data_dir`, whole or not at all."""
        content = {"name": self.name, "origin": self.origin, "revision": self.revision, "digest": self.digest}
        content |= {"files": dict(sorted(self.files.items()))}
        if self.synthetic is not None:
            content["synthetic"] = self.synthetic
        write_whole(data_dir / FILE_NAME, json.dumps(content, indent=2) + "\n")


def read_manifest(data_dir: Path | str) -> Manifest | None:
    """The manifest of a data folder, or None where there is none. Raises UserError if it is damaged."""
    path = Path(data_dir) / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): _entry(name, entry) for name, entry in content["files"].items()}
        synthetic = content.get("synthetic")
        if synthetic is not None:
            synthetic = {**synthetic, "entropy_nats": float(synthetic["entropy_nats"])}
        words = [_word(content[key]) for key in ("name", "origin", "revision")]
        manifest = Manifest(*words, files, synthetic)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a manifest ({_one_line(error)}): delete it and run `harness data` again"
        ) from error
    if content.get("digest") != manifest.digest:
        raise UserError(f"{path} was edited: its digest does not match its files; run `harness data` again")
    return manifest


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> dict:
    """What a manifest says of the shard at `path`: its SHA-256 and its tokens. Raises ShardError for a bad shard."""
    return {"tokens": check_shard(path), "sha256": sha256_of(path)}


def shards_on_disk(data_dir: Path) -> set[str]:
    """Names of all files in `data_dir` that a train script would take for shards."""
    return {path.name for split in ("train", "val") for path in data_dir.glob(f"fineweb_{split}_*.bin")}


def _word(value: object) -> str:
    """Text that can be shown as it is: a data folder may be a stranger's."""
    if not isinstance(value, str) or printable(value, 300) != value:
        raise ValueError(f"{printable(str(value), 60)!r} is no name")
    return value


def _entry(name: str, entry: dict) -> dict:
    if Path(name).name != name or not name.endswith(".bin"):
        raise ValueError(f"{name!r} is not the name of a shard")
    return {"sha256": str(entry["sha256"]), "tokens": int(entry["tokens"])}


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]
