"""`harness verify`: log files in, a verdict out. Nothing from a log is ever executed."""

import math
import shutil
import statistics
import sys

import click

from harness.archive.find import discover, resolve
from harness.archive.record import Record
from harness.errors import UserError
from harness.referee.checks import (
    Case,
    check_complete,
    check_data,
    check_hardware,
    check_settings,
    check_target,
    test_of,
)
from harness.referee.choose import check_arms, is_guess, judged_arm
from harness.referee.clock_checks import (
    check_clock_average,
    check_clock_forward,
    check_clock_running,
    check_era,
    check_steps,
)
from harness.referee.copies import check_independence
from harness.referee.curve_checks import check_curve, check_loss_range
from harness.referee.date_check import check_date, day_of_rules
from harness.referee.faster import against, check_faster, official_seconds
from harness.referee.render import render_text, to_json, to_markdown
from harness.referee.source.data_rules import (
    check_clock_source,
    check_loss_source,
    check_script_settings,
    check_start,
    check_token_stream,
    check_val_tokens,
    check_validation_reads,
)
from harness.referee.source.rules import check_compiler, check_source
from harness.referee.submission import Arm, Entry, arms, collect
from harness.referee.track import check_track, rules_for
from harness.referee.verdict import (
    PASS,
    UNKNOWN,
    Check,
    Judgement,
    Verdict,
    verdict_line,
)
from harness.referee.witness_check import check_witness
from harness.terminal import fitted
from timing import rules
from timing.log import printable

__all__ = ["render_text", "to_json", "to_markdown", "verdict_line", "verify"]

NOTES_SHOWN = 3
EVIDENCE = 28  # column at which the evidence of a check begins

RULE_BOOK = (
    check_track,
    check_complete,
    check_target,
    check_loss_range,
    check_curve,
    check_independence,
    check_date,
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
    check_clock_source,
    check_loss_source,
    check_start,
    check_script_settings,
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
    says that the change is one of systems only. Logs of different code, steps or overrides are separate arms: the one
    that is the record's script is judged, else, as a guess, the largest, and the others are judged apart.

    Raises UserError for unusable input.
    """
    record = resolve(record) if isinstance(record, str) else record
    chosen = None if edition is None else _edition(edition)
    entries, notes = collect(paths)
    baseline, of_baseline = collect(against) if against else ([], [])
    separate = arms(entries)
    judged = judged_arm(separate, record)
    common = {
        "everyone": tuple(entries),
        "record": record,
        "parent": _parent(record),
        "systems": systems or (record is not None and record.kind == "systems"),
        "baseline": tuple(baseline),
        "baseline_arms": len(arms(baseline)),
    }

    def judge(arm: Arm, under: rules.Edition) -> Judgement:
        arms_check = check_arms(separate, judged, record, under.name) if arm is judged else None
        under = under if record else rules_for(arm, under)
        return _judge(arm, Case(entries=arm.entries, edition=under, **common), arms_check)

    in_force = chosen or _edition_of(judged, record)
    today = rules.today()
    return Verdict(
        judged=judge(judged, in_force),
        today=judge(judged, today) if today != in_force and chosen is None else None,
        others=tuple(judge(arm, chosen or _edition_of(arm, record)) for arm in separate if arm is not judged),
        guessed=is_guess(separate, judged, record),
        notes=(
            *(f"left out: {line}" for line in notes),
            *_oddities(judged.entries),
            *(f"left out of the baseline: {line}" for line in of_baseline),
            *(f"baseline: {line}" for line in _oddities(tuple(baseline))),
        ),
    )


def show(paths, form: str | None = None, **options) -> int:
    """Print the verdict on `paths` as text (on a terminal coloured, its paths shortened), as "json" or "markdown", or
    for "quiet" its last line alone; returns the exit code."""
    verdict = verify(paths, **options)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    forms = {"json": to_json, "markdown": to_markdown, "quiet": verdict_line}
    render = forms.get(form, lambda verdict: fitted(render_text(verdict, _coloured, width), hang=EVIDENCE))
    click.echo(render(verdict))
    return verdict.exit_code


def _coloured(text: str, status: str) -> str:
    return click.style(text, fg={PASS: "green", "fail": "red", UNKNOWN: "yellow"}.get(status, "cyan"), bold=True)


def _oddities(entries: tuple[Entry, ...]) -> list[str]:
    """What the reader found odd in files, the first few in each."""
    files = {entry.run.digest: entry for entry in reversed(entries)}
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
        edition=case.edition.title,
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
    """The record's edition, else that of the logs' date (of their software's, where that is later), else the latest."""
    if record is not None and record.edition:
        return _edition(record.edition)
    days = [day for entry in arm.entries if (day := day_of_rules(entry.run))]
    try:
        return rules.edition(max(days)) if days else rules.today()
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
