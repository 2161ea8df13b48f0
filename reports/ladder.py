"""What each rung of an ablation ladder brought here, beside what it brought in the published history."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from reports.axes import set_ticks
from reports.style import Size, Theme, headline, new_figure


def draw(steps: pd.DataFrame, theme: Theme, size: Size) -> Figure:
    """Two panels with a row for each rung: time per token, and loss after equal tokens, each with its interval.

    `steps`, bottom rung first: name, then in percent of the time per token speed, speed_low, speed_high (negative is
    faster) and speed_published; in nats loss, loss_low, loss_high (negative is better) at equal tokens;
    published_tokens (percent of change in the tokens that the target took), n, where (machine and
    fidelity). nan where unknown.
    """
    figure = new_figure(size, max(size.height, size.text / 72 * 2.6 * (len(steps) + 7)))
    left, gap = (0.3, 0.06) if size.is_column else (0.3, 0.05)
    width = (0.97 - left - gap) / 2
    speed, loss = (figure.add_axes((left + i * (width + gap), 0.16, width, 0.6)) for i in range(2))
    rows = range(len(steps))
    _intervals(speed, steps, "speed", theme, size)
    speed.plot(
        steps.speed_published, rows, ls="none", marker="D", ms=size.marker * 0.9, mfc=theme.paper, mec=theme.second
    )
    speed.set_xlabel("time per token, %")
    lines = 17 if size.is_column else 30
    set_ticks(speed.yaxis, rows, [textwrap.fill(name, lines, max_lines=2, placeholder="…") for name in steps["name"]])
    _intervals(loss, steps, "loss", theme, size)
    loss.set_xlabel("loss at equal tokens, nats")
    set_ticks(loss.yaxis, rows, [""] * len(steps))
    for row, share in zip(rows, steps.published_tokens):
        if share == share:
            text = f"published: {share:+.0f} % tokens".replace("-", "−")
            loss.text(
                1.0,
                row + 0.32,
                text,
                transform=loss.get_yaxis_transform(),
                fontsize=size.small,
                color=theme.second,
                ha="right",
                bbox={"fc": theme.paper, "ec": "none", "pad": 1},
            )
    where = ", ".join(sorted(set(steps["where"])))
    title = "What each technique brought here" if not size.is_column else "What each rung brought here"
    said = "Left of zero is better. Bars: 95 % intervals over the rounds. Hollow: the published change."
    headline(figure, size, theme, title, said, f"{where}, n = {steps.n.min()} a record.")
    return figure


def _intervals(axes, steps: pd.DataFrame, what: str, theme: Theme, size: Size) -> None:
    rows = range(len(steps))
    axes.axvline(0, color=theme.muted, lw=size.line * 0.4, zorder=1)
    axes.hlines(rows, steps[f"{what}_low"], steps[f"{what}_high"], color=theme.accent, lw=size.line, zorder=2)
    axes.plot(steps[what], rows, ls="none", marker="o", ms=size.marker, color=theme.accent, zorder=3)
    axes.set_ylim(-0.6, len(steps) - 0.2)
    axes.grid(axis="x")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
