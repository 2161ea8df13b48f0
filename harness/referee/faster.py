"""The rule about speed: faster than the baseline that was named, on what the logs show to be one machine."""

import math

from harness.referee.checks import Case, check_complete
from harness.referee.clock_checks import check_clock_average, check_clock_forward, check_clock_running
from harness.referee.copies import check_independence
from harness.referee.submission import Entry
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.comparison import Comparison, compare_welch
from timing.rules import official_time
from timing.text import printable

SOUND = (check_complete, check_independence, check_clock_forward, check_clock_running, check_clock_average)
HOST_FACTS = ("cpu", "cores", "memory_gib", "driver")


def machine(entry: Entry) -> dict[str, object]:
    """What a log, and the launcher's `run.json` beside it, tell of the machine: the GPUs' name and number, their bus
    ids, the driver and the host. Only what is told is in it; equal facts never tell one machine from its twin."""
    run, host = entry.run, entry.facts.get("machine")
    host = host if isinstance(host, dict) else {}
    known = {
        "GPU": run.gpu or run.device,
        "GPUs": run.world_size or run.gpus,
        "bus ids": run.gpu_ids,
        "driver": run.driver,
        **{name: host.get(name) for name in HOST_FACTS if isinstance(host.get(name), (str, int, float))},
    }
    return {name: value for name, value in known.items() if value}


def _other_machine(case: Case) -> str:
    """Why the runs of both sides were not, or are not shown to be, made on one machine; "" where nothing says so."""
    mine, theirs = ([machine(entry) for entry in side] for side in (case.entries, case.baseline))
    if not all({"GPU", "GPUs"} <= each.keys() for each in [*mine, *theirs]):
        return "not shown to be the same GPUs"
    for name in dict.fromkeys(name for each in [*mine, *theirs] for name in each):
        seen = {str(each[name]) for each in [*mine, *theirs] if name in each}
        if len(seen) > 1:
            shown = " and ".join(printable(value, 40) for value in sorted(seen)[:2])
            return f"not one machine: {name} {shown}"
    return ""


def _broken_baseline(case: Case) -> str:
    """What the rules about whole runs, copies and clocks find in the baseline; "" where that is nothing."""
    baseline = Case(case.baseline, case.edition)
    found = [check for rule in SOUND if (check := rule(baseline)).status == FAIL or check.blocks]
    return "; ".join(f"{check.rule}: {check.evidence}" for check in found)


def official_seconds(case: Case, entries: tuple[Entry, ...]) -> list[float]:
    """Times in seconds under the edition's clock, of the complete runs that have one."""
    times = [official_time(entry.run, case.edition).ms for entry in entries if entry.run.complete]
    return [time / 1000 for time in times if time is not None and time > 0]


def against(case: Case) -> Comparison | None:
    """The case's times and losses compared with the baseline's, None where either side has none."""
    mine, theirs = official_seconds(case, case.entries), official_seconds(case, case.baseline)
    if not mine or not theirs:
        return None
    losses, base = case.losses(), Case(case.baseline, case.edition).losses()
    usable = all(map(math.isfinite, [*losses, *base]))
    return compare_welch(theirs, mine, base if usable else None, losses if usable else None)


def check_faster(case: Case) -> Check:
    """Faster than the baseline that was named, on the same hardware, beyond run-to-run noise."""
    if not case.baseline:
        return case.check("faster", UNKNOWN, "no logs of the prior record were given (--against)")
    if case.baseline_arms > 1:
        return case.check("faster", UNKNOWN, f"the baseline holds {case.baseline_arms} arms; give one", decisive=True)
    comparison = against(case)
    if comparison is None:
        return case.check(
            "faster",
            UNKNOWN,
            f"one side has no complete run with a clock (baseline: {case.baseline[0].at(None)})",
            decisive=True,
        )
    interval = f"; {comparison.method}, {comparison.confidence:.0%}" if comparison.log_time.half_width else ""
    base = Case(case.baseline, case.edition).finished()[0]
    where = f"baseline: {base.at(int(base.run.val_line[-1]))}"
    evidence = f"{comparison.sentence('the baseline', 'this')}{interval} ({where})"
    if broken := _broken_baseline(case):
        return case.check("faster", UNKNOWN, f"the baseline is no measure: {broken}; {evidence}", decisive=True)
    if other := _other_machine(case):
        return case.check("faster", UNKNOWN, f"{other}; {evidence}", decisive=True)
    if not comparison.log_time.excludes_zero:
        return case.check("faster", UNKNOWN, evidence, decisive=True)
    return case.check("faster", PASS if comparison.faster_percent > 0 else FAIL, evidence, decisive=True)
