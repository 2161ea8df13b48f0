"""The public tables, read without pandas: every record that stood, its runs, and what others measured of it.

They are the archive's index, asked by every command that takes a name, so they are read by the standard library alone.
"""

import csv
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import UserError

T = TypeVar("T")
UPSTREAM = "https://github.com/KellerJordan/modded-nanogpt"


@dataclass(frozen=True)
class Listing:
    """One row of the public leaderboard. Figures that nobody published are None."""

    number: str
    date: datetime.date
    title: str
    minutes: float | None = None
    steps: int | None = None
    step_avg_ms: float | None = None
    tokens_per_step: int | None = None
    val_loss: float | None = None
    runs: int | None = None
    torch: str = ""
    gpus: int | None = None
    gpu: str = ""
    credit: str = ""
    pull_request: str = ""

    @property
    def retiming(self) -> bool:
        """Whether it is an old record timed again."""
        return not self.number.isdigit()

    @property
    def source(self) -> str:
        """Where it was submitted."""
        return f"{UPSTREAM}/pull/{self.pull_request}" if self.pull_request.isdigit() else UPSTREAM

    @property
    def hardware(self) -> str:
        """The GPUs of its log, "" where nobody says."""
        return f"{self.gpus}x {self.gpu}" if self.gpus and self.gpu else self.gpu

    @property
    def label(self) -> str:
        """How it is called in a sentence."""
        return f"record {self.number}"


@dataclass(frozen=True)
class Retimed:
    """What others measured of a record on a setup of their own: `seconds` (mean of `runs`, `std` their deviation), or
    by how many seconds it was faster there than the record `against`. `source` says whose figure it is."""

    number: str
    source: str
    seconds: float | None = None
    std: float | None = None
    runs: int = 0
    against: str = ""
    seconds_faster: float | None = None

    @property
    def sentence(self) -> str:
        """The difference in words, "" for a time of its own."""
        if self.seconds_faster is None:
            return ""
        if self.number == self.against:
            return "the one that they measure from"
        word = "faster" if self.seconds_faster >= 0 else "slower"
        return f"{abs(self.seconds_faster):.1f} s {word} than {self.against}"


def read_leaderboard(root: Path) -> list[Listing]:
    """The rows of `root/leaderboard.csv` in its order, [] where there is none. Raises UserError for a broken table."""
    return _rows(root / "leaderboard.csv", _listing)


def read_retimed(root: Path) -> dict[str, tuple[Retimed, ...]]:
    """Others' re-timings by record, from `root/retimed.csv`; {} where there is none. Raises UserError likewise."""
    found: dict[str, tuple[Retimed, ...]] = {}
    for one in _rows(root / "retimed.csv", _retimed):
        found[one.number] = (*found.get(one.number, ()), one)
    return found


def read_runs(root: Path) -> list[dict[str, str]]:
    """The rows of `root/runs.csv`, as text by column; [] where there is none. Raises UserError for a broken table."""
    return _rows(root / "runs.csv", dict)


def linked_arms(root: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of `root/runs.csv` that may be averaged, by record: those with the code, steps and GPUs of its linked
    log. A record without a linked log is missing. Raises UserError likewise."""
    folders: dict[str, list[dict[str, str]]] = {}
    for row in read_runs(root):
        folders.setdefault(row["number"], []).append(row)
    arms = {}
    for number, rows in folders.items():
        if linked := next((row for row in rows if row["linked"] == "yes"), None):
            alike = [row for row in rows if all(row[key] == linked[key] for key in ("code", "steps", "gpus"))]
            arms[number] = alike
    return arms


def _rows(path: Path, reading: Callable[[dict], T]) -> list[T]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [reading(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is not the table that it should be: {type(error).__name__}: {error}") from None


def _retimed(row: dict[str, str]) -> Retimed:
    return Retimed(
        number=row["number"],
        source=row["source"],
        seconds=_figure(row["mean_train_time_s"]),
        std=_figure(row["std_train_time_s"]),
        runs=_whole(row["runs"]) or 0,
        against=row["against"],
        seconds_faster=_figure(row["seconds_faster"]),
    )


def _listing(row: dict[str, str]) -> Listing:
    credit = row["credit"]
    return Listing(
        number=row["number"],
        date=datetime.date.fromisoformat(row["date"]),
        title=row["title"],
        minutes=_figure(row["listed_minutes"]),
        steps=_whole(row["steps"]),
        step_avg_ms=_figure(row["log_step_avg_ms"]),
        tokens_per_step=_whole(row["tokens_per_step"]),
        val_loss=_figure(row["mean_val_loss"] or row["log_val_loss"]),
        runs=_whole(row["runs"]),
        torch=row["torch"],
        gpus=_whole(row["gpus"]),
        gpu=row["gpu"],
        credit="" if credit == "-" or credit.startswith("not a new record") else credit,
        pull_request=row["pull_request"].removesuffix(".0"),
    )


def _figure(text: str) -> float | None:
    return float(text) if text else None


def _whole(text: str) -> int | None:
    return int(float(text)) if text else None
