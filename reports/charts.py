"""The figures under their names, and how each becomes bytes."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from reports import attribution, curves, ladder, machine, progress, significance, telemetry
from reports.style import COLUMN, DARK, LIGHT, SLIDE, Size, Theme, drawing, to_bytes

__all__ = ["CHARTS", "COLUMN", "DARK", "LIGHT", "OF_RUNS", "SLIDE", "Chart", "file_name", "render"]


@dataclass(frozen=True)
class Chart:
    """A figure: what draws it (frames, theme, size -> figure), the frames that it asks for, what it shows in words."""

    name: str
    draw: Callable
    frames: tuple[str, ...]
    says: str


CHARTS = {
    chart.name: chart
    for chart in (
        Chart("progress", progress.draw, ("history", "eras"), "Record time against date, 2024 to today"),
        Chart(
            "attribution", attribution.draw, ("gains",), "How much came from fewer steps and how much from faster ones"
        ),
        Chart("curves", curves.draw, ("curves",), "Validation loss against steps, tokens and seconds"),
        Chart("machine", machine.draw, ("replays",), "Replayed times over the listed ones"),
        Chart("significance", significance.draw, ("losses", "summary"), "Final losses of every run against the target"),
    )
}
OF_RUNS = {
    chart.name: chart
    for chart in (
        Chart("telemetry", telemetry.draw, ("telemetry", "marks"), "Loss, norms, activations and optimizer of one run"),
        Chart("ladder", ladder.draw, ("steps",), "What each technique brought here, beside what was published"),
    )
}
"""Figures of particular runs, drawn when they are asked for."""


def render(
    name: str, frames: dict[str, pd.DataFrame], theme: Theme, size: Size, kinds: tuple[str, ...]
) -> dict[str, bytes]:
    """The chart `name` from its frames (by the names in `Chart.frames`), drawn once, as bytes by kind (`svg`, `png`).

    The same frames give the same bytes. Raises KeyError for an unknown chart or a missing frame.
    """
    chart = (CHARTS | OF_RUNS)[name]
    with drawing(theme, size):
        figure = chart.draw(*(frames[frame] for frame in chart.frames), theme, size)
        return {kind: to_bytes(figure, kind, chart.says) for kind in kinds}


def file_name(name: str, theme: Theme, size: Size, kind: str) -> str:
    """`progress-light.svg`, and `progress-column-light.svg` for the narrow one."""
    return "-".join([name, *(["column"] if size.is_column else []), theme.name]) + f".{kind}"
