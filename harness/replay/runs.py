"""Run folders on disk: `runs/<slug>/<run id>/` with log.txt, stdout.txt, stderr.txt and run.json."""

import contextlib
import datetime
import json
import os
from pathlib import Path

from harness.archive.places import shown
from harness.archive.run_folder import FACTS, LOG
from harness.errors import UserError
from harness.files import write_whole

__all__ = ["adopt_log", "create", "now", "of_plan", "read", "shown", "time_id", "write"]

SCHEMA = 1
RESERVE = ".reserve"  # space kept on the disk while a job runs, so that its end can be told on a full one
RESERVE_BYTES = 1 << 18


def now() -> datetime.datetime:
    """The time of day, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def time_id() -> str:
    """A name that no other moment has; names sort by age."""
    return f"{now():%Y%m%d-%H%M%S-%f}"


def create(runs_dir: Path, slug: str) -> Path:
    """A new run folder, named by the time. Raises UserError if it cannot be made."""
    folder = runs_dir / slug / time_id()
    try:
        folder.mkdir(parents=True)
        with (folder / RESERVE).open("wb") as reserve, contextlib.suppress(OSError):
            os.posix_fallocate(reserve.fileno(), 0, RESERVE_BYTES)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; choose another place with --runs-dir") from None
    return folder


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
