"""Run folders on disk: `runs/<slug>/<run id>/` with log.txt, stdout.txt, stderr.txt and run.json."""

import contextlib
import datetime
import json
import os
import time
from pathlib import Path

from harness.archive.places import shown
from harness.archive.run_folder import FACTS, LOG, RESERVE
from harness.errors import UserError
from harness.files import write_whole

__all__ = ["Clock", "adopt_log", "create", "now", "of_plan", "read", "shown", "time_id", "write"]

SCHEMA = 1
ID = "%Y%m%d-%H%M%S-%f"
TICK = datetime.timedelta(microseconds=1)
RESERVE_BYTES = 1 << 18


def now() -> datetime.datetime:
    """The time of day, in UTC."""
    return datetime.datetime.now(datetime.UTC)


class Clock:
    """When a run began and ended, right also where the machine's clock is set in between."""

    def __init__(self):
        self._started, self._since = now(), time.monotonic()

    def facts(self) -> dict:
        """`started` and `ended`, the time of day in UTC, the latter by the steady clock; `clock_jump_s` if they part.

        A jump is what the time of day moved beyond the time that passed, in seconds; under a second it is slewing.
        """
        ended = self._started + datetime.timedelta(seconds=time.monotonic() - self._since)
        jump = (now() - ended).total_seconds()
        facts = {"started": self._started.isoformat(timespec="seconds"), "ended": ended.isoformat(timespec="seconds")}
        return facts | ({"clock_jump_s": round(jump, 1)} if abs(jump) > 1 else {})


def time_id(after: str = "") -> str:
    """A name by the time that no other moment has. Names sort by age: it follows `after` even on a clock set back."""
    moment = now()
    if after:
        moment = max(moment, datetime.datetime.strptime(after, ID).replace(tzinfo=datetime.UTC) + TICK)
    return f"{moment:{ID}}"


def create(runs_dir: Path, slug: str) -> Path:
    """A new run folder, named by the time, after all that are there. Raises UserError if it cannot be made."""
    parent = runs_dir / slug
    for _ in range(100):  # another replay may take the name in the same moment
        folder = parent / time_id(max((path.name for path in parent.glob("*/") if _is_id(path.name)), default=""))
        try:
            folder.mkdir(parents=True)
            with (folder / RESERVE).open("wb") as reserve, contextlib.suppress(OSError):
                os.posix_fallocate(reserve.fileno(), 0, RESERVE_BYTES)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{folder} cannot be made: {error.strerror}; choose another place with --runs-dir"
            ) from None
    raise UserError(f"{parent}: no folder can be named there; choose another place with --runs-dir")


def _is_id(name: str) -> bool:
    try:
        return bool(datetime.datetime.strptime(name, ID))
    except ValueError:
        return False


def write(folder: Path, facts: dict) -> None:
    """Write `run.json`, whole or not at all, a fact a line, in the space that was kept for it.

    Where even that is too little, it goes without the witness. Raises UserError if the disk does not take it.
    """
    (folder / RESERVE).unlink(missing_ok=True)
    try:
        _write(folder, facts)
    except OSError:
        try:
            _write(folder, facts | {"witness": None})
        except OSError as error:
            raise UserError(f"{folder / FACTS}: {error.strerror}") from None


def _write(folder: Path, facts: dict) -> None:
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in {"schema": SCHEMA, **facts}.items()]
    write_whole(folder / FACTS, "{\n" + ",\n".join(lines) + "\n}\n")


def read(folder: Path) -> dict | None:
    """The facts in a run folder, None if there are none that can be read."""
    try:
        facts = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("schema") == SCHEMA else None


def of_plan(runs_dir: Path, slug: str, plan: str) -> list[tuple[Path, dict]]:
    """Runs in the newest batch of the plan with this digest, oldest first; finished or not."""
    found = []
    for folder in sorted((runs_dir / slug).glob("*/")):
        facts = read(folder)
        if facts and facts.get("plan") == plan:
            found.append((folder, facts))
    return [(folder, facts) for folder, facts in found if facts.get("batch") == found[-1][1].get("batch")]


def adopt_log(folder: Path) -> Path:
    """The run's log file: `log.txt`, or what a script that chooses its own name wrote to `logs/`, moved there."""
    log = folder / LOG
    written = sorted((folder / "logs").glob("*.txt"), key=lambda path: path.stat().st_size)
    if not log.exists() and written:
        written[-1].replace(log)
    return log
