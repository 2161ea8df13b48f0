"""The rules about losses: none that no such model has, none that its own curve contradicts."""

import math
from collections import defaultdict

import numpy as np

from harness.referee.checks import Case, counted, last_validation
from harness.referee.submission import Entry, by_validations, changes
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.rules import Losses
from timing.run import Run

LATE_SHARE = 0.5
DEVIATIONS = 10.0
ENOUGH_RUNS = 5
UNTRAINED_SLACK = 0.1  # nats: a vocabulary of 50,257 and one padded to 50,304 are 0.001 apart
EARLY_SHARE = 0.25
MANY_RUNS = 10
LEAST_JUMP = 0.0015
REFERENCE_JUMP = 0.006


def check_loss_range(case: Case) -> Check:
    """No loss is out of a model's reach: an untrained one knows nothing, and what one of its size can learn has an end.

    The bounds (`Edition.losses`) are of runs with the record's own settings, on the corpus of the edition.
    """
    faults, doubts, judged = [], [], 0
    for entry in case.entries:
        ours = as_published(entry, case)
        judged += ours
        faults += _out_of_range(entry, entry.run.val_loss < 0, "no cross-entropy is negative")
        if ours:
            faults += _broken(entry, _impossible(entry.run, case.edition.losses))
            doubts += _broken(entry, _unheard_of(entry.run, case.edition.losses))
    where = case.first(last_validation)
    if faults:
        return case.check("loss-range", FAIL, counted(faults))
    if doubts:
        return case.check("loss-range", UNKNOWN, counted(doubts), decisive=True)
    if judged < len(case.entries):
        return case.check("loss-range", UNKNOWN, f"other settings or tokens than a record's: no bounds known ({where})")
    return case.check("loss-range", PASS, f"all losses are ones that such a model has ({where})")


def _impossible(run: Run, bounds: Losses):
    """(mask over the validations, why) of each bound that no honest run breaks."""
    chance = math.log(bounds.vocabulary)
    untrained = (run.val_step == 0) & (run.val_loss < chance - UNTRAINED_SLACK)
    yield untrained, f"an untrained model has at least ln({bounds.vocabulary}) = {chance:.2f}"
    yield run.val_loss < bounds.impossible, f"no model of this size comes under {bounds.impossible}"


def _unheard_of(run: Run, bounds: Losses):
    """(mask over the validations, why) of each bound that no public run has broken."""
    yield run.val_loss < bounds.unheard_of, f"no public run has come under {bounds.unheard_of}"
    early = (run.val_step > 0) & (run.val_step <= EARLY_SHARE * run.steps)
    yield early & (run.val_loss < bounds.early), f"no public run has come under {bounds.early} in its first quarter"


def _broken(entry: Entry, bounds) -> list[str]:
    return [fault for wrong, why in bounds for fault in _out_of_range(entry, wrong, why)]


def _out_of_range(entry: Entry, wrong: np.ndarray, why: str) -> list[str]:
    run = entry.run
    return [
        f"val_loss {run.val_loss[at]:.4f} at step {run.val_step[at]}: {why} ({entry.at(int(run.val_line[at]))})"
        for at in np.flatnonzero(wrong)[:1]
    ]


def check_curve(case: Case) -> Check:
    """No validation loss was lowered by itself: from one validation to the next, all runs of an arm fall alike.

    Runs of one script differ by their noise, which both ends of a late interval share almost wholly (record 40: 0.0010
    between runs, 0.0003 between their last falls). An edited loss stands out against the falls of the other runs; with
    fewer than three runs, only the last loss against the record's reference curve, if they ran with its settings and
    on its tokens.
    """
    faults, noted, judged = _loss_twice(case.entries), [], 0
    for group in by_validations(case.entries).values():
        published = case.record is not None and case.record.curve and as_published(group[0], case)
        found = [_unlike_the_reference(entry, dict(case.record.curve)) if published else None for entry in group]
        faults += [fault for each in found if each for fault in each]
        if len(group) >= 3:
            judged += len(group)
            lower, higher = _unlike_the_others(group)
            faults, noted = faults + lower, noted + higher
        else:
            judged += sum(each is not None for each in found)
    if faults:
        return case.check("curve", FAIL, counted(faults))
    if judged < len(case.entries):
        return case.check(
            "curve",
            UNKNOWN,
            f"three runs, or --record and its tokens, tell an edited loss from noise ({case.first(last_validation)})",
        )
    said = f"no late loss is lower than the one before it lets expect, in {judged} runs ({case.first(last_validation)})"
    return case.check("curve", PASS, "; noted: ".join([said, *noted[:2]]))


def as_published(entry: Entry, case: Case) -> bool:
    """Whether a run has the record's settings and, as far as the launcher tells, its tokens. One that names others only
    to be spared fails by its data."""
    manifest = entry.facts.get("manifest")
    corpus = manifest.get("name") if isinstance(manifest, dict) else None
    return not changes(entry.run) and (not corpus or corpus == case.edition.corpus)


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


def _unlike_the_others(group: list[Entry]) -> tuple[list[str], list[str]]:
    """(lower, higher) losses that the falls of the other runs contradict.

    That is a last fall far off theirs, or a late kink (off on the way in, back on the way out). Far is ten robust
    deviations of that fall over the runs; few runs may agree by chance, so that their spread counts as at least that
    of all late falls (of five runs or more, as at least half of it). Beyond ten runs, where honest oddities add up and
    one run moves the mean by little, it grows with the root of their number. Only what lies lower is a fault: nobody
    edits a loss to his harm, but a run may end badly.
    """
    steps = group[0].run.val_step
    late = np.flatnonzero(steps[1:] > LATE_SHARE * steps[-1]) if len(steps) > 2 else np.array([], int)
    if not len(late):
        return [], []
    falls = np.diff(np.stack([entry.run.val_loss for entry in group]), axis=1)[:, late]
    off = falls - np.median(falls, axis=0)
    spread = 1.4826 * np.median(np.abs(off), axis=0)
    usual = 1.4826 * np.median(np.abs(off)) * (1.0 if len(group) < ENOUGH_RUNS else 0.5)
    wide = DEVIATIONS * max(1.0, len(group) / MANY_RUNS) ** 0.5
    limit = np.maximum(wide * np.maximum(spread, usual), LEAST_JUMP)
    far = np.abs(off) > limit
    kink = far[:, :-1] & far[:, 1:] & (off[:, :-1] * off[:, 1:] < 0)
    suspect = np.column_stack([kink, far[:, -1]])
    lower, higher = [], []
    for i, k in np.argwhere(suspect):
        kind = lower if off[i, k] < 0 else higher
        kind.append(_contradicted(group[i], late[k] + 1, off[i, k], "other runs"))
    return lower, higher


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
    return [_contradicted(entry, last, off, "published curve")] if off < -REFERENCE_JUMP else []


def _contradicted(entry: Entry, at: int, off: float, others: str) -> str:
    run = entry.run
    place = entry.at(int(run.val_line[at]))
    loss = f"val_loss {run.val_loss[at]:.4f} at step {run.val_step[at]}"
    return f"{loss}: the change to it is {off:+.4f} off that of the {others} ({place})"
