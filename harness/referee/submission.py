"""What somebody hands in to be judged: log files found without trusting the folder, their runs, the arms they form."""

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.archive.run_folder import FACTS, LOG, RANKS, STDOUT
from harness.errors import UserError
from harness.referee.reading import STDIN, read_files, read_stdin
from harness.referee.source.reader import code_of
from timing.log import LogError, Run, printable

LOG_SUFFIXES = (".txt", ".log")
PACKED = tuple(suffix + packed for suffix in LOG_SUFFIXES for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"))
NOT_LOGS = {"stdout.txt", "stderr.txt"}
OWN_SETTINGS = {"data_dir", "log_file", "seed"}
"""Settings that say where a run reads and writes, and with which seed: overriding them leaves the record's run."""
LARGEST_FACTS = 64 << 20


@dataclass(frozen=True)
class Entry:
    """One run with what lies beside its log: `facts` is its `run.json` ({} if there is none), `stdout` the path of the
    launcher's copy of the output, or None. `name` is how evidence calls the log."""

    run: Run
    name: str
    facts: dict = field(default_factory=dict)
    stdout: Path | None = None

    def at(self, line: int | None) -> str:
        """file:line, for evidence; without a line, `name`."""
        return f"{printable(self.run.path, 200)}:{line}" if line else self.name

    @property
    def folder(self) -> Path:
        """The folder that the log lies in."""
        return Path(self.run.path).parent

    @property
    def is_run_folder(self) -> bool:
        """Whether a launcher of ours made the folder: it names its logs alike, and keeps the output beside them."""
        return Path(self.run.path).name == LOG and "damaged" not in self.facts and (self.folder / STDOUT).exists()

    @property
    def label(self) -> str | None:
        """The fidelity that log or launcher gave the run."""
        return self.run.fidelity or _text(self.facts.get("fidelity"))


@dataclass(frozen=True)
class Arm:
    """Runs of one code, one number of planned steps (of steps made, where the dialect plans none) and the same
    overrides: the only ones that may be averaged. `code` is what `reader.code_of` gives, None without a source."""

    code: str | None
    planned_steps: int
    overrides: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Hashes of the texts that the code is spelt in, that of the first run first."""
        return tuple(dict.fromkeys(entry.run.source_sha256 for entry in self.entries if entry.run.source_sha256))

    @property
    def name(self) -> str:
        """Source (eight digits), steps and overrides, in a few words."""
        source = f"source {self.sources[0][:8]}" if self.sources else "no source"
        spelt = f" in {len(self.sources)} spellings" if len(self.sources) > 1 else ""
        changed = "".join(f", {key}={value}" for key, value in self.overrides)
        return printable(f"{source}{spelt}, {self.planned_steps} steps{changed}", 120)


def collect(paths: Iterable[str | os.PathLike]) -> tuple[list[Entry], list[str]]:
    """All runs in `paths` (log files, folders searched for *.txt and *.log, "-" for standard input), and a line for
    each file left out.

    A log that holds several runs gives an entry for each. Raises UserError for a path that does not exist, cannot be
    read or is no regular file, for a named file that is no log, and when no run is found at all.
    """
    files, spelt, left_out, entries = {}, {}, [], []
    for path in paths:
        if os.fspath(path) == STDIN:
            entries += _entries(Path("standard input"), read_stdin())
            continue
        if not os.fspath(path):
            raise UserError("the path of a log is empty; give log files or folders of them")
        is_folder = Path(path).is_dir()
        for file in _files_below(Path(path), left_out) if is_folder else [_regular(Path(path))]:
            known = spelt.setdefault(os.path.realpath(file), file)
            files[known] = files.get(known, False) or not is_folder
            if known != file:
                left_out.append(f"{printable(str(file), 200)}: is {printable(str(known), 200)} by another name")
    for (path, was_named), result in zip(files.items(), read_files(list(files)), strict=True):
        if isinstance(result, LogError):
            if was_named and not (path.name in NOT_LOGS and len(files) > 1):
                raise UserError(printable(str(result), 400))
            left_out.append(printable(str(result), 400))
            continue
        entries += _entries(path, result)
    entries = _without_remains(_without_copies(entries, left_out), left_out)
    if not entries:
        reason = f" ({left_out[0]})" if left_out else ""
        raise UserError(f"no log to judge in {', '.join(printable(str(path), 200) for path in paths)}{reason}")
    return entries, left_out


def _without_copies(entries: list[Entry], left_out: list[str]) -> list[Entry]:
    """The runs less those that are what another printed: its metric lines in a file that holds neither its source nor
    its environment. A copy that claims to be a run of its own has both, and stays, to fail."""
    bare = [entry for entry in entries if _is_bare(entry.run)]
    whole: dict[tuple, Entry] = {}
    for entry in entries:
        if not _is_bare(entry.run):
            whole.setdefault(_metrics(entry.run), entry)
    copies = {id(entry): whole[key] for entry in bare if (key := _metrics(entry.run)) in whole}
    left_out += [f"{entry.name}: prints what {copies[id(entry)].name} logs" for entry in bare if id(entry) in copies]
    return [entry for entry in entries if id(entry) not in copies]


def _is_bare(run: Run) -> bool:
    return run.source is None and run.torch is None and run.gpu is None


def _metrics(run: Run) -> tuple:
    """What the metric lines of a run say, wherever they stand."""
    return tuple(getattr(run, f"val_{name}").tobytes() for name in ("step", "loss", "time_ms"))


def _without_remains(entries: list[Entry], left_out: list[str]) -> list[Entry]:
    """The runs less what a stopped replay left: a run folder without its last step, killed before it could write its
    `run.json` or interrupted by its user, beside a finished one of the same code. A crash or a stall stays."""
    finished = {
        (entry.folder.parent, code_of(entry.run)) for entry in entries if entry.facts.get("outcome") == "finished"
    }
    kept = []
    for entry in entries:
        stopped = entry.is_run_folder and entry.facts.get("outcome", "killed") in ("killed", "interrupted")
        if stopped and not entry.run.complete and (entry.folder.parent, code_of(entry.run)) in finished:
            left_out.append(f"{entry.name}: a replay that was stopped at step {entry.run.steps}")
        else:
            kept.append(entry)
    return kept


def changes(run: Run) -> tuple[tuple[str, str], ...]:
    """The overrides that make a run another than the record's, sorted by name."""
    return tuple(sorted((name, value) for name, value in run.overrides.items() if name not in OWN_SETTINGS))


def arms(entries: Iterable[Entry]) -> list[Arm]:
    """The arms of a submission, the largest first; nothing is ever averaged across them."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in entries:
        run = entry.run
        planned = run.steps if run.planned_steps is None else run.planned_steps
        groups.setdefault((code_of(run), planned, changes(run)), []).append(entry)
    return sorted((Arm(*key, tuple(group)) for key, group in groups.items()), key=lambda arm: -len(arm.entries))


def by_validations(entries: Iterable[Entry]) -> dict[bytes, list[Entry]]:
    """Entries by the steps that they were validated at: those whose losses compare, one by one."""
    groups: dict[bytes, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.run.val_step.tobytes(), []).append(entry)
    return groups


def _files_below(folder: Path, left_out: list[str]) -> list[Path]:
    """Log files in a folder and its subfolders, without the copies that the launcher keeps beside a run's log.

    What has a log's name and is no regular file is noted in `left_out`. Links to folders are not followed, so no loop
    is ever entered.
    """

    def refuse(error: OSError):
        raise UserError(f"{printable(str(error.filename), 300)} cannot be read: {error.strerror}")

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        beside = set(names)
        folders[:] = sorted(name for name in folders if not (name == RANKS and LOG in beside))
        links = [name for name in folders if Path(root, name).is_symlink()]
        left_out += [f"{printable(str(Path(root, name)), 300)}: is a link to a folder; name that" for name in links]
        for name in sorted(names):
            if name.lower().endswith(PACKED):
                left_out.append(f"{printable(str(Path(root, name)), 300)}: is compressed; unpack it to have it judged")
            copy_of_log = name in NOT_LOGS and LOG in beside
            if not name.lower().endswith(LOG_SUFFIXES) or copy_of_log:
                continue
            if _is_regular(Path(root, name)):
                found.append(_regular(Path(root, name)))
            else:
                left_out.append(f"{printable(str(Path(root, name)), 300)}: is not a regular file")
    return found


def _is_regular(path: Path) -> bool:
    """Whether `path` is (a link to) a regular file. Never opens it: a FIFO would not answer."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _regular(path: Path) -> Path:
    shown = printable(str(path), 300)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{shown} is not a path") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{shown} is not a regular file; give log files or folders of them")
    if not os.access(path, os.R_OK):
        raise UserError(f"{shown} cannot be read: Permission denied")
    return path


def _entries(path: Path, run: Run) -> list[Entry]:
    facts = _facts_beside(path)
    stdout = path.parent / STDOUT
    entry = Entry(run, printable(str(path), 200), facts, stdout if facts and _is_regular(stdout) else None)
    trials = run.trials()
    if len(trials) == 1:
        return [entry]
    return [replace(entry, run=trial, name=f"{entry.name}#{i}") for i, trial in enumerate(trials, start=1)]


def _facts_beside(path: Path) -> dict:
    """The `run.json` of a run folder, {} where there is none; {"damaged": why} where it cannot be read."""
    facts = path.parent / FACTS
    if path.name != LOG or not _is_regular(facts):
        return {}
    try:
        if facts.stat().st_size > LARGEST_FACTS:
            return {"damaged": "larger than 64 MiB"}
        content = json.loads(facts.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return {"damaged": f"{type(error).__name__}"}
    return content if isinstance(content, dict) else {"damaged": "not an object"}


def _text(value) -> str | None:
    return printable(value, 80) if isinstance(value, str) else None
