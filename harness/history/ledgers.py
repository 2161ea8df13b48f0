"""Every record's time ledger, filled from the leaderboard, the public logs and our own replays."""

import math

import pandas as pd

from timing.ledger import Entry, Ledger, projected

LEADERBOARD = "8 × H100, as the leaderboard lists it"


def ledger_of(row: dict, retimings: tuple[dict, ...] = (), replays: pd.DataFrame | None = None) -> Ledger:
    """The ledger of one record. `row` and `retimings` are rows of the standings, `replays` our runs of the record.

    A replay's own time is entered as re-timed, by the launcher's clock as witnessed, and on fewer or more GPUs also as
    projected; each note is its fidelity, with the number of steps if that is not the record's. A smoke replay times
    nothing and is left out.
    """
    entries = []
    if row["listed_minutes"] > 0:
        entries.append(Entry("listed", row["listed_minutes"] * 60, LEADERBOARD))
    if row["logged_minutes"] > 0:
        std = row["logged_std"] * 60 if row["logged_std"] >= 0 else None
        gpus = int(row["gpus"]) if row["gpus"] > 0 else 8
        entries.append(
            Entry("logged", row["logged_minutes"] * 60, f"{gpus} × {row['gpu'] or 'H100'}", gpus, int(row["runs"]), std)
        )
    for again in retimings:
        entries.append(Entry("re-timed", again["listed_minutes"] * 60, LEADERBOARD, note=f"as {again['number']}"))
    for run in () if replays is None else replays[replays.fidelity != "smoke"].itertuples():
        entries += _replayed(run)
    return Ledger(row["number"], tuple(entries))


def _replayed(run) -> list[Entry]:
    """The entries of one of our own runs."""
    entries = []
    note = f"{run.fidelity}, {run.steps:,} steps" if run.fidelity == "shortened" else run.fidelity
    if run.complete and run.minutes and run.minutes > 0:
        own = Entry("re-timed", run.minutes * 60, run.machine, run.ranks, 1, note=note)
        entries.append(own)
        if run.witness_ratio and run.witness_ratio > 0:
            seen = own.seconds * run.witness_ratio
            entries.append(Entry("witnessed", seen, f"{run.machine}, the launcher's clock", run.ranks, 1, note=note))
        if run.ranks != 8 and run.fidelity != "shortened":
            onto_eight = projected(own)
            return [
                *entries,
                Entry("projected", onto_eight.seconds, f"{run.machine}: {run.how}", 8, 1, note=run.fidelity),
            ]
    if run.projected_minutes > 0 and run.how != "measured":
        machine = f"{run.machine}: {run.how}"
        entries.append(Entry("projected", run.projected_minutes * 60, machine, 8, 1, note=run.fidelity))
    return entries


def ledgers(table: pd.DataFrame, replays: pd.DataFrame) -> pd.DataFrame:
    """All ledgers as one frame, kinds never mixed: number, kind, minutes, std, n, gpus, machine, note.

    `table` is `standings()`; `replays` our runs with `projected_minutes` and `how`.
    """
    rows, again = [], {}
    for row in table[table.retiming].to_dict("records"):
        again.setdefault(row["number"][:-1], []).append(row)
    for row in table.to_dict("records"):
        mine = replays[replays.number == row["number"]]
        for entry in ledger_of(row, tuple(again.get(row["number"], ())), mine).entries:
            std = math.nan if entry.std is None else entry.std / 60
            figures = (entry.seconds / 60, std, entry.n, entry.gpus)
            rows.append((row["number"], entry.kind, *figures, entry.machine, entry.note))
    return pd.DataFrame(rows, columns=["number", "kind", "minutes", "std", "n", "gpus", "machine", "note"])
