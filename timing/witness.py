"""The outside witness: every metric line of a run, with the launcher's own clock beside the script's."""

import re
from dataclasses import dataclass, field

from timing.text import printable

METRIC = re.compile(
    r"step:(?P<step>\d{1,18})/(?P<planned>\d{1,18}) (?:(?P<split>val|train)_loss:(?P<loss>\S+) )?"
    r"(?:[^\s:]+:\S+ )*?train_time:(?P<time>\d+(?:\.\d+)?)(?P<unit>ms|s)(?: step_avg:(?P<average>\S+?)ms)?(?:\s|$)"
)
FALLBACK = "fallback "


@dataclass(frozen=True)
class Metric:
    """One metric line: `kind` is "val" for a validation, else "train"; `loss` in nats or None; times in ms."""

    step: int
    planned: int
    kind: str
    loss: float | None
    log_ms: float
    step_avg_ms: float | None


def parse_metric(line: str) -> Metric | None:
    """The metric line that `line` is, in any of the community's `step:` dialects, or None."""
    if not line.startswith("step:") or (match := METRIC.match(line)) is None:
        return None
    scale = 1.0 if match["unit"] == "ms" else 1000.0
    kind = "val" if match["split"] == "val" else "train"
    time = float(match["time"]) * scale
    return Metric(
        int(match["step"]), int(match["planned"]), kind, _number(match["loss"]), time, _number(match["average"])
    )


def _number(text: str | None) -> float | None:
    """The figure that `text` spells ("nan" included), None where there is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


@dataclass
class Witness:
    """Metric lines in the order of their arrival; `clock_s` holds seconds of the launcher's monotonic clock."""

    metrics: list[Metric] = field(default_factory=list)
    clock_s: list[float] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)

    def hear(self, line: str, clock_s: float) -> Metric | None:
        """Note `line` if it is a metric or a fallback line; the metric is handed back."""
        if line.startswith(FALLBACK):
            self.fallbacks.append(printable(line, 200))
        metric = parse_metric(line)
        if metric:
            self.metrics.append(metric)
            self.clock_s.append(clock_s)
        return metric

    @property
    def complete(self) -> bool:
        """Whether the validation after the last step was seen."""
        return any(metric.kind == "val" and metric.step == metric.planned for metric in self.metrics[-3:])

    @property
    def validations(self) -> list[Metric]:
        """The validation lines, in order."""
        return [metric for metric in self.metrics if metric.kind == "val"]

    def as_columns(self) -> dict[str, list]:
        """The `witness` table of `run.json`."""
        return {
            "step": [metric.step for metric in self.metrics],
            "kind": [metric.kind for metric in self.metrics],
            "log_ms": [metric.log_ms for metric in self.metrics],
            "clock_s": [round(clock, 6) for clock in self.clock_s],
        }
