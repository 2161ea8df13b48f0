"""Published scripts and runs, by the table of the public logs: eight digits of a source's hash, figures of a run.

Eight digits tell which script this is said to be. They prove nothing: whoever wants them can find, within hours, a
comment that gives a script of his own the same eight. So a known source answers for its name alone, and only a run that
stands in the table itself, with its steps, loss and time, is taken for what was published and read by others before.
"""

from dataclasses import dataclass
from functools import cache

from harness.archive.find import ROOT
from harness.archive.leaderboard import read_runs
from timing.run import Run

DIGITS = 8


@dataclass(frozen=True)
class Published:
    """One run of the table: its record's number, its source's eight digits, and those that its code goes by; whether
    that code is of the log that the leaderboard links; steps, final loss and time (ms)."""

    number: str
    source: str
    code: str
    linked: bool
    steps: int
    loss: float
    time_ms: float


@cache
def table() -> tuple[Published, ...]:
    """All published runs."""
    runs = read_runs(ROOT)
    linked = {_arm(row) for row in runs if row["linked"] == "yes"}
    return tuple(
        Published(
            row["number"],
            row["source"],
            row["code"] or row["source"],
            _arm(row) in linked,
            int(row["steps"]),
            float(row["final_val_loss"] or "nan"),
            float(row["final_train_time_ms"] or "nan"),
        )
        for row in runs
    )


def _arm(row: dict[str, str]) -> tuple[str, str, str]:
    """What tells the arms of a record's folder apart."""
    return row["number"], row["code"] or row["source"], row["steps"]


def published_with(run: Run) -> list[Published]:
    """The rows of the table whose source has the same eight digits as that of a log, however it is rendered."""
    digits = {digest[:DIGITS] for digest in run.source_hashes}
    return [row for row in table() if row.source in digits] if digits else []


def published_as(run: Run) -> Published | None:
    """The row of the table that is this very run: its source, steps, final loss and time."""
    for row in published_with(run):
        figures = run.steps, run.final_val_loss, run.final_train_time_ms
        if None not in figures and row.steps == run.steps:
            same_loss = abs(row.loss - run.final_val_loss) < 1e-4
            if same_loss and abs(row.time_ms - run.final_train_time_ms) <= 1.0:
                return row
    return None


def code_digits(run: Run) -> str | None:
    """Eight digits that all published sources of one code go by, for a source that the table knows to be so; None for
    every other."""
    return next((row.code for row in published_with(run)), None)
