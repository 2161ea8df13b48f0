"""All that the clock of a run shows, found out once: the rules ask for it several times under every edition."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from timing.clock import (
    Averages,
    Finding,
    era_shown,
    nearest_definition,
    negative,
    stood_still,
    turned_back,
)
from timing.run import Run
from timing.stutter import Stutter, stutter
from timing.timed import TimedLines


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
        _known[run] = _read(TimedLines(run))
    return _known[run]


def _read(lines: TimedLines) -> Clock:
    ends = [lines.between(at, at + 1).line for at in (lines.start, len(lines) - 1)] if len(lines) else []
    first, last = (int(line[0]) for line in ends) if ends else (None, None)
    nearest = [nearest_definition(lines, validation) for validation in (True, False)]
    return Clock(
        lines=len(lines),
        untimed=lines.untimed,
        first_line=first,
        last_line=last,
        era=era_shown(lines, nearest),
        faults=(*turned_back(lines), *negative(lines)),
        still=tuple(stood_still(lines)),
        stutter=stutter(lines),
        bare=sum(int(np.count_nonzero(np.isnan(lines.counted(kind).average_ms))) for kind in (True, False)),
        averages=tuple(nearest),
    )
