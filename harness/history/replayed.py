"""Our own runs as tables: what lies in `runs/` and in the records' committed `logs/`, each with its fidelity.

A folder that cannot be read is left out with a reason.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.archive.find import ROOT
from harness.archive.run_folder import FACTS
from harness.history.run_rows import read_run
from timing.run import LogError
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
        try:
            row, run = read_run(folder)
        except (LogError, OSError) as error:
            unread[str(folder)] = printable(str(error), 200)
            continue
        rows[folder.name] = row | {"committed": path in committed}
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
