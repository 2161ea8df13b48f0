"""What a ladder will take before it starts: hours and dollars, from earlier runs here or from the published steps."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from harness.replay import runs
from harness.replay.outcome import Result
from harness.replay.progress import clock
from harness.replay.replay import Stage

START_S = {True: 150.0, False: 15.0}  # with a GPU (compilation, untimed warmup), and without
VALIDATION_SHARE = 1 / 3  # of a training step's time, for as many tokens: forward alone


@dataclass(frozen=True)
class Cost:
    """Seconds and dollars of some runs, and what the estimate rests on."""

    seconds: float = 0.0
    dollars: float = 0.0
    source: str = ""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.dollars + other.dollars)


def cost_of(stage: Stage, count: int, price: float) -> Cost:
    """What `count` runs of this stage take; `price` is dollars per GPU-hour, and nothing is paid without a GPU."""
    step_ms, source = step_time(stage)
    plan = stage.plan
    training = (plan.steps or 0) * step_ms / 1000
    seconds = count * (START_S[plan.gpu] + training + validation_s(stage, step_ms))
    return Cost(seconds, seconds / 3600 * price * plan.world_size if plan.gpu else 0.0, source)


def step_time(stage: Stage) -> tuple[float, str]:
    """Milliseconds of a step here, and where that is known from: the last run like it, else the published figure."""
    plan, listed = stage.plan, stage.plan.record.listed
    for folder in sorted((stage.runs_dir / plan.record.slug).glob("*/"), reverse=True):
        facts = runs.read(folder)
        alike = facts and (facts.get("gpus"), (facts.get("fidelity") == "smoke")) == (plan.ranks, plan.smoke)
        here = facts.get("machine") if alike else None
        same = isinstance(here, dict) and here.get("gpu") == stage.machine.facts(plan.ranks)["gpu"]
        if same and (measured := Result.of(folder, facts).step_ms) is not None:
            return measured, f"run {folder.name}"
    if plan.smoke or not listed.step_avg_ms:
        return 1000.0, "a guess"
    return listed.step_avg_ms * 8 / plan.world_size, "the published step, by GPUs"


def validation_s(stage: Stage, step_ms: float) -> float:
    """Seconds of one run's validations."""
    plan, settings = stage.plan, stage.plan.settings or {}

    def value(name: str) -> float:
        given = plan.overrides.get(name, settings[name].default if name in settings else None)
        return float(given or 0)

    every, per_step = value("val_loss_every"), plan.record.listed.tokens_per_step
    if plan.smoke or not (every and per_step):
        return 0.0
    return ((plan.steps or 0) // every + 1) * value("val_tokens") / per_step * step_ms / 1000 * VALIDATION_SHARE


def announce_cost(stages: list[Stage], costs: list[Cost], console: Console) -> None:
    """A line for every rung, and the sum."""
    table = Table("record", "steps", "tokens", "time to go", "by", box=None, pad_edge=False)
    for stage, cost in zip(stages, costs):
        plan = stage.plan
        tokens = "toy" if plan.smoke else f"{(plan.steps or 0) * (plan.record.listed.tokens_per_step or 0):,}"
        table.add_row(plan.record.number, f"{plan.steps or 0:,}", tokens, clock(cost.seconds), cost.source)
    console.print(table)
    total = sum(costs, Cost())
    money = f", about ${total.dollars:,.2f}" if total.dollars else ""
    console.print(f"in all about {clock(total.seconds)}{money}")
