"""The time ledger: one record's times by where they come from, kept apart; and where a record's gain came from.

Times of different kinds are never averaged: a listed time is a claim, a logged one a measurement, a projected one an
argument. They are only ever set side by side, and a difference between listed and logged is shown with its size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

KINDS = ("listed", "logged", "re-timed", "witnessed", "projected")
"""listed: the leaderboard's. logged: the linked logs' mean. re-timed: on another machine or under another edition.
witnessed: by our launcher's own clock. projected: a run on N GPUs times N/8."""

DISAGREES_ABOVE = 0.01
"""Share of the listed time beyond which listed and logged disagree; every difference is shown, whatever its size."""

OFFICIAL_GPUS = 8


@dataclass(frozen=True)
class Entry:
    """One time in seconds: its kind, the machine in words, GPUs, how many runs it is the mean of (0: nobody said) and
    their sample deviation (None for fewer than two)."""

    kind: str
    seconds: float
    machine: str
    gpus: int = OFFICIAL_GPUS
    n: int = 0
    std: float | None = None
    note: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of time; there are {', '.join(KINDS)}")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"a {self.kind} time of {self.seconds} s is none")


@dataclass(frozen=True)
class Difference:
    """Logged against listed time: `share` = logged / listed - 1."""

    number: str
    listed: float
    logged: float
    share: float

    @property
    def disagrees(self) -> bool:
        """True beyond 1% in either direction."""
        return abs(self.share) > DISAGREES_ABOVE

    def __str__(self) -> str:
        listed, logged = f"{self.listed / 60:.3f}", f"{self.logged / 60:.3f}"
        word = "DISAGREES" if self.disagrees else "agrees" if listed == logged else "differs"
        return f"{word}: listed {listed} min, logged {logged} min ({100 * self.share:+.2f}%)"


@dataclass(frozen=True)
class Ledger:
    """All times of one record."""

    number: str
    entries: tuple[Entry, ...] = ()

    def of(self, kind: str) -> tuple[Entry, ...]:
        """The entries of one kind, in the order they were entered."""
        return tuple(entry for entry in self.entries if entry.kind == kind)

    def difference(self) -> Difference | None:
        """The logged time against the listed one, where both are of as many GPUs of one model; None otherwise."""
        for listed in self.of("listed"):
            for logged in self.of("logged"):
                if (listed.gpus, _model(listed.machine)) == (logged.gpus, _model(logged.machine)):
                    share = logged.seconds / listed.seconds - 1
                    return Difference(self.number, listed.seconds, logged.seconds, share)
        return None


def measured(kind: str, seconds: Iterable[float], machine: str, gpus: int = OFFICIAL_GPUS, note: str = "") -> Entry:
    """The entry of several runs of one arm on one machine: their mean, sample deviation and number.

    Raises ValueError for no runs or a time that is none.
    """
    times = np.array(list(seconds), dtype=float)
    if not times.size:
        raise ValueError(f"no run to enter as {kind}")
    std = float(times.std(ddof=1)) if times.size > 1 else None
    return Entry(kind, float(times.mean()), machine, gpus, int(times.size), std, note)


def projected(entry: Entry) -> Entry:
    """What a time on N GPUs comes to on eight: times N / 8. It leaves out what communication would cost there."""
    share = entry.gpus / OFFICIAL_GPUS
    std = None if entry.std is None else entry.std * share
    note = f"{entry.kind} on {entry.gpus} GPUs x {entry.gpus}/{OFFICIAL_GPUS}"
    return Entry("projected", entry.seconds * share, entry.machine, OFFICIAL_GPUS, entry.n, std, note)


def _model(machine: str) -> str:
    """The GPU model in a machine's description, as far as it tells machines apart."""
    found = [word for word in ("H100", "H200", "A100", "L40S", "B200", "4090") if word in machine]
    return " ".join(found) or machine


@dataclass(frozen=True)
class Gain:
    """How much faster one record is than the one before, in natural logs of time: `total` = `steps` + `pace` exactly,
    positive for a gain. `steps` is what fewer steps brought (machine learning), `pace` what faster steps did (systems).
    """

    number: str
    total: float
    steps: float
    pace: float


def gain(number: str, before: tuple[float, float], after: tuple[float, float]) -> Gain:
    """Split the gain from `before` to `after`, each (time in any one unit, steps).

    time = steps x time per step, so log(t0 / t1) = log(s0 / s1) + log((t0 / s0) / (t1 / s1)), with nothing left over.
    Raises ValueError if a figure is not positive.
    """
    for figure in (*before, *after):
        if not (math.isfinite(figure) and figure > 0):
            raise ValueError(f"record {number}: {figure} is no time and no number of steps")
    total = math.log(before[0] / after[0])
    steps = math.log(before[1] / after[1])
    return Gain(number, total, steps, total - steps)


def attribute(records: Sequence[tuple[str, float, float]]) -> list[Gain]:
    """Gains between neighbours of a sequence of (number, time, steps), oldest first; one fewer than there are records.

    The totals add up to log(first time / last time).
    """
    return [gain(number, before, after) for (_, *before), (number, *after) in pairwise(records)]
