"""The times of one record, gathered without pandas, so that asking for one record answers at once."""

import math
import statistics
from pathlib import Path

from harness.archive.find import ROOT
from harness.archive.leaderboard import Listing, Retimed, linked_arms, read_leaderboard, read_retimed
from harness.archive.record import Record
from harness.history.ledgers import ledger_of, projected
from harness.history.run_rows import runs_of
from timing.ledger import Ledger


def times_of(row: Record | Listing, runs_dir: Path, root: Path | str | None = None) -> Ledger:
    """The ledger of a record: listed, logged, re-timed, and what the runs in `runs_dir` and in its `logs/` add.

    Empty for a script that is in no archive. Raises UserError where a public table is broken.
    """
    root = Path(root or ROOT)
    if not row.number:
        return Ledger(row.number)
    listings = {one.number: one for one in read_leaderboard(root)}
    public = listings.get(row.number, row if isinstance(row, Listing) else Listing(row.number, row.date, row.title))
    minutes, steps = public.minutes, public.steps
    runs = []
    if isinstance(row, Record):
        minutes, steps = row.listed.minutes or minutes, row.listed.steps or steps
        runs = runs_of(row, runs_dir)
    for run in runs:
        found, run.how = projected(run, steps or math.nan)
        run.projected_minutes = found or math.nan
    again = [one for one in listings.values() if one.retiming and one.number[:-1] == row.number]
    return ledger_of(
        {"number": row.number, "listed_minutes": minutes or math.nan, "gpus": public.gpus or math.nan}
        | {"gpu": public.gpu}
        | _logged(linked_arms(root).get(row.number, [])),
        tuple({"number": one.number, "listed_minutes": one.minutes} for one in again),
        runs,
        others_of(row.number, root),
    )


def others_of(number: str, root: Path | str | None = None) -> tuple[Retimed, ...]:
    """What other people measured of the record."""
    return read_retimed(Path(root or ROOT)).get(number, ())


def _logged(arm: list[dict[str, str]]) -> dict:
    """Mean and sample deviation of the arm's times in minutes, and how many runs it has; nan without one."""
    minutes = [float(row["final_train_time_ms"]) / 60_000 for row in arm]
    return {
        "logged_minutes": statistics.fmean(minutes) if minutes else math.nan,
        "logged_std": statistics.stdev(minutes) if len(minutes) > 1 else math.nan,
        "runs": len(minutes),
    }
