"""The rules about time: the log's clock runs forward, runs at all, agrees with its averages and leaves no step out."""

from dataclasses import replace

from harness.referee.checks import Case, counted, logs
from harness.referee.verdict import FAIL, PASS, UNKNOWN, WAIVED, Check
from timing.clock import RECOGNISED, skipped
from timing.clock_facts import clock_of
from timing.log import Run
from timing.stutter import Stutter

MOST_IDLE, USUAL_IDLE = 0.05, 0.02
"""Shares of steps that take no time: above the first a clock stutters, above the second nobody can tell. Of 15 public
logs with a line a step two (of 2025-05-30, one machine) have 1.6%, the others none."""
LONG_STEP_MS, LONG_STEP = 5_000.0, 20.0


def check_clock_forward(case: Case) -> Check:
    """The clock never falls, save for era A's one reset, and never shows a negative time."""
    return _no_findings(case, "clock-forward", lambda clock: clock.faults, "never falls")


def check_clock_running(case: Case) -> Check:
    """The clock does not stand still while steps are made: not for a stretch, and not for a share of the steps."""
    still = _no_findings(case, "clock-running", lambda clock: clock.still, "never stands still")
    if still.status == UNKNOWN:
        return still
    found = [(entry, seen) for entry in case.entries if (seen := clock_of(entry.run).stutter)]
    for bound, status in ((MOST_IDLE, FAIL), (USUAL_IDLE, UNKNOWN)):
        faults = [f"{_stutter_in_words(seen)} ({e.at(seen.idle_line)})" for e, seen in found if seen.idle_share > bound]
        if faults:
            return case.check("clock-running", status, counted(faults), decisive=True)
    if still.status == FAIL:
        return still
    noted = [_stutter_in_words(seen) for _, seen in found if seen.idle][:1]
    noted += [
        f"noted: step {seen.longest_step} takes {seen.longest_ms / 1000:.1f} s ({entry.at(seen.longest_line)})"
        for entry, seen in found
        if seen.longest_ms > max(LONG_STEP_MS, LONG_STEP * seen.usual_ms)
    ][:3]
    return replace(still, evidence="; ".join([still.evidence, *noted]))


def _stutter_in_words(seen: Stutter) -> str:
    share = f"{seen.idle:,} of {seen.steps:,} steps take no time ({100 * seen.idle_share:.1f}%)"
    lost = seen.idle * seen.usual_ms / 1000
    return f"{share}, {seen.longest_idle} in a row; at the usual {seen.usual_ms:.0f} ms they are {lost:.1f} s"


def _no_findings(case: Case, rule: str, find, praise: str) -> Check:
    faults, blind = [], [entry.name for entry in case.entries if not clock_of(entry.run).lines]
    for entry in case.entries:
        faults += [f"{finding.text} ({entry.at(finding.line)})" for finding in find(clock_of(entry.run))]
    if faults:
        return case.check(rule, FAIL, counted(faults))
    if blind:
        return case.check(rule, UNKNOWN, f"no clock in {counted(blind)}", decisive=case.edition.timed)
    return case.check(rule, PASS, f"{praise}, in {logs(len(case.entries))} ({case.first(_last_timed)})")


def _last_timed(run: Run) -> int | None:
    """The last line with a time."""
    return clock_of(run).last_line


def check_clock_average(case: Case) -> Check:
    """Every logged average is the time divided by the steps that it counts, by the definition that fits most of them:
    the more averages contradict the times, the clearer the fault."""
    faults, bare, used = [], [], set()
    for entry in case.entries:
        clock = clock_of(entry.run)
        if clock.bare > max(clock.untimed + 2, RECOGNISED * clock.lines):
            bare.append(f"{clock.bare} of {clock.lines} times have no average ({entry.at(_last_timed(entry.run))})")
        for found in clock.averages:
            if found.definition is None:
                continue
            used.add(found.definition)
            if found.misfits > RECOGNISED * found.checked:
                at = entry.at(int(found.lines[0]))
                contradict = f"{found.misfits} of {found.checked} averages contradict"
                faults.append(f"{contradict} the time over the steps ({at})")
            else:
                faults += [f"time is not steps x average ({entry.at(int(line))})" for line in found.lines]
    if faults:
        return case.check("clock-average", FAIL, counted(faults))
    if bare or not used:
        said = counted(bare) or f"no averages in the logs ({case.first()})"
        return case.check("clock-average", UNKNOWN, said, decisive=case.edition.timed)
    steps = ", ".join(sorted(used))
    return case.check("clock-average", PASS, f"average = time / steps, counted {steps} ({case.first(_last_timed)})")


def check_era(case: Case) -> Check:
    """The clock counts the steps that the edition counts."""
    wanted = case.edition.era
    if not case.edition.timed:
        return case.check("clock-era", WAIVED, f"{case.edition.track}: no time decides ({case.first(_start_of_clock)})")
    meaning = {"A": "leaves out the first ten steps", "B": "counts every step"}
    eras = {entry.at(_start_of_clock(entry.run)): clock_of(entry.run).era for entry in case.entries}
    wrong = [era for era in eras.values() if era not in (None, wanted)]
    if wrong:
        faults = [
            f"the clock {meaning[era]}: era {era}, not {wanted} ({at})" for at, era in eras.items() if era in wrong
        ]
        return case.check("clock-era", FAIL, counted(faults))
    if None in eras.values():
        at = next(at for at, era in eras.items() if era is None)
        return case.check("clock-era", UNKNOWN, f"the log does not show which steps are timed ({at})")
    return case.check("clock-era", PASS, f"era {wanted}: the clock {meaning[wanted]} ({next(iter(eras))})")


def _start_of_clock(run: Run) -> int | None:
    """The line at which the clock starts to count: the first timed one, or era A's reset."""
    return clock_of(run).first_line


def check_steps(case: Case) -> Check:
    """No step is left out of the log or comes twice."""
    faults = []
    for entry in case.entries:
        faults += [f"{finding.text} ({entry.at(finding.line)})" for finding in skipped(entry.run)]
    if faults:
        return case.check("steps", FAIL, counted(faults))
    if not any(len(entry.run.train_step) for entry in case.entries):
        return case.check("steps", UNKNOWN, f"the logs hold validations only, no line a step ({case.first()})")
    first = case.first(lambda run: next(iter(run.train_line.tolist()), None))
    return case.check("steps", PASS, f"no gap, in {logs(len(case.entries))} ({first})")
