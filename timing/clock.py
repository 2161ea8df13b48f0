"""What a log's clock shows: its era, what its averages mean, and where it was turned back, stopped or skipped ahead.

A clock is read from all metric lines of a run in the order of the file. Times are milliseconds of training, validation
left out; a line's average is milliseconds per step by one of three definitions seen in public logs.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from timing.run import Run

UNTIMED_STEPS = 10
FROZEN_STEPS = 8
FROZEN_SHARE = 0.05
LEAST_PACE_MS = 2.0
ROUNDING_MS = 1.0
RECOGNISED = 0.1  # share of averages that may contradict a definition which the others follow
_AT_ONCE = 1 << 18  # lines: temporary arrays stay small, however long the log
DEFINITIONS = ("from the start", "from step 10", "since the last validation")


@dataclass(frozen=True, eq=False)
class Lines:
    """Metric lines with a time, in file order: arrays of one length (int64, float64, float64, int64, bool).

    `untimed` is after how many steps era A's clock would be reset: 10, unless an override of the run says otherwise.
    """

    step: np.ndarray
    time_ms: np.ndarray
    average_ms: np.ndarray
    line: np.ndarray
    validation: np.ndarray
    untimed: int = UNTIMED_STEPS

    def __len__(self) -> int:
        return len(self.step)

    @cached_property
    def start(self) -> int:
        """Index of the first counted line, see `start_of_count`."""
        return start_of_count(self)

    @cached_property
    def counted(self) -> "Lines":
        """The lines that the clock counts."""
        return self.only(slice(self.start, None))

    def only(self, chosen: np.ndarray | slice) -> "Lines":
        """The lines where a mask is true, or of a slice (which costs no memory)."""
        columns = (getattr(self, name)[chosen] for name in ("step", "time_ms", "average_ms", "line", "validation"))
        return Lines(*columns, untimed=self.untimed)


@dataclass(frozen=True)
class Finding:
    """Something wrong with a clock: the line of the log and what it is, in words."""

    line: int
    text: str


def timed_lines(run: Run) -> Lines:
    """All lines of `run` that carry a finite time."""
    untimed = run.overrides.get("untimed_iterations", "")
    untimed = int(untimed) if untimed.isdecimal() and len(untimed) < 7 else UNTIMED_STEPS
    train, val = np.isfinite(run.train_time_ms), np.isfinite(run.val_time_ms)
    at = np.searchsorted(run.train_line[train] if not train.all() else run.train_line, run.val_line[val])

    validation = np.zeros(int(np.count_nonzero(train)) + len(at), bool)
    at += np.arange(len(at))
    validation[at] = True
    others = ~validation

    def merged(name: str) -> np.ndarray:
        """The validations' column put between the training lines', which stand in order already."""
        column = getattr(run, f"train_{name}")
        column = column if train.all() else column[train]
        if not len(at):
            return column
        whole = np.empty(len(validation), column.dtype)
        whole[others], whole[at] = column, getattr(run, f"val_{name}")[val]
        return whole

    columns = map(merged, ("step", "time_ms", "step_avg_ms", "line"))
    return Lines(*columns, validation, untimed)


def start_of_count(lines: Lines) -> int:
    """Index of the first line after era A's reset: where, across its step, the clock falls. 0 if there is none."""
    falls = np.flatnonzero(np.diff(lines.time_ms) < -ROUNDING_MS)
    for at in falls[:1]:
        if lines.step[at] <= lines.untimed <= lines.step[at + 1]:
            return int(at + 1)
    return 0


def era_of(run: Run) -> str | None:
    """ "A" if the clock leaves out the first ten steps, "B" if it counts every step, None if the log does not show it.

    Shown by a reset across step 10, else by which steps the logged averages divide by.
    """
    lines = timed_lines(run)
    return era_shown(lines, [nearest_definition(lines, validation) for validation in (True, False)])


def era_shown(lines: Lines, nearest: list[tuple]) -> str | None:
    """`era_of` the run of these lines, whose `nearest_definition` is known for both kinds."""
    if lines.start:
        return "A"
    found = {name for name, wrong, checked in nearest if len(wrong) <= RECOGNISED * checked}
    if DEFINITIONS[1] in found:
        return "A"
    return "B" if found - {None} else None


def time_after(run: Run, steps: int, exactly: bool = False) -> tuple[int, float] | None:
    """(step, time in ms) of the first counted line at `steps` or later (`exactly`: at it), None if there is none."""
    lines = timed_lines(run).counted
    hit = np.flatnonzero(lines.step == steps if exactly else lines.step >= steps)
    return (int(lines.step[hit[0]]), float(lines.time_ms[hit[0]])) if hit.size else None


def definition_of_average(lines: Lines, validation: bool) -> tuple[str | None, np.ndarray]:
    """Which of DEFINITIONS the averages of the validation (or the train) lines follow, and the lines that break it.

    A definition is recognised when at least nine tenths of the averages agree with it within rounding (1 ms of time,
    0.006 ms or 0.1% of average); the others come back as line numbers. (None, all lines) if none is recognised.
    """
    name, wrong, checked = nearest_definition(lines, validation)
    if name is not None and len(wrong) <= RECOGNISED * checked:
        return name, wrong
    return None, _counted_of(lines, validation).line


def nearest_definition(lines: Lines, validation: bool) -> tuple[str | None, np.ndarray, int]:
    """The one of DEFINITIONS that the fewest averages contradict, however many: its name, the numbers of the lines that
    contradict it, and how many averages were held against it. (None, no line, 0) where nothing can be."""
    chosen = _counted_of(lines, validation)
    best = None, chosen.line[:0], 0
    for name in DEFINITIONS:
        parts = [_contradicted(chosen, name, first) for first in range(0, len(chosen), _AT_ONCE)]
        checked = sum(count for _, count in parts)
        if not checked:
            continue
        wrong = np.concatenate([each for each, _ in parts])
        if best[0] is None or len(wrong) < len(best[1]):
            best = name, wrong, checked
        if not len(best[1]):
            break  # no other is contradicted by fewer
    return best


def _contradicted(chosen: Lines, name: str, first: int) -> tuple[np.ndarray, int]:
    """Of the lines from index `first` on, as many as are looked at at once: the numbers of those that contradict a
    definition, and how many averages were held against it."""
    here = slice(first, first + _AT_ONCE)
    step, time_ms, average_ms = chosen.step[here], chosen.time_ms[here], chosen.average_ms[here]
    divisor, elapsed = step, time_ms
    if name == DEFINITIONS[1]:
        divisor = step - chosen.untimed
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


def _counted_of(lines: Lines, validation: bool) -> Lines:
    """The validation (or the train) lines that the clock counts."""
    counted = lines.counted
    return counted.only(counted.validation if validation else ~counted.validation)


def turned_back(lines: Lines) -> list[Finding]:
    """Places where the clock falls, other than the one reset of era A."""
    allowed = lines.start
    falls = np.flatnonzero(np.diff(lines.time_ms) < -ROUNDING_MS) + 1
    return [
        Finding(
            int(lines.line[at]),
            f"the clock falls from {lines.time_ms[at - 1]:.0f} to {lines.time_ms[at]:.0f} ms at step {lines.step[at]}",
        )
        for at in falls
        if at != allowed
    ]


def negative(lines: Lines) -> list[Finding]:
    """Lines with a negative time."""
    return [
        Finding(int(lines.line[at]), f"negative time {lines.time_ms[at]:.0f} ms at step {lines.step[at]}")
        for at in np.flatnonzero(lines.time_ms < 0)
    ]


def stood_still(lines: Lines) -> list[Finding]:
    """Stretches of eight steps or more in which the clock hardly moves (5% of the usual pace, so that hosts which run a
    few steps ahead of their GPU are not meant). The first line of each stretch."""
    counted = lines.counted
    usual = usual_pace(counted)
    if usual is None or usual < LEAST_PACE_MS:
        return []
    ahead = np.searchsorted(counted.step, counted.step + FROZEN_STEPS)
    at = np.flatnonzero(ahead < len(counted))
    to = ahead[at]
    steps = counted.step[to] - counted.step[at]
    slow = (counted.time_ms[to] - counted.time_ms[at]) <= FROZEN_SHARE * usual * steps
    frozen = at[slow & (steps > 0)]
    starts = frozen[np.diff(frozen, prepend=-2) > 1]
    return [Finding(int(counted.line[i]), f"the clock stands still from step {counted.step[i]} on") for i in starts]


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
