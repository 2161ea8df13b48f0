"""The figures: legible, honest about fidelity, the same bytes for the same data."""

import itertools
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from harness.history.report import FIGURES, REPOSITORY, committed_figures
from reports import charts, progress, style
from reports.labels import Box
from reports.style import COLUMN, DARK, LIGHT, SLIDE, drawing, measure

EVERY = [pytest.param(t, s, id=f"{t.name}-{s.name}") for t in (LIGHT, DARK) for s in (SLIDE, COLUMN)]


def figure_of(name, data, theme, size):
    """The drawn figure; measure it inside `drawing`."""
    chart = charts.CHARTS[name]
    return chart.draw(*(data[frame] for frame in chart.frames), theme, size)


def texts(figure):
    """All visible texts with something in them."""
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize(("theme", "size"), EVERY)
def test_no_two_labels_of_the_progress_chart_collide(data, theme, size):
    with drawing(theme, size):
        figure = figure_of("progress", data, theme, size)
        axes = figure.axes[0]
        boxes = {text.get_text(): Box(*measure(figure, text).extents) for text in axes.texts}
    assert len(boxes) >= (12 if size is COLUMN else 22)
    for (a, first), (b, second) in itertools.combinations(boxes.items(), 2):
        assert not first.overlaps(second), f"{a!r} over {b!r}"
    history = data["history"]
    names = set(history.landmark) - {""}
    dots = axes.transData.transform([[progress.date_number(row.date), row.minutes] for row in history.itertuples()])
    for name, box in boxes.items():
        if name.split(":")[0] in names:
            assert not any(box.overlaps(Box(x, y, x, y).grown(1)) for x, y in dots), f"{name!r} covers a dot"


@pytest.mark.parametrize(("theme", "size"), EVERY)
def test_the_great_ideas_and_both_ends_are_named(data, theme, size):
    with drawing(theme, size):
        written = {text.get_text() for text in figure_of("progress", data, theme, size).axes[0].texts}
    assert {
        "llm.c baseline: 45 minutes",
        "Muon optimizer",
        "FlexAttention",
        "FP8 head",
        "FP8 MLP: 74 seconds",
    } <= written


@pytest.mark.parametrize("name", charts.CHARTS)
@pytest.mark.parametrize(("theme", "size"), EVERY)
def test_every_text_lies_on_the_canvas(data, name, theme, size):
    with drawing(theme, size):
        figure = figure_of(name, data, theme, size)
        figure.canvas.draw()
        canvas = Box(*figure.bbox.extents).grown(1)
        for text in texts(figure):
            box = Box(*measure(figure, text).extents)
            assert box.inside(canvas), f"{text.get_text()!r} at {box} leaves {canvas}"


@pytest.mark.parametrize("size", [SLIDE, COLUMN], ids=lambda size: size.name)
def test_no_headline_runs_into_the_axes(data, size):
    for name in charts.CHARTS:
        with drawing(LIGHT, size):
            figure = figure_of(name, data, LIGHT, size)
            figure.canvas.draw()
            frames = [Box(*axes.get_tightbbox(figure.canvas.get_renderer()).extents) for axes in figure.axes]
            for text in figure.texts:
                box = Box(*measure(figure, text).extents)
                assert not any(box.overlaps(frame) for frame in frames), (name, text.get_text())


DRAW = """
import pickle, sys
from pathlib import Path
from reports import charts
data, place = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
for name in charts.CHARTS:
    for kind, content in charts.render(name, data, charts.LIGHT, charts.COLUMN, ("png", "svg")).items():
        (place / f"{name}.{kind}").write_bytes(content)
"""


def test_the_same_data_gives_the_same_bytes_in_another_process(data, tmp_path):
    pickled = tmp_path / "frames.pickle"
    pickled.write_bytes(
        pickle.dumps({frame: data[frame] for chart in charts.CHARTS.values() for frame in chart.frames})
    )
    other = {**os.environ, "PYTHONHASHSEED": "4242", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", DRAW, pickled, tmp_path], check=True, env=other, cwd=REPOSITORY)
    for name in charts.CHARTS:
        for kind, content in charts.render(name, data, LIGHT, COLUMN, ("svg", "png")).items():
            assert (tmp_path / f"{name}.{kind}").read_bytes() == content, f"{name}.{kind} differs"


def test_no_date_or_version_inside(data):
    drawn = charts.render("progress", data, DARK, SLIDE, ("svg", "png"))
    assert b"<dc:date" not in drawn["svg"]
    assert matplotlib.__version__.encode() not in drawn["svg"] + drawn["png"]
    assert b"tIME" not in drawn["png"]


@pytest.mark.parametrize("size", [SLIDE, COLUMN], ids=lambda size: size.name)
def test_fidelity_is_written_on_every_point_that_is_not_official(data, size):
    with drawing(LIGHT, size):
        written = "\n".join(text.get_text() for text in texts(figure_of("machine", data, LIGHT, size)))
    assert "stand-in" in written and "shortened" in written
    curves = data["curves"].assign(fidelity="stand-in")
    with drawing(LIGHT, size):
        marks = [text.get_text() for text in texts(charts.CHARTS["curves"].draw(curves, LIGHT, size))]
    for number in ("01", "05", "12", "24", "40", "89"):
        assert any(mark.startswith(f"{number} stand-in") for mark in marks), number
    with drawing(LIGHT, size):
        tags = [text.get_text() for text in texts(figure_of("significance", data, LIGHT, size))]
    assert tags.count("same-batch") == (data["summary"].fidelity == "same-batch").sum() > 0


def test_retimings_are_drawn_hollow(data):
    with drawing(LIGHT, SLIDE):
        axes = figure_of("progress", data, LIGHT, SLIDE).axes[0]
    dots = {line.get_gid(): line for line in axes.lines if line.get_gid()}
    assert dots["record-21b"].get_markerfacecolor() == LIGHT.paper
    assert dots["record-21"].get_markerfacecolor() == LIGHT.accent
    assert len(dots) == len(data["history"])


@pytest.mark.parametrize("size", [SLIDE, COLUMN])
def test_the_curve_says_that_its_scale_is_logarithmic(data, size):
    assert "log scale" in [
        text.get_text() for text in texts(charts.CHARTS["progress"].draw(*_frames(data), LIGHT, size))
    ]


def _frames(data):
    return (data[name] for name in charts.CHARTS["progress"].frames)


def test_the_attribution_multiplies_to_the_whole_factor(data):
    words = charts.CHARTS["attribution"].draw.__globals__["words"]
    title, _, source = words(data["gains"], SLIDE)
    assert title == "36.6× = 15.2× fewer steps × 2.47× faster steps × 0.973 re-timed"
    for size in (SLIDE, COLUMN):
        total, *factors = map(float, re.findall(r"\d+\.\d+", words(data["gains"], size)[0]))
        assert len(factors) == 3 and math.prod(factors) == pytest.approx(total, rel=0.004)
    assert "66–67" in source and "86–87" in source and "× 0.973" in source


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_colours_are_told_apart_without_colour(theme):
    def lightness(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        low, high = sorted((lightness(a), lightness(b)))
        return (high + 0.05) / (low + 0.05)

    for ground in (theme.paper, *theme.bands):
        assert contrast(theme.ink, ground) >= 7
        assert contrast(theme.muted, ground) >= 4.5, ground
        assert contrast(theme.accent, ground) >= 4.5
    assert contrast(theme.second, theme.paper) >= 4.5  # it colours words too
    assert contrast(theme.accent, theme.second) >= 1.5
    looks = [(s["ls"], s["marker"]) for s in style.series_styles(theme, SLIDE, 20)]
    assert len(set(looks)) == 20


def test_a_dollar_sign_or_a_backslash_in_a_name_is_only_a_text(data):
    history = data["history"].copy()
    history.loc[2, "landmark"] = r"$\frac{ {{x}} <b>"
    drawn = charts.render("progress", data | {"history": history}, LIGHT, SLIDE, ("png",))
    assert drawn["png"].startswith(b"\x89PNG")


@pytest.mark.skipif(
    f"matplotlib=={matplotlib.__version__}" not in (REPOSITORY / "constraints.txt").read_text(),
    reason="another matplotlib than the pinned one draws other bytes",
)
def test_the_committed_figures_are_fresh(data):
    for name, content in committed_figures(data).items():
        assert Path(FIGURES / name).read_bytes() == content, f"{name} is stale: run `harness chart --write`"


def test_curves_of_one_record_do_not_speak_of_newer_ones(data):
    alone = data["curves"][data["curves"].mark == "12"]
    for size in (SLIDE, COLUMN):
        assert "How record 12 learns" in [
            text.get_text() for text in texts(charts.CHARTS["curves"].draw(alone, LIGHT, size))
        ]
    both = [text.get_text() for text in texts(charts.CHARTS["curves"].draw(data["curves"], LIGHT, SLIDE))]
    assert "How the loss falls, record by record" in both and not any("ever earlier" in words for words in both)


def test_a_curve_that_rises_again_is_seen_to_its_end(data):
    """A run that goes over a small corpus many times: 3.5 on the way, 5.2 in the end."""
    steps = np.array([1, 250, 500, 2330])
    rising = pd.DataFrame({"step": steps, "val_loss": [10.8, 3.6, 3.5, 5.2], "seconds": steps * 0.2})
    rising = rising.assign(series="r", name="40 on 2 × H200", mark="40", fidelity="stand-in", tokens=steps * 262_144)
    curves = pd.concat([data["curves"], rising])
    with drawing(LIGHT, SLIDE):
        figure = charts.CHARTS["curves"].draw(curves, LIGHT, SLIDE)
    assert all(5.2 < axes.get_ylim()[1] < 6 for axes in figure.axes[:3])
