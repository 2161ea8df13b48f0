"""Figure 1, the curve that people put in their talks: the record time against the date."""

from itertools import pairwise

import pandas as pd
from matplotlib.figure import Figure

from reports.axes import date_number, date_ticks, minute_ticks, minutes_text
from reports.labels import Box, Placement, place
from reports.style import Size, Theme, headline, measure, new_figure

SOURCE = (
    "Source: public leaderboard and logs of the NanoGPT speedrun (KellerJordan/modded-nanogpt), "
    "track 1, state of 2026-08-01."
)


def draw(history: pd.DataFrame, eras: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """Time to the target against date, one dot a record, on a logarithmic axis.

    `history` (in order of number): number, date, minutes, retiming (bool), landmark ("" where it has no short name).
    `eras`: start (date), name, rule (in plain words), in order.
    """
    history = history.assign(x=[date_number(day) for day in history.date])
    figure = new_figure(size)
    axes = _axes(figure, history, theme, size)
    where = {"x": 0.996, "y": 1.0, "transform": axes.transAxes, "va": "top", "ha": "right"}
    scale = axes.text(s="log scale", color=theme.muted, fontsize=size.small, **where)
    words = [scale, *_eras(axes, eras, theme, size)]
    _line(axes, history, theme, size)
    _dots(axes, history, theme, size)
    headline(figure, size, theme, title(history, size), _subtitle(history, size), _source(size))
    name_landmarks(figure, axes, history, words, theme, size)
    return figure


def title(history: pd.DataFrame, size: Size) -> str:
    """The claim, from the first and the last row."""
    first, last = minutes_text(history.iloc[0].minutes), minutes_text(history.iloc[-1].minutes)
    return f"Training a small GPT:{chr(10) if size.is_column else ' '}from {first} to {last}"


def _subtitle(history: pd.DataFrame, size: Size) -> str:
    first, last = history.iloc[0], history.iloc[-1]
    months = (last.date.year - first.date.year) * 12 + last.date.month - first.date.month
    records, factor = int((~history.retiming).sum()), first.minutes / last.minutes
    if size.is_column:
        return f"Minutes on 8 H100 GPUs to a validation loss of 3.28:\n{factor:.1f}× faster in {months} months"
    return (
        "Minutes on 8 H100 GPUs until a GPT-2-sized model predicts unseen web text with a loss of 3.28. "
        f"Each dot is a public record: {records} of them in {months} months made the same result {factor:.1f}× faster. "
        "The names say what was new."
    )


def _source(size: Size) -> str:
    if size.is_column:
        return (
            "Target: 3.28 cross-entropy, FineWeb. Hollow: re-timing.\nSource: modded-nanogpt leaderboard, 2026-08-01."
        )
    return (
        "Target: mean cross-entropy of at most 3.28 on 10,485,760 FineWeb tokens. Hollow: an old record timed again.\n"
        + SOURCE
    )


def _axes(figure: Figure, history: pd.DataFrame, theme: Theme, size: Size):
    """The empty frame: dates below, minutes at the left, nothing else."""
    box = (0.135, 0.165, 0.825, 0.58) if size.is_column else (0.078, 0.135, 0.9, 0.675)
    axes = figure.add_axes(box)
    axes.set_yscale("log")
    low, high = history.minutes.min() * (0.72 if size.is_column else 0.66), history.minutes.max() * 1.22
    axes.set_ylim(low, high)
    first, last = history.date.iloc[0], history.date.iloc[-1]
    axes.set_xlim(date_number(first) - 14, date_number(last) + (last - first).days * 0.025)
    minute_ticks(axes.yaxis, low, high, history.minutes.iloc[-1])
    date_ticks(axes.xaxis, first, last)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(pad=size.text * 0.4)
    return axes


def _eras(axes, eras: pd.DataFrame, theme: Theme, size: Size) -> list:
    """A shaded band for each edition of the rules, its name and rule in plain words below; returns the texts."""
    left, right = axes.get_xlim()
    starts = [date_number(day) for day in eras.start]
    texts = []
    for index, (start, end) in enumerate(zip([left, *starts[1:]], [*starts[1:], right], strict=True)):
        axes.axvspan(start, end, color=theme.bands[index % 2], lw=0, zorder=0)
        narrow = (end - start) < (right - left) * 0.1  # then its words stand at its left, above the others
        if narrow and size.is_column:
            continue
        era = eras.iloc[index]
        step = (right - left) * 0.008
        texts.append(
            axes.text(
                start + (-step if narrow else step),
                0.135 if narrow else 0.025,
                era["name"] if size.is_column else f"{era['name']}\n{era.rule}",
                transform=axes.get_xaxis_transform(),
                fontsize=size.small,
                color=theme.muted,
                ha="right" if narrow else "left",
                va="bottom",
                linespacing=1.35,
            )
        )
    return texts


def _line(axes, history: pd.DataFrame, theme: Theme, size: Size) -> None:
    """The standing record as a step line; it rises only where an old record was timed again."""
    right = axes.get_xlim()[1]
    x, y = [*history.x, right], [*history.minutes, history.minutes.iloc[-1]]
    axes.step(x, y, where="post", color=theme.accent, lw=size.line, zorder=3, solid_joinstyle="miter")


def _dots(axes, history: pd.DataFrame, theme: Theme, size: Size) -> None:
    """One mark a row, each with the id `record-<number>`: filled discs, hollow ones for re-timings."""
    for row in history.itertuples():
        (dot,) = axes.plot(
            [row.x],
            [row.minutes],
            ls="none",
            marker="o",
            ms=size.marker * (1.15 if row.landmark else 0.8),
            mfc=theme.paper if row.retiming else theme.accent,
            mec=theme.accent if row.retiming else theme.paper,
            mew=size.line * (0.6 if row.retiming else 0.3),
            zorder=5 if row.landmark else 4,
        )
        dot.set_gid(f"record-{row.number}")
        dot.set_url(f"#record-{row.number}")


def name_landmarks(figure: Figure, axes, history, words: list, theme: Theme, size: Size) -> list[tuple[str, Box]]:
    """Write the landmarks' names where they collide with nothing, the `words` already there included.

    Returns the names that found a place, with their measured boxes in pixels.
    The first and the last record come first, then the greatest gains over the record before.
    """
    gains = (history.minutes.shift() / history.minutes).fillna(99.0)
    gains.iloc[-1] = 98.0
    named = history.assign(gain=gains)[(history.landmark != "") & ~history.retiming]
    named = named.sort_values("gain", ascending=False, kind="stable").head(14 if size.is_column else 28)
    texts = [axes.text(0, 0, **_label(row, history, size)) for row in named.itertuples()]
    extents = [measure(figure, text) for text in texts]
    anchors = [tuple(axes.transData.transform((row.x, row.minutes))) for row in named.itertuples()]
    frame = measure(figure, axes)
    unit = size.text * figure.dpi / 72 * 0.55
    bounds = Box(frame.x0 + unit, frame.y0, frame.x1 + unit, frame.y1 - unit * 0.2)
    taken = _taken(axes, history, unit) + [Box(*measure(figure, word).extents) for word in words]
    sizes = [(extent.width, extent.height) for extent in extents]
    places = place(anchors, sizes, taken, bounds, unit=unit, reach=frame.height * 0.6)
    return [box for pair in zip(texts, places, strict=True) if (box := _write(axes, *pair, theme, size))]


def _label(row, history: pd.DataFrame, size: Size) -> dict:
    """Text and type of one name; the two ends carry their times."""
    ends = {history.number.iloc[0], history.number.iloc[-1]}
    words = f"{row.landmark}: {minutes_text(row.minutes)}" if row.number in ends else row.landmark
    small = size.small if size.is_column else size.text * 0.95
    return {"s": words, "fontsize": small, "fontweight": "bold" if row.number in ends else "normal", "va": "bottom"}


def _taken(axes, history: pd.DataFrame, unit: float) -> list[Box]:
    """Boxes of all dots and of the step line's stretches, in pixels."""
    points = [tuple(point) for point in axes.transData.transform(history[["x", "minutes"]].to_numpy())]
    boxes = [Box(x, y, x, y).grown(unit * 0.45) for x, y in points]
    for (x0, y0), (x1, y1) in pairwise(points):
        boxes.append(Box(x0, y0, x1, y0).grown(1))
        boxes.append(Box(x1, min(y0, y1), x1, max(y0, y1)).grown(1))
    return boxes


def _write(axes, text, placement: Placement | None, theme: Theme, size: Size) -> tuple[str, Box] | None:
    """Move a measured text to its place and draw its leader; a text without a place is taken off again."""
    if placement is None:
        text.remove()
        return None
    to_data = axes.transData.inverted().transform
    text.set_position(to_data((placement.box.x0, placement.box.y0)))
    (x0, y0), (x1, y1) = to_data(placement.start), to_data(placement.end)
    axes.plot([x0, x1], [y0, y1], color=theme.muted, lw=size.line * 0.3, zorder=2, solid_capstyle="round")
    return text.get_text(), placement.box
