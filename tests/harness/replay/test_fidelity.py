"""The label of a replay, case by case."""

from pathlib import Path

import pytest

from harness.replay.fidelity import LABELS, Circumstances, fidelity


@pytest.mark.parametrize(
    "label, circumstances",
    [
        ("smoke", {"cuda": False}),
        ("smoke", {"cuda": False, "corpus": "books", "scale": 0.1, "altered": True}),
        ("smoke", {"cuda": True, "smoke": True}),
        ("official", {"cuda": True}),
        ("same-batch", {"cuda": True, "ranks": 1}),
        ("same-batch", {"cuda": True, "ranks": 4}),
        ("same-batch", {"cuda": True, "hopper": False}),
        ("same-batch", {"cuda": True, "telemetry": True}),
        ("stand-in", {"cuda": True, "corpus": "books"}),
        ("stand-in", {"cuda": True, "corpus": ""}),
        ("stand-in", {"cuda": True, "corpus": "books", "ranks": 1, "hopper": False}),
        ("shortened", {"cuda": True, "scale": 0.1}),
        ("shortened", {"cuda": True, "scale": 2.0}),
        ("shortened", {"cuda": True, "altered": True}),
        ("shortened", {"cuda": True, "altered": True, "corpus": "books"}),
    ],
)
def test_the_rule(label, circumstances):
    assert fidelity(Circumstances(**circumstances)).name == label


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS.keys())
def test_every_label_says_in_one_line_what_it_does_not_prove(label):
    assert label.not_proved or label.name == "official"
    assert label.sentence().startswith(f"{label.name} replay (") and label.not_proved in label.sentence()
    assert "\n" not in label.sentence()


def test_the_archives_readme_says_what_each_label_proves():
    text = (Path(__file__).parents[3] / "records" / "README.md").read_text(encoding="utf-8")
    for label in LABELS.values():
        assert f"| `{label.name}` | {label.means} | {label.proves} | {label.not_proved}" in text, label.name
