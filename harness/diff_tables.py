"""The short forms of a diff: lines changed per section, settings that differ, published figures that differ."""

from dataclasses import asdict

from harness.diff import SectionDiff
from harness.record import Record
from harness.settings import Setting

ABSENT = "—"
UNITS = {"minutes": "min", "logged_minutes": "min", "step_avg_ms": "ms", "gpu_memory_gib": "GiB"}


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
    before, after = _facts(old), _facts(new)
    return [(_title(name), before[name], after[name]) for name in after if before[name] != after[name]]


def _title(name: str) -> str:
    words = name.replace("_ms", "").replace("_gib", "").replace("_minutes", " time").replace("_", " ")
    return f"{words} ({UNITS[name]})" if name in UNITS and words != name else words


def _facts(record: Record) -> dict[str, str]:
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
