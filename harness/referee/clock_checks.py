"""The rules about time: the log's clock runs forward, runs at all, agrees with its averages and with the witness."""

import math

import numpy as np

from harness.referee.checks import Case, counted, logs
from harness.referee.submission import Entry
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.clock import (
    definition_of_average,
    era_of,
    negative,
    skipped,
    start_of_count,
    stood_still,
    timed_lines,
    turned_back,
)
from timing.log import Run
from timing.witness import parse_metric

WITNESS_SHARE = 0.01
WITNESS_JITTER_MS = 5.0
LARGEST_OUTPUT = 256 << 20


def check_clock_forward(case: Case) -> Check:
    """The clock never falls, save for era A's one reset, and never shows a negative time."""
    return _no_findings(case, "clock-forward", lambda lines: [*turned_back(lines), *negative(lines)], "never falls")


def check_clock_running(case: Case) -> Check:
    """The clock does not stand still while steps are made."""
    return _no_findings(case, "clock-running", stood_still, "never stands still")


def _no_findings(case: Case, rule: str, find, praise: str) -> Check:
    faults, blind = [], [entry.name for entry in case.entries if not len(timed_lines(entry.run))]
    for entry in case.entries:
        faults += [f"{finding.text} ({entry.at(finding.line)})" for finding in find(timed_lines(entry.run))]
    if faults:
        return case.check(rule, FAIL, counted(faults))
    if blind:
        return case.check(rule, UNKNOWN, f"no clock in {counted(blind)}", decisive=True)
    return case.check(rule, PASS, f"{praise}, in {logs(len(case.entries))} ({case.first(_last_timed)})")


def _last_timed(run: Run) -> int | None:
    """The last line with a time."""
    return next(iter(timed_lines(run).line[-1:].tolist()), None)


def check_clock_average(case: Case) -> Check:
    """Every logged average is the time divided by the steps that it counts."""
    faults, odd, used = [], [], set()
    for entry in case.entries:
        lines = timed_lines(entry.run)
        counted_lines = lines.only(np.arange(len(lines)) >= start_of_count(lines))
        for validation in (True, False):
            chosen = counted_lines.only(counted_lines.validation == validation)
            if not np.isfinite(chosen.average_ms).any():
                continue
            name, misfits = definition_of_average(lines, validation)
            if name is None:
                odd.append(f"averages follow no known definition ({entry.at(_last_timed(entry.run))})")
            used.add(name)
            faults += [f"time is not steps x average ({entry.at(int(line))})" for line in misfits if name]
    if faults:
        return case.check("clock-average", FAIL, counted(faults))
    if odd or not used:
        return case.check("clock-average", UNKNOWN, counted(odd) or f"no averages in the logs ({case.first()})")
    steps = ", ".join(sorted(used))
    return case.check("clock-average", PASS, f"average = time / steps, counted {steps} ({case.first(_last_timed)})")


def check_era(case: Case) -> Check:
    """The clock counts the steps that the edition counts."""
    wanted = case.edition.era
    meaning = {"A": "leaves out the first ten steps", "B": "counts every step"}
    eras = {entry.at(_start_of_clock(entry.run)): era_of(entry.run) for entry in case.entries}
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
    lines = timed_lines(run)
    return int(lines.line[start_of_count(lines)]) if len(lines) else None


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


def check_witness(case: Case) -> Check | None:
    """The launcher's own clock agrees within 1%, and saw the same lines; None where no run was witnessed."""
    faults, unknown, shares = [], [], []
    for entry in case.entries:
        if "damaged" in entry.facts:
            unknown.append(f"run.json beside {entry.name} cannot be read: {entry.facts['damaged']}")
        if not isinstance(entry.facts.get("witness"), dict):
            continue
        columns = _columns(entry.facts["witness"])
        if columns is None:
            unknown.append(f"the witness beside {entry.name} is damaged")
            continue
        faults += _edited_lines(entry, *columns) + _edited_losses(entry)
        share = _disagreement(*columns)
        if share is None:
            unknown.append(f"too few witnessed lines in {entry.name}")
        elif share > WITNESS_SHARE:
            faults.append(f"the launcher's clock differs by at least {100 * share:.1f}% ({entry.name})")
        else:
            shares.append(share)
    if faults:
        return case.check("witness", FAIL, counted(faults))
    if unknown:
        return case.check("witness", UNKNOWN, counted(unknown))
    if not shares:
        return None
    agreement = f"within {100 * max(shares):.2f}% of the launcher's clock"
    return case.check(
        "witness", PASS, f"{agreement}, {len(shares)} of {logs(len(case.entries))} witnessed ({case.first()})"
    )


def _columns(table: dict) -> tuple[np.ndarray, ...] | None:
    """step (int64), training line (bool), log time in ms, clock in s (float64): of one length, or None."""
    try:
        step = np.array(table["step"], np.int64)
        train = np.array([kind == "train" for kind in table["kind"]], bool)
        log_ms, clock_s = (np.array(table[name], np.float64) for name in ("log_ms", "clock_s"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    columns = step, train, log_ms, clock_s
    return columns if all(column.shape == (len(step),) for column in columns) else None


def _disagreement(step, train, log_ms, clock_s) -> float | None:
    """Relative difference of the two clocks over all spans between train lines without a validation between them.

    Validation is timed by the witness only, and so is era A's reset: spans end at either. A few milliseconds a span
    (the pipe between script and launcher) are forgiven. None if there is no span at all.
    """
    forward = np.diff(log_ms) >= 0
    spans = train[1:] & train[:-1] & forward
    logged = float(np.diff(log_ms)[spans].sum())
    witnessed = 1000 * float(np.diff(clock_s)[spans].sum())
    if not spans.any() or witnessed <= 0 or not math.isfinite(witnessed + logged):
        return None
    breaks = 1 + int(np.count_nonzero(~spans))
    return max(0.0, abs(logged - witnessed) - WITNESS_JITTER_MS * breaks) / witnessed


def _edited_lines(entry: Entry, step, train, log_ms, clock_s) -> list[str]:
    """Lines of the log whose time is not the one that the launcher saw pass."""
    lines = timed_lines(entry.run)
    seen = {(int(s), bool(t)): ms for s, t, ms in zip(step, train, log_ms)}
    return [
        f"step {lines.step[i]} shows {lines.time_ms[i]:.0f} ms where the launcher saw {seen[key]:.0f} "
        f"({entry.at(int(lines.line[i]))})"
        for i in range(len(lines))
        if (key := (int(lines.step[i]), not lines.validation[i])) in seen and abs(seen[key] - lines.time_ms[i]) > 1.0
    ]


def _edited_losses(entry: Entry) -> list[str]:
    """Validations of the log whose loss is not the one in the launcher's copy of the output."""
    if entry.stdout is None or entry.stdout.stat().st_size > LARGEST_OUTPUT:
        return []
    seen = {}
    with entry.stdout.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            metric = parse_metric(text)
            if metric and metric.kind == "val" and metric.loss is not None:
                seen[metric.step] = metric.loss
    run = entry.run
    return [
        f"step {step} shows val_loss {loss:.4f} where the launcher saw {seen[step]:.4f} ({entry.at(int(line))})"
        for step, loss, line in zip(run.val_step.tolist(), run.val_loss.tolist(), run.val_line.tolist())
        if step in seen and abs(seen[step] - loss) > 1e-6
    ]
