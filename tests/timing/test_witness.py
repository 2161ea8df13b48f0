"""Metric lines of every dialect are heard, and nothing else is taken for one."""

import math

import pytest

from timing.witness import Witness, parse_metric


@pytest.mark.parametrize(
    "line, step, planned, kind, loss, log_ms, average",
    [
        ("step:125/2330 val_loss:4.1234 train_time:7551ms step_avg:60.41ms", 125, 2330, "val", 4.1234, 7551, 60.41),
        ("step:126/2330 train_time:7612ms step_avg:60.41ms", 126, 2330, "train", None, 7612, 60.41),
        ("step:3/6200 train_loss:9.5 train_time:12ms step_avg:nanms", 3, 6200, "train", 9.5, 12, math.nan),
        ("step:5/10 val_loss:3.2 lr:0.1 train_time:1.5s step_avg:9.00ms", 5, 10, "val", 3.2, 1500, 9),
    ],
)
def test_metric_lines(line, step, planned, kind, loss, log_ms, average):
    metric = parse_metric(line)
    assert (metric.step, metric.planned, metric.kind, metric.loss, metric.log_ms) == (step, planned, kind, loss, log_ms)
    assert metric.step_avg_ms == pytest.approx(average, nan_ok=True)


@pytest.mark.parametrize(
    "line",
    [
        *("", "step:1", "step:1/x train_time:1ms", " step:1/2 train_time:1ms", "steps are taken"),
        f"step:{'9' * 5000}/1 train_time:1ms",
        "step:1/2 " + "a:b:c " * 4000,  # to be told in linear time
    ],
    ids=range(7),
)
def test_other_lines(line):
    assert parse_metric(line) is None


def test_complete_needs_the_validation_of_the_last_step():
    witness = Witness()
    witness.hear("step:0/2 val_loss:7.0 train_time:0ms step_avg:0.00ms", 0.5)
    witness.hear("step:2/2 train_time:9ms step_avg:4.50ms", 1.0)
    assert not witness.complete
    witness.hear("step:2/2 val_loss:6.0 train_time:9ms step_avg:4.50ms", 1.5)
    assert witness.complete
    assert witness.as_columns() == {
        "step": [0, 2, 2],
        "kind": ["val", "train", "val"],
        "log_ms": [0.0, 9.0, 9.0],
        "clock_s": [0.5, 1.0, 1.5],
    }
