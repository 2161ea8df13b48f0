"""The figures of telemetry lines, read back from a log when someone asks for them.

telemetry step:120 grad_norm:1.25 weight_norm:812.5 activation_rms:[1.01, 1.13]
"""

import os
import re
from dataclasses import dataclass
from math import nan

import numpy as np

from timing.blocks import Tally, blocks, open_log

_OPENING = re.compile(rb"telemetry step:(\d{1,18})\b")
_FIGURE = re.compile(rb" ([A-Za-z_][\w.]{0,80}):(?:\[([^\[\]\n]{0,8000})\]|([^\s\[]{1,60}))(?=\s|$)")
_WORD = np.uint64(int.from_bytes(b"telemetr", "little"))


@dataclass(frozen=True)
class Telemetry:
    """One telemetry line: each figure is a tuple of floats, of one float where the line gives no list."""

    line: int
    step: int
    figures: dict[str, tuple[float, ...]]


def read_telemetry(path: str | os.PathLike) -> list[Telemetry]:
    """All telemetry lines of a log, in order; a figure that is no number is nan. Raises LogError as `read_log` does."""
    found = []
    with open_log(path) as file:
        for block in blocks(file, str(path), Tally()):
            for line in np.flatnonzero(block.words[block.starts] == _WORD).tolist():
                text = bytes(block.memory[block.starts[line] : block.ends[line]])
                if telemetry := parse_telemetry(text, block.first_line + line):
                    found.append(telemetry)
    return found


def parse_telemetry(text: bytes, line: int = 0) -> Telemetry | None:
    """The telemetry line that `text` is, number `line` of its log, or None."""
    opening = _OPENING.match(text)
    if opening is None:
        return None
    figures = {match[1].decode(): _numbers(match) for match in _FIGURE.finditer(text, opening.end())}
    return Telemetry(line, int(opening[1]), figures)


def _numbers(match: re.Match) -> tuple[float, ...]:
    return tuple(map(_number, (match[3],) if match[2] is None else match[2].split(b",") if match[2].strip() else ()))


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return nan
