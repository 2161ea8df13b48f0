"""Take a finished run into its record: the untouched folder into `logs/`, with a paragraph, a row and its place in
`record.toml`."""

import csv
import io
import re
import shutil
import tempfile
from pathlib import Path

from harness.archive.evidence import Evidence, paragraph, read_evidence
from harness.archive.find import ROOT, discover, number_key
from harness.archive.record import FACTS as RECORD_FACTS
from harness.archive.record import Record
from harness.archive.run_folder import FACTS, RANKS, RESERVE, SHOWN
from harness.archive.shown import proof, read_run, with_shown
from harness.errors import UserError
from harness.files import write_whole
from timing.text import printable

README = "README.md"
LONGEST_WORD = 2_000  # characters: an overridden setting may be a table


def _is_word(value: object) -> bool:
    """Text that a file's name, a table and a terminal can hold as it is."""
    return isinstance(value, str) and printable(value, LONGEST_WORD) == value and not set("`|\n") & set(value)


def _is_column(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, (str, int, float)) for each in value)


SOUND = {
    "run_id": lambda value: isinstance(value, str) and re.fullmatch(r"\d{8}-\d{6}-\d{6}", value),
    "outcome": lambda value: value is None or _is_word(value),
    "slug": _is_word,
    "record": _is_word,
    "fidelity": _is_word,
    "script_sha256": _is_word,
    "seed": lambda value: value is None or type(value) is int,
    "gpus": lambda value: type(value) is int and value > 0,
    "machine": lambda value: isinstance(value, dict) and _is_word(value.get("gpu") or ""),
    "versions": lambda value: isinstance(value, dict) and _is_word(value.get("torch")),
    "overrides": lambda value: isinstance(value, dict) and all(map(_is_word, map(str, [*value, *value.values()]))),
    "manifest": lambda value: value is None or (isinstance(value, dict) and _is_word(value.get("name"))),
    "witness": lambda value: isinstance(value, dict) and all(map(_is_column, value.values())),
}
"""What `keep` relies on in a `run.json`, which may be a stranger's: its name becomes a folder's."""


def keep(folder: Path, shared: bool = False, corpus: str = "", root: Path | str | None = None) -> str:
    """Copy a run folder into `logs/` of its record, and say there and in `shown.csv` what it shows; a sentence on it.
    The folder itself comes last: until it stands there, what was broken off is taken up by the next call.

    `shared`: other work ran on its cards meanwhile. `corpus`: what it was trained on, where its data folder had no
    manifest that would say so. Raises UserError, before anything is written, for a run that did not finish, was none of
    the archive's scripts at real size on a GPU, was trained on another corpus, or is kept already.
    """
    if not (folder / FACTS).is_file():
        raise UserError(f"{folder} is no run folder: it has no {FACTS}")
    facts = read_run(folder / FACTS)
    if wrong := [name for name, sound in SOUND.items() if not sound(facts.get(name))]:
        raise UserError(f"{folder / FACTS} is not as a run leaves it: {', '.join(wrong)}")
    record = _record_of(folder, facts, root)
    place = record.logs / facts["run_id"]
    if place.exists():
        raise UserError(f"{place} is kept already")
    evidence = read_evidence(folder, facts, shared, corpus, len(record.listed.stages_ms or [0]), root)
    record.logs.mkdir(exist_ok=True)
    _tell(record.logs / README, record, facts["run_id"], paragraph(evidence, record))
    _add_row(Path(root or ROOT) / SHOWN, _row(record, evidence))
    _copy(folder, place)
    toml = record.folder / RECORD_FACTS
    write_whole(toml, with_shown(toml.read_text(encoding="utf-8"), proof(record.logs, record.script, record.shown)))
    return f"{place}: record {record.number}, {evidence.run.steps:,} steps on {evidence.machine}"


def _record_of(folder: Path, facts: dict, root) -> Record:
    if facts.get("outcome") != "finished":
        raise UserError(f"{folder} did not finish ({facts.get('outcome') or 'no outcome'}): only whole runs are kept")
    if facts["fidelity"] == "smoke" or not facts["machine"].get("gpu"):
        raise UserError(f"{folder} is not at real size on a GPU: it shows nothing that the tests do not")
    for record in discover(root):
        if record.slug == facts.get("slug"):
            if facts.get("script_sha256") in {record.sha256, *(digest for digest, _ in record.earlier)}:
                return record
            raise UserError(f"{folder} ran a script that record {record.number} was never frozen as")
    raise UserError(f"{folder} is of {facts.get('slug')!r}, which is no record of the archive")


def _copy(folder: Path, place: Path) -> None:
    """The whole folder, or nothing of it; without what a run holds only while it goes."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as aside:
        shutil.copytree(folder, Path(aside) / place.name, ignore=shutil.ignore_patterns(RANKS, RESERVE))
        (Path(aside) / place.name).rename(place)


def _tell(readme: Path, record: Record, run: str, text: str) -> None:
    """The newest run stands first."""
    known = readme.read_text(encoding="utf-8") if readme.is_file() else f"# Our runs of record {record.number}\n"
    if f"`{run}`" in known:
        return
    title, _, rest = known.partition("\n")
    write_whole(readme, f"{title}\n\n{text}{rest}")


def _row(record: Record, evidence: Evidence) -> dict:
    facts, apart = evidence.facts, evidence.difference
    return {
        "number": record.number,
        "run": facts["run_id"],
        "gpus": facts["gpus"],
        "machine": facts["machine"]["gpu"],
        "median_ms": "" if evidence.pace_ms is None else f"{evidence.pace_ms:.0f}",
        "alone_steps": "" if evidence.pace_ms is None else len(evidence.run.train_step),
        "difference": f"{apart[0]:+.4f}" if apart else "",
        "compared": apart[1] if apart else "",
    }


def _add_row(table: Path, row: dict) -> None:
    """One more row, records in their order."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [each for each in csv.DictReader(file) if each["run"] != row["run"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted([*rows, row], key=lambda each: (number_key(each["number"]), each["run"])))
    write_whole(table, text.getvalue())
