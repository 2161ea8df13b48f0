"""Figure 4, one's own machine: replayed times as shares of the listed ones."""

import pandas as pd
from matplotlib.figure import Figure

from reports.axes import set_ticks
from reports.style import Size, Theme, headline, new_figure

FACTORS = (0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50)
MARKERS = {"": "o", "same-batch": "o", "stand-in": "s", "shortened": "D"}
MOST_NUMBERS = 50  # as many records as can be named below the axis of a slide


def draw(replays: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """One point a record, in order: its replayed time over the listed one. Below 1 it is faster than listed.

    `replays`: number, listed_minutes, minutes (replayed; projected where `how` says so), n, fidelity, machine, how
    ("measured", or in words how the time was projected). A point's mark tells its fidelity, as the key says; only an
    official one is filled.
    """
    figure = new_figure(size, size.width if size.is_column else None)
    axes = figure.add_axes((0.14, 0.17, 0.83, 0.55) if size.is_column else (0.06, 0.165, 0.915, 0.61))
    factors = (replays.minutes / replays.listed_minutes).to_numpy()
    _scales(axes, replays, factors, size)
    axes.vlines(range(len(factors)), 1, factors, color=theme.muted, lw=size.line * 0.4, zorder=2)
    axes.axhline(1, color=theme.muted, lw=size.line * 0.5, zorder=2)
    for fidelity, rows in replays.reset_index(drop=True).groupby("fidelity", sort=True):
        axes.plot(
            rows.index,
            factors[rows.index],
            ls="none",
            marker=MARKERS[fidelity],
            ms=size.marker * 1.2,
            mfc=theme.paper if fidelity else theme.accent,
            mec=theme.accent,
            mew=size.line * 0.5,
            zorder=4,
            label=fidelity or "official",
        )
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderaxespad=0, handletextpad=0.2)
    headline(figure, size, theme, *_words(replays, size))
    return figure


def _scales(axes, replays: pd.DataFrame, factors, size: Size) -> None:
    low, high = min(0.8, factors.min() / 1.15), max(1.25, factors.max() * 1.15)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = [factor for factor in FACTORS if low <= factor <= high]
    set_ticks(axes.yaxis, ticks, [f"{factor:g}×" for factor in ticks])
    every = 1 if len(replays) <= MOST_NUMBERS // (3 if size.is_column else 1) else 5
    axes.set_xticks(range(0, len(replays), every), replays.number.iloc[::every], fontsize=size.small)
    axes.set_xlim(-0.7, len(replays) - 0.3)
    axes.grid(axis="y")
    axes.set_xlabel("record")


def _words(replays: pd.DataFrame, size: Size) -> tuple[str, str, str]:
    machines = " and ".join(sorted(set(replays.machine)))
    hows = "; ".join(sorted({how for how in replays.how if how != "measured"}))
    several = ", ".join(f"{row.number} ({row.n})" for row in replays.itertuples() if row.n > 1)
    title = "Replayed here, over\nthe listed time" if size.is_column else "Replayed times over the listed ones"
    subtitle = f"On {machines}. Below the line: faster than listed."
    if not size.is_column:
        subtitle = f"One point a record, on {machines}. On the line it is as fast as listed, below it faster."
    notes = ["Hollow: not an official time."]
    if not size.is_column:
        notes += [f"Projected onto 8 GPUs: {hows}."] if hows else []
        notes += [f"Means of several runs: {several}."] if several else []
    return title, subtitle, " ".join(notes)
