"""What finished runs show: the summary at the end of a replay, its smoke checks and its verdict."""

import dataclasses
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.archive.record import Record
from harness.archive.run_folder import LOG
from harness.errors import RunFailed, UserError
from harness.replay.fidelity import LABELS, Label
from harness.replay.plan import Plan
from harness.replay.runs import shown
from harness.terminal import say
from harness.tokens.manifest import Manifest
from timing.witness import Metric, parse_metric

FLOOR_TOLERANCE = 0.03  # nats: the loss over a smoke test's few tokens scatters around its expectation by less


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, its facts (`run.json`), and its metric lines as its log has them."""

    folder: Path
    facts: dict
    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, folder: Path, facts: dict) -> "Result":
        """Read the metric lines of a run folder."""
        lines = _log(folder).read_text(errors="replace").splitlines()
        return cls(folder, facts, tuple(metric for line in lines if (metric := parse_metric(line))))

    def as_data(self) -> dict:
        """What the run showed, as JSON takes it; seconds, milliseconds and nats."""
        return {
            "folder": shown(self.folder),
            "steps": self.steps,
            "first_val_loss": self.losses[0] if self.losses else None,
            "last_val_loss": self.losses[-1] if self.losses else None,
            "train_time_s": self.train_time_ms / 1000 if math.isfinite(self.train_time_ms) else None,
            "step_ms": self.step_ms,
            "seed": self.facts.get("seed"),
        }

    @property
    def losses(self) -> list[float]:
        """Validation losses in nats, in order."""
        return [metric.loss for metric in self.metrics if metric.kind == "val" and metric.loss is not None]

    @property
    def train_time_ms(self) -> float:
        """The script's own clock at its last line."""
        return self.metrics[-1].log_ms if self.metrics else float("nan")

    @property
    def step_ms(self) -> float | None:
        """Median milliseconds of a training step, None where the log does not tell."""
        medians = self.stages_ms(1)
        return medians[0] if medians else None

    def stages_ms(self, stages: int) -> list[float]:
        """The same of each of so many equal parts of the schedule; none where one cannot be timed."""
        from harness.archive.evidence import stage_medians
        from timing.log import LogError, read_log

        try:
            return stage_medians(read_log(_log(self.folder)), self.facts, stages)
        except LogError:
            return []

    @property
    def steps(self) -> int:
        """The last step."""
        return self.metrics[-1].step if self.metrics else 0


def report(plan: Plan, results: list[Result], manifest: Manifest | None, console: Console, guard: bool = False) -> str:
    """Print the summary and the verdict, and return the verdict. Raises RunFailed if a smoke check does not hold."""
    if plan.nodes.rank:
        console.print("done; node 0 has the log and the verdict")
        return ""
    plan = dataclasses.replace(plan, label=weakest(plan, results))
    for name, value in _rows(plan, results, manifest, guard):
        say(console, f"{name:<22}{value}", hang=22)
    if not plan.smoke:
        as_record = "" if plan.label.name == "official" else "as a record run, which it is not, it "
        verdict = f"{as_record}{_judge(plan, results)}"
        say(console, f"{'verdict':<22}{verdict}", hang=22)
        return verdict
    floor = manifest.entropy_nats if manifest else None
    margin = _margin(plan)
    problems = [why for result in results if (why := smoke_problem(result.losses, margin, floor))]
    if problems:
        raise RunFailed(f"smoke test failed: {problems[0]}")
    verdict = _smoke_verdict(plan, margin, floor)
    say(console, f"{'verdict':<22}{verdict}", hang=22)
    return verdict


def weakest(plan: Plan, results: list[Result]) -> Label:
    """What all of these runs are worth together: less than planned if one had to fall back."""
    found = [result.facts.get("fidelity") for result in results]
    worth = list(LABELS)
    return max(
        (LABELS[name] for name in found if name in LABELS),
        key=lambda label: worth.index(label.name),
        default=plan.label,
    )


def _margin(plan: Plan) -> float:
    """Nats by which the loss must fall: the record's, or -inf for a run shorter than its smoke test."""
    shortened = plan.steps is not None and plan.steps < int(plan.record.smoke.get("num_iterations", 0))
    return -math.inf if shortened else plan.record.smoke_margin


def smoke_problem(losses: list[float], margin: float, floor: float | None) -> str:
    """Why validation losses fail the smoke test, "" if they do not: they must fall by `margin`, not below `floor`."""
    if len(losses) < 2:
        return "fewer than two validations to tell learning by"
    fall = losses[0] - losses[-1]
    if not fall >= margin:
        asked = f", and should have fallen by {margin:g}" if margin > 0 else ""
        return f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f}{asked}"
    if floor is not None and losses[-1] < floor - FLOOR_TOLERANCE:
        return f"the loss {losses[-1]:.4f} is below the source's entropy {floor:.4f}: the model sees what it predicts"
    return ""


def _smoke_verdict(plan: Plan, margin: float, floor: float | None) -> str:
    above = " and stays above the floor" if floor is not None else ""
    if margin < 0:
        return f"it runs{above}; too short for a smoke test, which asks for a fall by {plan.record.smoke_margin:g}"
    return f"PASSED as a smoke test: the loss falls by at least {margin:g}{above}"


def _rows(plan: Plan, results: list[Result], manifest: Manifest | None, guard: bool) -> list[tuple[str, str]]:
    """The summary as pairs of a name and a value."""
    label, slug = plan.record.label, plan.record.slug
    rows = [("replay", f"{label if label == slug else f'{label} ({slug})'}, {plan.label.name}, {_count(results)}")]
    rows.append(("first validation loss", _mean([result.losses[0] for result in results if result.losses], 4)))
    rows.append(("last validation loss", _mean([result.losses[-1] for result in results if result.losses], 4)))
    if plan.smoke and manifest and manifest.entropy_nats is not None:
        rows.append(("entropy floor", f"{manifest.entropy_nats:.4f} (no honest loss on these tokens is lower)"))
    seconds = [result.train_time_ms / 1000 for result in results]
    rows.append(("training time", f"{_mean(seconds, 3)} s for {results[-1].steps:,} steps"))
    rows += pace(plan.record, results)
    if plan.label.name in ("same-batch", "stand-in") and plan.world_size < 8:
        projected = statistics.fmean(seconds) * plan.world_size / 8
        rows.append(("projected on 8 GPUs", f"{projected:.3f} s, if communication cost nothing"))
    fallbacks = [line for result in results for line in result.facts.get("fallbacks", [])]
    for result in results:
        if attempts := result.facts.get("attempts"):
            rows.append(("fell back", f"{len(attempts)} attempts were stopped, the first {attempts[0]['why']}"))
    if guard or fallbacks:
        rows.append(("fp8 fallbacks", "; ".join(fallbacks) or "none"))
    if not plan.smoke:
        rows.append(("proves", plan.label.proves + (f", not {plan.label.not_proved}" if plan.label.not_proved else "")))
    return [*rows, *(("run folder", shown(result.folder)) for result in results)]


def pace(record: Record, results: list[Result]) -> list[tuple[str, str]]:
    """The row of the summary on the median step, of each stage where the record's batch grows; none if no log tells."""
    stages = len(record.listed.stages_ms or [0])
    known = [medians for result in results if (medians := result.stages_ms(stages))]
    told = ", ".join(_mean(list(stage), 1) for stage in zip(*known))
    return [("median step", f"{told} ms" + (" in its stages" if stages > 1 else ""))] if told else []


def _judge(plan: Plan, results: list[Result]) -> str:
    """The referee's word on the logs of these runs, by the official rules."""
    from harness.referee.verify import verdict_line, verify

    logs = [_log(result.folder) for result in results]
    try:
        return verdict_line(verify(logs, record=plan.record if plan.record.number else None))
    except UserError as error:  # the runs are good all the same
        return f"none: {error}"


def _log(folder: Path) -> Path:
    """The log of a run; its stdout if the script kept none."""
    log = folder / LOG
    return log if log.exists() else folder / "stdout.txt"


def _count(results: list[Result]) -> str:
    return f"{len(results)} run" + ("s" if len(results) > 1 else "")


def _mean(values: list[float], places: int) -> str:
    """A mean, with its deviation if there are several values."""
    if not values:
        return "none"
    spread = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{places}f}{spread}"
