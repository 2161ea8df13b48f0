"""One record's facts: `record.toml`, read and validated, as a frozen `Record`."""

import datetime
import hashlib
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from harness.archive.shown import Shown
from harness.archive.shown import problems as shown_problems
from harness.errors import UserError
from timing.text import printable

FACTS = "record.toml"
SCRIPT = "train.py"


@dataclass(frozen=True)
class Listed:
    """What the public leaderboard and the linked logs say. A figure that nobody published is None.

    `minutes` is the leaderboard's; `logged_minutes` the mean of the public logs where it differs, and `note` says how.
    `logged_steps` is what these logs ran where they are of another state of the script than `minutes` and `steps`.
    `stages_ms` are the steps of a record whose batch grows in stages of equal length, a median for each.
    """

    minutes: float | None = None
    steps: int | None = None
    tokens_per_step: int | None = None
    step_avg_ms: float | None = None
    val_loss: float | None = None
    val_loss_std: float | None = None
    runs: int | None = None
    torch: str | None = None
    hardware: str | None = None
    logged_minutes: float | None = None
    logged_steps: int | None = None
    stages_ms: list[float] | None = None
    note: str | None = None


@dataclass(frozen=True)
class Record:
    """A folder of the archive: where it is, what it claims, what it needs, how it is smoke-tested.

    `gpt2_tokens` names the setting that, while it is on, has the script read GPT-2's tokens from the data folder.
    `curve` holds (step, validation loss) pairs of the published log; `smoke` the overrides of a smoke replay, without
    `smoke_margin` (nats by which its loss must fall) and `smoke_gpus` (its ranks). `sha256` is that of the frozen
    script, "" while the record is a draft; `earlier` holds (SHA-256, what has changed since) of those that were frozen
    before and made runs that are kept; `shown` the run that proves the frozen script at real size, None if nobody says.
    A lone script without `record.toml` has the number "".
    """

    folder: Path
    number: str
    date: datetime.date
    title: str
    techniques: tuple[str, ...] = ()
    parent: str = ""
    credit: tuple[str, ...] = ()
    source: str = ""
    listed: Listed = field(default_factory=Listed)
    edition: str = ""
    kind: str = "ml"
    shards: int = 1
    gpu_memory_gib: float = 0.0
    compute_capability: str = ""
    gpt2_tokens: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    smoke_margin: float = 0.0
    smoke_gpus: int = 2
    smoke: dict[str, object] = field(default_factory=dict)
    sha256: str = ""
    earlier: tuple[tuple[str, str], ...] = ()
    shown: Shown | None = None
    script_name: str = SCRIPT

    @property
    def script(self) -> Path:
        """The train script."""
        return self.folder / self.script_name

    @property
    def logs(self) -> Path:
        """The folder of committed runs."""
        return self.folder / "logs"

    @property
    def slug(self) -> str:
        """The folder's name; of a lone script, the script's name."""
        return self.folder.name if self.number else self.script.stem

    @property
    def label(self) -> str:
        """How the record is called in a sentence: `record 40`, the folder's name without a number, or the script's."""
        if self.number == "0":
            return self.folder.name
        return f"record {self.number}" if self.number else self.script_name

    @property
    def is_draft(self) -> bool:
        """Whether it never stood as a record: it is not frozen, or the leaderboard gives it no number or no time."""
        return not self.sha256 or self.number in ("", "0") or self.listed.minutes is None

    def script_sha256(self) -> str:
        """SHA-256 of the script as it is on disk now. Raises UserError when there is none to read."""
        try:
            return hashlib.sha256(self.script.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{self.script}: {error.strerror}; a record needs its train script") from None

    def read_script(self) -> str:
        """The script as text that is safe to show, lines ending in a newline alone. Raises UserError."""
        try:
            text = self.script.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UserError(f"{self.script}: {error.strerror}; a record needs its train script") from None
        return printable(text.replace("\r\n", "\n"))


REQUIRED, OPTIONAL = True, False
KEYS = {
    "number": (str, REQUIRED),
    "date": (datetime.date, REQUIRED),
    "title": (str, REQUIRED),
    "techniques": (list, REQUIRED),
    "parent": (str, REQUIRED),
    "credit": (list, REQUIRED),
    "source": (str, REQUIRED),
    "listed.minutes": (float, OPTIONAL),
    "listed.steps": (int, OPTIONAL),
    "listed.tokens_per_step": (int, OPTIONAL),
    "listed.step_avg_ms": (float, OPTIONAL),
    "listed.val_loss": (float, OPTIONAL),
    "listed.val_loss_std": (float, OPTIONAL),
    "listed.runs": (int, OPTIONAL),
    "listed.torch": (str, OPTIONAL),
    "listed.hardware": (str, OPTIONAL),
    "listed.logged_minutes": (float, OPTIONAL),
    "listed.logged_steps": (int, OPTIONAL),
    "listed.stages_ms": (list, OPTIONAL),
    "listed.note": (str, OPTIONAL),
    "rules.edition": (str, REQUIRED),
    "rules.kind": (str, REQUIRED),
    "needs.shards": (int, REQUIRED),
    "needs.gpu_memory_gib": (float, REQUIRED),
    "needs.compute_capability": (str, REQUIRED),
    "needs.gpt2_tokens": (str, OPTIONAL),
    "reference.curve": (list, OPTIONAL),
    "smoke.margin": (float, REQUIRED),
    "smoke.gpus": (int, OPTIONAL),
    "shown.run": (str, OPTIONAL),
    "shown.machine": (str, OPTIONAL),
    "shown.steps": (int, OPTIONAL),
    "shown.reason": (str, OPTIONAL),
    "frozen.sha256": (str, REQUIRED),
    "frozen.earlier": (list, OPTIONAL),
}
TABLES = {name.split(".")[0] for name in KEYS if "." in name}
KIND_NAMES = {str: "a string", int: "a whole number", float: "a number", list: "a list", datetime.date: "a date"}


def load(folder: Path | str) -> Record:
    """The record in `folder`. Raises UserError with one line that names every missing, unknown or ill-typed key."""
    folder = Path(folder)
    path = folder / FACTS
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a record folder holds {FACTS} and {SCRIPT}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply to be read") from None
    problems = _problems(table)
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    return _record(folder, table)


def _problems(table: dict) -> list[str]:
    """Everything about the parsed TOML that keeps it from being a record, in words."""
    problems = [f"{name} must be a table" for name in sorted(TABLES) if not isinstance(table.get(name, {}), dict)]
    if problems:
        return problems
    flat = {
        (f"{name}.{key}" if name in TABLES else name): value
        for name, content in table.items()
        for key, value in (content.items() if name in TABLES else [("", content)])
    }
    missing = [name for name, (_, required) in KEYS.items() if required and name not in flat]
    unknown = [name for name in flat if name not in KEYS and not name.startswith("smoke.")]
    problems += [f"missing key {name}" for name in missing] + [f"unknown key {name}" for name in unknown]
    for name, value in flat.items():
        kind = KEYS.get(name, (type(value), OPTIONAL))[0]
        if not _is(value, kind):
            problems.append(f"{name} must be {KIND_NAMES[kind]}, not {value!r}")
    return problems or _contents(flat)


def _contents(flat: dict) -> list[str]:
    """What is wrong with values whose types are right."""
    problems = [f"{name} holds control characters" for name, value in flat.items() if not _clean(value)]
    figures = [name for name in flat if name.startswith(("listed.", "needs.")) and _is(flat[name], float)]
    problems += [f"{name} is no figure: {flat[name]}" for name in figures if not 0 <= flat[name] < math.inf]
    if flat["rules.kind"] not in ("ml", "systems"):
        problems.append(f'rules.kind must be "ml" or "systems", not {flat["rules.kind"]!r}')
    for name in ("techniques", "credit"):
        if not all(isinstance(item, str) for item in flat[name]):
            problems.append(f"{name} must be a list of strings")
    if not all(_is(item, float) for item in flat.get("listed.stages_ms", [])):
        problems.append("listed.stages_ms must be a list of milliseconds")
    for point in flat.get("reference.curve", []):
        if not (isinstance(point, list) and len(point) == 2 and _is(point[0], int) and _is(point[1], float)):
            problems.append(f"reference.curve must be a list of [step, loss], not {point!r}")
            break
    for version in flat.get("frozen.earlier", []):
        strings = isinstance(version, list) and len(version) == 2 and all(isinstance(item, str) for item in version)
        if not strings or not re.fullmatch("[0-9a-f]{64}", version[0]) or not version[1].strip():
            problems.append(f"frozen.earlier must be a list of [SHA-256, what has changed since], not {version!r}")
            break
    problems += shown_problems({name[6:]: value for name, value in flat.items() if name.startswith("shown.")})
    if not flat["number"][:1].isdigit():
        problems.append(f'number must begin with digits, as in "07" or "21b", not {flat["number"]!r}')
    return problems


def _clean(value: object) -> bool:
    """Whether all text in a value can be shown on a terminal as it is: a record may come from a stranger."""
    if isinstance(value, list):
        return all(map(_clean, value))
    return not isinstance(value, str) or printable(value) == value


def _is(value: object, kind: type) -> bool:
    """Whether a TOML value is of this kind; a whole number counts as a number, a boolean does not."""
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _record(folder: Path, table: dict) -> Record:
    smoke = dict(table["smoke"])
    needs = table["needs"]
    return Record(
        folder=folder,
        number=table["number"],
        date=table["date"],
        title=table["title"],
        techniques=tuple(table["techniques"]),
        parent=table["parent"],
        credit=tuple(table["credit"]),
        source=table["source"],
        listed=Listed(**table.get("listed", {})),
        edition=table["rules"]["edition"],
        kind=table["rules"]["kind"],
        shards=needs["shards"],
        gpu_memory_gib=float(needs["gpu_memory_gib"]),
        compute_capability=needs["compute_capability"],
        gpt2_tokens=needs.get("gpt2_tokens", ""),
        curve=tuple((step, float(loss)) for step, loss in table.get("reference", {}).get("curve", [])),
        smoke_margin=float(smoke.pop("margin")),
        smoke_gpus=smoke.pop("gpus", 2),
        smoke=smoke,
        sha256=table["frozen"]["sha256"],
        earlier=tuple((digest, why) for digest, why in table["frozen"].get("earlier", [])),
        shown=Shown(**table["shown"]) if table.get("shown") else None,
    )
