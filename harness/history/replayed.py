"""Our own runs as tables: what lies in `runs/` and in the records' committed `logs/`, each with its fidelity.

A run folder is somebody's file: every text from it is stripped of control characters and cut to a field's length, and a
folder that cannot be read is left out with a reason.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.archive.find import ROOT
from harness.archive.run_folder import FACTS, LOG
from harness.replay.fidelity import LABELS
from harness.replay.runs import read
from timing.log import read_log
from timing.run import LogError, Run
from timing.text import printable

COLUMNS = (
    *("run_id", "number", "slug", "fidelity", "machine", "ranks", "outcome", "started", "steps", "val_loss", "minutes"),
    *("step_ms", "seed", "torch", "peak_memory_mib", "complete", "witness_ratio", "folder", "committed"),
)


@dataclass(frozen=True)
class Replays:
    """`runs`: one row a run (`COLUMNS`). `curves`: run_id, step, val_loss, seconds. `unread`: folder -> why."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    unread: dict[str, str]


def read_replays(runs_dir: Path | str = "runs", root: Path | str | None = None) -> Replays:
    """All run folders under `runs_dir` and the records' `logs/`; of a run that is in both, the committed one."""
    rows, curves, unread = {}, [], {}
    committed = sorted(Path(root or ROOT).glob(f"*/logs/*/{FACTS}"))
    for path in [*committed, *sorted(Path(runs_dir).glob(f"*/*/{FACTS}"))]:
        folder = path.parent
        if folder.name in rows:
            continue
        facts = read(folder)
        try:
            run = read_log(folder / LOG)
        except (LogError, OSError) as error:
            unread[str(folder)] = printable(str(error), 200)
            continue
        if facts is None:
            unread[str(folder)] = f"{FACTS} cannot be read"
            continue
        rows[folder.name] = _row(folder, facts, run) | {"committed": path in committed}
        times = run.val_time_ms / 1000
        curves.append(
            pd.DataFrame({"run_id": folder.name, "step": run.val_step, "val_loss": run.val_loss, "seconds": times})
        )
    empty = pd.DataFrame(columns=["run_id", "step", "val_loss", "seconds"])
    return Replays(
        pd.DataFrame(list(rows.values()), columns=list(COLUMNS)),
        pd.concat(curves, ignore_index=True) if curves else empty,
        unread,
    )


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
        "step_ms": median_step_ms(run),
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


def median_step_ms(run: Run) -> float | None:
    """Median time of a step in ms between neighbouring training lines of the log; None with fewer than two of them."""
    steps, times = np.diff(run.train_step), np.diff(run.train_time_ms)
    good = (steps > 0) & (times > 0)
    return float(np.median(times[good] / steps[good])) if good.any() else None


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
