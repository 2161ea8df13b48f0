"""Figure 3, how the loss falls: against steps, against tokens, against seconds."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from reports.axes import log_ticks
from reports.labels import BELOW, DIRECTIONS, Box, place
from reports.style import Size, Theme, headline, measure, new_figure, series_styles

TARGET = 3.28
PANELS = (("step", "training steps"), ("tokens", "training tokens"), ("seconds", "seconds of training"))


def draw(curves: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """Validation loss of any set of records and runs, on three logarithmic axes that share the loss.

    `curves`, one row a validation: series (its key), name, mark (short, written at the end of the line), fidelity (""
    if official), step, tokens, seconds (nan where unknown), val_loss. A series without tokens or seconds is missing
    from that panel, and the panel says so.
    """
    series = list(dict.fromkeys(curves.series))
    styles = dict(zip(series, series_styles(theme, size, len(series)), strict=True))
    figure = new_figure(size, size.height * 2.1 if size.is_column else None)
    low, high = _loss_range(curves)
    floor = _floor(figure, len(series), size)
    for index, (column, label) in enumerate(PANELS):
        if size.is_column:
            step = (0.885 - floor) / 2.7
            box = (0.13, floor + step * (2 - index), 0.84, step * 0.7)
        else:
            box = (0.06 + 0.315 * index, floor, 0.285, 0.805 - floor)
        axes = figure.add_axes(box)
        axes.set_ylim(low, high)
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        _panel(figure, axes, curves, column, label, styles, theme, size)
    _legend(figure, curves, styles, theme, size)
    headline(figure, size, theme, *_words(list(dict.fromkeys(curves.mark)), size))
    return figure


def _columns(size: Size) -> int:
    return 2 if size.is_column else 3


def _floor(figure: Figure, count: int, size: Size) -> float:
    """How high the lowest axes begin, as a share of the figure: above source line, legend rows and axis labels."""
    rows = -(-count // _columns(size))
    points = size.small * (1.5 * rows + 4) + size.text * 3.4
    return points / (figure.get_size_inches()[1] * 72)


def _entry(name: str, fidelity: str, size: Size) -> str:
    """A name of the legend, cut to its column; its fidelity is never cut."""
    tail = f" ({fidelity})" if fidelity else ""
    most = (30 if size.is_column else 46) - len(tail)
    return (name if len(name) <= most else name[: most - 1].rstrip() + "…") + tail


def _words(records: list[str], size: Size) -> tuple[str, str, str]:
    """Title, subtitle and source. The title claims no order: a record may take more steps than the one before."""
    alone = f"How record {records[0]} learns" if len(records) == 1 else ""
    if size.is_column:
        return (
            alone or "How the loss falls,\nrecord by record",
            "Validation loss; dotted: the target, 3.28",
            "Logarithmic below. Source: linked public logs.",
        )
    return (
        alone or "How the loss falls, record by record",
        "Validation loss down to the target of 3.28 (dotted), counted in steps, in text, and in time. The horizontal "
        "axes are logarithmic: the same distance is the same factor.",
        "Published curves: the logs that the leaderboard links. A replay that is not official carries its fidelity.",
    )


def _loss_range(curves: pd.DataFrame) -> tuple[float, float]:
    """From just under the lowest loss to where the slowest has left its first fall behind, or the highest ends."""
    best = curves.groupby("series").val_loss.min()
    low = min(TARGET, best.min())
    ends = curves.groupby("series").val_loss.last()
    high = min(curves.val_loss.max(), max(best.max() + 0.6, low + 1.5, ends.max() + 0.15))
    return low - 0.2 * (high - low), high


def _panel(figure, axes, curves: pd.DataFrame, column: str, label: str, styles: dict, theme: Theme, size: Size) -> None:
    """One set of lines against `column`; the end of each carries its mark, and its fidelity if it is not official."""
    known = curves[curves[column] > 0]
    axes.set_xscale("log")
    axes.axhline(TARGET, color=theme.target, ls=":", lw=size.line * 0.7, zorder=2)
    missing = sorted(set(curves.series) - set(known.series))
    unknown = [curves[curves.series == key].mark.iloc[0] for key in missing]
    axes.set_xlabel(label + (f" (unknown for {', '.join(unknown)})" if unknown else ""), labelpad=size.text * 0.3)
    if known.empty:
        axes.xaxis.set_visible(False)
        return
    seen = known[known.val_loss <= axes.get_ylim()[1]]
    seen = known if seen.empty else seen
    axes.set_xlim(seen[column].min() / 1.3, seen[column].max() * 1.6)
    log_ticks(axes.xaxis, *axes.get_xlim(), steps=(1, 3) if seen[column].max() < 50 * seen[column].min() else (1,))
    ends = []
    for key, rows in known.groupby("series", sort=False):
        axes.plot(rows[column], rows.val_loss, zorder=3, **styles[key])
        fidelity = rows.fidelity.iloc[0]
        ends.append((rows[column].iloc[-1], rows.val_loss.iloc[-1], f"{rows.mark.iloc[0]} {fidelity}".strip()))
    _mark_ends(figure, axes, ends, theme, size)


def _mark_ends(figure, axes, ends: list[tuple[float, float, str]], theme: Theme, size: Size) -> None:
    """Short names at the ends of the lines, none over another."""
    texts = [axes.text(0, 0, name, fontsize=size.small, fontweight="bold", va="bottom", zorder=6) for *_, name in ends]
    extents = [measure(figure, text) for text in texts]
    anchors = [tuple(axes.transData.transform((x, y))) for x, y, _ in ends]
    frame = measure(figure, axes)
    unit = size.text * figure.dpi / 72 * 0.3
    bounds = Box(*frame.extents).grown(unit)
    taken = [Box(x, y, x, y).grown(1) for x, y in anchors]
    spots = place(
        anchors,
        [(e.width, e.height) for e in extents],
        taken,
        bounds,
        unit=unit,
        reach=frame.height * 0.5,
        directions=BELOW + DIRECTIONS,
    )
    for text, spot in zip(texts, spots, strict=True):
        if spot is None:
            text.remove()
            continue
        (x, y), (x0, y0), (x1, y1) = axes.transData.inverted().transform(
            [(spot.box.x0, spot.box.y0), spot.start, spot.end]
        )
        text.set_position((x, y))
        text.set_path_effects([withStroke(linewidth=size.line, foreground=theme.paper)])
        axes.plot([x0, x1], [y0, y1], color=text.get_color(), lw=size.line * 0.25, zorder=5)


def _legend(figure, curves: pd.DataFrame, styles: dict, theme: Theme, size: Size) -> None:
    """One row of line samples with full names, fidelity included."""
    from matplotlib.lines import Line2D

    first = curves.drop_duplicates("series")
    names = [_entry(name, fidelity, size) for name, fidelity in zip(first["name"], first.fidelity, strict=True)]
    lines = [Line2D([], [], **styles[key]) for key in first.series]
    figure.legend(
        lines,
        names,
        loc="lower left",
        bbox_to_anchor=(0.01, 0.024 if size.is_column else 0.05),
        ncols=_columns(size),
        frameon=False,
        fontsize=size.small,
        handlelength=3,
        columnspacing=1.2,
    )
