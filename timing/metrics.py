"""The metric lines of a block, all at once: the vectorised twin of `timing.lines.parse_line`.

Lines in the plain forms below are read in lockstep: a cursor per line steps over keys and numbers, and a line that
differs anywhere drops out of step. What dropped out is read by the grammar, one line at a time.

    step:I/N [val_loss:X | train_loss:X] [key:value ...] train_time:T(ms|s) step_avg:Ams [key:value ...]
    s:I (tel|trl):X[ further pairs]
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from timing.blocks import Block
from timing.digits import read_decimals, read_integers, scaled
from timing.lines import MetricLine, parse_line

_LONGEST_METRIC_LINE = 4096
_NEAR = 1900  # bytes from the start of a line in which a time surely is one of those that the grammar looks at


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


_TEL, _TRL, _FIVE_BYTES = _word(b" tel:"), _word(b" trl:"), _word(b"\xff" * 5)
_VAL_LOSS, _STEP_AVG = _word(b"val_loss"), _word(b"step_avg")
_TRAIN_LO, _IN_LOSS = _word(b"train_lo"), _word(b"in_loss:")
_TRAIN_TI, _IN_TIME = _word(b"train_ti"), _word(b"in_time:")
_NANMS, _MS, _TWO_BYTES = _word(b"nanms"), _word(b"ms"), _word(b"\xff" * 2)
_SLASH, _BLANK, _COLON, _RETURN, _S = (ord(c) for c in "/ :\rs")


@dataclass
class Metrics:
    """The metric lines of one block, in order; `line` counts from 0 within the block."""

    line: np.ndarray  # int64
    validation: np.ndarray  # bool
    step: np.ndarray  # int64
    planned: np.ndarray  # int64, -1 in llm.c's dialect
    loss: np.ndarray  # float64, nan where the line does not say, as are the next two
    time_ms: np.ndarray
    step_avg_ms: np.ndarray
    good: np.ndarray  # bool: whether the row is read; in a finished block every row is

    def __len__(self) -> int:
        return len(self.line)

    def keep(self, rows: np.ndarray) -> "Metrics":
        """Only the chosen rows (indices or a mask)."""
        return Metrics(*(column[rows] for column in vars(self).values()))


def read_metrics(block: Block, first_words: np.ndarray, odd: Callable[[int, MetricLine], None]) -> Metrics:
    """Every metric line of `block`; `first_words` holds the word at each line's start.

    `odd` is told the line (from 0) and the MetricLine of each that opens like a metric line and is not wholly
    readable, whose loss is not finite, or whose loss stands at the very end of a file without a last newline.
    """
    steps = _read_step(block, _opening(first_words, b"step:"))
    losses = _read_llmc(block, _opening(first_words, b"s:"))
    rows = _merged(steps, losses)
    if not block.terminated and len(rows) and rows.line[-1] == len(block.starts) - 1:
        rows.good[-1] = False
    for row in np.flatnonzero(~rows.good).tolist():
        _read_by_grammar(block, rows, row, odd)
    return rows if rows.good.all() else rows.keep(rows.good)


def _opening(first_words: np.ndarray, text: bytes) -> np.ndarray:
    """The lines that open with `text` and a digit."""
    lines = np.flatnonzero((first_words & _word(b"\xff" * len(text))) == _word(text))
    digits = (first_words[lines] >> np.uint64(8 * len(text))) & np.uint64(0xFF)
    return lines[(digits >= ord("0")) & (digits <= ord("9"))]


def _read_step(block: Block, lines: np.ndarray) -> Metrics:
    """The rows of the `step:` dialect; those that are not in the plain form are not good."""
    rows = _empty(lines)
    if not len(lines):
        return rows
    buffer, words = block.buffer, block.words
    rows.step, count = read_integers(words, at := block.starts[lines] + 5)
    at += count
    rows.good = (count > 0) & (count < 16) & (buffer[at] == _SLASH)
    rows.planned, count = read_integers(words, at := at + 1)
    at += count
    rows.good &= (count > 0) & (count < 16) & (buffer[at] == _BLANK)
    at += 1
    losses = _read_loss(block, rows, at)
    skipped = _skip_to_time(block, rows, at)
    rows.good &= (words[at] == _TRAIN_TI) & (words[at + 3] == _IN_TIME)
    mantissa, decimals, at, good = read_decimals(buffer, words, at + 11)
    rows.good &= good
    in_ms = (words[at] & _TWO_BYTES) == _MS
    rows.good &= in_ms | (buffer[at] == _S)
    rows.time_ms = scaled(mantissa, decimals, np.where(in_ms, 0, 3))
    at += 1 + in_ms
    rows.good &= (buffer[at] == _BLANK) & (words[at + 1] == _STEP_AVG) & (buffer[at + 9] == _COLON)
    at += 10
    mantissa, decimals, end, good = read_decimals(buffer, words, at)
    rows.step_avg_ms = scaled(mantissa, decimals)
    rows.step_avg_ms[~good] = np.nan
    rows.good &= (good & ((words[end] & _TWO_BYTES) == _MS)) | ((words[at] & _FIVE_BYTES) == _NANMS)
    known = {b"train_time:": len(rows), b"step_avg:": len(rows), b"_loss:": losses}
    _check_tails(block, rows, np.where(good, end + 2, at + 5), known, skipped)
    return rows


def _read_loss(block: Block, rows: Metrics, at: np.ndarray) -> int:
    """Read the loss of the rows that have one where `at` points, and move `at` behind it; how many have one."""
    buffer, words = block.buffer, block.words
    key = words[at]
    validation = (key == _VAL_LOSS) & (buffer[at + 8] == _COLON)
    training = (key == _TRAIN_LO) & (words[at + 3] == _IN_LOSS)
    rows.validation = validation
    some = np.flatnonzero(validation | training)
    if len(some):
        begin = at[some] + np.where(validation[some], 9, 11)
        mantissa, decimals, end, good = read_decimals(buffer, words, begin)
        rows.loss[some] = scaled(mantissa, decimals)
        rows.good[some] &= good & (buffer[end] == _BLANK)
        at[some] = end + 1
    return len(some)


def _skip_to_time(block: Block, rows: Metrics, at: np.ndarray) -> np.ndarray:
    """Move `at` over further pairs to the time behind them, near enough for the grammar to see; a mask of such rows."""
    words = block.words
    skipped = words[at] != _TRAIN_TI
    some = np.flatnonzero(skipped)
    if len(some):
        times = np.flatnonzero(words[: int(block.ends[-1])] == _TRAIN_TI)
        times = np.append(times, len(block.memory))
        next_time = times[np.searchsorted(times, at[some])]
        starts, ends = block.starts[rows.line[some]], block.ends[rows.line[some]]
        found = (next_time < np.minimum(ends, starts + _NEAR)) & (block.buffer[next_time - 1] == _BLANK)
        at[some[found]] = next_time[found]
    return skipped


def _read_llmc(block: Block, lines: np.ndarray) -> Metrics:
    """The rows of llm.c's dialect; those that are not in the plain form are not good."""
    rows = _empty(lines)
    if not len(lines):
        return rows
    buffer, words = block.buffer, block.words
    rows.step, count = read_integers(words, at := block.starts[lines] + 2)
    at += count
    key = words[at] & _FIVE_BYTES
    rows.validation = key == _TEL
    mantissa, decimals, end, good = read_decimals(buffer, words, at + 5)
    rows.loss = scaled(mantissa, decimals)
    rows.good = (count > 0) & (count < 16) & (rows.validation | (key == _TRL)) & good
    _check_tails(block, rows, end, {b" tel:": int(rows.validation.sum()), b" trl:": int((~rows.validation).sum())})
    return rows


def _check_tails(
    block: Block, rows: Metrics, end: np.ndarray, known: dict[bytes, int], skipped: np.ndarray | bool = False
) -> None:
    """Let a row be good only if its line ends at `end` or goes on behind a blank, and holds no known key twice.

    The latter is checked for lines with further pairs (behind `end`, or `skipped` before), by counting: `known` says
    how often each key is accounted for. Where the block holds more, or another key's name ends like one, every line
    with further pairs is left to the grammar.
    """
    last, buffer = block.ends[rows.line], block.buffer
    ended = (end == last) | ((end + 1 == last) & (buffer[end] == _RETURN))
    goes_on = (end < last) & (buffer[end] == _BLANK)
    rows.good &= ended | goes_on
    further = rows.good & (goes_on | skipped)
    size = int(block.ends[-1])
    if further.any() and any(block.memory.count(key, 0, size) != count for key, count in known.items()):
        rows.good[further] = False


def _read_by_grammar(block: Block, rows: Metrics, row: int, odd: Callable[[int, MetricLine], None]) -> None:
    line = int(rows.line[row])
    start, end = int(block.starts[line]), int(block.ends[line])
    text = bytes(block.memory[start : min(end, start + _LONGEST_METRIC_LINE)]).rstrip(b"\r")
    metric = parse_line(text, terminated=block.terminated or line < len(block.starts) - 1)
    if metric is None:
        return
    if metric.fault or metric.unclosed or not metric.finite:
        odd(line, metric)
    if metric.kind:
        rows.good[row] = True
        rows.validation[row] = metric.kind == "val"
        rows.step[row], rows.planned[row] = metric.step, -1 if metric.planned is None else metric.planned
        rows.loss[row], rows.time_ms[row], rows.step_avg_ms[row] = metric.loss, metric.time_ms, metric.step_avg_ms


def _empty(lines: np.ndarray) -> Metrics:
    integers, unknown = np.full(len(lines), -1), np.full(len(lines), np.nan)
    none = np.zeros(len(lines), bool)
    return Metrics(lines, none, integers, integers.copy(), unknown, unknown.copy(), unknown.copy(), none.copy())


def _merged(one: Metrics, other: Metrics) -> Metrics:
    if not len(one) or not len(other):
        return one if len(one) else other
    both = Metrics(*(np.concatenate(pair) for pair in zip(vars(one).values(), vars(other).values(), strict=True)))
    return both.keep(np.argsort(both.line, kind="stable"))
