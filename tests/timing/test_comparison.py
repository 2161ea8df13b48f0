"""Paired and Welch comparison against closed forms and simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from timing.comparison import compare_paired, compare_welch


def test_paired_interval_is_students_over_log_ratios():
    a, b = np.array([100.0, 104.0, 98.0, 101.0]), np.array([98.0, 102.5, 96.1, 99.3])
    ratios = np.log(b / a)
    result = compare_paired(a, b)
    half = reference.t.ppf(0.975, 3) * ratios.std(ddof=1) / 2
    assert result.log_time.estimate == pytest.approx(ratios.mean())
    assert result.log_time.half_width == pytest.approx(half)
    assert result.log_time.p_value == pytest.approx(reference.ttest_rel(np.log(b), np.log(a)).pvalue)


def test_welch_agrees_with_scipy():
    a, b = [100.0, 101.0, 99.5, 100.2], [98.0, 97.0, 99.9]
    result = compare_welch(a, b)
    scipys = reference.ttest_ind(np.log(b), np.log(a), equal_var=False)
    interval = scipys.confidence_interval(0.95)
    assert result.log_time.p_value == pytest.approx(scipys.pvalue)
    assert (result.log_time.low, result.log_time.high) == pytest.approx((interval.low, interval.high))


def test_what_a_pair_shares_cancels():
    mood = np.array([1.0, 1.3, 0.8, 1.1])
    a, b = 100 * mood, 98.2 * mood * (1 + 1e-4 * np.array([1, -1, 2, -2]))
    assert compare_paired(a, b).log_time.excludes_zero
    assert not compare_welch(a, b).log_time.excludes_zero


def test_the_plain_sentence():
    a = np.array([100.0, 100.0, 100.0])
    b = np.array([98.1, 98.2, 98.3])
    sentence = compare_paired(a, b, [3.278, 3.279, 3.280], [3.2785, 3.2786, 3.2799]).sentence("40", "41")
    assert sentence == "41 is 1.8% ± 0.2% faster at equal loss"


def test_a_real_loss_difference_is_named():
    sentence = compare_paired([100, 101], [98, 98.9], [3.278, 3.279], [3.2880, 3.28901]).sentence()
    assert "at a loss 0.0100" in sentence and sentence.endswith("higher")


def test_no_difference_is_not_called_a_gain():
    assert "cannot be told apart" in compare_paired([100, 101, 102], [101, 100, 101]).sentence()


def test_slower_is_called_slower():
    assert "slower" in compare_paired([100, 101, 102], [110.0, 111.2, 112]).sentence()


def test_one_pair_gives_no_interval():
    result = compare_paired([100], [98.2], [3.28], [3.28])
    assert result.log_time.half_width is None
    assert result.margin_percent is None
    assert result.sentence() == "B was 1.8% faster than A at the same loss (a single comparison: no interval)"


def test_zero_spread_gives_a_closed_interval():
    result = compare_welch([100, 100], [98, 98])
    assert result.log_time.half_width == 0
    assert result.log_time.excludes_zero
    assert compare_welch([100, 100], [100, 100]).log_time.p_value == 1


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1], "as many values"),
        ([1, 0], [1, 2], "not positive"),
        ([1, math.nan], [1, 2], "not a finite"),
        ([], [], "no time"),
    ],
)
def test_bad_input_is_one_clear_error(a, b, message):
    with pytest.raises(ValueError, match=message):
        compare_paired(a, b)


@pytest.mark.parametrize("compare", [compare_paired, compare_welch])
def test_intervals_cover_as_often_as_promised(compare):
    """A true gain of 2% with 0.3% noise: 95% of 1,000 intervals must hold it."""
    rng = np.random.default_rng(7)
    truth, noise = math.log(0.98), 0.003
    a = 100 * np.exp(noise * rng.standard_normal((1000, 5)))
    b = 98 * np.exp(noise * rng.standard_normal((1000, 5)))
    held = [compare(x, y).log_time for x, y in zip(a, b)]
    rate = np.mean([i.low <= truth <= i.high for i in held])
    assert abs(rate - 0.95) < 0.025
