"""`harness verify`: log files in, a verdict out. Nothing from a log is ever executed."""

import math
import statistics

import click

from harness.archive.find import discover, resolve
from harness.archive.record import Record
from harness.errors import UserError
from harness.referee.checks import (
    Case,
    against,
    check_complete,
    check_data,
    check_faster,
    check_hardware,
    check_settings,
    check_target,
    official_seconds,
    test_of,
)
from harness.referee.clock_checks import (
    check_clock_average,
    check_clock_forward,
    check_clock_running,
    check_era,
    check_steps,
    check_witness,
)
from harness.referee.curve_checks import check_curve, check_independence
from harness.referee.source.rules import (
    check_compiler,
    check_source,
    check_token_stream,
    check_val_tokens,
    check_validation_reads,
    frozen_hash,
    is_script,
)
from harness.referee.submission import Arm, Entry, arms, collect
from harness.referee.verdict import (
    PASS,
    UNKNOWN,
    Check,
    Judgement,
    Verdict,
    render_text,
    to_json,
    to_markdown,
    verdict_line,
)
from harness.terminal import fitted
from timing import rules
from timing.log import printable

__all__ = ["render_text", "to_json", "to_markdown", "verdict_line", "verify"]

NOTES_SHOWN = 3
EVIDENCE = 28  # column at which the evidence of a check begins

RULE_BOOK = (
    check_complete,
    check_target,
    check_curve,
    check_independence,
    check_steps,
    check_clock_forward,
    check_clock_running,
    check_clock_average,
    check_era,
    check_witness,
    check_hardware,
    check_settings,
    check_data,
    check_source,
    check_compiler,
    check_val_tokens,
    check_validation_reads,
    check_token_stream,
    check_faster,
)


def verify(
    paths,
    *,
    record: Record | str | None = None,
    against=(),
    edition: str | None = None,
    systems: bool = False,
) -> Verdict:
    """Judge the logs in `paths` (files, or folders of them).

    `record` names the record whose run they claim to be (its frozen script, edition and kind apply); `against` are logs
    of a baseline; `edition` a date whose rules apply, else the record's, else those of the logs' own date; `systems`
    says that the change is one of systems only. Logs of different sources, steps or overrides are separate arms: the
    one that is the record's frozen script is judged, else the one with the most runs, and the others are judged apart.
    Raises UserError for unusable input.
    """
    record = resolve(record) if isinstance(record, str) else record
    chosen = None if edition is None else _edition(edition)
    entries, notes = collect(paths)
    baseline = collect(against)[0] if against else []
    separate = arms(entries)
    judged = _submission(separate, record)
    common = {
        "everyone": tuple(entries),
        "record": record,
        "parent": _parent(record),
        "systems": systems or (record is not None and record.kind == "systems"),
        "baseline": tuple(baseline),
        "baseline_arms": len(arms(baseline)),
    }

    def judge(arm: Arm, under: rules.Edition) -> Judgement:
        arms_check = _check_arms(separate, judged, record, under) if arm is judged else None
        return _judge(arm, Case(entries=arm.entries, edition=under, **common), arms_check)

    in_force = chosen or _edition_of(judged, record)
    today = rules.today()
    return Verdict(
        judged=judge(judged, in_force),
        today=judge(judged, today) if today != in_force and chosen is None else None,
        others=tuple(judge(arm, chosen or _edition_of(arm, record)) for arm in separate if arm is not judged),
        notes=(*(f"left out: {line}" for line in notes), *_oddities(judged)),
    )


def show(paths, form: str | None = None, **options) -> int:
    """Print the verdict on `paths` as text (coloured on a terminal), "json" or "markdown"; returns the exit code."""
    verdict = verify(paths, **options)
    render = {"json": to_json, "markdown": to_markdown}.get(form)
    click.echo(render(verdict) if render else fitted(render_text(verdict, _coloured), hang=EVIDENCE))
    return verdict.exit_code


def _coloured(text: str, status: str) -> str:
    return click.style(text, fg={PASS: "green", "fail": "red", UNKNOWN: "yellow"}.get(status, "cyan"), bold=True)


def _submission(separate: list[Arm], record: Record | None) -> Arm:
    """The arm that the verdict concerns."""
    matching = [arm for arm in separate if record and is_script(arm.entries[0].run, frozen_hash(record))]
    return min(matching or separate, key=lambda arm: (bool(arm.overrides), -len(arm.entries)))


def _check_arms(separate: list[Arm], judged: Arm, record: Record | None, under: rules.Edition) -> Check:
    """Runs of different sources, steps or overrides are kept apart, and which arm is judged is said."""
    where = judged.entries[0].at(judged.entries[0].run.source_line)
    if len(separate) == 1:
        return Check("arms", PASS, f"one arm: {judged.name}, n = {len(judged.entries)} ({where})", under.name)
    found = f"{len(separate)} arms, kept apart; judged: {judged.name}, n = {len(judged.entries)}"
    if record is not None and is_script(judged.entries[0].run, frozen_hash(record)):
        return Check("arms", PASS, f"{found}, the frozen script of {record.label} ({where})", under.name)
    guess = f"{found}, the largest ({where}); give its logs alone, or --record, to say that it is meant"
    return Check("arms", UNKNOWN, guess, under.name, decisive=True)


def _oddities(arm: Arm) -> list[str]:
    """What the reader found odd in the judged files, the first few in each."""
    files = {entry.run.digest: entry for entry in reversed(arm.entries)}
    return [
        printable(f"{note.text} ({entry.run.path}{f':{note.line}' if note.line else ''})", 300)
        for entry in reversed(files.values())
        for note in entry.run.notes[:NOTES_SHOWN]
    ]


def _judge(arm: Arm, case: Case, arms_check: Check | None) -> Judgement:
    checks = [arms_check] if arms_check else []
    checks += [check for rule in RULE_BOOK if (check := rule(case)) is not None]
    logged = [_finite(entry.run.final_train_time_ms) for entry in case.finished()]
    logged = [time / 1000 for time in logged if time is not None]
    official = official_seconds(case, case.entries)
    first = rules.official_time(next(iter(case.finished() or case.entries)).run, case.edition)
    return Judgement(
        arm=arm.name,
        edition=case.edition.name,
        target=case.edition.target,
        checks=tuple(checks),
        runs=tuple(map(_as_row, case.entries)),
        test=test_of(case),
        mean_time=statistics.fmean(logged) if logged else None,
        std_time=statistics.stdev(logged) if len(logged) > 1 else None,
        mean_official_time=statistics.fmean(official) if official else None,
        time_uncertainty=(first.uncertainty_ms or 0.0) / 1000,
        time_note=first.how,
        comparison=against(case) if case.baseline and case.baseline_arms == 1 else None,
    )


def _as_row(entry: Entry) -> dict:
    """One run by the schema of the design."""
    run = entry.run
    return {
        "path": entry.name,
        "dialect": run.dialect,
        "steps": run.steps,
        "planned_steps": run.planned_steps,
        "complete": run.complete,
        "val_loss": _finite(run.final_val_loss),
        "train_time_ms": _finite(run.final_train_time_ms),
        "step_avg_ms": _finite(run.final_step_avg_ms),
        "torch": run.torch,
        "gpus": run.gpus or run.world_size,
        "gpu": run.gpu or run.device,
        "source_sha256": run.source_sha256,
        "seed": run.seed,
        "fidelity": entry.label,
    }


def _finite(value: float | None) -> float | int | None:
    """A figure for JSON: None unless finite, without a fraction where it has none."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value


def _edition_of(arm: Arm, record: Record | None) -> rules.Edition:
    """The record's edition, else that of the logs' date, else the latest."""
    if record is not None and record.edition:
        return _edition(record.edition)
    dates = sorted(entry.run.date[:10] for entry in arm.entries if entry.run.date)
    try:
        return rules.edition(dates[-1]) if dates else rules.today()
    except rules.RulesError:
        return rules.today()


def _edition(name: str) -> rules.Edition:
    try:
        return rules.edition(name)
    except rules.RulesError as error:
        raise UserError(str(error)) from None


def _parent(record: Record | None) -> Record | None:
    if record is None or not record.parent:
        return None
    return next((each for each in discover() if each.number == record.parent), None)
