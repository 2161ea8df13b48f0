"""One pass over a log's blocks: its metric columns, and the few other lines that matter."""

import re
from dataclasses import dataclass, field

import numpy as np

from timing.blocks import Block, Tally, blocks
from timing.layout import BANNER, Banner
from timing.lines import MetricLine
from timing.metrics import Metrics, read_metrics

_MANY = 1 << 17  # values: less is held in pieces
KEPT = 1000  # of each kind of other line and of each oddity: a hostile log may hold millions
_LONGEST_TEXT = 400
_LOSS, _HEAD = re.compile(rb" val_loss:\d"), re.compile(rb"step:\d{1,18}/\d{1,18}$")
_LONGEST_HEAD = 64


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


_BANNER, _TELEMETRY, _FALLBACK, _PEAK = (_word(text) for text in (b"========", b"telemetr", b"fallback", b"peak mem"))


class Column:
    """A growing column that stays small: nothing is held for a piece without figures, and many pieces go into one array
    that grows where it stands, so that the column is never held twice."""

    def __init__(self, dtype: type):
        self.dtype = dtype
        self._whole = np.empty(0, dtype)
        self._length = 0  # of what is filled in it
        self._pieces: list[tuple[int, np.ndarray | None]] = []
        self._held = 0  # values in the pieces

    def append(self, values: np.ndarray) -> None:
        """Add `values` (int64 or float64, copied) at the end."""
        if self.dtype is np.float64:
            kept = None if np.isnan(values).all() else values.copy()
        else:
            kept = values.copy()
        self._pieces.append((len(values), kept))
        self._held += 0 if kept is None else len(kept)
        if self._held > _MANY:
            self._gather(spare=0.125)

    def take(self) -> np.ndarray:
        """The whole column; its pieces are given up. A float column without any figure is one nan, broadcast."""
        if self.dtype is np.float64 and not self._length and all(values is None for _, values in self._pieces):
            return np.broadcast_to(np.float64(np.nan), sum(length for length, _ in self._pieces))
        self._gather()
        self._whole.resize(self._length, refcheck=False)
        return self._whole

    def _gather(self, spare: float = 0.0) -> None:
        """Move the pieces into the whole, which gets room for this share of its length more."""
        needed = self._length + sum(length for length, _ in self._pieces)
        if needed > len(self._whole):
            self._whole.resize(int(needed * (1 + spare)), refcheck=False)
        for length, values in self._pieces:
            self._whole[self._length : self._length + length] = np.nan if values is None else values
            self._length += length
        self._pieces, self._held = [], 0


@dataclass
class Oddities:
    """What is odd in the metric lines, in the order of the log; at most KEPT of each kind."""

    faults: list[tuple[int, str]] = field(default_factory=list)
    not_finite: list[tuple[int, str]] = field(default_factory=list)  # (line, kind)
    backwards: list[tuple[int, int, int]] = field(default_factory=list)  # (line, step before, step)
    repeats: list[tuple[int, str, int]] = field(default_factory=list)  # (line, kind, step)
    gaps: list[tuple[int, int, int]] = field(default_factory=list)  # (line, step before, step) in training lines
    single_steps: int = 0  # training lines whose step is the one after the line before's
    plans: list[tuple[int, int]] = field(default_factory=list)  # (line, planned steps from there on; -1: llm.c)
    glued: list[int] = field(default_factory=list)  # lines with a validation behind other text
    unclosed: tuple[int, str, bytes] | None = None  # (line, kind, the loss) at the very end of the file


class Scan:
    """What the pass over a log leaves."""

    def __init__(self, file, name: str):
        """Read `file` to its end; `name` is for errors. Raises LogError for a file that is not plain text."""
        self.tally = Tally()
        self.columns = {
            kind: {
                column: Column(np.int64 if column in ("step", "line") else np.float64)
                for column in ("step", "loss", "time_ms", "step_avg_ms", "line")
            }
            for kind in ("val", "train")
        }
        self.banners: list[Banner] = []
        self.telemetry = Column(np.int64)
        self.fallbacks: list[tuple[int, bytes]] = []
        self.peak: tuple[int, bytes] | None = None  # the last such line
        self.odd = Oddities()
        self._last_step = {"val": -1, "train": -1, "any": -1}
        for block in blocks(file, name, self.tally):
            self._read(block)

    def _read(self, block: Block) -> None:
        first_words = block.words[block.starts]
        self._read_other_lines(block, first_words)
        rows = read_metrics(block, first_words, lambda line, metric: self._note(block.first_line + line, metric))
        self._note_glued(block, int(np.count_nonzero(rows.validation & (rows.planned >= 0))))
        if not len(rows):
            return
        rows.line = rows.line + block.first_line
        self._note_order(rows)
        for kind, chosen in (("val", rows.keep(rows.validation)), ("train", rows.keep(~rows.validation))):
            self._note_stride(kind, chosen)
            for name, column in self.columns[kind].items():
                column.append(getattr(chosen, name))

    def _read_other_lines(self, block: Block, first_words: np.ndarray) -> None:
        for line in np.flatnonzero(first_words == _BANNER).tolist() if len(self.banners) < KEPT else ():
            if _text(block, line).rstrip() == BANNER and len(self.banners) < KEPT:
                self.banners.append(Banner(block.offset + int(block.starts[line]), block.first_line + line))
        telemetry = np.flatnonzero(first_words == _TELEMETRY)
        if len(telemetry):
            self.telemetry.append(telemetry + block.first_line)
        for line in np.flatnonzero(first_words == _FALLBACK)[: KEPT - len(self.fallbacks)].tolist():
            self.fallbacks.append((block.first_line + line, _text(block, line)))
        for line in np.flatnonzero(first_words == _PEAK)[-1:].tolist():
            self.peak = (block.first_line + line, _text(block, line))

    def _note(self, line: int, metric: MetricLine) -> None:
        if metric.fault and len(self.odd.faults) < KEPT:
            self.odd.faults.append((line, metric.fault))
        if not metric.finite and len(self.odd.not_finite) < KEPT:
            self.odd.not_finite.append((line, metric.kind))
        if metric.unclosed:
            self.odd.unclosed = (line, metric.kind, metric.unclosed)

    def _note_glued(self, block: Block, validations: int) -> None:
        """Note lines in which a validation stands behind other text, as when two processes write one file."""
        size = int(block.ends[-1])
        in_script = block.memory.count(b" val_loss:{", 0, size)
        if block.memory.count(b" val_loss:", 0, size) == validations + in_script:
            return
        for match in _LOSS.finditer(block.memory, 0, size):
            begin = max(0, match.start() - _LONGEST_HEAD)
            begin = max(begin, block.memory.rfind(b"\n", begin, match.start()) + 1)
            head = _HEAD.search(block.memory[begin : match.start()])
            if head and head.start() and len(self.odd.glued) < KEPT:
                self.odd.glued.append(block.first_line + int(np.searchsorted(block.ends, match.start())))

    def _note_order(self, rows: Metrics) -> None:
        """Note where the step counter runs backwards and where the planned number of steps changes."""
        before = np.concatenate([[self._last_step["any"]], rows.step[:-1]])
        for row in np.flatnonzero(rows.step < before)[: KEPT - len(self.odd.backwards)].tolist():
            self.odd.backwards.append((int(rows.line[row]), int(before[row]), int(rows.step[row])))
        self._last_step["any"] = int(rows.step[-1])
        known = self.odd.plans[-1][1] if self.odd.plans else None
        first = [0] if known != rows.planned[0] else []
        changes = [*first, *(np.flatnonzero(rows.planned[1:] != rows.planned[:-1]) + 1).tolist()]
        self.odd.plans += [(int(rows.line[row]), int(rows.planned[row])) for row in changes]
        if len(self.odd.plans) > 2 * KEPT:
            del self.odd.plans[KEPT:-KEPT]

    def _note_stride(self, kind: str, rows: Metrics) -> None:
        """Note, in the lines of one kind, where a step stands twice running and where training steps are left out."""
        if not len(rows):
            return
        before = np.concatenate([[self._last_step[kind]], rows.step[:-1]])
        for row in np.flatnonzero(rows.step == before)[: KEPT - len(self.odd.repeats)].tolist():
            self.odd.repeats.append((int(rows.line[row]), kind, int(rows.step[row])))
        if kind == "train":
            single = rows.step == before + 1
            self.odd.single_steps += int(np.count_nonzero(single))
            gaps = np.flatnonzero(~single & (rows.step > before) & (before >= 0))
            for row in gaps[: KEPT - len(self.odd.gaps)].tolist():
                self.odd.gaps.append((int(rows.line[row]), int(before[row]), int(rows.step[row])))
        self._last_step[kind] = int(rows.step[-1])


def _text(block: Block, line: int) -> bytes:
    start, end = int(block.starts[line]), int(block.ends[line])
    return bytes(block.memory[start : min(end, start + _LONGEST_TEXT)])
