"""The rules about trajectories: no loss that its own curve contradicts, no run that is a copy of another."""

from collections import Counter, defaultdict

import numpy as np

from harness.referee.checks import Case, counted, environment_line
from harness.referee.submission import Entry, changes
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.log import Run

LATE_SHARE = 0.5
DEVIATIONS = 10.0
ENOUGH_RUNS = 5
MANY_RUNS = 10
LEAST_JUMP = 0.0015
REFERENCE_JUMP = 0.006
COPY_LOSS = 1.5e-4
COPY_TIME_MS = 2.0
COPY_POINTS = 3
COPY_TIMES = 8


def check_curve(case: Case) -> Check:
    """No validation loss was changed by itself: from one validation to the next, all runs of an arm fall alike.

    Runs of one script differ by their noise, which both ends of a late interval share almost wholly (record 40: 0.0010
    between runs, 0.0003 between their last falls). An edited loss stands out against the falls of the other runs; with
    fewer than three runs, only the last loss against the record's reference curve, if they ran with its settings and
    on its tokens.
    """
    faults = _loss_twice(case.entries)
    judged = 0
    for group in _alike(case.entries).values():
        if len(group) >= 3:
            judged += len(group)
            faults += _unlike_the_others(group)
        elif case.record is not None and case.record.curve and _as_published(group[0], case):
            found = [_unlike_the_reference(entry, dict(case.record.curve)) for entry in group]
            judged += sum(each is not None for each in found)
            faults += [fault for each in found if each for fault in each]
    if faults:
        return case.check("curve", FAIL, counted(faults))
    if judged < len(case.entries):
        return case.check(
            "curve",
            UNKNOWN,
            f"too few runs to tell an edited loss from noise ({case.first(_last)}): three, or --record and its tokens",
        )
    return case.check(
        "curve", PASS, f"each late loss follows from the one before, in {judged} runs ({case.first(_last)})"
    )


def _as_published(entry: Entry, case: Case) -> bool:
    """Whether a run has the record's settings and, as far as the launcher tells, its tokens. One that names others only
    to be spared fails by its data."""
    manifest = entry.facts.get("manifest")
    corpus = manifest.get("name") if isinstance(manifest, dict) else None
    return not changes(entry.run) and (not corpus or corpus == case.edition.corpus)


def _last(run: Run) -> int | None:
    """The line of the last validation."""
    return next(iter(run.val_line[-1:].tolist()), None)


def _loss_twice(entries: tuple[Entry, ...]) -> list[str]:
    faults = []
    for entry in entries:
        losses = defaultdict(set)
        for step, loss, line in zip(
            entry.run.val_step.tolist(), entry.run.val_loss.tolist(), entry.run.val_line.tolist()
        ):
            losses[step].add(loss)
            if len(losses[step]) == 2:
                faults.append(f"step {step} has two validation losses ({entry.at(line)})")
    return faults


def _alike(entries: tuple[Entry, ...]) -> dict[bytes, list[Entry]]:
    """Entries by the steps that they were validated at."""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.run.val_step.tobytes()].append(entry)
    return groups


def _unlike_the_others(group: list[Entry]) -> list[str]:
    """Losses that the falls of the other runs contradict: a last fall far off theirs, or a late kink (off on the way
    in, back on the way out). Far is ten robust deviations of that fall over the runs; few runs may agree by chance, so
    that their spread counts as at least that of all late falls (of five runs or more, as at least half of it). Beyond
    ten runs, where honest oddities add up and one run moves the mean by little, it grows with the root of their number.
    """
    steps = group[0].run.val_step
    late = np.flatnonzero(steps[1:] > LATE_SHARE * steps[-1]) if len(steps) > 2 else np.array([], int)
    if not len(late):
        return []
    falls = np.diff(np.stack([entry.run.val_loss for entry in group]), axis=1)[:, late]
    off = falls - np.median(falls, axis=0)
    spread = 1.4826 * np.median(np.abs(off), axis=0)
    usual = 1.4826 * np.median(np.abs(off)) * (1.0 if len(group) < ENOUGH_RUNS else 0.5)
    wide = DEVIATIONS * max(1.0, len(group) / MANY_RUNS) ** 0.5
    limit = np.maximum(wide * np.maximum(spread, usual), LEAST_JUMP)
    far = np.abs(off) > limit
    kink = far[:, :-1] & far[:, 1:] & (off[:, :-1] * off[:, 1:] < 0)
    suspect = np.column_stack([kink, far[:, -1]])
    return [_contradicted(group[i], late[k] + 1, off[i, k], "other runs") for i, k in np.argwhere(suspect)]


def _unlike_the_reference(entry: Entry, curve: dict[int, float]) -> list[str] | None:
    """The last loss, if its fall lies far off the published curve's between the last two validations that both have;
    None where the curve does not reach the run's last step."""
    run = entry.run
    both = [i for i, step in enumerate(run.val_step.tolist()) if step in curve]
    if len(both) < 2 or both[-1] != len(run.val_step) - 1:
        return None
    before, last = both[-2:]
    published = curve[int(run.val_step[last])] - curve[int(run.val_step[before])]
    off = float(run.val_loss[last] - run.val_loss[before]) - published
    return [_contradicted(entry, last, off, "published curve")] if abs(off) > REFERENCE_JUMP else []


def _contradicted(entry: Entry, at: int, off: float, others: str) -> str:
    run = entry.run
    place = entry.at(int(run.val_line[at]))
    loss = f"val_loss {run.val_loss[at]:.4f} at step {run.val_step[at]}"
    return f"{loss}: the change to it is {off:+.4f} off that of the {others} ({place})"


def check_independence(case: Case) -> Check:
    """No run is a copy of another by content, run id, losses or times; equal seeds are pointed out."""
    everyone = case.everyone or case.entries
    faults = _same_content(everyone) + _same_run_id(everyone)
    if not faults:
        faults = _copied_trajectories(everyone)
    if faults:
        return case.check("independence", FAIL, counted(faults))
    seeds = Counter(entry.run.seed for entry in case.entries if entry.run.seed)
    repeated = [f"{count} runs have seed {seed}" for seed, count in seeds.items() if count > 1]
    if repeated:
        where = case.first(environment_line("seed"))
        return case.check("independence", UNKNOWN, f"{counted(repeated)}: they may not differ by chance ({where})")
    said = "a single run" if len(everyone) == 1 else f"{len(everyone)} runs with trajectories of their own"
    return case.check("independence", PASS, f"{said} ({case.first(_last)})")


def _same_content(entries: tuple[Entry, ...]) -> list[str]:
    first, faults = {}, []
    for entry in entries:
        if "#" in entry.name.rpartition("/")[2]:
            continue  # trials of one file share its bytes
        other = first.setdefault(entry.run.digest, entry)
        if other is not entry:
            faults.append(f"{entry.name} is byte for byte {other.name}")
    return faults


def _same_run_id(entries: tuple[Entry, ...]) -> list[str]:
    ids, faults = {}, []
    for entry in entries:
        run_id = entry.run.run_id or entry.facts.get("run_id")
        if not isinstance(run_id, str) or "#" in entry.name.rpartition("/")[2]:
            continue
        other = ids.setdefault(run_id, entry)
        if other is not entry:
            faults.append(f"{entry.name} and {other.name} have the same run id {run_id}")
    return faults


def _copied_trajectories(entries: tuple[Entry, ...]) -> list[str]:
    """Pairs of runs whose losses or times differ by nothing or by one constant, which chance does not do."""
    faults = []
    for group in _alike(entries).values():
        steps = group[0].run.val_step
        chosen = steps > 0
        if chosen.sum() >= COPY_POINTS:
            losses = np.stack([entry.run.val_loss[chosen] for entry in group])
            faults += _constant_apart(group, losses, COPY_LOSS, "losses", "nats")
    timed = defaultdict(list)
    for entry in entries:
        if np.isfinite(entry.run.train_time_ms).sum() >= COPY_TIMES:
            timed[entry.run.train_step.tobytes()].append(entry)
    for group in timed.values():
        times = np.stack([entry.run.train_time_ms for entry in group])
        faults += _constant_apart(group, times, COPY_TIME_MS, "times", "ms")
    return faults


def _constant_apart(group: list[Entry], curves: np.ndarray, slack: float, what: str, unit: str) -> list[str]:
    """Pairs of rows of `curves` (runs, points) whose difference varies by no more than `slack`."""
    faults = []
    for i in range(1, len(group)):
        difference = curves[:i] - curves[i]
        for k in np.flatnonzero(np.ptp(difference, axis=1) <= slack):
            apart = f", {abs(difference[k].mean()):.4g} {unit} apart" if abs(difference[k]).max() > slack else ""
            faults.append(f"{group[i].name} repeats the {what} of {group[k].name}{apart}")
    return faults
