"""Every time that is known of one record, by where it comes from: the public ones, and those of our own runs."""

import math
from pathlib import Path

from harness.frames import projected
from harness.ledgers import ledger_of
from harness.record import Record
from harness.replayed import read_replays
from harness.standings import standings
from timing.ledger import Ledger


def times_of(record: Record, runs_dir: Path | str = "runs", root: Path | str | None = None) -> Ledger:
    """The ledger of a record: listed, logged, re-timed, and what the runs in `runs_dir` and in its `logs/` add.

    Empty for a script that is in no archive. Raises UserError where the public tables are missing.
    """
    rows = {row["number"]: row for row in standings(root).to_dict("records")}
    row = rows.get(record.number)
    if row is None:
        return Ledger(record.number)
    again = tuple(other for number, other in rows.items() if other["retiming"] and number[:-1] == record.number)
    runs = read_replays(runs_dir, root).runs
    runs = runs[runs.number == record.number]
    told = [projected(run, row["steps"]) for run in runs.itertuples()]
    runs = runs.assign(projected_minutes=[minutes or math.nan for minutes, _ in told], how=[how for _, how in told])
    return ledger_of(row, again, runs)
