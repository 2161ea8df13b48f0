"""One of our own runs as a row: its facts and what its log shows.

A run folder is somebody's file: every text from it is stripped of control characters and cut to a field's length.
"""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from harness.archive.record import Record
from harness.archive.run_folder import FACTS, LOG, SHOWN
from harness.replay.fidelity import LABELS
from harness.replay.runs import read
from timing.log import read_log
from timing.run import LogError, Run
from timing.text import printable


def read_run(folder: Path) -> tuple[dict, Run]:
    """The row of a run folder (the names are `replayed.COLUMNS`, but for `committed`) and its log, read.

    Raises LogError or OSError for a log, and LogError for a `run.json`, that cannot be read.
    """
    run, facts = read_log(folder / LOG), read(folder)
    if facts is None:
        raise LogError(f"{FACTS} cannot be read")
    return _row(folder, facts, run) | _told(folder, len(run.train_step)), run


def _told(folder: Path, steps: int) -> dict:
    """What `shown.csv` knows better of a kept run's times than its log: a card that it shared for a while makes the
    whole time meaningless, one that it shared throughout also the pace."""
    table = folder.parents[2] / SHOWN if folder.parent.name == "logs" else Path()
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        told = next((row for row in csv.DictReader(file) if row["run"] == folder.name), None)
    if told is None:
        return {}
    step_ms = float(told["median_ms"]) if told["median_ms"] else None
    if told["alone_steps"] == str(steps):
        return {"step_ms": step_ms}
    return {"step_ms": step_ms, "minutes": None, "witness_ratio": None}


def runs_of(record: Record, runs_dir: Path) -> list[SimpleNamespace]:
    """Our runs of one record, those in its `logs/` first; of a run that is in both, the committed one."""
    rows: dict[str, SimpleNamespace] = {}
    places = (record.logs, runs_dir / record.slug)
    for path in (found for place in places for found in sorted(place.glob(f"*/{FACTS}"))):
        if path.parent.name not in rows:
            try:
                rows[path.parent.name] = SimpleNamespace(**read_run(path.parent)[0])
            except (LogError, OSError):
                continue
    return [row for row in rows.values() if row.number == record.number]


def _row(folder: Path, facts: dict, run: Run) -> dict:
    """One run's facts from `run.json` and its log, texts made harmless."""
    machine = facts.get("machine") if isinstance(facts.get("machine"), dict) else {}
    fidelity = str(facts.get("fidelity", ""))
    ranks = _whole(facts.get("gpus"), 1) * _whole(facts.get("nnodes"), 1)
    return {
        "run_id": folder.name,
        "number": printable(str(facts.get("record", "")), 20),
        "slug": printable(str(facts.get("slug", "")), 80),
        "fidelity": fidelity if fidelity in LABELS else "unknown fidelity",
        "machine": _machine(machine, ranks),
        "ranks": ranks,
        "outcome": printable(str(facts.get("outcome", "")), 20),
        "started": printable(str(facts.get("started", "")), 40),
        "steps": run.steps,
        "val_loss": run.final_val_loss,
        "minutes": None if run.final_train_time_ms is None else run.final_train_time_ms / 60_000,
        "step_ms": run.median_step_ms,
        "seed": printable(str(facts.get("seed", "")), 20),
        "torch": printable(str(run.torch or ""), 60),
        "peak_memory_mib": run.peak_memory_mib,
        "complete": run.complete,
        "witness_ratio": witness_ratio(facts.get("witness")),
        "folder": str(folder),
    }


def _machine(machine: dict, ranks: int) -> str:
    """`1 × NVIDIA H100 80GB HBM3`, or the CPU's name with its cores."""
    if machine.get("gpu"):
        return f"{ranks} × {printable(str(machine['gpu']), 60)}"
    return f"{printable(str(machine.get('cpu') or 'unknown CPU'), 60)}, {_whole(machine.get('cores'), 0)} cores"


def _whole(value, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def witness_ratio(witness) -> float | None:
    """The launcher's clock over the log's own, over all spans between training lines with no validation between, and
    not over the one in which the log's clock is set back: in era A, after the tenth step.

    `witness` is that of `run.json` (lists `kind`, `log_ms`, `clock_s` of one length); None if it is not usable.
    """
    try:
        kinds = np.asarray(witness["kind"])
        log_s, clock_s = np.asarray(witness["log_ms"], float) / 1000, np.asarray(witness["clock_s"], float)
        both = (kinds[1:] == "train") & (kinds[:-1] == "train") & (np.diff(log_s) >= 0)
        logged, seen = np.diff(log_s)[both].sum(), np.diff(clock_s)[both].sum()
    except (TypeError, KeyError, ValueError, IndexError):
        return None
    return float(seen / logged) if logged > 0 and np.isfinite(seen) else None
