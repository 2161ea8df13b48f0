"""One run from inside: its loss, and below it what its telemetry lines say, over the same steps."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.axes import set_ticks
from reports.style import Size, Theme, headline, new_figure, series_styles

PANELS = ("loss", "norms", "activations", "FP8", "Muon")
"""In the order in which they are drawn; one without a figure is left out."""
LOGARITHMIC = {"norms", "activations"}


def draw(telemetry: pd.DataFrame, marks: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """A panel for each kind of figure.

    `telemetry`: panel (one of PANELS), series (its name), step, value. `marks`: step, text (a fallback, a breach),
    drawn through all panels. The run's name is `telemetry.attrs["run"]`.
    """
    panels = [panel for panel in PANELS if (telemetry.panel == panel).any()]
    figure = new_figure(size, size.height * (0.45 + 0.2 * len(panels)))
    left, low, high = (0.17, 0.11, 0.82) if size.is_column else (0.08, 0.1, 0.86)
    height = (high - low) / len(panels)
    shared = None
    for row, panel in enumerate(panels):
        place = (left, high - (row + 1) * height + 0.012, 0.97 - left, height - 0.024)
        axes = figure.add_axes(place, sharex=shared)
        shared = shared or axes
        _panel(axes, panel, telemetry[telemetry.panel == panel], theme, size)
        for mark in marks.itertuples():
            axes.axvline(mark.step, color=theme.target, lw=size.line * 0.5, zorder=1)
            if row == 0:
                axes.text(mark.step, 1.0, f" {mark.text}", transform=axes.get_xaxis_transform(), fontsize=size.small,
                          color=theme.target, va="top")  # fmt: skip
        axes.tick_params(labelbottom=row == len(panels) - 1)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    headline(figure, size, theme, "A run from inside", telemetry.attrs.get("run", ""), "")
    return figure


def _panel(axes, panel: str, figures: pd.DataFrame, theme: Theme, size: Size) -> None:
    names = list(dict.fromkeys(figures.series))
    for name, style in zip(names, series_styles(theme, size, len(names))):
        mine = figures[figures.series == name]
        axes.plot(mine.step, mine.value, label=name, zorder=2, **style)
    positive = figures.value[np.isfinite(figures.value) & (figures.value > 0)]
    if panel in LOGARITHMIC and len(positive):
        axes.set_yscale("log", nonpositive="mask")
        _powers(axes.yaxis, positive.min(), positive.max())
    axes.set_ylabel(panel)
    axes.grid()
    if len(names) > 1 or names != [panel]:
        columns = 1 if len(names) < 5 else 3
        axes.legend(fontsize=size.small, frameon=False, ncols=columns, loc="best", labelcolor=theme.ink)


def _powers(axis, low: float, high: float) -> None:
    """Ticks at powers of ten, five at most."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1, max(1, math.ceil((last - first) / 4)))
    set_ticks(axis, [10.0**power for power in powers], [f"{10.0**power:g}" for power in powers])
