"""The lines of a run that carry a time, in the order of the file, merged no more than a stretch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from timing.run import Run

UNTIMED_STEPS = 10
ROUNDING_MS = 1.0
STRETCH = 1 << 16  # lines: ten times the steps of the longest published run, and few enough for dozens of arrays


@dataclass(frozen=True, eq=False)
class Lines:
    """Metric lines with a time, in file order: arrays of one length (int64, float64, float64, int64, bool)."""

    step: np.ndarray
    time_ms: np.ndarray
    average_ms: np.ndarray
    line: np.ndarray
    validation: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    def only(self, chosen: np.ndarray | slice) -> "Lines":
        """The lines where a mask is true, or of a slice (which costs no memory)."""
        return Lines(*(column[chosen] for column in self.columns))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The arrays, in the order of the fields."""
        return self.step, self.time_ms, self.average_ms, self.line, self.validation


class TimedLines:
    """All lines of a run that carry a finite time. `untimed` is after how many steps era A's clock would be reset: 10,
    unless an override of the run says otherwise.

    The training and the validation lines stay apart, as the run holds them: of a log of 240 MB each merged column would
    take another 30 MB. What looks at lines in the file's order gets them by stretches of STRETCH lines; a log that is
    no longer comes in one.
    """

    def __init__(self, run: Run):
        untimed = run.overrides.get("untimed_iterations", "")
        self.untimed = int(untimed) if untimed.isdecimal() and len(untimed) < 7 else UNTIMED_STEPS
        self.train, self.val = _timed(run, "train"), _timed(run, "val")
        before = np.searchsorted(self.train.line, self.val.line)
        self._at = before + np.arange(len(self.val))  # where the validations stand among all lines

    def __len__(self) -> int:
        return len(self.train) + len(self.val)

    @cached_property
    def start(self) -> int:
        """Index of the first counted line, the one after era A's reset: where, across its step, the clock falls. 0 if
        there is none."""
        for number, lines in enumerate(self.stretches()):
            for at in np.flatnonzero(np.diff(lines.time_ms) < -ROUNDING_MS)[:1]:
                reset = lines.step[at] <= self.untimed <= lines.step[at + 1]
                return number * STRETCH + int(at) + 1 if reset else 0
        return 0

    @cached_property
    def reset_line(self) -> int | None:
        """Number of the line at which era A's clock starts anew, None where it is not reset."""
        return int(self.between(self.start, self.start + 1).line[0]) if self.start else None

    def counted(self, validation: bool) -> Lines:
        """The validation (or the training) lines that the clock counts."""
        validations = int(np.searchsorted(self._at, self.start))
        if validation:
            return self.val.only(slice(validations, None))
        return self.train.only(slice(self.start - validations, None))

    def stretches(self, first: int = 0, overlap: int = 1) -> Iterator[Lines]:
        """The lines from index `first` on, STRETCH at a time; each stretch goes on for `overlap` lines of the next."""
        for begin in range(first, len(self), STRETCH):
            yield self.between(begin, begin + STRETCH + overlap)

    def between(self, first: int, end: int) -> Lines:
        """The lines with indices first <= i < end."""
        if len(self) <= STRETCH:
            return self._whole.only(slice(first, end))
        return self._merged(first, min(end, len(self)))

    @cached_property
    def _whole(self) -> Lines:
        return self._merged(0, len(self))

    def _merged(self, first: int, end: int) -> Lines:
        from_val, to_val = np.searchsorted(self._at, [first, end])
        train, val = self.train.only(slice(first - from_val, end - to_val)), self.val.only(slice(from_val, to_val))
        at = self._at[from_val:to_val] - first
        others = np.ones(end - first, bool)
        others[at] = False
        columns = [np.empty(len(others), column.dtype) for column in train.columns]
        for column, training, validations in zip(columns, train.columns, val.columns, strict=True):
            column[others], column[at] = training, validations
        return Lines(*columns)


def _timed(run: Run, kind: str) -> Lines:
    """The lines of one kind ("train" or "val") that carry a finite time; no copy where all do."""
    columns = [getattr(run, f"{kind}_{name}") for name in ("step", "time_ms", "step_avg_ms", "line")]
    lines = Lines(*columns, np.broadcast_to(kind == "val", len(columns[0])))
    timed = np.isfinite(lines.time_ms)
    return lines if timed.all() else lines.only(timed)
