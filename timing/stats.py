"""Whether runs have shown the target: the t-test of the rules, the shortcut beside it, a bound that survives peeking.

Everything here takes final validation losses (nats per token) of independent runs of one script, and asks whether their
true mean lies under the target. One-sided throughout: the null hypothesis is "the true mean is the target or above".
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special  # its special functions load in a fifth of the time that scipy.stats takes

USUAL_SPREAD = 0.0013
"""Run-to-run deviation of the final loss (nats): typical of the records since 2025-02, whose published logs pool to
0.00125 once mixed arms are set aside. It stands in where a submission has too few runs to show a spread of its own."""

STATED_SPREAD = 0.0016
"""The spread (nats) stated for the anytime bound: the pooled deviation of all 56 published folders of five or more runs
since record 21, mixed arms included, so an upper figure for an honest arm."""

KNOWN_SPREAD_MARGIN = 0.004
"""Of the community's shortcut `(target - mean) * sqrt(n) >= 0.004`: a z-test at p = 0.001 if the spread is 0.0013."""

MOST_RUNS = 10_000
"""No answer to "how many more runs" goes beyond this: it would not be an answer."""


@dataclass(frozen=True)
class TargetTest:
    """What `n` final losses say about a target. Figures that the runs cannot give are None, never a guess.

    `p_value` is of the one-sided t-test; `runs_needed` is how many further runs would bring it under `alpha` if mean
    and spread stayed as they are (0: already there, None: never, the mean is not under the target); `upper_bound` is
    the one-sided t bound on the true mean at confidence 1 - alpha; `known_spread_score` is (target - mean) * sqrt(n).
    """

    n: int
    target: float
    alpha: float
    mean: float | None
    std: float | None
    p_value: float | None
    upper_bound: float | None
    runs_needed: int | None
    known_spread_score: float | None
    anytime: "AnytimeBound | None"

    @property
    def significant(self) -> bool:
        """True if the t-test rejects "the mean is the target or above" at `alpha`."""
        return self.p_value is not None and self.p_value < self.alpha

    @property
    def known_spread_holds(self) -> bool:
        """True if the community's known-spread shortcut is satisfied."""
        return self.known_spread_score is not None and self.known_spread_score >= KNOWN_SPREAD_MARGIN


@dataclass(frozen=True)
class AnytimeBound:
    """A bound that holds at every number of runs at once, so that looking after each run costs nothing.

    `e_value` is evidence against the null (a bet's winnings, 1 at the start); `p_value` = min(1, 1 / largest e-value so
    far); `upper_bound` on the true mean at confidence 1 - alpha; `spread` is the stated deviation that all rests on.
    """

    e_value: float
    p_value: float
    upper_bound: float
    spread: float


def target_test(losses, target: float = 3.28, alpha: float = 0.01) -> TargetTest:
    """Judge final losses (any 1-D sequence of floats, in the order of the runs) against `target` at level `alpha`.

    One run has no spread, and runs that all print the same loss have none either: their p-value is None, and the runs
    still needed are reckoned with `USUAL_SPREAD`. A loss that is NaN or infinite (a diverged run) leaves every figure
    None, since dropping the run would be choosing the evidence. Raises ValueError if there is no loss at all.
    """
    losses = np.asarray(losses, dtype=float).ravel()
    n = losses.size
    if n == 0:
        raise ValueError("no final validation loss to test")
    if not np.isfinite(losses).all():
        return TargetTest(n, target, alpha, None, None, None, None, None, None, None)
    mean = round(float(losses.mean()), 12)  # losses are decimals: a mean of just the target is not above it
    std = float(losses.std(ddof=1)) if n > 1 else None
    p_value = upper = None
    if std is not None and not _no_spread(losses):
        p_value = float(t_test_p(losses, target))
        upper = mean + float(special.stdtrit(n - 1, 1 - alpha)) * std / math.sqrt(n)
    return TargetTest(
        n=n,
        target=target,
        alpha=alpha,
        mean=mean,
        std=std,
        p_value=p_value,
        upper_bound=upper,
        runs_needed=runs_needed(mean, std if p_value is not None else None, n, target, alpha),
        known_spread_score=(target - mean) * math.sqrt(n),
        anytime=anytime_bound(losses, target, alpha),
    )


def _no_spread(losses: np.ndarray) -> bool:
    return bool(np.ptp(losses) <= 1e-12 * max(1.0, abs(float(losses[0]))))


def t_test_p(losses: np.ndarray, target: float) -> np.ndarray:
    """One-sided p-values of Student's t-test along the last axis: shape (..., n) -> (...), n at least 2.

    p = P(T_{n-1} <= (mean - target) / (s / sqrt(n))), with s the sample deviation (n - 1).
    """
    n = losses.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (losses.mean(-1) - target) / (losses.std(-1, ddof=1) / math.sqrt(n))
    return special.stdtr(n - 1, t)


def runs_needed(mean: float, std: float | None, n: int, target: float = 3.28, alpha: float = 0.01) -> int | None:
    """How many more runs bring the one-sided t-test under `alpha`, if mean and deviation stay as observed.

    `std` None (one run, or no spread seen) means `USUAL_SPREAD`. Returns 0 when `n` runs already do, None when the mean
    is not under the target or `MOST_RUNS` would not do.
    """
    gap = target - mean
    if not (math.isfinite(gap) and gap > 0):
        return None
    spread = USUAL_SPREAD if std is None else std
    least = n + 1 if std is None else max(n, 2)
    total = np.arange(least, MOST_RUNS + 1)
    total = total[total >= 2]
    with np.errstate(divide="ignore"):
        enough = special.stdtr(total - 1, -gap * np.sqrt(total) / spread) < alpha
    return int(total[np.argmax(enough)] - n) if enough.any() else None


def anytime_bound(losses, target: float = 3.28, alpha: float = 0.01, spread: float = STATED_SPREAD) -> AnytimeBound:
    """The one-sided normal-mixture bound of Howard, Ramdas, McAuliffe and Sekhon (Annals of Statistics 49(2), 2021).

    Let S_n = sum(target - x_i) and V_n = n * spread^2. For losses whose noise is sub-Gaussian with deviation at most
    `spread` and whose mean is the target or above, exp(l S_n - l^2 V_n / 2) is a supermartingale for every l >= 0,
    hence so is its mixture over a half-normal l of precision r:

        e_n = 2 sqrt(r / (V_n + r)) exp(S_n^2 / (2 (V_n + r))) Phi(S_n / sqrt(V_n + r)).

    By Ville's inequality P(some e_n >= 1/alpha) <= alpha, however the submitter decides when to stop. The bound on the
    mean solves e_n = 1/alpha for S_n. The precision r = 2 spread^2 is fixed beforehand, for use with a few runs.
    """
    losses = np.asarray(losses, dtype=float)
    evidence = e_values(losses, target, spread)
    n = losses.shape[-1]
    reach = _mixture_boundary(n * spread**2, spread, alpha) / n
    return AnytimeBound(
        e_value=float(evidence[-1]),
        p_value=float(min(1.0, 1.0 / evidence.max())),
        upper_bound=float(losses.mean() + reach),
        spread=spread,
    )


def e_values(losses, target: float = 3.28, spread: float = STATED_SPREAD) -> np.ndarray:
    """The e-value after each run, along the last axis: shape (..., n) -> (..., n). See `anytime_bound`."""
    losses = np.asarray(losses, dtype=float)
    gain = np.cumsum(target - losses, axis=-1)
    variance = np.arange(1, losses.shape[-1] + 1) * spread**2
    return np.exp(np.minimum(_log_mixture(gain, variance, spread), 700.0))


def _log_mixture(gain, variance, spread):
    precision = 2 * spread**2
    total = variance + precision
    return (
        math.log(2) + 0.5 * np.log(precision / total) + gain**2 / (2 * total) + special.log_ndtr(gain / np.sqrt(total))
    )


def _mixture_boundary(variance: float, spread: float, alpha: float) -> float:
    """The sum S at which the mixture reaches 1/alpha; it grows with S, so bisection finds it."""
    low, high = 0.0, 40 * math.sqrt(variance + 2 * spread**2)
    for _ in range(100):
        middle = (low + high) / 2
        if _log_mixture(middle, variance, spread) < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high
