"""What a healthy run does not do: the rules by which a running replay is watched, one line of its output at a time.

A loss, a norm or any other figure that is no finite number is one always. Where the run is the record's own, its
validation losses are held against the published curve. Elsewhere a loss may rise above its lowest by no more than its
own noise allows, the gradient's norm may not leave the band that it has kept to, and no update may be as large as the
weights.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from timing.telemetry import Telemetry, parse_telemetry
from timing.text import printable
from timing.witness import Metric

Curve = tuple[tuple[int, float], ...]
LAG = 0.05  # a run may be this share of its steps behind the published curve,
SLACK = 0.03  # and this many nats above it; the five public logs of record 40 differ by 0.017 at most after step 0
DEVIATIONS = 6.0
LEAST_NOISE = {"val": 0.03, "train": 0.1}  # nats: a quiet beginning says little about the noise to come
NEEDED = {"val": 1, "train": 10}  # losses to be seen before a rise can be told from noise
WINDOW, NEEDED_NORMS = 50, 5
WHOLE = 0.85  # of the weights' norm: an update of this size leaves little of what was there before
LEAST_SPREAD = 0.3  # of the logarithm of a norm: six of these are a factor of 6


@dataclass(frozen=True)
class Breach:
    """One rule broken: its `kind` (not finite, behind, rising, gradient, update), step, why, last telemetry."""

    kind: str
    step: int
    reason: str
    telemetry: str = ""


@dataclass
class Rising:
    """Losses of one kind against their own noise: how far the last ones stood above the lowest before them."""

    kind: str
    lowest: float = math.inf
    rises: deque = field(default_factory=lambda: deque(maxlen=WINDOW))

    def hear(self, loss: float) -> str:
        """Why this loss, in nats, is more than noise; "" if it is not."""
        rise = loss - self.lowest if self.rises else 0.0
        usual = statistics.fmean(self.rises) if self.rises else 0.0
        limit = usual + DEVIATIONS * max(statistics.pstdev(self.rises or [0.0]), LEAST_NOISE[self.kind])
        if len(self.rises) >= NEEDED[self.kind] and rise > limit:
            return f"loss {loss:.4f} is {rise:.4f} above the lowest, {limit:.4f} is what this run's noise allows"
        self.rises.append(max(rise, 0.0))
        self.lowest = min(self.lowest, loss)
        return ""


@dataclass
class Band:
    """A norm against the band of the last ones: median and median deviation of their logarithms (Hampel, 1974)."""

    logs: deque = field(default_factory=lambda: deque(maxlen=WINDOW))

    def hear(self, norm: float) -> str:
        """Why this norm is beyond the band, "" if it is not. One that falls, or is zero, is none of our business."""
        if norm <= 0:
            return ""
        level = math.log(norm)
        if len(self.logs) >= NEEDED_NORMS:
            median = statistics.median(self.logs)
            spread = 1.4826 * statistics.median(abs(past - median) for past in self.logs)
            top = median + DEVIATIONS * max(spread, LEAST_SPREAD)
            if level > top:
                return f"the gradient's norm {norm:.3g} is beyond its band, which ends at {math.exp(top):.3g}"
        self.logs.append(level)
        return ""


class Watcher:
    """Hears a run's lines as they arrive and says which of them no healthy run would write.

    `reference` is the published curve, (step, nats), where the run is held against it, else (); `stops` says whether a
    breach is to end the run. `breaches` keeps the first of every kind, `telemetry` the last line of its sort.
    """

    def __init__(self, reference: Curve = (), stops: bool = True):
        self.reference, self.stops = reference, stops
        self.breaches: list[Breach] = []
        self.telemetry = ""
        self._rising = {kind: Rising(kind) for kind in LEAST_NOISE}
        self._band = Band()

    def hear(self, line: str, metric: Metric | None) -> Breach | None:
        """The breach that this line is, the first time that one of its kind is heard; `metric` if it is a metric."""
        if metric:
            return self._note(metric.step, *self._loss(metric)) if metric.loss is not None else None
        telemetry = parse_telemetry(line.encode(errors="replace"))
        if telemetry is None:
            return None
        self.telemetry = printable(line, 2000)
        return self._note(telemetry.step, *self._norms(telemetry))

    def stopped_itself(self, step: int, reason: str) -> Breach:
        """Note that the script ended itself at `step` over a figure that is not finite."""
        return self._note(step, "not finite", reason) or self.breaches[-1]

    def _note(self, step: int, kind: str, reason: str) -> Breach | None:
        if not reason or any(breach.kind == kind for breach in self.breaches):
            return None
        self.breaches.append(Breach(kind, step, reason, self.telemetry))
        return self.breaches[-1]

    def _loss(self, metric: Metric) -> tuple[str, str]:
        name = {"val": "validation", "train": "training"}[metric.kind]
        if not math.isfinite(metric.loss):
            return "not finite", f"{name} loss {metric.loss}"
        if metric.kind == "val" and self.reference:
            return "behind", behind(self.reference, metric)
        why = self._rising[metric.kind].hear(metric.loss)
        return "rising", why and f"{name} {why}"

    def _norms(self, telemetry: Telemetry) -> tuple[str, str]:
        for name, figures in telemetry.figures.items():
            if not all(map(math.isfinite, figures)):
                return "not finite", f"{printable(name, 40)} is not finite"
        gradient, update, weights = (
            (telemetry.figures.get(f"{name}_norm") or (0.0,))[0] for name in ("grad", "update", "weight")
        )
        if update > WHOLE * weights > 0:
            return "update", f"the update's norm {update:.3g} is {update / weights:.0%} of the weights' after it"
        return "gradient", self._band.hear(gradient)


def behind(reference: Curve, metric: Metric) -> str:
    """Why a validation loss is worse than the published curve allows, "" if it is not, or beyond the curve's ends."""
    expected = interpolated(reference, metric.step)
    if expected is None:
        return ""
    limit = max(expected, interpolated(reference, (1 - LAG) * metric.step) or expected) + SLACK
    if metric.loss <= limit:
        return ""
    return f"validation loss {metric.loss:.4f} is above {limit:.4f}; the published run had {expected:.4f} at this step"


def interpolated(curve: Curve, step: float) -> float | None:
    """The loss of `curve` at `step`, linearly between its points; None outside of them."""
    for (left, above), (right, below) in pairwise(curve):
        if left <= step <= right and left < right:
            return above + (below - above) * (step - left) / (right - left)
    return None
