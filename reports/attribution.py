"""Figure 2, where each gain came from: time = steps x milliseconds per step, so every gain splits exactly in logs."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.axes import minutes_text, set_ticks
from reports.progress import SOURCE
from reports.style import Size, Theme, headline, new_figure

FACTORS = (0.5, 1, 2, 3, 5, 10, 20, 40)


def draw(gains: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """Above the whole factor as it grew, stacked from its two parts; below what each record added.

    `gains` (in order, one row a record after the first): number, covers (the records that the row stands for, where one
    alone cannot be split), steps_log and speed_log (natural logs of the factor won by fewer and by faster steps,
    negative where it lost), clock_log (a re-timing: the clock changed, not the model), minutes_before, minutes.
    """
    figure = new_figure(size, size.height * 1.25 if size.is_column else None)
    left, width = (0.14, 0.83) if size.is_column else (0.07, 0.765)
    top = figure.add_axes((left, 0.46, width, 0.355) if size.is_column else (left, 0.455, width, 0.36))
    bottom = figure.add_axes((left, 0.18, width, 0.215) if size.is_column else (left, 0.185, width, 0.21))
    _cumulative(top, gains, theme, size)
    _each(bottom, gains, theme, size)
    title, subtitle, source = words(gains, size)
    headline(figure, size, theme, title, subtitle, source)
    return figure


def words(gains: pd.DataFrame, size: Size) -> tuple[str, str, str]:
    """Title, subtitle and source line, with the factors of this very frame."""
    steps, speed, clock = (math.exp(gains[name].sum()) for name in ("steps_log", "speed_log", "clock_log"))
    first, last = minutes_text(gains.minutes_before.iloc[0]), minutes_text(gains.minutes.iloc[-1])
    total = gains.minutes_before.iloc[0] / gains.minutes.iloc[-1]
    retimed = "" if clock == 1 else f" × {clock:.3f} re-timed"
    if size.is_column:
        title = f"{total:.1f}× faster = {steps:.1f}× fewer steps\n× {speed:.2f}× faster steps{retimed}"
        subtitle = f"Time = steps × time per step, {first} to {last}"
        source = (
            "Dashed, left bars: fewer steps. 21, 39: a smaller batch means more\n"
            "but faster steps. Source: modded-nanogpt leaderboard, 2026-08-01."
        )
        return title, subtitle, source
    title = f"{total:.1f}× = {steps:.1f}× fewer steps × {speed:.2f}× faster steps{retimed}"
    subtitle = (
        "Training time is the number of steps times the time of one step, so each gain splits exactly in two: "
        "learning more from each step (better ideas), or computing it faster (better engineering). "
        f"From {first} to {last}."
    )
    merged = ", ".join(covers for covers in gains.covers if "–" in covers)
    source = (
        "21 and 39 made the batch smaller: more steps, each of them faster. "
        f"Split together, for want of a log between them: {merged}. "
        f"Hollow: record 21 timed again (21b, 21c), which changed the clock and no model: × {clock:.3f}.\n{SOURCE}"
    )
    return title, subtitle, source


def _positions(gains: pd.DataFrame) -> np.ndarray:
    return np.arange(1, len(gains) + 1)


def _cumulative(axes, gains: pd.DataFrame, theme: Theme, size: Size) -> None:
    """Three lines on a logarithmic axis: the whole factor as it grew, and the two parts whose product it is."""
    lines = (
        ("in all", gains.steps_log + gains.speed_log + gains.clock_log, theme.ink, "-", 1.3),
        ("fewer steps", gains.steps_log, theme.second, (0, (3, 1)), 1.1),
        ("faster steps", gains.speed_log, theme.accent, "-", 0.8),
    )
    end = len(gains) + 0.5
    axes.set_yscale("log")
    for name, logs, colour, dashes, weight in lines:
        factor = np.exp(np.concatenate([[0], logs.cumsum()]))
        x = np.append(_positions(gains) - 0.5, end)
        axes.step(x, factor, where="post", color=colour, ls=dashes, lw=size.line * weight, zorder=3)
        if size.is_column:  # no room at the right: above the highest line, below the others
            place = {"x": end, "y": factor[-1] * (1.5 if name == "in all" else 0.58), "ha": "right"}
        else:
            place = {"x": end + len(gains) * 0.008, "y": factor[-1], "ha": "left"}
        axes.text(s=f"{factor[-1]:.3g}× {name}", fontweight="bold", color=colour, va="center", **place)
    axes.axhline(1, color=theme.muted, lw=size.line * 0.35, zorder=1)
    axes.set_xlim(0.5, end)
    axes.set_ylim(0.45, 80 if size.is_column else 52)
    set_ticks(axes.yaxis, FACTORS, [f"{factor:g}×" for factor in FACTORS])
    axes.xaxis.set_visible(False)
    axes.grid(axis="y")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _each(axes, gains: pd.DataFrame, theme: Theme, size: Size) -> None:
    """Two bars a record, upwards for a gain, on an axis that is linear to 2 % and logarithmic beyond."""
    x = _positions(gains)
    sides = (("steps_log", -0.21, theme.second, "////"), ("speed_log", 0.21, theme.accent, None))
    for name, shift, colour, hatch in sides:
        axes.bar(
            x + shift, 100 * gains[name], width=0.42, fc=colour, hatch=None if size.is_column else hatch, lw=0, zorder=2
        )
    axes.bar(x, 100 * gains.clock_log, width=0.7, fc=theme.paper, ec=theme.muted, lw=size.line * 0.4, zorder=2)
    axes.axhline(0, color=theme.muted, lw=size.line * 0.35, zorder=3)
    axes.set_xlim(0.5, len(gains) + 0.5)
    axes.set_yscale("symlog", linthresh=2, linscale=0.7)
    axes.set_ylim(-60, 100)
    ticks = (-50, -10, -2, 0, 2, 10, 50)
    set_ticks(axes.yaxis, ticks, [f"{tick:+d} %".replace("-", "−") if tick else "0" for tick in ticks])
    axes.grid(axis="y")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    every = 10 if size.is_column else 5
    shown = [
        (i, number) for i, number in zip(x, gains.number, strict=True) if number.isdigit() and int(number) % every == 0
    ]
    set_ticks(axes.xaxis, [i for i, _ in shown], [number for _, number in shown])
    axes.set_xlabel("record number", labelpad=size.text * 0.3)
    axes.set_title(
        "What each record changed"
        if size.is_column
        else "What each record changed (100 × log of the factor, near to percent)",
        fontsize=size.text,
        color=theme.muted,
        loc="left",
        pad=size.text * 0.5,
    )
