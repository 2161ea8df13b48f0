"""The archive: finds records, and turns what a person types into one of them."""

import datetime
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from harness.archive.record import FACTS, SCRIPT, Listed, Record, load
from harness.errors import UserError

__all__ = ["Listed", "Record", "Resolution", "ancestor", "discover", "find", "load", "number_key", "resolve"]

HOUSE = Path(__file__).resolve().parents[2]
CLONE = (HOUSE / "records").is_dir()
"""Whether this is a clone of the repository; installed, the records lie beside the packages, as one of them."""
ROOT = HOUSE / ("records" if CLONE else "speedrun_records")


@dataclass(frozen=True)
class Resolution:
    """A record, and a sentence on how the name led to it ("" when the name says it all)."""

    record: Record
    note: str = ""


def number_key(number: str) -> tuple[int, str]:
    """Sort key of a record's number: `21` < `21b` < `22`."""
    digits = re.match(r"\d+", number)
    return (int(digits.group()), number[digits.end() :]) if digits else (-1, number)


def discover(root: Path | str | None = None) -> list[Record]:
    """All records under `root` (default: the archive), oldest first. Raises UserError for a broken `record.toml`."""
    root = Path(root or ROOT)
    folders = [path.parent for path in root.glob(f"*/{FACTS}")]
    return sorted(map(load, folders), key=lambda record: (record.date, number_key(record.number)))


def resolve(name: str, root: Path | str | None = None) -> Record:
    """The record that `name` means: a number, date, slug, folder or script path. UserError names the nearest ones."""
    return find(name, root).record


def find(name: str, root: Path | str | None = None) -> Resolution:
    """Like `resolve`, with the sentence that tells how a date or a part of a slug was understood."""
    name = str(name).strip()
    if not name:
        raise UserError("which record? `harness list` shows all")
    if "/" in name or name.endswith(".py"):
        return Resolution(_at_path(Path(name)))
    records = discover(root)
    if day := _as_date(name):
        return _standing_on(day, records)
    matches = _named(name, records)
    if len(matches) == 1:
        record = matches[0]
        said = name.lower() in (record.slug.lower(), record.number.lower())
        return Resolution(record, "" if said else f"{name} is record {record.number}, {record.slug}")
    if matches:
        raise UserError(f"{name!r} could be any of: {_listing(matches)}")
    if Path(name).is_dir():
        return Resolution(_at_path(Path(name)))
    raise UserError(_unknown(name, records))


def ancestor(record: Record, records: list[Record]) -> Record | None:
    """The parent of `record` if it is among `records`, else the nearest before it, or None for the first of all."""
    if not record.parent:
        return None
    earlier = [other for other in records if number_key(other.number) <= number_key(record.parent)]
    return max(earlier, key=lambda other: number_key(other.number), default=None)


def _as_date(name: str) -> datetime.date | None:
    """The date that `name` spells, None when it does not look like one. UserError for 2025-02-30."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", name):
        return None
    try:
        return datetime.date.fromisoformat(name)
    except ValueError:
        raise UserError(f"{name} is no day of the calendar") from None


def _standing_on(day: datetime.date, records: list[Record]) -> Resolution:
    """The record that stood at the end of `day`: the last one set on it or before. Drafts never stood."""
    listed = [record for record in records if not record.is_draft]
    standing = [record for record in listed if record.date <= day]
    if not standing:
        first = f"; the first is record {listed[0].number} of {listed[0].date}" if listed else ""
        drafts = sum(record.is_draft and record.date <= day for record in records)
        passed = f"; {drafts} of that time or before are drafts, not frozen or without a listed time" if drafts else ""
        raise UserError(f"no record stood on {day}{first}{passed}")
    record = standing[-1]
    when = "set that day" if record.date == day else f"set on {record.date}"
    return Resolution(record, f"{day} is record {record.number}, {when}")


def _named(name: str, records: list[Record]) -> list[Record]:
    """Records whose number or slug is `name`, or else whose slug without its date is."""
    wanted = name.lower()
    exact = [record for record in records if wanted == record.slug.lower()]
    if wanted[:1].isdigit():
        exact += [record for record in records if number_key(record.number.lower()) == number_key(wanted)]
    return exact or [record for record in records if wanted == _undated(record.slug.lower())]


def _undated(slug: str) -> str:
    return re.sub(r"^\d{4}-\d{2}-\d{2}-", "", slug)


def _at_path(path: Path) -> Record:
    """The record in the folder or of the script at `path`; a lone script becomes a record without facts."""
    if path.is_dir():
        return load(path)
    if not path.is_file():
        raise UserError(f"{path}: no such script or record folder; `harness list` shows the archive")
    if path.name == SCRIPT and (path.parent / FACTS).is_file():
        return load(path.parent)
    written = datetime.date.fromtimestamp(path.stat().st_mtime)
    return Record(folder=path.parent, number="", date=written, title=f"the script {path.name}", script_name=path.name)


def _unknown(name: str, records: list[Record]) -> str:
    """One line for a name that nothing answers to, with the nearest candidates."""
    if not records:
        return f"no record {name!r}: the archive {ROOT} is empty"
    spellings = {}
    for record in records:
        for spelling in (record.number, record.slug, _undated(record.slug), record.title.lower(), *record.techniques):
            spellings.setdefault(spelling.lower(), record)
    close = difflib.get_close_matches(name.lower(), spellings, n=5, cutoff=0.5)
    close += [spelling for spelling in spellings if len(name) > 2 and name.lower() in spelling]
    near = list({spellings[spelling].folder: spellings[spelling] for spelling in close}.values())[:3]
    if near:
        return f"no record {name!r}; near it: {_listing(near)}"
    return f"no record {name!r}; there are {_listing([records[0], records[-1]], ' to ')} (`harness list` shows all)"


def _listing(records: list[Record], joint: str = ", ") -> str:
    return joint.join(f"{record.number} ({record.slug})" for record in records)
