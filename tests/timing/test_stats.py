"""The target test against closed forms, published figures and simulated submissions."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from timing.stats import (
    KNOWN_SPREAD_MARGIN,
    STATED_SPREAD,
    USUAL_SPREAD,
    anytime_bound,
    e_values,
    runs_needed,
    t_test_p,
    target_test,
)

RECORD_40 = (3.2781, 3.2796, 3.2772, 3.2769, 3.2783)


def test_record_40_as_published():
    result = target_test(RECORD_40)
    assert result.n == 5
    assert result.mean == pytest.approx(3.27802, abs=5e-6)
    assert result.std == pytest.approx(0.00106, abs=5e-6)
    assert result.p_value == pytest.approx(0.0070, abs=5e-5)
    assert result.significant
    assert result.runs_needed == 0
    assert result.known_spread_score == pytest.approx(0.00443, abs=5e-6)
    assert result.known_spread_holds


def test_t_test_closed_form_for_two_and_three_runs():
    """Student's t with 1 degree of freedom is Cauchy, with 2 it is 1/2 + t / (2 sqrt(2 + t^2))."""
    two = np.array([3.277, 3.278])
    t = (two.mean() - 3.28) / (two.std(ddof=1) / math.sqrt(2))
    assert t_test_p(two, 3.28) == pytest.approx(0.5 + math.atan(t) / math.pi)
    three = np.array([3.276, 3.278, 3.2785])
    t = (three.mean() - 3.28) / (three.std(ddof=1) / math.sqrt(3))
    assert t_test_p(three, 3.28) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)))


def test_upper_bound_meets_the_target_exactly_when_p_meets_alpha():
    losses = np.array(RECORD_40)
    edge = losses + (3.28 - target_test(losses).upper_bound)
    assert target_test(edge).p_value == pytest.approx(0.01)


@pytest.mark.parametrize("losses", [(3.2778, 3.2822), (3.2780, 3.2820), (3.28,) * 7, (3.2769, 3.2816, 3.2815)])
def test_a_mean_of_just_the_target_is_not_above_it(losses):
    assert target_test(losses).mean == 3.28


def test_mean_above_the_target_never_becomes_significant():
    result = target_test([3.281, 3.282, 3.2805])
    assert not result.significant
    assert result.p_value > 0.5
    assert result.runs_needed is None


def test_runs_needed_is_the_smallest_number_that_does():
    mean, std, n = 3.2790, 0.0013, 4
    more = runs_needed(mean, std, n)
    p = [reference.t.cdf((mean - 3.28) / (std / math.sqrt(k)), k - 1) for k in (n + more - 1, n + more)]
    assert p[0] >= 0.01 > p[1]


def test_runs_needed_beyond_reason_is_no_answer():
    assert runs_needed(3.28 - 1e-6, 0.002, 5) is None


def test_single_run_has_no_p_value_and_uses_the_usual_spread():
    result = target_test([3.2781])
    assert (result.std, result.p_value, result.upper_bound) == (None, None, None)
    assert not result.significant
    assert result.runs_needed == runs_needed(3.2781, USUAL_SPREAD, 1)


def test_zero_spread_is_not_infinite_significance():
    result = target_test([3.2780] * 5)
    assert result.std == pytest.approx(0, abs=1e-12)
    assert result.p_value is None
    assert not result.significant


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_is_not_dropped(bad):
    result = target_test([3.27, 3.27, bad, 3.271])
    assert result.n == 4
    assert result.mean is None
    assert not result.significant
    assert not result.known_spread_holds


def test_no_runs_at_all_is_an_error():
    with pytest.raises(ValueError, match="no final validation loss"):
        target_test([])


def test_t_test_keeps_its_promise_over_simulated_submissions():
    """At a true mean of 3.28 exactly, 1% of honest submissions of five runs may pass, within chance."""
    losses = np.random.default_rng(0).normal(3.28, 0.0013, (10_000, 5))
    rate = (t_test_p(losses, 3.28) < 0.01).mean()
    assert abs(rate - 0.01) < 3.5 * math.sqrt(0.01 * 0.99 / 10_000)


def test_logged_rounding_to_four_digits_does_not_break_the_promise():
    losses = np.round(np.random.default_rng(1).normal(3.28, 0.0009, (10_000, 4)), 4)
    losses = losses[np.ptp(losses, axis=1) > 0]
    assert (t_test_p(losses, 3.28) < 0.01).mean() < 0.01 + 3.5 * math.sqrt(0.01 * 0.99 / 10_000)


def test_known_spread_rule_is_a_z_test_at_a_thousandth():
    assert reference.norm.sf(KNOWN_SPREAD_MARGIN / USUAL_SPREAD) == pytest.approx(0.001, rel=0.05)
    means = np.random.default_rng(2).normal(3.28, USUAL_SPREAD, (10_000, 6)).mean(axis=1)
    assert ((3.28 - means) * math.sqrt(6) >= KNOWN_SPREAD_MARGIN).mean() < 0.002


def test_stopping_at_will_breaks_the_t_test_but_not_the_anytime_bound():
    """A submitter who looks after each of 2..60 runs and stops at the first success, at a true mean of 3.28."""
    losses = np.random.default_rng(3).normal(3.28, STATED_SPREAD, (10_000, 60))
    peeked = np.zeros(len(losses), bool)
    for n in range(2, 61, 2):
        peeked |= t_test_p(losses[:, :n], 3.28) < 0.01
    assert peeked.mean() > 0.03
    assert (e_values(losses).max(axis=1) >= 100).mean() <= 0.01


def test_anytime_bound_is_conservative_when_the_spread_is_smaller():
    losses = np.random.default_rng(4).normal(3.28, 0.5 * STATED_SPREAD, (10_000, 40))
    assert (e_values(losses).max(axis=1) >= 100).mean() <= 0.001


def test_mixture_equals_its_integral():
    """The closed form against numerical integration of the half-normal mixture of exp(l S - l^2 V / 2)."""
    from scipy.integrate import quad

    losses = np.array(RECORD_40)
    gain, variance, precision = (3.28 - losses).sum(), 5 * STATED_SPREAD**2, 2 * STATED_SPREAD**2

    def mixture(x):
        return (
            2
            * math.sqrt(precision / (2 * math.pi))
            * math.exp(-precision * x * x / 2 + x * gain - x * x * variance / 2)
        )

    assert e_values(losses)[-1] == pytest.approx(quad(mixture, 0, 5_000)[0], rel=1e-6)


def test_anytime_upper_bound_is_where_the_evidence_reaches_its_level():
    bound = anytime_bound(RECORD_40)
    shifted = np.array(RECORD_40) + (3.28 - bound.upper_bound)
    assert e_values(shifted)[-1] == pytest.approx(100, rel=1e-6)


def test_anytime_bound_reaches_a_verdict_with_enough_runs():
    losses = np.random.default_rng(5).normal(3.2780, 0.0012, 40)
    bound = anytime_bound(losses)
    assert bound.p_value < 0.01
    assert 3.2780 < bound.upper_bound < 3.28


def test_anytime_bound_survives_absurd_evidence():
    assert anytime_bound([1.0] * 50).p_value < 1e-100
