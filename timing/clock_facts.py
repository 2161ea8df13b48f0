"""All that the clock of a run shows, found out once: the rules ask for it several times under every edition."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from timing.clock import (
    RECOGNISED,
    Finding,
    Lines,
    era_shown,
    nearest_definition,
    negative,
    stood_still,
    timed_lines,
    turned_back,
)
from timing.run import Run
from timing.stutter import Stutter, stutter


@dataclass(frozen=True)
class Averages:
    """The definition that the averages of one kind of line follow best (None: there are no averages), how many were
    held against it, how many of them contradict it, and the lines of those: of the first alone, where it is not
    RECOGNISED."""

    definition: str | None
    checked: int
    misfits: int
    lines: np.ndarray


@dataclass(frozen=True)
class Clock:
    """What the lines with a time show. `first_line` is where the clock starts to count and `last_line` the last timed
    one (None without a clock); `faults` are where it falls or is negative, `still` where it stands; `bare` is how many
    counted lines have no average; `averages` are those of the validation and of the train lines."""

    lines: int
    untimed: int
    first_line: int | None
    last_line: int | None
    era: str | None
    faults: tuple[Finding, ...]
    still: tuple[Finding, ...]
    stutter: Stutter | None
    bare: int
    averages: tuple[Averages, Averages]


_known: WeakKeyDictionary[Run, Clock] = WeakKeyDictionary()


def clock_of(run: Run) -> Clock:
    """What the clock of `run` shows; found out at the first call, for as long as the run is kept."""
    if run not in _known:
        _known[run] = _read(timed_lines(run))
    return _known[run]


def _read(lines: Lines) -> Clock:
    nearest = [nearest_definition(lines, validation) for validation in (True, False)]
    return Clock(
        lines=len(lines),
        untimed=lines.untimed,
        first_line=int(lines.line[lines.start]) if len(lines) else None,
        last_line=int(lines.line[-1]) if len(lines) else None,
        era=era_shown(lines, nearest),
        faults=(*turned_back(lines), *negative(lines)),
        still=tuple(stood_still(lines)),
        stutter=stutter(lines),
        bare=int(np.count_nonzero(np.isnan(lines.counted.average_ms))),
        averages=tuple(
            Averages(name, checked, len(wrong), wrong if len(wrong) <= RECOGNISED * checked else wrong[:1].copy())
            for name, wrong, checked in nearest
        ),
    )
