"""Figure 5, did they really get there: every run's final loss against the target of 3.28."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from reports.axes import set_ticks
from reports.progress import SOURCE
from reports.style import Size, Theme, headline, new_figure

TARGET = 3.28


def draw(losses: pd.DataFrame, summary: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """Each record's runs as points with their mean and interval; hollow means where the target is not shown.

    `losses`: series, val_loss, one row a run of one arm (one source, one number of steps). `summary`, one row a series
    in order: series, number, fidelity ("" if official), n, mean, low, high (ends of the interval, nan for one run), p
    (nan for one run), shown (p < 0.01).
    """
    figure = new_figure(size)
    axes = figure.add_axes((0.155, 0.2, 0.815, 0.53) if size.is_column else (0.07, 0.185, 0.91, 0.59))
    places = {key: index for index, key in enumerate(summary.series)}
    # Intervals of two or three runs reach far out of the picture; the points decide what is shown.
    axes.set_ylim(min(losses.val_loss.min(), TARGET) - 0.0025, max(losses.val_loss.max(), TARGET) + 0.0008)
    axes.set_xlim(-1, len(summary))
    axes.axhspan(axes.get_ylim()[0], TARGET, color=theme.bands[0], lw=0, zorder=0)
    axes.axhline(TARGET, color=theme.target, lw=size.line * 0.6, zorder=2)
    x = losses.series.map(places)
    axes.scatter(x, losses.val_loss, s=(size.marker * 0.42) ** 2, fc=theme.muted, ec="none", alpha=0.65, zorder=3)
    for index, row in enumerate(summary.itertuples()):
        _one(axes, index, row, theme, size)
    numbers = [(i, row.number) for i, row in enumerate(summary.itertuples()) if _is_tick(row.number, size)]
    set_ticks(axes.xaxis, [i for i, _ in numbers], [number for _, number in numbers])
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_major_locator(MultipleLocator(0.005))
    axes.yaxis.set_major_formatter("{x:.3f}")
    axes.set_xlabel("record number", labelpad=size.text * 0.2)
    headline(figure, size, theme, *_words(summary, size))
    return figure


def _is_tick(number: str, size: Size) -> bool:
    return number.isdigit() and int(number) % (10 if size.is_column else 5) == 0


def _one(axes, index: int, row, theme: Theme, size: Size) -> None:
    """One record's interval and mean, and its fidelity upright below where it is not official."""
    if row.n > 1:
        axes.plot([index, index], [row.low, row.high], color=theme.accent, lw=size.line * 0.7, zorder=4, clip_on=True)
    axes.plot(
        index,
        row.mean,
        ls="none",
        marker="o",
        ms=size.marker * 0.72,
        mfc=theme.accent if row.shown else theme.paper,
        mec=theme.accent,
        mew=size.line * 0.4,
        zorder=5,
    )
    if row.fidelity:
        axes.text(
            index,
            0.015,
            row.fidelity,
            transform=axes.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=size.small * 0.9,
            zorder=6,
        )


def _words(summary: pd.DataFrame, size: Size) -> tuple[str, str, str]:
    shown, single = int(summary.shown.sum()), int((summary.n == 1).sum())
    if size.is_column:
        return (
            "Which records have shown\nthat they reach the target?",
            f"Final validation loss; {shown} of {len(summary)} reach 3.28 with p\u00a0<\u00a00.01",
            "Small dots: runs. Filled: p < 0.01; bar: 98 % interval.\nSource: modded-nanogpt logs, 2026-08-01.",
        )
    return (
        "Which records have shown that they reach the target?",
        "Final validation loss of every run; below 3.28 is in. Bars: 98 % interval of the mean; a bar that ends below "
        f"the line means p\u00a0<\u00a00.01 (filled: {shown} of {len(summary)}). "
        f"Hollow: not shown by these runs, {single} of them a single log.",
        "Only runs of the linked log's own source and step count. Systems-only records need no proof, and the first "
        f"predate the rule.\n{SOURCE}",
    )
