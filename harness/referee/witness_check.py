"""The rule about the launcher's own clock: it agrees with the log, and saw the same lines."""

import math

import numpy as np

from harness.referee.checks import Case, counted, logs
from harness.referee.submission import Entry
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.timed import TimedLines
from timing.witness import parse_metric

WITNESS_SHARE = 0.01
WITNESS_JITTER_MS = 5.0
LARGEST_OUTPUT = 256 << 20


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
    return columns if all(column.shape == (step.size,) for column in columns) else None


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
    seen = {(int(s), bool(t)): ms for s, t, ms in zip(step, train, log_ms)}
    return [
        f"step {lines.step[i]} shows {lines.time_ms[i]:.0f} ms where the launcher saw {seen[key]:.0f} "
        f"({entry.at(int(lines.line[i]))})"
        for lines in TimedLines(entry.run).stretches(overlap=0)
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
