"""Axes that speak plainly: minutes, seconds, counts and dates as a person would write them."""

import math

import pandas as pd
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

MINUTES = (60, 45, 30, 20, 10, 5, 3, 2, 1, 0.5)


def minutes_text(minutes: float) -> str:
    """`45 minutes`, `74 seconds`: what one says aloud; under two minutes in whole seconds."""
    if minutes < 2:
        return f"{minutes * 60:.0f} seconds"
    return f"{minutes:.3g} minutes"


def count_text(count: float) -> str:
    """`19,560`, `2.3B`: thousands with commas, millions and billions in words."""
    for size, word in ((1e9, "B"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g}{word}"
    return f"{count:,.0f}"


def set_ticks(axis, positions, labels) -> None:
    """Fixed major ticks with their texts, no minor ones."""
    axis.set_major_locator(FixedLocator(list(positions)))
    axis.set_major_formatter(FixedFormatter(list(labels)))
    axis.set_minor_locator(NullLocator())


def minute_ticks(axis, low: float, high: float, extra: float | None = None, unit: str = " min") -> None:
    """Human ticks of a logarithmic axis of minutes; `extra` (today's record) replaces the ticks it would touch."""
    ticks = [tick for tick in MINUTES if low <= tick <= high]
    if extra:
        ticks = [tick for tick in ticks if abs(math.log(tick / extra)) > 0.25] + [extra]
    set_ticks(axis, ticks, [f"{tick:.2g}{unit}" for tick in ticks])


def date_ticks(axis, first: pd.Timestamp, last: pd.Timestamp, months: int = 6) -> None:
    """A tick every `months` months at month starts, written `Jul 2024`."""
    days = [day for day in pd.date_range(first, last, freq="MS") if (day.month - 1) % months == 0]
    set_ticks(axis, [date_number(day) for day in days], [f"{day:%b %Y}" for day in days])


def log_ticks(axis, low: float, high: float, steps=(1, 2, 5)) -> None:
    """Ticks at 1, 2, 5 times powers of ten between `low` and `high`, written out."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    set_ticks(axis, ticks, [count_text(tick) if tick >= 1 else f"{tick:g}" for tick in ticks])


def date_number(day) -> float:
    """A date as matplotlib's axis counts it: days since 1970."""
    return (
        pd.Timestamp(day).value / 86_400e9 if pd.Timestamp(day).unit == "ns" else pd.Timestamp(day).timestamp() / 86_400
    )
