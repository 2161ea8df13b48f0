"""`harness diff A B`: what happened between two records, as one text for the terminal or the pager."""

import shutil
import sys
import textwrap

from harness.archive import resolve
from harness.diff import SectionDiff, compare
from harness.diff_tables import figures, settings, stat
from harness.diff_view import Options, View
from harness.errors import UserError
from harness.outline import claim
from harness.record import Record
from harness.settings import read_settings
from timing.text import printable

NARROWEST, WIDEST = 60, 200
BAR = 30  # characters of the longest bar of --stat


def diff(old: str, new: str, *, only_stat: bool = False, only_facts: bool = False, colour: bool | None = None, **how):
    """The text that explains how record `new` differs from record `old`; both are names as `resolve` takes them.

    `how` are fields of Options. Raises UserError for unknown records and unreadable scripts.
    """
    records = resolve(old), resolve(new)
    sources = [read_source(record) for record in records]
    columns = min(max(shutil.get_terminal_size((120, 24)).columns, NARROWEST), WIDEST)
    colour = sys.stdout.isatty() if colour is None else colour
    view = View(*sources, Options(**{"width": columns} | how, colour=colour))
    parts = compare(*sources)
    _header(view, records, sources, parts)
    if only_facts:
        _facts(view, records)
    if only_stat:
        _stat(view, parts)
    if not (only_facts or only_stat):
        for part in parts:
            view.section(part)
    return view.text()


def read_source(record: Record) -> str:
    """A record's script as text that is safe to show. Raises UserError."""
    try:
        text = record.script.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{record.script}: {error.strerror}") from error
    return printable(text.replace("\r\n", "\n"))


def _header(view: View, records: tuple[Record, Record], sources: list[str], parts: list[SectionDiff]) -> None:
    """Who is compared with whom, what the newer record says is new, and how much changed."""
    old, new = records
    names = [printable(f"{record.label} ({record.date}, {record.title})", limit=120) for record in records]
    view.line(f"- {names[0]}", "bold")
    view.line(f"+ {names[1]}", "bold")
    said = claim(sources[1]).get("New", "")
    if said and old.number != new.number:
        view.line()
        view.line(textwrap.fill(said, min(view.options.width, 110), initial_indent="  ", subsequent_indent="  "))
    *_, come, gone, moved = map(int, stat(parts)[-1][1:])
    changed = sum(part.changed for part in parts)
    view.line()
    if changed == 0:
        view.line("the scripts are equal", "dim")
        return
    view.line(f"{come} lines added, {gone} deleted, {moved} moved, in {changed} of {len(parts)} sections", "dim")


def _stat(view: View, parts: list[SectionDiff]) -> None:
    rows = stat(parts)
    longest = max(max(int(row[3]) + int(row[4]) for row in rows[:-1]), 1)
    width = max(len(row[0]) for row in rows)
    view.line()
    view.line(f"{'section':{width}}        lines     added  deleted    moved", "bold")
    for title, before, after, come, gone, moved in rows:
        lines = f"{before:>5} → {after:<5}"
        unit = BAR / longest if title != "all" else 0
        bar = "+" * round(int(come) * unit) + "-" * round(int(gone) * unit)
        view.line(f"{title:{width}} {lines:>13} {come:>8} {gone:>8} {moved:>8}  {bar}".rstrip())


def _facts(view: View, records: tuple[Record, Record]) -> None:
    old, new = (read_settings(record.script) or {} for record in records)
    _table(view, "settings that differ", settings(old, new), records)
    _table(view, "published facts that differ", figures(*records), records)


def _table(view: View, title: str, rows: list[tuple[str, str, str]], records: tuple[Record, Record]) -> None:
    """Three columns, each as wide as it must be; a wide cell goes on below itself."""
    view.line()
    if not rows:
        view.line(f"no {title}", "dim")
        return
    first = max(len(title), *(len(name) for name, *_ in rows))
    wide = max(12, (view.options.width - first - 4) // 2)
    second = min(wide, max(len(records[0].label), *(len(row[1]) for row in rows)))
    view.line(f"{title:{first}}  {records[0].label:{second}}  {records[1].label}", "bold")
    for name, *values in rows:
        cells = [textwrap.wrap(printable(value), wide) or [""] for value in values]
        for index in range(max(map(len, cells))):
            left, right = (cell[index] if index < len(cell) else "" for cell in cells)
            view.line(f"{name if index == 0 else '':{first}}  {left:{second}}  {right}".rstrip())
