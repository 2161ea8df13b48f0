"""How evenly a clock runs: steps that take no time, and the one that takes the longest."""

from dataclasses import dataclass, replace

import numpy as np

from timing.clock import LEAST_PACE_MS, usual_pace
from timing.timed import Lines, TimedLines

IDLE_SHARE = 0.1
SLOW_PERCENTILE, NEIGHBOURS = 95, 65


@dataclass(frozen=True)
class Stutter:
    """How evenly a clock runs, from line to line. `idle` is how many of `steps` take (almost) no time, `longest_idle`
    how many of those come in a row, `idle_line` the first line at which it stood; `longest_ms` is the longest step,
    `longest_step` and `longest_line` say where; `usual_ms` is what a step takes that takes any time."""

    steps: int
    idle: int
    longest_idle: int
    idle_line: int
    longest_ms: float
    longest_step: int
    longest_line: int
    usual_ms: float

    @property
    def idle_share(self) -> float:
        """Idle steps, of all."""
        return self.idle / self.steps


def stutter(timed: TimedLines) -> Stutter | None:
    """What the counted part of a clock shows of steps that take no time and of the longest one; None for a clock too
    coarse for its pace, or with too few lines. Of a log of several stretches `usual_ms` is the median over them."""
    seen = [found for lines in timed.stretches(timed.start) if (found := _stutter(lines))]
    if len(seen) < 2:
        return seen[0] if seen else None
    longest = max(seen, key=lambda each: each.longest_ms)
    return replace(
        longest,
        steps=sum(each.steps for each in seen),
        idle=sum(each.idle for each in seen),
        longest_idle=max(each.longest_idle for each in seen),
        idle_line=next((each.idle_line for each in seen if each.idle), 0),
        usual_ms=float(np.median([each.usual_ms for each in seen])),
    )


def _stutter(lines: Lines) -> Stutter | None:
    """The same of one stretch.

    A step takes no time if it takes a tenth of what its neighbours do, the slow ones among them: the 95th percentile of
    64 steps, since a clock that moves on every 16th step only has its real pace in one of 16. Those before it and those
    after it both have to say so: schedules of windows or batch sizes make the steps of a whole phase fast.
    """
    from scipy.ndimage import percentile_filter  # takes longer to load than most commands that never need it

    counted = _one_a_step(lines)
    usual = usual_pace(counted)
    if usual is None or usual < LEAST_PACE_MS:
        return None
    steps = np.diff(counted.step)
    pace = np.diff(counted.time_ms) / steps
    before, after = (
        percentile_filter(pace, SLOW_PERCENTILE, size=NEIGHBOURS, mode="nearest", origin=side * (NEIGHBOURS // 2))
        for side in (1, -1)
    )
    around = np.minimum(before, after, out=before)
    del after
    idle = pace <= IDLE_SHARE * np.maximum(around, LEAST_PACE_MS)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], idle, [False]])))
    rows = [int(steps[first:end].sum()) for first, end in zip(ends[::2], ends[1::2], strict=True)]
    longest = int(np.argmax(pace))
    return Stutter(
        steps=int(steps.sum()),
        idle=int(steps[idle].sum()),
        longest_idle=max(rows, default=0),
        idle_line=int(counted.line[ends[0] + 1]) if rows else 0,
        longest_ms=float(pace[longest]),
        longest_step=int(counted.step[longest + 1]),
        longest_line=int(counted.line[longest + 1]),
        usual_ms=float(np.median(around)),
    )


def _one_a_step(lines: Lines) -> Lines:
    """Of lines that share a step, the first; of steps that go back, none."""
    ahead = np.maximum.accumulate(lines.step) if len(lines) else lines.step
    return lines.only(np.diff(ahead, prepend=-1) > 0)
