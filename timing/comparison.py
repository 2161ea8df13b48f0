"""Which of two records is faster, and at what loss: paired and Welch intervals, and one plain sentence."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Interval:
    """An estimate with a symmetric interval; `half_width` and `p_value` (two-sided, against 0) need two values."""

    estimate: float
    half_width: float | None
    p_value: float | None
    n: int

    @property
    def low(self) -> float | None:
        """Lower end, None without an interval."""
        return None if self.half_width is None else self.estimate - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end, None without an interval."""
        return None if self.half_width is None else self.estimate + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """True if the whole interval lies on one side of zero."""
        return self.half_width is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """B against A: `log_time` is of log(time B / time A), `loss` of loss B - loss A in nats (None if not given)."""

    method: str
    confidence: float
    log_time: Interval
    loss: Interval | None

    @property
    def faster_percent(self) -> float:
        """By how many percent of A's time B is faster; negative if it is slower."""
        return -100 * math.expm1(self.log_time.estimate)

    @property
    def margin_percent(self) -> float | None:
        """Half width of the interval on `faster_percent`, to first order: exp(estimate) * half width."""
        half = self.log_time.half_width
        return None if half is None else 100 * math.exp(self.log_time.estimate) * half

    def sentence(self, a: str = "A", b: str = "B") -> str:
        """One plain sentence, such as `B is 1.8% ± 0.3% faster at equal loss`."""
        single = "" if self.log_time.half_width is not None else " (a single comparison: no interval)"
        return f"{_about_time(self, a, b)}{_about_loss(self.loss)}{single}"


def compare_paired(times_a, times_b, losses_a=None, losses_b=None, confidence: float = 0.95) -> Comparison:
    """Compare runs that were made in pairs (A B B A on one machine): entry i of A belongs to entry i of B.

    Times in any one unit, losses in nats. What both runs of a pair share (the machine's mood) cancels, so the interval
    is Student's t over the per-pair differences of log time and of loss. Raises ValueError when lengths differ, a time
    is not positive, or a value is not finite.
    """
    times_a, times_b = _times(times_a), _times(times_b)
    _same_length(times_a, times_b)
    loss = None
    if losses_a is not None and losses_b is not None:
        losses_a, losses_b = _finite(losses_a, "loss"), _finite(losses_b, "loss")
        _same_length(losses_a, losses_b)
        loss = _one_sample(losses_b - losses_a, confidence)
    return Comparison("paired", confidence, _one_sample(np.log(times_b) - np.log(times_a), confidence), loss)


def compare_welch(times_a, times_b, losses_a=None, losses_b=None, confidence: float = 0.95) -> Comparison:
    """Compare two sets of independent runs, whose sizes and spreads may differ, by Welch's t interval.

    The same figures as `compare_paired`, from means of log time and of loss. Raises ValueError likewise.
    """
    log_time = _two_sample(np.log(_times(times_a)), np.log(_times(times_b)), confidence)
    loss = None
    if losses_a is not None and losses_b is not None:
        loss = _two_sample(_finite(losses_a, "loss"), _finite(losses_b, "loss"), confidence)
    return Comparison("Welch", confidence, log_time, loss)


def _one_sample(differences: np.ndarray, confidence: float) -> Interval:
    n, mean = differences.size, float(differences.mean())
    if n < 2:
        return Interval(mean, None, None, n)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    return _interval(mean, error, n - 1, n, confidence)


def _two_sample(a: np.ndarray, b: np.ndarray, confidence: float) -> Interval:
    """Welch (1947): variances added, degrees of freedom by Welch-Satterthwaite."""
    difference, n = float(b.mean() - a.mean()), min(a.size, b.size)
    if n < 2:
        return Interval(difference, None, None, n)
    share_a, share_b = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    total = share_a + share_b
    if total == 0:
        return _interval(difference, 0.0, a.size + b.size - 2, n, confidence)
    freedom = total**2 / (share_a**2 / (a.size - 1) + share_b**2 / (b.size - 1))
    return _interval(difference, math.sqrt(total), freedom, n, confidence)


def _interval(estimate: float, error: float, freedom: float, n: int, confidence: float) -> Interval:
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    if error == 0:
        return Interval(estimate, 0.0, 1.0 if estimate == 0 else 0.0, n)
    return Interval(estimate, half, float(2 * special.stdtr(freedom, -abs(estimate) / error)), n)


def _finite(values, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    if values.size == 0:
        raise ValueError(f"no {what} to compare")
    if not np.isfinite(values).all():
        raise ValueError(f"a {what} to compare is not a finite number")
    return values


def _times(values) -> np.ndarray:
    values = _finite(values, "time")
    if (values <= 0).any():
        raise ValueError("a time to compare is not positive")
    return values


def _same_length(a: np.ndarray, b: np.ndarray) -> None:
    if a.size != b.size:
        raise ValueError(f"pairs need as many values on both sides, not {a.size} and {b.size}")


def _about_time(result: Comparison, a: str, b: str) -> str:
    percent, margin = result.faster_percent, result.margin_percent
    word = "faster" if percent >= 0 else "slower"
    if margin is None:
        return f"{b} was {abs(percent):.1f}% {word} than {a}"
    figure = f"{abs(percent):.{_places(margin)}f}% ± {margin:.{_places(margin)}f}%"
    if not result.log_time.excludes_zero:
        return f"{b} and {a} cannot be told apart in time ({b} {figure} {word})"
    return f"{b} is {figure} {word}"


def _places(margin: float) -> int:
    """Decimals at which the margin shows its first figure: one as a rule, up to three for very quiet pairs."""
    if margin <= 0 or margin >= 0.05:
        return 1
    return min(3, 1 - math.floor(math.log10(margin) + 1))


def _about_loss(loss: Interval | None) -> str:
    if loss is None:
        return ""
    word = "higher" if loss.estimate > 0 else "lower"
    if loss.half_width is None:
        return f" at a loss {abs(loss.estimate):.4f} {word}" if loss.estimate else " at the same loss"
    if not loss.excludes_zero:
        return " at equal loss"
    return f" at a loss {abs(loss.estimate):.4f} ± {loss.half_width:.4f} {word}"
