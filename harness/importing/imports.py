"""Someone else's logs as records of one's own: sources rebuilt from the logs' bytes, nothing run.

Logs of one source become one folder, `<date>-<first digits of the source's SHA-256>`, with `train.py`, its helper
modules, a `record.toml` of what the logs show, and the logs, each once however often it was found.
"""

import datetime
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.archive.record import FACTS, SCRIPT, load
from harness.errors import UserError
from harness.files import write_whole
from harness.importing.facts import record_toml
from harness.importing.safe_names import file_name, place_all
from harness.referee.source.rules import read_source
from timing.log import LogError, Run, printable, read_logs
from timing.parts import read_modules

LOGS = "logs"
UNNUMBERED = "0"  # an import is no record of the leaderboard, and borrows no number of one


@dataclass(frozen=True)
class Found:
    """The logs of one source, no two alike. Where the source is left out of them, those of one number of steps."""

    digest: str  # SHA-256 of the source block
    steps: int | None  # planned, where the source is left out and tells nothing; else None
    runs: list[Run]

    @property
    def date(self) -> datetime.date:
        """Day of the earliest run that logs one, else the day the first file was written."""
        days = sorted(run.date[:10] for run in self.runs if run.date)
        if days:
            return datetime.date.fromisoformat(days[0])
        return datetime.date.fromtimestamp(min(os.stat(run.path).st_mtime for run in self.runs))

    @property
    def name(self) -> str:
        """What tells this source from others in a folder's name."""
        return self.digest[:8] if self.steps is None else f"{self.digest[:8]}-{self.steps}"


def import_logs(path: Path, into: Path, say: Callable[[str], None]) -> list[Path]:
    """Make records in `into` of the logs under `path`, and return their folders; `say` is told each thing done.

    Raises UserError if no record comes of it.
    """
    if not path.exists():
        raise UserError(f"{printable(str(path), 300)}: no such file or folder of logs")
    found = sorted(_by_source(_distinct(read_logs([path]), say), say), key=lambda each: (each.date, each.name))
    if not found:
        raise UserError(f"{printable(str(path), 300)}: no log with a source in it; nothing is imported")
    try:
        into.mkdir(parents=True, exist_ok=True)
        return [_import_one(each, into, printable(str(path), 200), say) for each in found]
    except OSError as error:
        raise UserError(f"{printable(str(error.filename or into), 300)}: {error.strerror}") from None


def _distinct(results: list[Run | LogError], say: Callable[[str], None]) -> list[Run]:
    """The runs among `results`, each content once; the rest is said."""
    kept: dict[str, Run] = {}
    for result in results:
        if isinstance(result, LogError):
            say(f"left out: {result}")
        elif result.digest in kept:
            say(f"left out: {_shown(result)}: the same content as {_shown(kept[result.digest])}")
        else:
            kept[result.digest] = result
    return list(kept.values())


def _by_source(runs: list[Run], say: Callable[[str], None]) -> list[Found]:
    """The runs that have a source, by it; those in which it is left out also by their planned steps."""
    sources: dict[str, list[Run]] = {}
    for run in runs:
        if run.source_sha256 is None:
            say(f"left out: {_shown(run)}: no source stands in it, so there is nothing to rebuild")
        else:
            sources.setdefault(run.source_sha256, []).append(run)
    found = []
    for digest, group in sources.items():
        if _left_out(group[0]):
            plans = dict.fromkeys(run.planned_steps or 0 for run in group)
            found += [Found(digest, n, [run for run in group if (run.planned_steps or 0) == n]) for n in plans]
        else:
            found.append(Found(digest, None, group))
    return found


def _import_one(found: Found, into: Path, origin: str, say: Callable[[str], None]) -> Path:
    """Make one record, or add its new logs to the folder that an earlier import made of the same source."""
    present = [folder for folder in into.glob(f"????-??-??-{found.name}") if (folder / FACTS).is_file()]
    if present:
        return _add_logs(found, present[0], origin, say)
    target = into / f"{found.date}-{found.name}"
    if target.is_symlink() or target.exists():
        raise UserError(f"{target}: is in the way and is no imported record; move it or choose another --into")
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=into))
    try:
        digest = _write_modules(found, aside, say)
        (aside / LOGS).mkdir()
        _copy_logs(found.runs, aside / LOGS)
        write_whole(aside / FACTS, record_toml(found.runs, UNNUMBERED, found.date, origin, digest))
        aside.chmod(0o755)
        os.replace(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    say(f"imported: {target}: from {_counted(found.runs)}, its source proven byte for byte")
    _say_what_it_is(found.runs[0], target, say)
    return target


def _write_modules(found: Found, folder: Path, say: Callable[[str], None]) -> str:
    """Rebuild the source's files in `folder` and prove them; the SHA-256 of the script."""
    run = found.runs[0]
    try:
        modules = read_modules(run.path)
    except LogError as error:
        raise UserError(str(error)) from None
    names = [SCRIPT, *place_all([part.name for part in modules[1:]], {SCRIPT, FACTS, LOGS})]
    for part, name in zip(modules, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(part.content)
        if name not in (SCRIPT, part.name):
            say(f"renamed: helper module {printable(part.name, 80)!r} of {_shown(run)} is kept as {name}")
    rebuilt = b"".join(part.glue + (folder / name).read_bytes() for part, name in zip(modules, names, strict=True))
    if hashlib.sha256(rebuilt).hexdigest() != found.digest:
        raise UserError(f"{_shown(run)}: the files rebuilt from it are not its source; did the log change meanwhile?")
    return hashlib.sha256((folder / SCRIPT).read_bytes()).hexdigest()


def _left_out(run: Run) -> bool:
    """Whether the source in a log cannot have written it. It is parsed in a guarded process and never run."""
    return run.dialect == "step" and read_source(run.source, run.helpers).get("prints_metrics") is False


def _say_what_it_is(run: Run, folder: Path, say: Callable[[str], None]) -> None:
    """Warn of a source that will not run or did not write its log."""
    facts = read_source(run.source, run.helpers)
    if "error" in facts:
        say(f"warning: {folder}: the source will not run: {facts['error']}")
    elif _left_out(run):
        say(f"warning: {folder}: the source is left out of the logs: what stands there prints no validation loss")


def _add_logs(found: Found, folder: Path, origin: str, say: Callable[[str], None]) -> Path:
    logs = folder / LOGS
    if folder.is_symlink() or logs.is_symlink() or not logs.is_dir():
        raise UserError(f"{folder}: is not as an import left it; move it away to import again")
    before = [run for run in read_logs([logs]) if isinstance(run, Run)]
    known = {run.digest for run in before}
    fresh = [run for run in found.runs if run.digest not in known]
    if not fresh:
        say(f"nothing new: {folder} holds {_counted(found.runs)} of this source already")
        return folder
    if any(run.source_sha256 != found.digest for run in before):
        raise UserError(f"{folder}: holds logs of another source; move it away to import again")
    record = load(folder)
    _copy_logs(fresh, logs)
    facts = record_toml(before + fresh, record.number, record.date, origin, record.sha256)
    write_whole(folder / FACTS, facts)
    say(f"added: {folder}: {_counted(fresh)} to the {len(before)} that were there")
    return folder


def _copy_logs(runs: list[Run], folder: Path) -> None:
    for run in runs:
        name = f"{file_name(Path(run.path).stem)}-{run.digest[:8]}.txt"
        write_whole(folder / name, Path(run.path).read_bytes())


def _counted(runs: list[Run]) -> str:
    return f"{len(runs)} log{'s' if len(runs) > 1 else ''}"


def _shown(run: Run) -> str:
    return printable(run.path, 300)
