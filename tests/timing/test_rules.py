"""Editions by date, and a run's time under each of them."""

import datetime

import pytest

from timing.clock import era_of
from timing.log import read_log
from timing.rules import EDITIONS, RulesError, edition, official_time, today

FIRST, SIGNIFICANT, WARMED_UP = EDITIONS


def written(tmp_path, lines):
    path = tmp_path / "log.txt"
    path.write_text(
        "print('val_loss')\n" + "=" * 100 + "\nRunning PyTorch 2.4.1\n" + "=" * 100 + "\n" + "\n".join(lines)
    )
    return read_log(path)


def era_a(tmp_path, pace=100, steps=200, warm_ms=30_000):
    """A log whose clock is reset at step 10, as published ones were: averages divide by step - 10, "nan" before."""
    lines = [f"step:0/{steps} val_loss:10.8258 train_time:0ms step_avg:nanms"]
    lines += [f"step:{s}/{steps} train_time:{warm_ms + pace * s}ms step_avg:nanms" for s in range(1, 11)]
    lines += [f"step:{s}/{steps} train_time:{pace * (s - 10)}ms step_avg:{pace:.2f}ms" for s in range(11, steps + 1)]
    lines += [f"step:{steps}/{steps} val_loss:3.2790 train_time:{pace * (steps - 10)}ms step_avg:{pace:.2f}ms"]
    return written(tmp_path, lines)


def era_b(tmp_path, pace=100, steps=200, train_lines=True):
    """A log whose clock counts every step."""
    lines = [f"step:0/{steps} val_loss:10.8258 train_time:0ms step_avg:0.03ms"]
    if train_lines:
        lines += [f"step:{s}/{steps} train_time:{pace * s}ms step_avg:{pace:.2f}ms" for s in range(1, steps + 1)]
    validated = {125, steps}
    lines += [
        f"step:{s}/{steps} val_loss:3.2790 train_time:{pace * s}ms step_avg:{pace:.2f}ms" for s in sorted(validated)
    ]
    return written(tmp_path, lines)


@pytest.mark.parametrize(
    ("day", "name"),
    [
        ("2024-05-28", "2024-05-28"),
        ("2024-12-31", "2024-05-28"),
        ("2025-01-13", "2025-01-01"),
        ("2025-01-31", "2025-01-01"),
        ("2025-02-01", "2025-02-01"),
        (datetime.date(2025, 10, 4), "2025-02-01"),
        (datetime.datetime(2024, 10, 4, 12), "2024-05-28"),
    ],
)
def test_edition_in_force_on_a_day(day, name):
    assert edition(day).name == name


@pytest.mark.parametrize("bad", ["2024-05-27", "yesterday", "", "2025-13-01"])
def test_no_edition_is_a_one_line_error(bad):
    with pytest.raises(RulesError) as caught:
        edition(bad)
    assert "\n" not in str(caught.value)


def test_editions_are_in_order_and_today_is_the_last():
    assert [each.date for each in EDITIONS] == sorted(each.date for each in EDITIONS)
    assert today() is EDITIONS[-1]


def test_what_changed_between_editions():
    assert FIRST.significance is None
    assert SIGNIFICANT.significance == 0.01 and SIGNIFICANT.waived_for == ("systems",)
    assert (FIRST.era, SIGNIFICANT.era, WARMED_UP.era) == ("A", "A", "B")
    assert FIRST.compiler.settings is None
    assert "torch._inductor.config.coordinate_descent_tuning" not in WARMED_UP.compiler.settings
    assert WARMED_UP.compiler.arguments == {"dynamic", "fullgraph"}
    assert {each.val_tokens for each in EDITIONS} == {10_485_760}


def test_era_is_read_from_the_clock(tmp_path):
    assert era_of(era_a(tmp_path)) == "A"
    assert era_of(era_b(tmp_path)) == "B"


def test_era_is_read_from_averages_alone(tmp_path):
    lines = [f"step:{s}/250 val_loss:4.0 train_time:{100 * (s - 10)}ms step_avg:100.00ms" for s in (125, 250)]
    assert era_of(written(tmp_path, lines)) == "A"


def test_same_era_is_as_logged(tmp_path):
    time = official_time(era_a(tmp_path), FIRST)
    assert (time.ms, time.uncertainty_ms) == (19_000, 0)
    time = official_time(era_b(tmp_path), WARMED_UP)
    assert (time.ms, time.uncertainty_ms) == (20_000, 0)


def test_era_a_gains_ten_steps_at_its_own_pace(tmp_path):
    time = official_time(era_a(tmp_path), WARMED_UP)
    assert time.ms == pytest.approx(20_000)
    assert time.uncertainty_ms == pytest.approx(120)
    assert "+1000 ms" in time.how


def test_record_21_converts_as_its_re_timing_says(tmp_path):
    """Published: 10,947 ms at step 125 and 176,003 ms at the end; the ten steps were put at about 0.85 s."""
    lines = [
        "step:0/1770 val_loss:10.8258 train_time:0ms step_avg:nanms",
        "step:125/1770 val_loss:4.6549 train_time:10947ms step_avg:95.19ms",
        "step:1770/1770 val_loss:3.2808 train_time:176003ms step_avg:100.00ms",
    ]
    time = official_time(written(tmp_path, lines), WARMED_UP)
    assert abs((time.ms - 176_003) - 850) <= time.uncertainty_ms


def test_era_b_loses_its_first_ten_steps_exactly_where_they_are_logged(tmp_path):
    assert official_time(era_b(tmp_path), FIRST).ms == pytest.approx(19_000)


def test_era_b_without_train_lines_uses_its_early_pace(tmp_path):
    time = official_time(era_b(tmp_path, train_lines=False), FIRST)
    assert time.ms == pytest.approx(19_000)
    assert time.uncertainty_ms == pytest.approx(120)


def test_no_clock_no_time(tmp_path):
    path = tmp_path / "main.log"
    path.write_text("s:0 tel:11.0\ns:0 trl:11.0\ns:1 trl:10.9\ns:2 tel:10.5\n")
    assert official_time(read_log(path), FIRST).ms is None


def test_unknown_era_leaves_the_stretch_uncertain(tmp_path):
    lines = [f"step:{s}/250 val_loss:4.0 train_time:{100 * s}ms" for s in (125, 250)]
    time = official_time(written(tmp_path, lines), WARMED_UP)
    assert time.ms == 25_000
    assert time.uncertainty_ms == pytest.approx(1000, rel=0.2)
