"""The audit of a record's facts: `record.toml` against the public tables, the ledger, the logs that are committed."""

import math

import pandas as pd

from harness.archive.code import code_of
from harness.archive.record import Record
from harness.audit.finding import FAIL, NOTE, PASS, Finding
from harness.audit.script import script_hashes
from harness.errors import UserError
from harness.referee.checks import Case
from harness.referee.source.rules import is_script
from harness.referee.submission import Entry, collect
from harness.referee.witness_check import check_witness
from harness.replay.fidelity import LABELS
from timing.ledger import Entry as Time
from timing.ledger import Ledger, measured
from timing.rules import RulesError, edition, today

WORTH_TELLING = 0.004
CURVE_SLACK = 1e-4
OTHER_CODE = "made by a version of train.py with other code"
OTHER_WORDS = "made by a version of train.py with other comments"


def audit_listed(record: Record, leaderboard: pd.DataFrame) -> list[Finding]:
    """What `record.toml` lists is what the leaderboard and its logs say; its edition is the one of its date."""
    faults = []
    try:
        if edition(record.edition) != edition(record.date):
            in_force = edition(record.date).name
            faults.append(f"edition {record.edition} was not in force on {record.date}: that was {in_force}")
    except RulesError as error:
        faults.append(str(error))
    rows = leaderboard[leaderboard.number == record.number]
    if rows.empty:
        return [*_faults(record, faults), Finding(record.number, "listed", NOTE, "not on the leaderboard yet")]
    row, listed = rows.iloc[0], record.listed
    if str(record.date) != row.date:
        faults.append(f"date is {record.date}, the leaderboard says {row.date}")
    means = (row.mean_val_loss, row.log_val_loss)
    for name, given, known, slack in (
        ("minutes", listed.minutes, (row.listed_minutes,), 0),
        ("steps", listed.logged_steps or listed.steps, (row.steps,), 0),
        ("tokens_per_step", listed.tokens_per_step, (row.tokens_per_step,), 0),
        ("step_avg_ms", listed.step_avg_ms, (row.log_step_avg_ms,), 0.02),
        ("val_loss", listed.val_loss, means, 6e-5),
        ("logged_minutes", listed.logged_minutes, _minutes(row), 3e-4 * row.listed_minutes),
    ):
        published = [float(value) for value in known if not pd.isna(value)]
        if given is not None and published and min(abs(given - value) for value in published) > slack + 1e-9:
            faults.append(f"{name} is {given:g}, published is {' or '.join(f'{value:g}' for value in published)}")
    if faults:
        return _faults(record, faults)
    return [Finding(record.number, "listed", PASS, "as the leaderboard and its logs have it")]


def _minutes(row: pd.Series) -> tuple[float, float]:
    return row.mean_train_time_s / 60, row.log_train_time_s / 60


def _faults(record: Record, faults: list[str]) -> list[Finding]:
    return [Finding(record.number, "listed", FAIL, fault) for fault in faults]


def audit_curve(record: Record, curves: pd.DataFrame) -> Finding:
    """The reference curve is the published one, at the steps that both have."""
    mine = dict(record.curve)
    if not mine:
        return Finding(record.number, "curve", NOTE, "no reference curve")
    published = curves[curves.number == record.number]
    theirs = dict(zip(published.step, published.val_loss, strict=True))
    off = [step for step in mine.keys() & theirs.keys() if abs(mine[step] - theirs[step]) > CURVE_SLACK]
    if off:
        step = min(off)
        text = f"step {step}: {mine[step]} here, {theirs[step]} published ({len(off)} steps differ)"
        return Finding(record.number, "curve", FAIL, text)
    common = len(mine.keys() & theirs.keys())
    return Finding(
        record.number, "curve", PASS if common else NOTE, f"{common} of {len(mine)} points are published ones"
    )


def audit_ledger(record: Record, runs: pd.DataFrame) -> list[Finding]:
    """Listed against logged time of the linked log's arm; a difference worth telling must be told in `record.toml`."""
    ledger = ledger_of(record, runs)
    difference = ledger.difference()
    if difference is None:
        return [Finding(record.number, "ledger", NOTE, "no logged time to hold against the listed one")]
    found = [Finding(record.number, "ledger", NOTE if difference.disagrees else PASS, str(difference))]
    if abs(difference.share) > WORTH_TELLING and record.listed.logged_minutes is None:
        found.append(
            Finding(record.number, "ledger", FAIL, f"[listed] does not tell it (logged_minutes): {difference}")
        )
    return found


def ledger_of(record: Record, runs: pd.DataFrame) -> Ledger:
    """The record's listed time, and the mean of the linked log's arm (same source, steps and GPUs) as logged time."""
    entries = []
    if record.listed.minutes:
        entries.append(Time("listed", 60 * record.listed.minutes, record.listed.hardware or "8x NVIDIA H100"))
    folder = runs[runs.number == record.number]
    linked = folder[folder.linked == "yes"]
    if len(linked):
        first = linked.iloc[0]
        arm = folder[(folder.code == first.code) & (folder.steps == first.steps) & (folder.gpus == first.gpus)]
        times = arm.final_train_time_ms.dropna() / 1000
        if len(times):
            entries.append(measured("logged", times, f"{first.gpus}x {first.gpu}", int(first.gpus)))
    return Ledger(record.number, tuple(entries))


def audit_logs(record: Record) -> list[Finding]:
    """Each committed run: read, whole, labelled, witnessed, and made by the record's own script."""
    if not record.logs.is_dir() or not any(record.logs.iterdir()):
        return [Finding(record.number, "logs", NOTE, "no run of ours is committed")]
    try:
        entries, left_out = collect([record.logs])
    except UserError as error:
        return [Finding(record.number, "logs", FAIL, str(error))]
    found = [Finding(record.number, "logs", FAIL, line) for line in left_out]
    return found + [_run(record, entry) for entry in entries]


def _run(record: Record, entry: Entry) -> Finding:
    name = "/".join(entry.name.split("/")[-2:])
    run, faults = entry.run, []
    if not run.complete:
        faults.append(f"ends at step {run.steps} of {run.planned_steps}")
    if entry.label not in LABELS:
        faults.append(f"its fidelity is {entry.label!r}")
    made_by = _made_by(record, entry)
    if record.sha256 and made_by == OTHER_CODE:
        faults.append(made_by)
    witness = check_witness(Case((entry,), today()))
    if witness is None or witness.status != PASS:
        faults.append(witness.evidence if witness else "it has no witness")
    if run.final_val_loss is None or not math.isfinite(run.final_val_loss):
        faults.append("it has no final loss")
    if faults:
        return Finding(record.number, "logs", FAIL, f"{name}: {'; '.join(faults)}")
    told = f"{name}: {entry.label}, {run.steps} steps, val_loss {run.final_val_loss}"
    return Finding(record.number, "logs", NOTE if made_by else PASS, f"{told}; {made_by}" if made_by else told)


def _made_by(record: Record, entry: Entry) -> str:
    """How the script in a log differs from the record's: "" if it does not."""
    if any(is_script(entry.run, digest) for digest in script_hashes(record)):
        return ""
    for digest, changed in record.earlier:
        if is_script(entry.run, digest):
            return f"made by the train.py frozen before, as {digest[:12]}; since then: {changed}"
    same = code_of(entry.run.source or "") == code_of(record.script.read_text(encoding="utf-8"))
    return OTHER_WORDS if same else OTHER_CODE
