"""What is wrong or odd in a log, in words, each with the line that shows it."""

import numpy as np

from timing.run import Note, Run
from timing.scan import KEPT, Oddities, Scan
from timing.text import printable

_TOLD = 20  # notes of one kind before the rest is only counted
_KINDS = {"val": "validation", "train": "training"}
_MIXED = 3  # backward steps or repeats from which on several runs' lines count as mixed


def describe(scan: Scan, begin: int, first: dict[str, tuple[int, int]]) -> tuple[list[Note], list[int], int | None]:
    """Notes on a log, the lines at which another run starts in it, and that at which another log does.

    `first` gives (line, step) of the first metric line of each kind ("val", "train"). Lines before line `begin` are the
    source's: what looks like a metric there counts for nothing.
    """
    notes = _file_notes(scan) + _listed(scan.odd.faults, begin, "opens like a metric line, but {}")
    glued = [(line, "a validation stands behind other text and is not counted") for line in scan.odd.glued]
    notes += _listed(glued, begin, "{}")
    begin = min((line for line, _ in first.values()), default=scan.tally.lines + 1)
    order, restarts = _order(scan.odd, begin, first)
    notes += order + _plans(scan.odd, begin) + _losses(scan.odd, begin)
    spliced = next((banner.line for banner in scan.banners if banner.line > begin), None)
    if spliced:
        notes.append(Note(spliced, "a line of 100 '=' among the metrics: another log may be spliced in"))
    return notes, restarts, spliced


def completeness(run: Run) -> list[Note]:
    """Why `run` is not complete, or what leaves it open whether it is."""
    last = max((int(line[-1]) for line in (run.val_line, run.train_line) if len(line)), default=0)
    if not last:
        return [Note(0, "no metric line: the run ended before its first step, or its metrics went elsewhere")]
    if not len(run.val_step):
        return [Note(last, "no validation in this log")]
    if run.complete and run.planned_steps not in (None, run.val_step[-1]):
        return [Note(last, f"stops at step {run.stop_step} of {run.planned_steps}, as announced")]
    if run.complete:
        spacing = np.diff(run.val_step[-1000:])
        if run.planned_steps is None and len(spacing) and (spacing == spacing[0]).all():
            return [Note(last, "ends on a regular validation: nothing shows that this was the planned last step")]
        return []
    if run.planned_steps is None:
        return [Note(last, f"ends at step {run.steps} without a validation after it: cut short or stopped early")]
    return [Note(last, f"no final validation: the log ends at step {run.steps} of {run.planned_steps}")]


def _file_notes(scan: Scan) -> list[Note]:
    tally, notes = scan.tally, []
    if tally.byte_order_mark:
        notes.append(Note(1, "starts with a byte order mark"))
    if tally.windows_line:
        notes.append(Note(tally.windows_line, "Windows line ends"))
    if tally.nul_line:
        notes.append(Note(tally.nul_line, "holds NUL bytes: the file may be damaged"))
    if tally.long_line:
        notes.append(Note(tally.long_line, "a line of over 64 KiB is skipped"))
    if not tally.terminated:
        notes.append(Note(tally.lines, "the last line has no newline: the file may be cut short"))
    if len(scan.banners) >= KEPT:
        notes.append(Note(scan.banners[-1].line, f"over {KEPT} lines of 100 '=': those after this one do not count"))
    return notes


def _order(odd: Oddities, begin: int, first: dict[str, tuple[int, int]]) -> tuple[list[Note], list[int]]:
    """Notes on runs that follow or interleave one another, and the lines at which a following one starts."""
    back = [entry for entry in odd.backwards if entry[0] > begin]
    repeats = [entry for entry in odd.repeats if entry[1] in first and entry[0] > first[entry[1]][0]]
    opening = min(first.values(), default=(0, 0))[1] + 1
    resumed = [entry for entry in back if entry[2] > opening]
    notes = []
    if len(resumed) >= _MIXED or len(repeats) >= _MIXED:
        line = min(entry[0] for entry in (*back, *repeats))
        times = _counted(len(back) + len(repeats))
        notes.append(Note(line, f"lines of several runs are mixed: the step counter falls or stands still {times}"))
        return notes, []
    for line, before, step in resumed:
        notes.append(Note(line, f"step {step} follows step {before}: a resumed run, or parts of two logs"))
    fresh = [line for line, _, step in back if step <= opening]
    if fresh:
        where = ", ".join(map(str, fresh[:_TOLD])) + (", ..." if len(fresh) > _TOLD else "")
        count = _counted(len(fresh) + 1, "")
        notes.append(Note(fresh[0], f"{count} runs one after another: the steps start again at line {where}"))
    notes += [Note(line, f"step {step} of a {_KINDS[kind]} line stands twice") for line, kind, step in repeats]
    if "train" in first and odd.single_steps > 10 * len(odd.gaps):
        skipped = [(line, f"step {step} follows step {before}") for line, before, step in odd.gaps]
        notes += _listed(skipped, first["train"][0] + 1, "{}: steps are missing")
    return notes, [line for line, _, _ in back]


def _plans(odd: Oddities, begin: int) -> list[Note]:
    """Notes on a planned number of steps, or a dialect, that changes within the log."""
    notes, known = [], None
    for line, planned in odd.plans:
        if known is not None and line > begin:
            if -1 in (known, planned):
                notes.append((line, "the dialect changes: metric lines of llm.c and of the step: kind in one log"))
            else:
                notes.append((line, f"the planned number of steps changes from {known} to {planned}"))
        known = planned
    return _listed(notes, 0, "{}")


def _losses(odd: Oddities, begin: int) -> list[Note]:
    bad = [entry for entry in odd.not_finite if entry[0] >= begin]
    if not bad:
        return []
    return [Note(bad[0][0], f"a {_KINDS[bad[0][1]]} loss is nan or infinite; {_counted(len(bad))} in all")]


def _listed(entries: list[tuple[int, str]], begin: int, form: str) -> list[Note]:
    """A note for each (line, text) after `begin`; beyond _TOLD only their count."""
    entries = [entry for entry in entries if entry[0] >= begin]
    notes = [Note(line, printable(form.format(text), 200)) for line, text in entries[:_TOLD]]
    if len(entries) > _TOLD:
        notes.append(Note(entries[_TOLD][0], f"and {_counted(len(entries) - _TOLD, ' more of this kind')}"))
    return notes


def _counted(count: int, unit: str = " times") -> str:
    return f"{'at least ' if count >= KEPT - _TOLD else ''}{count}{unit}"
