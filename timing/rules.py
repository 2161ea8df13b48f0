"""The official rules of the speedrun as dated editions, and a run's time under any of them.

An edition is data: what is timed, the target, the significance asked and who is excused, what the compiler may be told,
the hardware. `edition(date)` gives the one in force on a day; `today()` the latest.
"""

import datetime
import math
from dataclasses import dataclass, field, replace

from timing.clock import time_after
from timing.clock_facts import clock_of
from timing.run import Run
from timing.timed import TimedLines

VALIDATION_TOKENS = 10_485_760
"""The first tokens of FineWeb's validation shard, 20 x 524,288: what every final loss is measured on."""

FINEWEB = "fineweb10B"
"""The corpus that the rules name, as manifests call it."""


class RulesError(ValueError):
    """A name or date under which there is no edition."""


@dataclass(frozen=True)
class Hardware:
    """What times are taken on. `gpu` is the official model; `same_class` are models that run the same code at the same
    arithmetic rate, whose losses count and whose times do not compare with the official model's."""

    gpus: int = 8
    gpu: str = "H100"
    same_class: tuple[str, ...] = ("H200", "H800")


@dataclass(frozen=True)
class Compiler:
    """What a script may tell torch.compile and its configuration. None means anything.

    `arguments` of torch.compile; `settings` below `torch._inductor.config` and `torch._dynamo.config`, by dotted name;
    `environment` variables among those that begin with one of `ENVIRONMENT_PREFIXES`.
    """

    arguments: frozenset[str] | None = None
    settings: frozenset[str] | None = None
    environment: frozenset[str] | None = None


ENVIRONMENT_PREFIXES = ("TORCHINDUCTOR_", "TORCHDYNAMO_", "TORCH_COMPILE_")

COMPILE_DEFAULTS = {"mode": (None, "default"), "options": (None, {}), "backend": ("inductor",), "disable": (False,)}
"""Arguments of torch.compile that, at one of these values, say nothing that the default does not."""

SETTING_DEFAULTS = {
    f"torch._inductor.config.{name}": (False,) for name in ("coordinate_descent_tuning", "max_autotune")
}
"""Settings that, at one of these values, switch nothing on: scripts of the time say so where they used to tune."""

NO_EXTRA_FLAGS = Compiler(
    arguments=frozenset({"dynamic", "fullgraph"}),
    settings=frozenset(
        f"torch._dynamo.config.{name}"
        for limit in ("recompile_limit", "cache_size_limit")
        for name in (limit, f"accumulated_{limit}")
    ),
    environment=frozenset({"TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"}),
)
"""Since 2025-02-01: no extra flags. The exceptions decide what is compiled or where the cache lies, not how well the
kernels are tuned: static shapes, whole graphs, how many graphs Dynamo keeps (records from 32 on need one a window)."""


@dataclass(frozen=True)
class Losses:
    """What validation losses (nats) of the target's kind of model can be. `vocabulary` is the tokenizer's: an untrained
    model gives its logarithm, or more. `impossible` is the target of the track of a model three times the size, on many
    times the tokens; `unheard_of` lies well below the lowest of 837 public final losses (3.2710), and `early` below
    every loss that the first quarter of a public run has shown (3.567)."""

    vocabulary: int = 50257
    impossible: float = 2.92
    unheard_of: float = 3.25
    early: float = 3.45


@dataclass(frozen=True)
class Edition:
    """The rules in force from `date` on.

    `significance` is the p-value asked of the one-sided t-test (None: the mean alone must reach the target), and
    `waived_for` the kinds of change that are excused from it. `untimed_steps` are steps of the run itself that the
    clock leaves out: 10 in era "A" (the clock is reset there), 0 in era "B" (kernels are warmed up beforehand, the
    state is restored, and every step counts). `since` says in words how sure the date is.
    """

    name: str
    since: str
    summary: str
    era: str
    untimed_steps: int
    target: float = 3.28
    val_tokens: int = VALIDATION_TOKENS
    corpus: str = FINEWEB
    significance: float | None = None
    waived_for: tuple[str, ...] = ()
    compiler: Compiler = field(default_factory=Compiler)
    losses: Losses = field(default_factory=Losses)
    hardware: Hardware | None = field(default_factory=Hardware)
    track: str = ""

    @property
    def title(self) -> str:
        """Its name, with the track where that is not track 1."""
        return f"{self.name}, {self.track}" if self.track else self.name

    @property
    def timed(self) -> bool:
        """Whether the time decides: where any hardware does, it cannot."""
        return self.hardware is not None

    @property
    def date(self) -> datetime.date:
        """The first day of the edition."""
        return datetime.date.fromisoformat(self.name)


_FIRST = Edition(
    name="2024-05-28",
    since="the llm.c baseline",
    summary="mean loss at most 3.28; the clock is reset after ten untimed steps; any compiler flag",
    era="A",
    untimed_steps=10,
)
_SIGNIFICANT = replace(
    _FIRST,
    name="2025-01-01",
    since="about 2025-01; the day is not recorded",
    summary="as before, and p < 0.01 over the runs, except for changes of systems only",
    significance=0.01,
    waived_for=("systems",),
)
_WARMED_UP = replace(
    _SIGNIFICANT,
    name="2025-02-01",
    since="the re-timing of record 21 as 21b",
    summary="untimed warmup with the state restored, then every step timed; no extra compiler flags",
    era="B",
    untimed_steps=0,
    compiler=NO_EXTRA_FLAGS,
)
EDITIONS = (_FIRST, _SIGNIFICANT, _WARMED_UP)


def today() -> Edition:
    """The latest edition."""
    return EDITIONS[-1]


def edition(when: str | datetime.date) -> Edition:
    """The edition in force on a day (ISO text or a date); an edition's own name is its first day.

    Raises RulesError for text that is no date and for a day before the first edition.
    """
    try:
        day = when if isinstance(when, datetime.date) else datetime.date.fromisoformat(str(when).strip())
    except ValueError:
        names = ", ".join(each.name for each in EDITIONS)
        raise RulesError(f"{when!r} is not a date (YYYY-MM-DD); editions of the rules begin on {names}") from None
    if isinstance(day, datetime.datetime):
        day = day.date()
    in_force = [each for each in EDITIONS if each.date <= day]
    if not in_force:
        raise RulesError(f"{day} lies before the first edition of the rules ({EDITIONS[0].name})")
    return in_force[-1]


@dataclass(frozen=True)
class Time:
    """A run's time under an edition in ms (None if the log has no clock), its uncertainty, and how it was had."""

    ms: float | None
    uncertainty_ms: float | None
    how: str


PACE_WINDOW = 100
CONVERSION_ERROR = 0.12
LEAST_ERROR_MS = 10.0


def official_time(run: Run, under: Edition) -> Time:
    """The time of `run` under the rules of `under`, converted between eras where its log was kept in the other one.

    Same era: the final `train_time` as logged.

    A to B. Era A resets the clock after ten steps, so the ten are added at the run's own early pace: t(k) / (k - 10)
    at the first line k at least 100 steps after the reset (early steps have the narrow windows of the first ten). The
    leaderboard put the ten steps at about 0.85 s when it switched; this formula gives 0.95 s for record 21 (10,947 ms
    at step 125), and the first ten steps of 21b took 0.907 s. Hence an uncertainty of 12% of the stretch, at least
    10 ms.
    What this does not convert is a flag that the newer edition bans: record 21 became 3.825 s slower as 21b (176.003 to
    179.828 s), of which about 3 s are coordinate-descent tuning switched off. That is a different program, not a clock.

    B to A. The first ten steps are taken away: t(10) if the log has that line, else ten steps at the pace of the first
    hundred. Era A reset its clock without a device synchronise, so the same 12% of the stretch are left uncertain.

    A log without a clock gives `ms` None. A log whose era cannot be told is taken as it stands, and the uncertainty is
    then the whole stretch.
    """
    logged = run.final_train_time_ms
    if logged is None or not math.isfinite(logged):
        return Time(None, None, "the log has no clock")
    era = clock_of(run).era
    if era == under.era:
        return Time(float(logged), 0.0, f"as logged, era {era}")
    stretch = _untimed_stretch(run, era)
    if stretch is None:
        return Time(float(logged), None, "as logged; too few lines to convert between eras")
    error = max(CONVERSION_ERROR * stretch, LEAST_ERROR_MS)
    if era is None:
        return Time(float(logged), stretch, "as logged; the log does not show its era")
    if under.era == "B":
        return Time(logged + stretch, error, f"era A, its untimed steps added at the run's pace: +{stretch:.0f} ms")
    return Time(logged - stretch, error, f"era B, the first ten steps taken away: -{stretch:.0f} ms")


def _untimed_stretch(run: Run, era: str | None) -> float | None:
    """Milliseconds that era A's untimed steps took or would have taken in this run, None when the log cannot say.

    A run shorter than the window shows its pace at its last line.
    """
    lines = TimedLines(run)
    if era == "B":
        exact = time_after(run, lines.untimed, exactly=True)
        if exact is not None:
            return exact[1]
    uncounted = lines.untimed if era == "A" else 0
    last = max(int(each.step.max(initial=0)) for each in (lines.train, lines.val))
    early = time_after(run, min(PACE_WINDOW + uncounted, last))
    if early is None or early[0] <= uncounted:
        return None
    step, ms = early
    return lines.untimed * ms / (step - uncounted)
