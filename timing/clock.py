"""What a log's clock shows: its era, what its averages mean, and where it was turned back, stopped or skipped ahead.

A clock is read from all metric lines of a run in the order of the file. Times are milliseconds of training, validation
left out; a line's average is milliseconds per step by one of three definitions seen in public logs.
"""

from dataclasses import dataclass, replace

import numpy as np

from timing.run import Run
from timing.timed import ROUNDING_MS, STRETCH, Lines, TimedLines

FROZEN_STEPS = 8
FROZEN_SHARE = 0.05
LEAST_PACE_MS = 2.0
RECOGNISED = 0.1  # share of averages that may contradict a definition which the others follow
_FROZEN_OVERLAP = 1 << 12  # lines
DEFINITIONS = ("from the start", "from step 10", "since the last validation")


@dataclass(frozen=True)
class Finding:
    """Something wrong with a clock: the line of the log and what it is, in words."""

    line: int
    text: str


@dataclass(frozen=True)
class Averages:
    """The definition that the averages of one kind of line follow best (None: there are no averages), how many were
    held against it, how many of them contradict it, and the numbers of those lines: of the first alone, where it is not
    `recognised`."""

    definition: str | None
    checked: int
    misfits: int
    lines: np.ndarray

    @property
    def recognised(self) -> bool:
        """Whether at least nine tenths of the averages agree with the definition."""
        return self.definition is not None and self.misfits <= RECOGNISED * self.checked


def era_of(run: Run) -> str | None:
    """ "A" if the clock leaves out the first ten steps, "B" if it counts every step, None if the log does not show it.

    Shown by a reset across step 10, else by which steps the logged averages divide by.
    """
    lines = TimedLines(run)
    return era_shown(lines, [nearest_definition(lines, validation) for validation in (True, False)])


def era_shown(lines: TimedLines, nearest: list[Averages]) -> str | None:
    """`era_of` the run of these lines, whose `nearest_definition` is known for both kinds."""
    if lines.start:
        return "A"
    found = {averages.definition for averages in nearest if averages.recognised}
    if DEFINITIONS[1] in found:
        return "A"
    return "B" if found else None


def time_after(run: Run, steps: int, exactly: bool = False) -> tuple[int, float] | None:
    """(step, time in ms) of the first counted line at `steps` or later (`exactly`: at it), None if there is none."""
    timed = TimedLines(run)
    for lines in timed.stretches(timed.start):
        for hit in np.flatnonzero(lines.step == steps if exactly else lines.step >= steps)[:1]:
            return int(lines.step[hit]), float(lines.time_ms[hit])
    return None


def definition_of_average(lines: TimedLines, validation: bool) -> tuple[str | None, np.ndarray]:
    """Which of DEFINITIONS the averages of the validation (or the train) lines follow, and the lines that break it.

    A definition is recognised when at least nine tenths of the averages agree with it within rounding (1 ms of time,
    0.006 ms or 0.1% of average); the others come back as line numbers. (None, all lines) if none is recognised.
    """
    nearest = nearest_definition(lines, validation)
    return (nearest.definition, nearest.lines) if nearest.recognised else (None, lines.counted(validation).line)


def nearest_definition(lines: TimedLines, validation: bool) -> Averages:
    """The one of DEFINITIONS that the fewest averages of the validation (or the training) lines contradict, however
    many they are."""
    chosen = lines.counted(validation)
    best = Averages(None, 0, 0, chosen.line[:0])
    for name in DEFINITIONS:
        found = _held_against(chosen, name, lines.untimed)
        if found.checked and (best.definition is None or found.misfits < best.misfits):
            best = found
        if best.definition and not best.misfits:
            break  # no other is contradicted by fewer
    return best


def _held_against(chosen: Lines, name: str, untimed: int) -> Averages:
    """How the averages of some lines agree with a definition. No more lines are kept than a recognised one may have."""
    checked = misfits = 0
    lines = [chosen.line[:0]]
    for first in range(0, len(chosen), STRETCH):
        wrong, usable = _contradicted(chosen, name, untimed, first)
        if misfits <= RECOGNISED * len(chosen):
            lines.append(wrong)
        checked, misfits = checked + usable, misfits + len(wrong)
    found = Averages(name, checked, misfits, np.concatenate(lines))
    return found if found.recognised else replace(found, lines=found.lines[:1].copy())


def _contradicted(chosen: Lines, name: str, untimed: int, first: int) -> tuple[np.ndarray, int]:
    """Of the stretch of lines from index `first` on: the numbers of those that contradict a definition, and how many
    averages were held against it."""
    here = slice(first, first + STRETCH)
    step, time_ms, average_ms = chosen.step[here], chosen.time_ms[here], chosen.average_ms[here]
    divisor, elapsed = step, time_ms
    if name == DEFINITIONS[1]:
        divisor = step - untimed
    elif name == DEFINITIONS[2]:
        before = slice(first - 1, first)
        divisor = np.diff(step, prepend=chosen.step[before] if first else 0)
        elapsed = np.diff(time_ms, prepend=chosen.time_ms[before] if first else 0.0)
    usable = np.isfinite(average_ms) & (divisor > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = elapsed / divisor
        slack = ROUNDING_MS * (1 + (name == DEFINITIONS[2])) / divisor + np.maximum(0.006, 1e-3 * expected)
    wrong = usable & (np.abs(average_ms - expected) > slack)
    return chosen.line[here][wrong], int(np.count_nonzero(usable))


def turned_back(timed: TimedLines) -> list[Finding]:
    """Places where the clock falls, other than the one reset of era A."""
    return [
        Finding(
            int(lines.line[at]),
            f"the clock falls from {lines.time_ms[at - 1]:.0f} to {lines.time_ms[at]:.0f} ms at step {lines.step[at]}",
        )
        for lines in timed.stretches()
        for at in np.flatnonzero(np.diff(lines.time_ms) < -ROUNDING_MS) + 1
        if lines.line[at] != timed.reset_line
    ]


def negative(timed: TimedLines) -> list[Finding]:
    """Lines with a negative time."""
    return [
        Finding(int(lines.line[at]), f"negative time {lines.time_ms[at]:.0f} ms at step {lines.step[at]}")
        for lines in timed.stretches(overlap=0)
        for at in np.flatnonzero(lines.time_ms < 0)
    ]


def stood_still(timed: TimedLines) -> list[Finding]:
    """Stretches of eight steps or more in which the clock hardly moves (5% of the usual pace, so that hosts which run a
    few steps ahead of their GPU are not meant). The first line of each stretch."""
    found = []
    for number, lines in enumerate(timed.stretches(timed.start, _FROZEN_OVERLAP)):
        starts = _frozen_starts(lines)
        starts = starts[starts > 0] if number else starts  # what was frozen before is told already
        found += [Finding(int(lines.line[i]), f"the clock stands still from step {lines.step[i]} on") for i in starts]
    return list(dict.fromkeys(found))


def _frozen_starts(lines: Lines) -> np.ndarray:
    """Indices (int64) of the lines at which a clock stops."""
    usual = usual_pace(lines)
    if usual is None or usual < LEAST_PACE_MS:
        return np.empty(0, np.int64)
    ahead = np.searchsorted(lines.step, lines.step + FROZEN_STEPS)
    at = np.flatnonzero(ahead < len(lines))
    to = ahead[at]
    steps = lines.step[to] - lines.step[at]
    slow = (lines.time_ms[to] - lines.time_ms[at]) <= FROZEN_SHARE * usual * steps
    frozen = at[slow & (steps > 0)]
    return frozen[np.diff(frozen, prepend=-2) > 1]


def usual_pace(lines: Lines) -> float | None:
    """Median milliseconds per step between neighbouring lines, of those between which time passes at all: a clock that
    stands still for most of its steps would else call that usual. None when there are too few."""
    steps = np.diff(lines.step)
    moved = steps > 0
    pace = np.diff(lines.time_ms)[moved] / steps[moved]
    passing = pace[pace > 0]
    if passing.size:
        return float(np.median(passing))
    return 0.0 if moved.any() else None


def skipped(run: Run) -> list[Finding]:
    """Train lines that jump over steps where a log otherwise prints them at a steady cadence; steps that go back; train
    lines of a step that comes twice; train lines that begin late or end early."""
    found = []
    for step, line in ((run.train_step, run.train_line), (run.val_step, run.val_line)):
        back = np.flatnonzero(np.diff(step) < 0) + 1
        found += [Finding(int(line[i]), f"step {step[i]} comes after step {step[i - 1]}") for i in back]
    cadence = int(np.median(np.diff(run.train_step), overwrite_input=True)) if len(run.train_step) > 10 else 0
    gaps = np.diff(run.train_step)
    found += [
        Finding(int(run.train_line[i + 1]), f"step {run.train_step[i]} comes twice") for i in np.flatnonzero(gaps == 0)
    ]
    if len(gaps) >= 10:
        found += [
            Finding(int(run.train_line[i + 1]), f"step {run.train_step[i + 1]} follows step {run.train_step[i]}")
            for i in np.flatnonzero(gaps > cadence)
        ]
        found += _open_ends(run, cadence)
    return found


def _open_ends(run: Run, cadence: int) -> list[Finding]:
    """Train lines that begin late or end early, while validations tell that steps were made."""
    found = []
    first, last = int(run.train_step[0]), int(run.train_step[-1])
    if first > cadence + 1:
        found.append(Finding(int(run.train_line[0]), f"the first step line is of step {first}"))
    if len(run.val_step) and run.val_step[-1] > last + cadence:
        ends = f"step lines end at step {last}, validations go on to step {run.val_step[-1]}"
        found.append(Finding(int(run.train_line[-1]), ends))
    return found
