"""The rule about samples: no run is a copy of another, whole or in part, bare or under noise."""

import math
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np

from harness.referee.checks import Case, counted, environment_line, last_validation
from harness.referee.submission import Entry, by_validations
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check

COPY_LOSS = 1.5e-4
COPY_TIME_MS = 2.0
COPY_POINTS = 3
COPY_TIMES = 8
EQUAL_LOSSES = 4
EQUAL_STEPS, CHANCE = 30, 1e-9
NOISY_TIMES, LEAST_TIMES, FEW = 0.5, 100, 64
NOISY_LOSSES, LEAST_LOSSES = 1.5, 8


def check_independence(case: Case) -> Check:
    """No run of the arm is a copy of another by content, run id, losses or times, in whole or in part; equal seeds are
    pointed out, and so are losses that scatter as copies under noise do."""
    faults = _same_content(case.entries) + _same_run_id(case.entries)
    faults = faults or _copied_trajectories(case.entries) or _shared_stretches(case.entries)
    faults = faults or _times_under_noise(case.entries)
    if faults:
        return case.check("independence", FAIL, counted(faults))
    seeds = Counter(entry.run.seed for entry in case.entries if entry.run.seed)
    repeated = [f"{count} runs have seed {seed}" for seed, count in seeds.items() if count > 1]
    if repeated:
        where = case.first(environment_line("seed"))
        return case.check("independence", UNKNOWN, f"{counted(repeated)}: they may not differ by chance ({where})")
    if noisy := _losses_under_noise(case.entries):
        return case.check("independence", UNKNOWN, f"{noisy} ({case.first(last_validation)})", decisive=True)
    said = "a single run" if len(case.entries) == 1 else f"{len(case.entries)} runs with trajectories of their own"
    return case.check("independence", PASS, f"{said} ({case.first(last_validation)})")


def _same_content(entries: tuple[Entry, ...]) -> list[str]:
    first, faults = {}, []
    for entry in entries:
        other = first.setdefault(entry.run.digest, entry)
        if other.run.path != entry.run.path:  # trials of one file share its bytes
            faults.append(f"{entry.name} is byte for byte {other.name}")
    return faults


def _same_run_id(entries: tuple[Entry, ...]) -> list[str]:
    ids, faults = {}, []
    for entry in entries:
        run_id = entry.run.run_id or entry.facts.get("run_id")
        other = ids.setdefault(run_id, entry) if isinstance(run_id, str) else entry
        if other.run.path != entry.run.path:
            faults.append(f"{entry.name} and {other.name} have the same run id {run_id}")
    return faults


def _copied_trajectories(entries: tuple[Entry, ...]) -> list[str]:
    """Pairs of runs whose losses or times differ by nothing or by one constant, which chance does not do."""
    faults = []
    for group in by_validations(entries).values():
        steps = group[0].run.val_step
        chosen = steps > 0
        if chosen.sum() >= COPY_POINTS:
            losses = np.stack([entry.run.val_loss[chosen] for entry in group])
            faults += _constant_apart(group, losses, COPY_LOSS, "losses", "nats")
    for group, times in _timed(entries):
        faults += _constant_apart(group, times, COPY_TIME_MS, "times", "ms")
    return faults


def _constant_apart(group: list[Entry], curves: np.ndarray, slack: float, what: str, unit: str) -> list[str]:
    """Pairs of rows of `curves` (runs, points) whose difference varies by no more than `slack`."""
    faults = []
    few = curves[:, np.linspace(0, curves.shape[1] - 1, FEW).astype(int)]
    for i in range(1, len(group)):
        near = np.flatnonzero(
            np.ptp(few[:i] - few[i], axis=1) <= slack
        )  # all but copies differ at a few points already
        difference = curves[near] - curves[i]
        for row in np.flatnonzero(np.ptp(difference, axis=1) <= slack):
            by = abs(difference[row])
            apart = f", {by.mean():.4g} {unit} apart" if by.max() > slack else ""
            faults.append(f"{group[i].name} repeats the {what} of {group[near[row]].name}{apart}")
    return faults


def _shared_stretches(entries: tuple[Entry, ...]) -> list[str]:
    """Pairs of runs that are one run for a part of their way: losses equal to the last digit at four validations
    running, or step after step that takes the same milliseconds, far longer than chance would have it.

    Clocks print whole milliseconds, so that honest neighbours often agree (record 40: at every second step, up to 13
    running). As long as `CHANCE` allows is what follows from the least share of equal steps in any pair of the arm.
    """
    faults = []
    for group in by_validations(entries).values():
        for (i, a), (k, b) in combinations(enumerate(group), 2):
            equal = (a.run.val_loss == b.run.val_loss) & (a.run.val_step > 0)
            if _longest(equal) >= EQUAL_LOSSES and len(np.unique(a.run.val_loss[equal])) >= EQUAL_LOSSES:
                faults.append(f"{group[k].name} has {_longest(equal)} losses running from {group[i].name}")
    for group, times in _timed(entries):
        taken = np.diff(times, axis=1)
        pairs = [(i, k, taken[i] == taken[k]) for i, k in combinations(range(len(group)), 2)]
        share = min((float(equal.mean()) for _, _, equal in pairs), default=0.0)
        least = EQUAL_STEPS + math.log(CHANCE / taken.shape[1]) / math.log(min(max(share, 0.1), 0.97))
        for i, k, equal in pairs:
            if (longest := _longest(equal)) > least:
                faults.append(f"{group[k].name} has the times of {longest} steps running from {group[i].name}")
    return faults


def _longest(true: np.ndarray) -> int:
    """The length of the longest stretch of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _times_under_noise(entries: tuple[Entry, ...]) -> list[str]:
    """Pairs of runs whose clocks differ by white noise about a straight line. Clocks of two runs drift apart, step by
    step, as a random walk does: von Neumann's ratio of successive squared differences to squared deviations is then
    near 0 (record 40: under 0.01), for white noise it is 2."""
    faults = []
    for group, times in _timed(entries):
        if times.shape[1] < LEAST_TIMES:
            continue
        few = times[:, np.linspace(0, times.shape[1] - 1, FEW).astype(int)]
        for i in range(len(group) - 1):
            for k in i + 1 + np.flatnonzero(_whiteness(few[i], few[i + 1 :]) > NOISY_TIMES / 2):
                if _whiteness(times[i], times[k : k + 1])[0] > NOISY_TIMES:
                    faults.append(f"{group[k].name} has the clock of {group[i].name} with noise on it")
    return faults


def _whiteness(clock: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Von Neumann's ratio of each of `others` (clocks, steps) about its straight line over `clock` (steps); 2 for one
    that is that line."""
    centred, theirs = clock - clock.mean(), others - others.mean(axis=1, keepdims=True)
    # no matrix product: for one of 10,000 steps the library would start threads, which cost more than the product
    slope = (theirs * centred).sum(axis=1) / max(float(np.square(centred).sum()), 1e-9)
    apart = theirs - slope[:, None] * centred
    squares = np.square(apart).sum(axis=1)
    ratio = np.square(np.diff(apart, axis=1)).sum(axis=1) / np.maximum(squares, 1e-9)
    return np.where(np.ptp(apart, axis=1) <= 2 * COPY_TIME_MS, 2.0, ratio)


def _losses_under_noise(entries: tuple[Entry, ...]) -> str:
    """Why the losses of four runs or more may be one run's with noise added; "" where they scatter as runs do: early on
    several times as widely as at their end (record 40: 0.0066 at step 250, 0.0011 at the last)."""
    for group in by_validations(entries).values():
        losses = np.stack([entry.run.val_loss[entry.run.val_step > 0] for entry in group])
        third = losses.shape[1] // 3
        if len(group) < 4 or losses.shape[1] < LEAST_LOSSES or not np.isfinite(losses).all():
            continue
        variance = losses.var(axis=0, ddof=1)
        early, late = float(variance[:third].mean()) ** 0.5, float(variance[-third:].mean()) ** 0.5
        if early < NOISY_LOSSES * late:
            scatter = f"by {early:.4f} early on and {late:.4f} at the end"
            return f"{len(group)} runs scatter {scatter}: one run under noise would, runs of their own never do"
    return ""


def _timed(entries: tuple[Entry, ...]):
    """(entries, times in ms of shape (runs, steps)) for each set of runs that log the same steps, all of them timed."""
    timed = defaultdict(list)
    for entry in entries if len(entries) > 1 else ():
        if len(entry.run.train_step) >= COPY_TIMES and np.isfinite(entry.run.train_time_ms).all():
            timed[entry.run.train_step.tobytes()].append(entry)
    for group in timed.values():
        if len(group) > 1:
            yield group, np.stack([entry.run.train_time_ms for entry in group])
