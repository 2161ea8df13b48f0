"""`harness show R`: one record on one screen: facts, claim, settings against its parent, curve, times."""

import json
import textwrap
from pathlib import Path

import click
from rich.console import Console

from harness.archive import listing
from harness.archive.find import ancestor, discover, lookup
from harness.archive.leaderboard import Listing
from harness.archive.outline import docstring
from harness.archive.record import Record
from harness.archive.settings import read_settings
from harness.diff.report import settings
from harness.errors import UserError
from harness.history.plot import plot
from harness.history.reflow import reflow
from harness.history.times import others_of, times_of
from harness.replay.runs import shown
from timing.ledger import KINDS, Ledger
from timing.text import printable

TARGET = 3.28
STEEP = 0.04  # share of the steps during which the loss falls too fast to be drawn with the rest
KEY = 11  # width of the column of names
WIDEST = 110  # characters in a line of prose, however wide the terminal is


def show(name: str, console: Console, runs_dir: Path, root=None, as_json: bool = False) -> None:
    """Print what `name` means: a record, or what is public of one whose script is not here.

    Raises UserError for unknown names and unreadable scripts.
    """
    found = lookup(name, root)
    row = found.record or found.listing
    times = times_of(row, runs_dir, root)
    if as_json:
        click.echo(json.dumps(as_data(row, times, root), indent=1))
        return
    if found.note:
        _prose(console, found.note, style="dim")
    _prose(console, " · ".join(filter(None, (row.label, str(row.date), row.title))), style="bold")
    console.print()
    if found.record:
        _record(console, found.record, root)
    else:
        for key, value in public_facts(found.listing):
            _entry(console, key, value)
    _times(console, times, row.number, root)


def _record(console: Console, record: Record, root) -> None:
    """What the archive adds to the public facts."""
    source = record.read_script()
    for key, value in facts(record, source):
        _entry(console, key, value)
    _claim(console, source)
    _settings(console, record, root)
    _curve(console, record)


def as_data(row: Record | Listing, times: Ledger, root=None) -> dict:
    """All that `show` tells, as JSON takes it; `script` is null where it is not here."""
    if isinstance(row, Listing):
        data = listing.public_facts(row) | {"script": None}
    else:
        base, changed = changed_settings(row, root)
        data = listing.facts(row) | {"script": str(row.script), "frozen": _frozen(row)}
        data |= {"settings_against": base.number if base else None, "settings": [list(each) for each in changed]}
        data["curve"] = [list(point) for point in row.curve]
    entries = [
        {"kind": one.kind, "seconds": one.seconds, "std": one.std, "n": one.n, "machine": one.machine, "note": one.note}
        for one in times.entries
    ]
    differences = [{"source": one.source, "says": one.sentence} for one in others_of(row.number, root) if one.sentence]
    return data | {"times": entries, "others_differences": differences}


def public_facts(row: Listing) -> list[tuple[str, str]]:
    """Names and values of what the leaderboard says, unknown ones left out."""
    time = [
        row.minutes and f"{row.minutes:g} minutes",
        row.steps and f"{row.steps:,} steps",
        row.step_avg_ms and f"{row.step_avg_ms:.2f} ms a step",
        row.tokens_per_step and f"{row.tokens_per_step:,} tokens a step",
    ]
    runs = f" ({row.runs} run{'s' * (row.runs > 1)})" if row.runs else ""
    rows = [
        ("listed", ", ".join(filter(None, time))),
        ("loss", f"{row.val_loss:.4f}{runs}" if row.val_loss else ""),
        ("run on", ", ".join(filter(None, (row.hardware, row.torch and f"torch {row.torch}")))),
        ("credit", row.credit),
        ("source", row.source),
        ("script", "not in this archive: it cannot be replayed, and these are the public facts"),
    ]
    return [(key, value) for key, value in rows if value]


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
        for line in reflow(_safe(text), min(console.width, WIDEST)):
            console.print(line, soft_wrap=True)


def changed_settings(record: Record, root) -> tuple[Record | None, list[tuple[str, str, str]]]:
    """The parent, or the nearest earlier record where its script is missing, and the settings that differ from it.

    Raises UserError for a script that cannot be read.
    """
    base = ancestor(record, discover(root))
    if base is None:
        return None, []
    return base, settings(*(read_settings(each.script) or {} for each in (base, record)))


def _settings(console: Console, record: Record, root) -> None:
    try:
        base, rows = changed_settings(record, root)
    except UserError as error:
        console.print()
        _prose(console, f"its settings cannot be compared: {error}", style="dim")
        return
    if base is None:
        return
    aside = "" if base.number == record.parent else f" (record {record.parent}, its parent, is not in the archive)"
    _heading(console, f"settings that differ from record {base.number}{aside}")
    if not rows:
        console.print("none", style="dim")
        return
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, before, after in rows:
        line = f"{name:{wide[0]}}  {before:>{min(wide[1], 40)}} → {after}"
        _prose(console, line, hang=wide[0] + 2)


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


def _times(console: Console, ledger: Ledger, number: str, root) -> None:
    """All times of the record, kinds kept apart, and whether listed and logged agree."""
    if not ledger.entries:
        return
    _heading(console, "times in minutes, by where they come from")
    for kind in KINDS:
        for entry in ledger.of(kind):
            spread = "" if entry.std is None else f" ± {entry.std / 60:.3f}"
            runs = f"n = {entry.n}" if entry.n else ""
            where = f"{entry.machine}; {entry.note}" if entry.note else entry.machine
            figures = f"{kind:{KEY}}{entry.seconds / 60:>7.3f}{spread:8}  {runs:6}  "
            _prose(console, figures + where, hang=len(figures))
    for other in others_of(number, root):
        if other.sentence:
            _prose(console, f"{'others':{KEY}}{other.sentence}, says {other.source}", hang=KEY)
    if (difference := ledger.difference()) is not None:
        _prose(console, str(difference), style="yellow" if difference.disagrees else "dim")


def _heading(console: Console, text: str) -> None:
    console.print()
    _prose(console, text, style="bold cyan")


def _entry(console: Console, key: str, value: str) -> None:
    """One fact: its name, and its text hanging beside it."""
    _prose(console, f"{key:{KEY}}{value}", hang=KEY)


def _prose(console: Console, text: str, hang: int = 0, style: str = "") -> None:
    """One line, broken at blanks where the terminal ends; what follows stands `hang` characters in."""
    width = max(hang + 20, min(console.width, WIDEST))
    setting = {"subsequent_indent": " " * hang, "break_on_hyphens": False, "drop_whitespace": True}
    for line in textwrap.wrap(_safe(text), width, **setting) or [""]:
        console.print(line, style=style, soft_wrap=True)


def _safe(text: str) -> str:
    return printable(text)
