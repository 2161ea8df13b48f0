"""A record's time ledger, filled from the leaderboard, the public logs, others' re-timings and our own replays."""

from collections.abc import Iterable

from harness.archive.leaderboard import Retimed
from timing import ledger
from timing.ledger import Entry, Ledger

GPUS = 8
LEADERBOARD = "8 × H100, as the leaderboard lists it"


def ledger_of(
    row: dict, retimings: tuple[dict, ...] = (), replays: Iterable = (), others: tuple[Retimed, ...] = ()
) -> Ledger:
    """The ledger of one record. `row` and `retimings` are rows of the standings, `others` what other people measured.

    `replays` are our runs of the record: objects with the fields of `replayed.COLUMNS`, `projected_minutes` and `how`.

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
    for other in others:
        if other.seconds:
            entries.append(Entry("re-timed", other.seconds, other.source, n=other.runs, std=other.std))
    for run in replays:
        if run.fidelity != "smoke":
            entries += _replayed(run)
    return Ledger(row["number"], tuple(entries))


def _replayed(run) -> list[Entry]:
    """The entries of one of our own runs."""
    entries = []
    note = f"{run.fidelity}, {run.steps:,} steps" if run.fidelity == "shortened" else run.fidelity
    if run.complete and _known(run.minutes):
        own = Entry("re-timed", run.minutes * 60, run.machine, run.ranks, 1, note=note)
        entries.append(own)
        if _known(run.witness_ratio):
            seen = own.seconds * run.witness_ratio
            entries.append(Entry("witnessed", seen, f"{run.machine}, the launcher's clock", run.ranks, 1, note=note))
        if run.ranks != 8 and run.fidelity != "shortened":
            onto_eight = ledger.projected(own)
            return [
                *entries,
                Entry("projected", onto_eight.seconds, f"{run.machine}: {run.how}", 8, 1, note=run.fidelity),
            ]
    if run.projected_minutes > 0 and run.how != "measured":
        machine = f"{run.machine}: {run.how}"
        entries.append(Entry("projected", run.projected_minutes * 60, machine, 8, 1, note=run.fidelity))
    return entries


def projected(run, full_steps: float) -> tuple[float | None, str]:
    """A run's time in minutes on eight GPUs and how it was had: as measured, or by steps and GPUs in proportion.

    `run` is a row of `Replays.runs`; `full_steps` the record's steps (nan if unknown). Time None if it cannot be told.
    """
    share = run.ranks / GPUS
    scale = "" if share == 1 else f" × {run.ranks}/{GPUS}"
    if run.complete and _known(run.minutes) and run.fidelity != "shortened":
        return run.minutes * share, f"time{scale}" if scale else "measured"
    if _known(run.step_ms) and _known(full_steps):
        return run.step_ms * full_steps / 60_000 * share, f"median step × all steps{scale}"
    return None, ""


def _known(figure: float | None) -> bool:
    """Whether there is such a figure; a table says so by nan, a row by None."""
    return figure is not None and figure > 0
