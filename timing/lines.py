"""The grammar of one metric line, token by token: the reference for the vectorised reader of `timing.metrics`.

    step:125/2330 val_loss:4.1234 train_time:7551ms step_avg:60.41ms [key:value ...]
    s:250 tel:6.1710        s:251 trl:6.1592 lr:0.00021 norm:1.21
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from math import nan

_STEP_HEAD = re.compile(rb"step:(\d{1,18})/(\d{1,18})[ \t]+")
_LLMC_HEAD = re.compile(rb"s:(\d{1,18})[ \t]+")
_NUMBER = re.compile(rb"[+-]?(?:\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,3})?|nan|inf)")

# What a key of the log means: (kind of line it makes, column). None leaves the kind open.
_KEYS = {
    b"val_loss": ("val", "loss"),
    b"train_loss": ("train", "loss"),
    b"tel": ("val", "loss"),
    b"trl": ("train", "loss"),
    b"train_time": (None, "time_ms"),
    b"step_avg": (None, "step_avg_ms"),
}


@dataclass
class MetricLine:
    """The figures of one line: `kind` "val" or "train", nan where the line does not say, times in milliseconds."""

    kind: str
    step: int
    planned: int | None
    loss: float = nan
    time_ms: float = nan
    step_avg_ms: float = nan
    fault: str = ""  # what could not be read, though the rest of the line could
    doubtful_loss: bytes = b""  # a loss at the very end of a file without a last newline: it may be cut short


def parse_line(line: bytes, terminated: bool = True) -> MetricLine | None:
    """The metric line in `line` (without its newline), or None if it is none.

    `terminated` is False for a last line without newline: a number that nothing closes is then not taken as a value.
    A line that opens like a metric line and holds no readable figure comes back with kind "" and its `fault`.
    """
    head = _STEP_HEAD.match(line)
    dialect = "step" if head else "llmc"
    head = head or _LLMC_HEAD.match(line)
    if not head:
        return None
    metric = MetricLine("", int(head[1]), int(head[2]) if dialect == "step" else None)
    pairs = [token.partition(b":") for token in line[head.end() : 2000].split()]
    known = [pair for pair in pairs if pair[1] and pair[0] in _KEYS and (len(pair[0]) == 3) == (dialect == "llmc")]
    if not known:
        return None
    seen = set()
    for key, _, value in known:
        kind, column = _KEYS[key]
        if (column, kind) in seen:
            metric.fault = f"{key.decode()} stands twice"
            metric.kind = ""
            return metric
        seen.add((column, kind))
        closed = terminated or not line.endswith(value)
        number = _loss(value) if column == "loss" else _milliseconds(value)
        if number is None:
            metric.fault = metric.fault or f"the value of {key.decode()} cannot be read"
        elif column == "loss" and not closed:
            metric.kind, metric.doubtful_loss = kind, value
        else:
            setattr(metric, column, number)
            metric.kind = kind or metric.kind or "train"
    if {("loss", "val"), ("loss", "train")} <= seen:
        metric.kind, metric.fault = "", "it has a val_loss and a train_loss"
    elif ("loss", "val") in seen and metric.loss != metric.loss and metric.fault:
        metric.kind = ""
    return metric


def _loss(value: bytes) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


def _milliseconds(value: bytes) -> float | None:
    """Milliseconds of `7551ms` or `7.551s`, correctly rounded; None if it is neither."""
    in_ms = value.endswith(b"ms")
    digits = value[:-2] if in_ms else value[:-1]
    if not (in_ms or value.endswith(b"s")) or not _NUMBER.fullmatch(digits):
        return None
    return float(digits) if in_ms else float(Decimal(digits.decode()).scaleb(3))
