"""Run folders on disk: `runs/<slug>/<run id>/` with log.txt, stdout.txt, stderr.txt and run.json."""

import datetime
import json
from pathlib import Path

from harness.archive.run_folder import FACTS, LOG
from harness.errors import UserError
from harness.files import write_whole

SCHEMA = 1


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
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; choose another place with --runs-dir") from None
    return folder


def write(folder: Path, facts: dict) -> None:
    """Write `run.json`, whole or not at all, a fact a line. Raises UserError if the disk does not take it."""
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in {"schema": SCHEMA, **facts}.items()]
    try:
        write_whole(folder / FACTS, "{\n" + ",\n".join(lines) + "\n}\n")
    except OSError as error:
        raise UserError(f"{folder / FACTS}: {error.strerror}") from None


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


def shown(path: Path) -> str:
    """A path as short as it can be written from here."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
