"""What the watcher lets pass and what it does not: losses and norms of healthy runs, and of planted failures."""

import math
import random
from pathlib import Path

import pytest

from harness.archive.find import discover
from harness.replay.anomaly import Watcher
from tests.processor import seconds_of
from timing.witness import parse_metric

LOGS = Path(__file__).parents[4] / "shared" / "logs"
CURVE = ((0, 10.8), (250, 4.0), (500, 3.5), (1000, 3.28))


def breaches(losses, kind="val", reference=()):
    """(kind, step) of every breach that these losses are, one each 50 steps."""
    return heard([line(50 * i, loss, kind) for i, loss in enumerate(losses)], reference)


def line(step, loss, kind="val"):
    return f"step:{step}/1000 {kind}_loss:{loss:.4f} train_time:{step}ms step_avg:1.00ms"


def heard(lines, reference=()):
    watcher = Watcher(reference)
    for text in lines:
        watcher.hear(text, parse_metric(text))
    return [(breach.kind, breach.step) for breach in watcher.breaches]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["val", "train"])
def test_a_loss_that_is_not_finite(bad, kind):
    assert breaches([10.8, bad, 5.0], kind) == [("not finite", 50)]


def test_a_rise_beyond_the_runs_own_noise():
    assert breaches([10.8, 6.0, 5.0, 4.5, 4.6]) == []  # within the least noise
    assert breaches([10.8, 6.0, 5.0, 4.5, 4.8, 4.4]) == [("rising", 200)]
    assert breaches([10.8, 11.5]) == [("rising", 50)]


def test_what_a_noisy_run_does_often_is_no_breach():
    random.seed(1)
    noisy = [4 + 6 * 0.95**i + random.gauss(0, 0.3) for i in range(300)]
    assert breaches(noisy, "train") == []
    assert breaches([*noisy, 9.0], "train") == [("rising", 15000)]
    assert breaches([*(10 - i / 100 for i in range(300)), 9.0], "train") == [("rising", 15000)]


def test_the_reference_curve_holds_a_run_of_its_own_record():
    assert heard([line(250, 4.02), line(500, 3.52), line(1000, 3.30)], CURVE) == []
    assert heard([line(250, 4.0), line(500, 3.62)], CURVE) == [("behind", 500)]
    assert heard([line(1000, 3.34)], CURVE) == [("behind", 1000)]
    assert heard([line(1000, 3.34)]) == []
    assert heard([line(1250, 9.0)], CURVE) == []  # beyond the curve's end nothing is known


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs shared/")
def test_no_public_run_of_record_40_is_behind_its_own_curve():
    curve = next(record.curve for record in discover() if record.number == "40")
    for log in sorted(LOGS.glob("record40-run*.txt")):
        lines = log.read_text(errors="replace").splitlines()
        assert heard(lines, curve) == heard(lines) == []


def test_a_gradient_beyond_its_band():
    lines = [f"telemetry step:{i} grad_norm:{2.0 + 0.1 * (i % 3):.4e} weight_norm:1.0" for i in range(20)]
    assert heard(lines) == []
    assert heard([*lines, "telemetry step:20 grad_norm:9.0e+00"]) == []  # a factor of 4.5
    assert heard([*lines, "telemetry step:20 grad_norm:2.0e+01"]) == [("gradient", 20)]
    assert heard([*lines, "telemetry step:20 grad_norm:1.0e-09"]) == []
    assert heard([*lines[:3], "telemetry step:3 grad_norm:2.0e+01"]) == []  # too few to be a band
    assert heard([*lines, "telemetry step:20 grad_norm:2.0 activation_rms:[1.0,nan]"]) == [("not finite", 20)]


def test_an_update_that_replaces_the_weights():
    """Record 40 at toy size with its rates times 100, steps 2 and 3, as measured: its loss went on falling."""
    start = "telemetry step:2 grad_norm:8.6022e+02 weight_norm:3.8716e+03 update_norm:2.0539e+02"
    blown = "telemetry step:3 grad_norm:5.7257e+02 weight_norm:1.0041e+04 update_norm:9.1569e+03"
    assert heard([start]) == [] and heard([start, blown]) == [("update", 3)]
    assert heard(["telemetry step:2 grad_norm:[] update_norm:[]"]) == []


def test_the_last_telemetry_is_kept_and_each_kind_is_told_once():
    watcher = Watcher()
    telemetry = "telemetry step:3 grad_norm:2.0 \x1b[31m"
    assert watcher.hear(telemetry, None) is None
    text = line(4, math.nan)
    breach = watcher.hear(text, parse_metric(text))
    assert (breach.step, breach.telemetry) == (4, "telemetry step:3 grad_norm:2.0 [31m")
    assert watcher.hear(text, parse_metric(text)) is None and len(watcher.breaches) == 1


def test_watching_costs_a_step_nothing_to_speak_of():
    """The watcher works in the launcher's process, beside the ranks: a line may cost it 0.2 ms, a step takes 60."""
    lines = [line(step, 4.0, "train") for step in range(2000)]
    metrics = [parse_metric(text) for text in lines]

    def watch():
        watcher = Watcher(CURVE)
        for text, metric in zip(lines, metrics):
            watcher.hear(text, metric)

    assert seconds_of(watch) / len(lines) < 0.0002
