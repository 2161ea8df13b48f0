"""`harness diff A B`: what happened between two records, as one text for the terminal or the pager."""

import json
import shutil
import sys
import textwrap
from dataclasses import asdict

from harness.archive.find import resolve
from harness.archive.outline import claim
from harness.archive.record import Record
from harness.archive.settings import Setting, read_settings
from harness.diff.diff import SectionDiff, compare
from harness.diff.view import Options, View
from timing.text import printable

NARROWEST, WIDEST = 60, 200
BAR = 30  # characters of the longest bar of --stat
ABSENT = "—"
UNITS = {"minutes": "min", "logged_minutes": "min", "step_avg_ms": "ms", "gpu_memory_gib": "GiB"}


def diff(
    old: str,
    new: str,
    *,
    only_stat: bool = False,
    only_facts: bool = False,
    colour: bool | None = None,
    nearest: bool = False,
    **how,
) -> str:
    """The text that explains how record `new` differs from record `old`; both are names as `resolve` takes them.

    `how` are fields of Options. Raises UserError for unknown records and unreadable scripts.
    """
    records = resolve(old, nearest=nearest), resolve(new, nearest=nearest)
    sources = [record.read_script() for record in records]
    columns = min(max(shutil.get_terminal_size((120, 24)).columns, NARROWEST), WIDEST)
    colour = sys.stdout.isatty() if colour is None else colour
    view = View(*sources, Options(**{"width": columns} | how, colour=colour))
    parts = compare(*sources)
    _header(view, records, sources, parts)
    if only_facts:
        _facts(view, records)
    if only_stat:
        _stat(view, parts)
    if not (only_facts or only_stat) and any(part.changed for part in parts):
        for part in parts:
            view.section(part)
    return view.text()


def as_json(old: str, new: str, nearest: bool = False) -> str:
    """The same as JSON: the two records, lines changed section by section, settings and facts that differ, and the
    changed lines themselves as (kind, line before, line after, text). Raises UserError likewise."""
    records = resolve(old, nearest=nearest), resolve(new, nearest=nearest)
    parts = compare(*(record.read_script() for record in records))
    changed = [read_settings(record.script) or {} for record in records]
    names = ("section", "before", "after", "added", "deleted", "moved")
    content = {
        "old": {"number": records[0].number, "slug": records[0].slug},
        "new": {"number": records[1].number, "slug": records[1].slug},
        "summary": summary(parts),
        "sections": [dict(zip(names, (row[0], *map(int, row[1:])))) for row in stat(parts)],
        "settings": [dict(zip(("name", "old", "new"), row)) for row in settings(*changed)],
        "facts": [dict(zip(("name", "old", "new"), row)) for row in figures(*records)],
        "lines": [
            {"section": part.title, "kind": line.kind, "moved": line.moved, "old": line.old, "new": line.new}
            | {"text": line.text}
            for part in parts
            for line in part.lines
            if line.kind != "same" or line.moved
        ],
    }
    return json.dumps(content, indent=1)


def _header(view: View, records: tuple[Record, Record], sources: list[str], parts: list[SectionDiff]) -> None:
    """Who is compared with whom, what the newer record says is new, and how much changed."""
    names = [printable(f"{record.label} ({record.date}, {record.title})", limit=120) for record in records]
    view.line(f"- {names[0]}", "bold")
    view.line(f"+ {names[1]}", "bold")
    before, said = (claim(source).get("New", "") for source in sources)
    if said and said != before:
        view.line()
        for line in said.split("\n"):
            view.line(textwrap.fill(line, min(view.options.width, 110), initial_indent="  ", subsequent_indent="  "))
    view.line()
    view.line(summary(parts), "dim")


def summary(parts: list[SectionDiff]) -> str:
    """How much changed, in a sentence without its full stop."""
    *_, come, gone, moved = stat(parts)[-1]
    changed = sum(part.changed for part in parts)
    if changed == 0:
        return "the scripts are equal"
    return (
        f"{come} line{'s' * (come != '1')} added, {gone} deleted, {moved} moved, in {changed} of {len(parts)} sections"
    )


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


def stat(parts: list[SectionDiff]) -> list[tuple[str, ...]]:
    """Rows (section, lines before, lines after, added, deleted, moved), the last one the sum; all text."""
    counts = []
    for part in parts:
        same = part.count("same")
        come, gone, here = part.count("come"), part.count("gone"), part.count("come", moved=True)
        away = part.count("gone", moved=True)
        counts.append((part.title, same + gone + away, same + come + here, come, gone, here))
    total = ("all", *(sum(column) for column in list(zip(*counts))[1:]))
    return [(title, *map(str, numbers)) for title, *numbers in [*counts, total]]


def settings(old: dict[str, Setting], new: dict[str, Setting]) -> list[tuple[str, str, str]]:
    """Rows (setting, old default, new default) of those that differ, in the new script's order, dropped ones last."""
    rows = []
    for name in [*new, *(name for name in old if name not in new)]:
        before, after = (_default(side.get(name)) for side in (old, new))
        if before != after:
            rows.append((name, before, after))
    return rows


def _default(setting: Setting | None) -> str:
    if setting is None:
        return ABSENT
    return "(computed)" if setting.default is None else _number(setting.default)


def figures(old: Record, new: Record) -> list[tuple[str, str, str]]:
    """Rows (fact, old, new) of the published facts that differ."""
    before, after = _figures(old), _figures(new)
    return [(_title(name), before[name], after[name]) for name in after if before[name] != after[name]]


def _title(name: str) -> str:
    words = name.replace("_ms", "").replace("_gib", "").replace("_minutes", " time").replace("_", " ")
    return f"{words} ({UNITS[name]})" if name in UNITS and words != name else words


def _figures(record: Record) -> dict[str, str]:
    """The facts of a record as text, in the order in which a reader asks for them."""
    listed = asdict(record.listed)
    note = listed.pop("note")
    trained = None
    if record.listed.steps and record.listed.tokens_per_step:
        trained = record.listed.steps * record.listed.tokens_per_step
    facts = {"date": record.date, "techniques": ", ".join(record.techniques)} | listed
    facts |= {"training_tokens": trained, "rules": record.edition, "kind": record.kind, "shards": record.shards}
    facts |= {"gpu_memory_gib": record.gpu_memory_gib, "credit": ", ".join(record.credit), "note": note}
    return {name: ABSENT if value in (None, "") else _number(value) for name, value in facts.items()}


def _number(value: object) -> str:
    """A value as text, the thousands of whole numbers marked."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1000:
        return f"{value:,}"
    return str(value)
