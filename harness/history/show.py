"""`harness show R`: one record on one screen: facts, claim, settings against its parent, curve, times."""

import math
import textwrap
from pathlib import Path

from rich.console import Console

from harness.archive.find import ancestor, discover, find
from harness.archive.outline import docstring
from harness.archive.record import Record
from harness.archive.settings import read_settings
from harness.diff.report import settings
from harness.errors import UserError
from harness.history.frames import projected
from harness.history.ledgers import ledger_of
from harness.history.plot import plot
from harness.history.replayed import read_replays
from harness.history.standings import standings
from harness.replay.runs import shown
from timing.ledger import KINDS, Ledger
from timing.text import printable

TARGET = 3.28
STEEP = 0.04  # share of the steps during which the loss falls too fast to be drawn with the rest
KEY = 11  # width of the column of names


def show(name: str, console: Console, runs_dir="runs", root=None) -> None:
    """Print the record that `name` means. Raises UserError for unknown names and unreadable scripts."""
    found = find(name, root)
    record = found.record
    source = record.read_script()
    if found.note:
        console.print(found.note, style="dim")
    console.print(_safe(" · ".join(filter(None, (record.label, str(record.date), record.title)))), style="bold")
    console.print()
    for key, value in facts(record, source):
        _entry(console, key, value)
    _claim(console, source)
    _settings(console, record, root)
    _curve(console, record)
    _times(console, times_of(record, runs_dir, root))


def facts(record: Record, source: str) -> list[tuple[str, str]]:
    """Names and values of what is on record, unknown ones left out."""
    listed = record.listed
    tokens = listed.steps * listed.tokens_per_step if listed.steps and listed.tokens_per_step else None
    time = [
        listed.minutes and f"{listed.minutes:g} minutes",
        listed.steps and f"{listed.steps:,} steps",
        listed.step_avg_ms and f"{listed.step_avg_ms:.2f} ms a step",
        listed.tokens_per_step and f"{listed.tokens_per_step:,} tokens a step",
        tokens and f"{tokens / 1e6:,.1f}M in all",
    ]
    spread = "" if listed.val_loss_std is None else f" ± {listed.val_loss_std:.4f}"
    loss = "" if listed.val_loss is None else f"{listed.val_loss:.4f}{spread}"
    needs = [
        f"{record.shards} train shards",
        record.gpu_memory_gib and f"{record.gpu_memory_gib:g} GiB a GPU",
        record.compute_capability and f"compute capability {record.compute_capability}",
    ]
    rows = [
        ("new", ", ".join(record.techniques)),
        ("listed", ", ".join(filter(None, time))),
        ("loss", f"{loss} ({listed.runs} run{'s' * (listed.runs > 1)})" if loss and listed.runs else loss),
        ("run on", ", ".join(filter(None, (listed.hardware, listed.torch and f"torch {listed.torch}")))),
        ("note", listed.note or ""),
        ("rules", f"edition {record.edition}, kind {record.kind}" if record.edition else ""),
        ("needs", ", ".join(filter(None, needs))),
        ("credit", ", ".join(record.credit)),
        ("source", record.source),
        ("shown", record.shown.text if record.shown else ""),
        ("script", f"{shown(record.script)}, {source.count(chr(10)):,} lines, {_frozen(record)}"),
    ]
    return [(key, value) for key, value in rows if value]


def _frozen(record: Record) -> str:
    """Whether the script is the one that was frozen."""
    if not record.sha256:
        return "a draft: not frozen"
    if record.script_sha256() != record.sha256:
        return f"CHANGED since it was frozen as {record.sha256[:12]}"
    return f"frozen as {record.sha256[:12]}"


def _claim(console: Console, source: str) -> None:
    """The script's opening docstring without its title."""
    text = docstring(source).partition("\n")[2].strip("\n")
    if text:
        _heading(console, "what it claims")
        console.print(_safe(text), soft_wrap=True)


def _settings(console: Console, record: Record, root) -> None:
    """Settings against the parent, or against the nearest earlier record where the parent's script is missing."""
    base = ancestor(record, discover(root))
    if base is None:
        return
    try:
        old, new = (read_settings(each.script) or {} for each in (base, record))
    except UserError as error:
        console.print(f"\nits settings cannot be compared: {error}", style="dim")
        return
    aside = "" if base.number == record.parent else f" (record {record.parent}, its parent, is not in the archive)"
    rows = settings(old, new)
    _heading(console, f"settings that differ from record {base.number}{aside}")
    if not rows:
        console.print("none", style="dim")
        return
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, before, after in rows:
        console.print(_safe(f"{name:{wide[0]}}  {before:>{min(wide[1], 40)}} → {after}"), soft_wrap=True)


def _curve(console: Console, record: Record) -> None:
    """The published validation curve. Its steep beginning is told, not drawn: it would press all the rest flat."""
    points, begins = list(record.curve), ""
    late = [point for point in points if point[0] >= STEEP * points[-1][0]]
    if len(late) > 3:
        begins, points = f", which began at {points[0][1]:.2f}", late
    drawn = plot(points, width=max(20, min(72, console.width - 12)), line=TARGET)
    if drawn:
        _heading(console, f"validation loss of the published log{begins}; dotted: the target, {TARGET}")
        for text in drawn:
            console.print(text, soft_wrap=True)


def times_of(record: Record, runs_dir: Path | str = "runs", root: Path | str | None = None) -> Ledger:
    """The ledger of a record: listed, logged, re-timed, and what the runs in `runs_dir` and in its `logs/` add.

    Empty for a script that is in no archive. Raises UserError where the public tables are missing.
    """
    rows = {row["number"]: row for row in standings(root).to_dict("records")}
    row = rows.get(record.number)
    if row is None:
        return Ledger(record.number)
    again = tuple(other for number, other in rows.items() if other["retiming"] and number[:-1] == record.number)
    runs = read_replays(runs_dir, root).runs
    runs = runs[runs.number == record.number]
    told = [projected(run, row["steps"]) for run in runs.itertuples()]
    runs = runs.assign(projected_minutes=[minutes or math.nan for minutes, _ in told], how=[how for _, how in told])
    return ledger_of(row, again, runs)


def _times(console: Console, ledger: Ledger) -> None:
    """All times of the record, kinds kept apart, and whether listed and logged agree."""
    if not ledger.entries:
        return
    _heading(console, "times in minutes, by where they come from")
    for kind in KINDS:
        for entry in ledger.of(kind):
            spread = "" if entry.std is None else f" ± {entry.std / 60:.3f}"
            runs = f"n = {entry.n}" if entry.n else ""
            where = f"{entry.machine}; {entry.note}" if entry.note else entry.machine
            line = f"{kind:{KEY}}{entry.seconds / 60:>7.3f}{spread:8}  {runs:6}  {where}"
            console.print(_safe(line), soft_wrap=True)
    if (difference := ledger.difference()) is not None:
        console.print(str(difference), style="yellow" if difference.disagrees else "dim", soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold cyan", soft_wrap=True)


def _entry(console: Console, key: str, value: str) -> None:
    """One fact: its name, and its text hanging beside it."""
    width = max(20, min(console.width, 110) - KEY)
    for index, line in enumerate(textwrap.wrap(_safe(value), width, break_on_hyphens=False) or [""]):
        console.print(f"{key if index == 0 else '':{KEY}}{line}", soft_wrap=True)


def _safe(text: str) -> str:
    return printable(text)
