"""The archive: finds records, and turns what a person types into one of them."""

import datetime
import difflib
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from harness.archive.leaderboard import Listing, read_leaderboard
from harness.archive.record import FACTS, SCRIPT, Listed, Record, load
from harness.errors import UserError, warn

__all__ = ["Listed", "Record", "Resolution", "ancestor", "discover", "find", "load", "lookup", "number_key", "resolve"]

HOUSE = Path(__file__).resolve().parents[2]
CLONE = (HOUSE / "records").is_dir()
"""Whether this is a clone of the repository; installed, the records lie beside the packages, as one of them."""
INSTALLED = "speedrun_records"
ROOT = HOUSE / ("records" if CLONE else INSTALLED)


@dataclass(frozen=True)
class Resolution:
    """What a name means: a record, or the leaderboard's row of one whose script is not here.

    `note` tells how the name led there ("" when the name says it all).
    """

    record: Record | None
    note: str = ""
    listing: Listing | None = None


def number_key(number: str) -> tuple[int, str]:
    """Sort key of a record's number: `21` < `21b` < `22`."""
    digits = re.match(r"\d+", number)
    return (int(digits.group()), number[digits.end() :]) if digits else (-1, number)


def _age(row: Record | Listing) -> tuple[datetime.date, tuple[int, str]]:
    return row.date, number_key(row.number)


def discover(root: Path | str | None = None, strict: bool = False) -> list[Record]:
    """All records under `root` (default: the archive), oldest first.

    A broken `record.toml` is named in a warning and left out; with `strict` it raises the UserError that names it.
    """
    records, broken = _load_all(Path(root or ROOT))
    for error in broken.values():
        if strict:
            raise error
        warn(f"{error}; this record is left out")
    return records


def _load_all(root: Path) -> tuple[list[Record], dict[Path, UserError]]:
    """The records below `root`, oldest first, and the folders of those that cannot be read, with the reason."""
    records, broken = [], {}
    for path in sorted(root.glob(f"*/{FACTS}")):
        try:
            stat = path.stat()
            records.append(_load_once(path.parent, (stat.st_ino, stat.st_mtime_ns, stat.st_size)))
        except OSError as error:
            broken[path.parent] = UserError(f"{path}: {error.strerror}")
        except UserError as error:
            broken[path.parent] = error
    return sorted(records, key=_age), broken


@functools.cache
def _load_once(folder: Path, stamp: tuple) -> Record:
    """The record in `folder`, read again only when the `stamp` of its facts has changed."""
    return load(folder)


def resolve(name: str, root: Path | str | None = None, nearest: bool = False) -> Record:
    """The record that `name` means: a number, date, slug, folder or script path. UserError names the nearest ones."""
    return find(name, root, nearest).record


def find(name: str, root: Path | str | None = None, nearest: bool = False) -> Resolution:
    """Like `resolve`, with the sentence that tells how a date or a part of a slug was understood.

    Raises UserError where the leaderboard has such a record but its script is not here, unless `nearest` allows the
    nearest one that is.
    """
    found = lookup(name, root)
    if found.record:
        return found
    said = found.note or f"{found.listing.label} is of {found.listing.date} ({found.listing.title})"
    instead = _nearest(found.listing, discover(root))
    if instead is None:
        raise UserError(f"{said}; its script is not in this archive, nor is any other")
    if nearest:
        return Resolution(instead, f"{said}; its script is not here: taking record {instead.number}, {instead.slug}")
    raise UserError(
        f"{said}; its script is not in this archive. The nearest that is: {_names([instead])}; "
        "name it, or add --nearest"
    )


def lookup(name: str, root: Path | str | None = None) -> Resolution:
    """What `name` means, also where that is a row of the leaderboard without a script here. Raises UserError."""
    name = str(name).strip()
    if not name:
        raise UserError("which record? `harness list` shows all")
    if "/" in name or name.endswith(".py"):
        return Resolution(_at_path(Path(name)))
    records, broken = discover(root), _load_all(Path(root or ROOT))[1]
    listings = read_leaderboard(Path(root or ROOT))
    if day := _as_date(name):
        return _standing_on(day, records, listings, broken)
    matches = _named(name, records)
    if len(matches) == 1:
        record = matches[0]
        said = name.lower() in (record.slug.lower(), record.number.lower())
        return Resolution(record, "" if said else f"{name} is record {record.number}, {record.slug}")
    if matches:
        raise UserError(f"{name!r} could be any of: {_names(matches)}")
    if error := next((error for folder, error in broken.items() if _is_called(folder, name)), None):
        raise error
    listings = _without_script(records, listings)
    if wanted := [row for row in listings if name[:1].isdigit() and number_key(row.number) == number_key(name.lower())]:
        _refuse_broken(wanted[0], broken)
        return Resolution(None, listing=wanted[0])
    if Path(name).is_dir():
        return Resolution(_at_path(Path(name)))
    raise UserError(_unknown(name, records, listings))


def _without_script(records: list[Record], listings: list[Listing]) -> list[Listing]:
    """The rows of the leaderboard whose script is not among `records`."""
    here = {record.number for record in records}
    return [row for row in listings if row.number not in here]


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


def _standing_on(day: datetime.date, records: list[Record], listings: list[Listing], broken: dict) -> Resolution:
    """The record that stood at the end of `day`: the last one set on it or before. Drafts never stood."""
    listed = [record for record in records if not record.is_draft]
    stood = sorted([*listed, *_without_script(listed, listings)], key=_age)
    standing = [row for row in stood if row.date <= day]
    if not standing:
        first = f"; the first is record {stood[0].number} of {stood[0].date}" if stood else ""
        drafts = sum(record.is_draft and record.date <= day for record in records)
        passed = f"; {drafts} of that time or before are drafts, not frozen or without a listed time" if drafts else ""
        raise UserError(f"no record stood on {day}{first}{passed}")
    row = standing[-1]
    note = f"{day} is record {row.number}, " + ("set that day" if row.date == day else f"set on {row.date}")
    if isinstance(row, Record):
        return Resolution(row, note)
    if draft := next((record for record in records if (record.number, record.date) == (row.number, row.date)), None):
        return Resolution(draft, f"{note}; its script here is not frozen yet")
    _refuse_broken(row, broken)
    return Resolution(None, note, row)


def _refuse_broken(row: Listing, broken: dict[Path, UserError]) -> None:
    """Raise the error of a folder whose facts cannot be read, and which bears the number or the date of this row."""
    for folder, error in broken.items():
        if _is_called(folder, row.number) or folder.name.startswith(f"{row.date}-"):
            raise error


def _nearest(listing: Listing, records: list[Record]) -> Record | None:
    """The last record here that stood before `listing`, else the first after it; None where none ever stood."""
    stood = [record for record in records if not record.is_draft]
    before = [record for record in stood if _age(record) <= _age(listing)]
    return before[-1] if before else next(iter(stood), None)


def _named(name: str, records: list[Record]) -> list[Record]:
    """Records whose number or slug is `name`, or else whose slug without its date is."""
    wanted = name.lower()
    exact = [record for record in records if wanted == record.slug.lower()]
    if wanted[:1].isdigit():
        exact += [record for record in records if number_key(record.number.lower()) == number_key(wanted)]
    return exact or [record for record in records if wanted == _undated(record.slug.lower())]


def _is_called(folder: Path, name: str) -> bool:
    """Whether a folder whose facts cannot be read goes by this slug or number."""
    try:
        said = re.search(r"^number\s*=\s*[\"'](\w+)", (folder / FACTS).read_text(errors="replace"), re.MULTILINE)
    except OSError:
        said = None
    by_number = said and name[:1].isdigit() and number_key(said[1].lower()) == number_key(name.lower())
    return bool(by_number) or name.lower() in (folder.name.lower(), _undated(folder.name.lower()))


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


def _unknown(name: str, records: list[Record], listings: list[Listing]) -> str:
    """One line for a name that nothing answers to, with the nearest candidates, those without a script among them."""
    rows = sorted([*records, *listings], key=_age)
    if not rows:
        return f"no record {name!r}: the archive {ROOT} is empty"
    spellings = {}
    for row in rows:
        more = (row.slug, _undated(row.slug), *row.techniques) if isinstance(row, Record) else ()
        for spelling in (row.number, row.title, *more):
            spellings.setdefault(spelling.lower(), row)
    close = difflib.get_close_matches(name.lower(), spellings, n=5, cutoff=0.5)
    close += [spelling for spelling in spellings if len(name) > 2 and name.lower() in spelling]
    near = list({spellings[spelling].number: spellings[spelling] for spelling in close}.values())[:3]
    if near:
        return f"no record {name!r}; near it: {_names(near)}"
    return f"no record {name!r}; there are {_names([rows[0], rows[-1]], ' to ')} (`harness list --all` shows all)"


def _names(rows: list[Record | Listing], joint: str = ", ") -> str:
    """Rows as one would type them, and whether there is a script."""
    return joint.join(
        f"{row.number} ({row.slug})" if isinstance(row, Record) else f"{row.number} ({row.title}; no script here)"
        for row in rows
    )
