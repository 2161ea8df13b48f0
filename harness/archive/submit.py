"""A submission's way into the archive: a folder that begins as a copy of a record, and its freezing in the end."""

import contextlib
import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.archive.draft_checks import draft_problems
from harness.archive.find import CLONE, ROOT, resolve
from harness.archive.record import FACTS, SCRIPT, Record, load
from harness.archive.shown import proof, with_shown
from harness.errors import RunFailed, UserError
from harness.files import write_whole
from timing.rules import today as newest_edition

SECONDS_TO_END = 15  # between asking the contract tests to end and ending them
CONTRACT = Path(__file__).resolve().parents[2] / "tests" / "records" / "test_contract.py"

TEMPLATE = """\
number = "0"                  # of the leaderboard, once it has one
date = {date}
title = {title}
techniques = []               # what is new, a few words each
parent = {parent}
credit = []                   # whose ideas and work these are
source = ""                   # where it was submitted

[listed]                      # published figures, once there are any: minutes, steps, tokens_per_step, step_avg_ms,
                              # val_loss, val_loss_std, runs, torch, hardware

[rules]
edition = "{edition}"
kind = "ml"                   # "systems" if the mathematics is the parent's, so that significance is waived

{needs}
[reference]
curve = []                    # [step, validation loss] of a full run

{smoke}
[frozen]
sha256 = ""                   # written by `harness freeze`
"""


def new(slug: str, parent: str, into: Path | None = None, date: datetime.date | None = None) -> Path:
    """Start a submission: the folder `<date>-<slug>` with `parent`'s script and the facts that a newcomer has.

    It replays at once, as the parent does. `into` is by default the archive itself, or
    `drafts/` where that is installed and not a clone; `date` is by default today. Raises UserError.
    """
    record = resolve(parent)
    slug, date = slug.strip().lower(), date or datetime.date.today()
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise UserError(f"{slug!r} cannot name a folder: small letters, digits and single hyphens, as in sparse-gate")
    folder = Path(into or (ROOT if CLONE else "drafts")) / f"{date}-{slug}"
    if folder.exists():
        raise UserError(f"{folder} is there already: choose another name")
    record.script_sha256()  # that the script can be read is best said before anything is made
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
            draft = Path(aside) / "draft"
            draft.mkdir()
            shutil.copyfile(record.script, draft / SCRIPT)
            write_whole(draft / FACTS, _facts(record, slug, date))
            load(draft)
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


def _facts(record: Record, slug: str, date: datetime.date) -> str:
    """A `record.toml` with all facts empty except those that a copy shares with its parent."""
    path = record.folder / FACTS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    needs = _table(text, "needs") or '[needs]\nshards = 1\ngpu_memory_gib = 80\ncompute_capability = "9.0"\n'
    smoke = _table(text, "smoke") or "[smoke]\nmargin = 0.5\nnum_iterations = 20\n"
    return TEMPLATE.format(
        date=date,
        title=f'"{slug.replace("-", " ").capitalize()}"',
        parent=f'"{record.number}"',
        edition=newest_edition().name,
        needs=needs,
        smoke=smoke,
    )


def _table(toml: str, name: str) -> str:
    """The text of one table of a TOML file, header and comments included, "" if it has none."""
    match = re.search(rf"^\[{name}\][^\n]*\n(?:(?!^\[).*\n?)*", toml, flags=re.MULTILINE)
    return match[0].rstrip() + "\n" if match else ""


def freeze(folder: Path, again: bool = False) -> str:
    """Run the contract tests on a record folder and, if all pass, write its script's hash and the run in its `logs/`
    that shows it at real size, if there is one; a sentence on each.

    The tests run on a copy that bears the new hash already, so that exactly what they saw is frozen. Raises UserError
    for a frozen script that has changed (unless `again`), RunFailed if a test fails; nothing is written then.
    """
    record = load(folder)
    digest = record.script_sha256()
    shown = proof(record.logs, record.script, record.shown)
    if record.sha256 == digest:
        if shown != record.shown:
            _write(folder, with_shown((folder / FACTS).read_text(encoding="utf-8"), shown))
        return f"{folder} is frozen already, and unchanged: {digest}\nshown: {shown.text}"
    if record.sha256 and not again:
        raise UserError(
            f"{record.script} was frozen as {record.sha256[:12]} and is {digest[:12]} now: put the frozen script back, "
            "make a new record of it with `harness new`, or freeze it again with --again"
        )
    if problems := draft_problems(record):
        raise UserError("\n       ".join(problems))
    facts = with_shown(_with_hash(folder / FACTS, digest), shown)
    with tempfile.TemporaryDirectory(prefix="freeze-") as aside:
        candidate = Path(aside) / folder.resolve().name
        shutil.copytree(folder, candidate, ignore=shutil.ignore_patterns("__pycache__"))
        write_whole(candidate / FACTS, facts)
        _run_contract(candidate)
        tested = load(candidate).script_sha256()
    if tested != digest or record.script_sha256() != digest:
        raise UserError(f"{record.script} changed while it was tested: run this again")
    _write(folder, facts)
    return f"{folder} is frozen: {digest}\nshown: {shown.text}"


def _write(folder: Path, facts: str) -> None:
    try:
        write_whole(folder / FACTS, facts)
    except OSError as error:
        raise UserError(f"{folder / FACTS} cannot be written: {error.strerror}") from error


def _with_hash(path: Path, digest: str) -> str:
    """The text of a `record.toml` with this hash in its table [frozen]; all else stays as it was written."""
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(
        r"(^\[frozen\][^\[]*?^sha256\s*=\s*)(\"[^\"\n]*\"|'[^'\n]*')",
        lambda match: f'{match[1]}"{digest}"',
        text,
        flags=re.MULTILINE,
    )
    if count != 1:
        raise UserError(f'{path} needs a table [frozen] with the line sha256 = ""')
    return changed


def _run_contract(folder: Path) -> None:
    """Run the contract tests on one record folder, up to the first that fails, their output on this terminal.

    Raises RunFailed if one fails.
    """
    if not CONTRACT.is_file():
        raise UserError("the contract tests are not here: freeze in a checkout of the repository")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", str(CONTRACT)]
    environment = os.environ | {"CONTRACT_RECORD": str(folder.resolve())}
    code = _ended(subprocess.Popen(command, env=environment, cwd=CONTRACT.parents[2], start_new_session=True))
    if code == 5:
        raise RunFailed("no contract test was found: nothing was frozen")
    if code:
        raise RunFailed(f"the contract tests do not pass on {folder.name}: nothing was frozen")


def _ended(tests: subprocess.Popen) -> int:
    """The exit code of tests that run; whatever interrupts them here, they stop what they have started."""
    try:
        return tests.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(tests.pid, signal.SIGINT)  # in their own session: no terminal tells them
            tests.wait(timeout=SECONDS_TO_END)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()
        raise
