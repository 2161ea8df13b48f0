"""The grammar of one metric line: the reference for the vectorised reader of `timing.metrics`.

step:125/2330 val_loss:4.1234 train_time:7551ms step_avg:60.41ms [key:value ...]
s:250 tel:6.1710        s:251 trl:6.1592 lr:0.00021 norm:1.21
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite, nan

_HEAD = re.compile(rb"(?:step:(\d{1,18})/(\d{1,18})|s:(\d{1,18}))[ \t]+")
_NUMBER = re.compile(rb"[+-]?(?:\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,3})?|nan|inf)")
_LONGEST = 2000  # bytes of a line that are looked at

_VALIDATION, _TRAINING = (b"val_loss", b"tel"), (b"train_loss", b"trl")
_STEP_KEYS = {b"val_loss", b"train_loss", b"train_time", b"step_avg"}
_LLMC_KEYS = {b"tel", b"trl"}


@dataclass
class MetricLine:
    """The figures of one line: `kind` "val" or "train", nan where the line does not say, times in milliseconds."""

    kind: str
    step: int
    planned: int | None
    loss: float = nan
    time_ms: float = nan
    step_avg_ms: float = nan
    fault: str = ""  # what could not be read; `kind` is "" if that leaves nothing to rely on
    unclosed: bytes = b""  # a loss at the very end of a file without a last newline, not taken: it may be cut short
    finite: bool = True  # False for a loss of nan or inf


def parse_line(line: bytes, terminated: bool = True) -> MetricLine | None:
    """The metric line in `line` (without its newline), or None if it is none.

    `terminated` is False for a last line without newline: a number that nothing closes is then not taken as a value.
    A validation loss and a training loss on one line make a validation.
    """
    head = _HEAD.match(line)
    if not head:
        return None
    llmc = head[3] is not None
    metric = MetricLine("", int(head[3] if llmc else head[1]), None if llmc else int(head[2]))
    values, fault = _known_values(line[head.end() : _LONGEST], _LLMC_KEYS if llmc else _STEP_KEYS)
    if fault or not values:
        metric.fault = fault
        return metric if fault else None
    figures = {key: _loss(value) if key in _VALIDATION + _TRAINING else _milliseconds(value) for key, value in values}
    unread = [key.decode() for key, number in figures.items() if number is None]
    metric.fault = f"the value of {unread[0]} cannot be read" if unread else ""
    loss_key = next((key for key in _VALIDATION + _TRAINING if key in figures), None)
    if len(unread) == len(figures) or (loss_key and figures[loss_key] is None):
        return metric
    metric.kind = "val" if loss_key in _VALIDATION else "train"
    metric.time_ms, metric.step_avg_ms = (_or_nan(figures.get(key)) for key in (b"train_time", b"step_avg"))
    if loss_key and not terminated and line.endswith(loss_key + b":" + dict(values)[loss_key]):
        metric.unclosed = dict(values)[loss_key]
    elif loss_key:
        metric.loss, metric.finite = figures[loss_key], isfinite(figures[loss_key])
    return metric


def _known_values(text: bytes, keys: set[bytes]) -> tuple[list[tuple[bytes, bytes]], str]:
    """The key:value pairs of `text` whose key is known, and a fault if one stands twice, as in two glued lines."""
    values = []
    for token in text.split():
        key, colon, value = token.partition(b":")
        if colon and key in keys:
            if any(key == other for other, _ in values):
                return [], f"{key.decode()} stands twice in it"
            values.append((key, value))
    return values, ""


def _loss(value: bytes) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


def _milliseconds(value: bytes) -> float | None:
    """Milliseconds of `7551ms` or `7.551s`, correctly rounded; None if it is neither."""
    in_ms = value.endswith(b"ms")
    digits = value[:-2] if in_ms else value[:-1]
    if not (in_ms or value.endswith(b"s")) or not _NUMBER.fullmatch(digits):
        return None
    return float(digits) if in_ms else float(Decimal(digits.decode()).scaleb(3))


def _or_nan(number: float | None) -> float:
    return nan if number is None else number
