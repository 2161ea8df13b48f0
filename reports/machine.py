"""Figure 4, one's own machine: replayed times against the listed ones."""

import pandas as pd
from matplotlib.figure import Figure

from reports.axes import minute_ticks
from reports.labels import Box, place
from reports.style import Size, Theme, headline, measure, new_figure


def draw(replays: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """One point a record on two logarithmic axes with the identity line; below it is faster than listed.

    `replays`: number, listed_minutes, minutes (replayed; projected where `how` says so), n, fidelity, machine, how
    ("measured", or in words how the time was projected). Every point that is not official carries its fidelity.
    """
    figure = new_figure(size, size.width if size.is_column else None)
    axes = figure.add_axes((0.14, 0.15, 0.83, 0.64) if size.is_column else (0.06, 0.165, 0.915, 0.645))
    times = pd.concat([replays.listed_minutes, replays.minutes])
    low, high = times.min() / 1.6, times.max() * 1.6
    for axis, scale, limit in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        scale("log")
        limit(low, high)
        minute_ticks(axis, low, high, unit="")
    axes.grid()
    axes.plot([low, high], [low, high], color=theme.muted, lw=size.line * 0.5, zorder=2)
    axes.set_xlabel("listed time (minutes)")
    axes.set_ylabel("replayed time (minutes)")
    for row in replays.itertuples():
        official = not row.fidelity
        axes.plot(
            row.listed_minutes,
            row.minutes,
            ls="none",
            marker="o" if official else "D",
            ms=size.marker * 1.2,
            mfc=theme.accent if official else theme.paper,
            mec=theme.accent,
            mew=size.line * 0.5,
            zorder=4,
        )
    _names(figure, axes, replays, theme, size)
    headline(figure, size, theme, *_words(replays, size))
    return figure


def _words(replays: pd.DataFrame, size: Size) -> tuple[str, str, str]:
    machines = " and ".join(sorted(set(replays.machine)))
    hows = "; ".join(sorted({how for how in replays.how if how != "measured"}))
    title = "Replayed here against\nthe listed time" if size.is_column else "Replayed times against the listed ones"
    subtitle = f"On {machines}. On the line: as fast as listed."
    if not size.is_column:
        subtitle = f"One point a record, on {machines}. On the line it is as fast as listed, below it faster."
    return (
        title,
        subtitle,
        "Hollow: not an official time." + (f" Projected: {hows}." if hows and not size.is_column else ""),
    )


def _names(figure, axes, replays: pd.DataFrame, theme: Theme, size: Size) -> None:
    """Number, fidelity and factor beside each point, none over another."""
    texts = [
        axes.text(0, 0, _label(row, size), fontsize=size.small, va="bottom", linespacing=1.2, zorder=5)
        for row in replays.itertuples()
    ]
    extents = [measure(figure, text) for text in texts]
    anchors = [tuple(point) for point in axes.transData.transform(replays[["listed_minutes", "minutes"]].to_numpy())]
    unit = size.text * figure.dpi / 72 * 0.5
    frame = measure(figure, axes)
    bounds = Box(frame.x0 + unit, frame.y0, frame.x1, frame.y1)
    taken = [Box(x, y, x, y).grown(unit * 0.7) for x, y in anchors]
    spots = place(anchors, [(e.width, e.height) for e in extents], taken, bounds, unit=unit, reach=frame.height)
    for row, text, spot in zip(replays.itertuples(), texts, spots, strict=True):
        if spot is None:  # never leave a point without its fidelity, even where it gets tight
            text.set_position((row.listed_minutes, row.minutes))
            continue
        (x, y), (x0, y0), (x1, y1) = axes.transData.inverted().transform(
            [(spot.box.x0, spot.box.y0), spot.start, spot.end]
        )
        text.set_position((x, y))
        axes.plot([x0, x1], [y0, y1], color=theme.muted, lw=size.line * 0.3, zorder=3)


def _label(row, size: Size) -> str:
    factor = row.minutes / row.listed_minutes
    runs = f", n = {row.n}" if row.n > 1 else ""
    words = [f"{row.number}: {factor:.2f} × listed{runs}", row.fidelity, "" if row.how == "measured" else "projected"]
    return ("\n" if size.is_column else ", ").join(word for word in words if word)
