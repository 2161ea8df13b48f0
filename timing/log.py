"""Every known dialect and layout of training log, from a file to a frozen `Run`."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from timing.blocks import open_log
from timing.environment import Environment
from timing.folders import log_files, total_size
from timing.layout import SOURCES_KEPT, Part, renderings
from timing.oddities import completeness, describe
from timing.parts import Parts, read_parts
from timing.run import LogError, Note, Run
from timing.scan import Scan
from timing.text import printable

__all__ = ["LogError", "Note", "Run", "printable", "read_log", "read_logs"]

WORTH_PROCESSES = 400_000_000  # bytes that take one core several times as long as other processes take to start

_PEAK = re.compile(rb"peak memory (?:allocated|consumption): (\d{1,12}) MiB")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_FACTS = (
    "python",
    "python_built",
    "torch",
    "cuda",
    "triton",
    "driver",
    "gpu",
    "gpus",
    "gpu_ids",
    "device",
    "world_size",
)
_FACTS += ("date", "seed", "manifest", "fidelity", "run_id", "stop_step")
_HELD_LOSSES = 50  # that many earlier losses say with how many decimals a loss is printed

Columns = dict[str, dict[str, np.ndarray]]  # by kind ("val", "train"), then by name


def read_log(path: str | os.PathLike) -> Run:
    """Read one log, in one pass and bounded memory, whatever its size.

    Raises LogError, with one line that names the file, if it cannot be read or is no log at all. Whatever else is
    wrong with it (cut short, spliced, mixed, damaged) is said in the Run's `notes`. Nothing from it is executed.
    """
    name = printable(str(path), 300)
    try:
        with open_log(path) as file:
            scan = Scan(file, name)
            parts = read_parts(file, scan)
    except OSError as error:
        raise LogError(f"{name}: cannot be read: {error.strerror or error}") from None
    if not scan.tally.bytes:
        raise LogError(f"{name}: is empty")
    columns = _take_columns(scan, parts.layout.environment_line)
    if not any(len(named["line"]) for named in columns.values()) and not parts.environment.facts:
        raise LogError(f"{name}: is not a training log: no line like 'step:1/100 train_time:...' or 's:1 tel:...'")
    return _assemble(str(path), scan, parts, columns)


def read_logs(
    paths: Iterable[str | os.PathLike], workers: int | None = None, done: Callable[[], None] = lambda: None
) -> list[Run | LogError]:
    """Read files and the logs in folders, in `workers` processes (default: all cores) once that is worth starting them.

    In the order of `paths`, a folder's files by name; what cannot be read is a LogError in its place. `done` is called
    after each.
    """
    files = [file for path in paths for file in log_files(path)]
    workers = min(workers or len(os.sched_getaffinity(0)), len(files))
    if workers > 1 and total_size(files) >= WORTH_PROCESSES:
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                size = 1 + len(files) // (32 * workers)
                return [_told(done, each) for each in pool.map(_read_or_error, files, chunksize=size)]
        except BrokenProcessPool:  # a process was killed, or the caller's script cannot be started anew: read them here
            pass
    return [_told(done, _read_or_error(file)) for file in files]


def _told(done: Callable[[], None], result: Run | LogError) -> Run | LogError:
    done()
    return result


def _read_or_error(file: Path | LogError) -> Run | LogError:
    if isinstance(file, LogError):
        return file
    try:
        return read_log(file)
    except LogError as error:
        return error


def _take_columns(scan: Scan, begin: int) -> Columns:
    """The metric columns from line `begin` on: what stands before is the source's text."""
    columns = {kind: {name: c.take() for name, c in named.items()} for kind, named in scan.columns.items()}
    for named in columns.values():
        row = int(np.searchsorted(named["line"], begin))
        if row:
            named.update({name: values[row:] for name, values in named.items()})
    return columns


def _assemble(path: str, scan: Scan, parts: Parts, columns: Columns) -> Run:
    notes = [*parts.notes, *_settle_unclosed(scan, columns)]
    first = {
        kind: (int(named["line"][0]), int(named["step"][0])) for kind, named in columns.items() if len(named["line"])
    }
    described, restarts, spliced = describe(scan, parts.layout.environment_line, first)
    planned = scan.odd.plans[-1][1] if first else None
    run = Run(
        path=path,
        dialect="llmc" if planned == -1 else "step",
        planned_steps=None if planned == -1 else planned,
        **{f"{kind}_{name}": values for kind, named in columns.items() for name, values in named.items()},
        **_source_facts(parts),
        **_environment_facts(parts.environment, scan, path),
        telemetry_line=scan.telemetry.take(),
        fallbacks=tuple(Note(line, printable(text.decode(errors="replace"), 300)) for line, text in scan.fallbacks),
        restart_line=np.array(restarts, np.int64),
        spliced_line=spliced,
        lines=scan.tally.lines,
        bytes=scan.tally.bytes,
        digest=scan.tally.sha256.hexdigest(),
        notes=(),
    )
    notes += [*described, *completeness(run)]
    return replace(run, notes=tuple(sorted(notes, key=lambda note: note.line)))


def _source_facts(parts: Parts) -> dict:
    return _facts_of_modules(parts.modules) | {"source_line": parts.layout.source_line if parts.modules else None}


@lru_cache(maxsize=SOURCES_KEPT)
def _facts_of_modules(modules: tuple[Part, ...]) -> dict:
    """Texts and hashes of a source, which all logs of one script share: reckoned and kept in memory once for them."""
    texts = [part.content.decode(errors="replace") for part in modules]
    names = [printable(part.name, 300) for part in modules]
    block = b"".join(part.glue + part.content for part in modules)
    return {
        "source": texts[0] if texts else None,
        "helpers": tuple(zip(names[1:], texts[1:], strict=True)),
        "source_sha256": hashlib.sha256(block).hexdigest() if texts else None,
        "source_hashes": tuple(hashlib.sha256(each).hexdigest() for each in renderings(modules)) if texts else (),
    }


def _environment_facts(environment: Environment, scan: Scan, path: str) -> dict:
    facts = {name: environment.facts.get(name) for name in _FACTS}
    if facts["run_id"] is None and _UUID.fullmatch(Path(path).stem):
        facts["run_id"] = Path(path).stem
    lines = dict(environment.line)
    peak = _PEAK.match(scan.peak[1]) if scan.peak else None
    if peak:
        lines["peak_memory_mib"] = scan.peak[0]
    return facts | {
        "overrides": environment.overrides,
        "peak_memory_mib": int(peak[1]) if peak else None,
        "env_line": lines,
    }


def _settle_unclosed(scan: Scan, columns: Columns) -> list[Note]:
    """Take the loss that ends a file without a last newline only if it looks as long as the losses before it.

    It must have just the decimals that they need, and follow a dialect without times: else more was to come.
    """
    if not scan.odd.unclosed:
        return []
    line, kind, text = scan.odd.unclosed
    named = columns[kind]
    decimals = len(text.partition(b".")[2])
    before = [float(loss) for loss in named["loss"][-1 - _HELD_LOSSES : -1]]
    fits = all(round(loss, decimals) == loss for loss in before)
    needed = any(round(loss, decimals - 1) != loss for loss in before)
    if decimals and fits and needed and np.isnan(named["time_ms"][-_HELD_LOSSES:]).all():
        named["loss"][-1] = float(text)
        return []
    named.update({name: values[:-1] for name, values in named.items()})
    return [Note(line, "the last line is cut short: its loss is not taken")]
