"""The forms of a verdict: text for people, JSON by the schema of the design, markdown for a pull request.

Text that came from a log is free of control characters already, and is escaped for the form that it goes out in.
"""

import html
import json
import math
import os
import re

from harness.referee.verdict import FAIL, FAILS, HOLDS, PASS, UNKNOWN, Check, Judgement, Verdict, verdict_line
from timing.log import printable
from timing.rules import today

LEAST_ROOM = 20  # columns for a path


def render_text(verdict: Verdict, colour=lambda text, status: text, width: int | None = None) -> str:
    """Checks one a line, then the verdict; `colour` may dress a status word for a terminal, `width` columns wide, for
    which the paths of the logs are shortened."""
    judged = verdict.judged
    same = ", still in force" if judged.edition.startswith(today().name) else ""
    lines = [f"{judged.arm}; rules of {judged.edition}{same}", *map(_run_line, judged.runs), ""]
    lines += [_check_line(check, colour) for check in judged.checks]
    for other in verdict.others:
        lines += ["", f"another arm, judged apart: {other.arm}", f"  {verdict_line(other)}"]
    if verdict.today is not None:
        lines += ["", f"today's rules ({verdict.today.edition}), where they differ:"]
        lines += [_check_line(check, colour) for check in _differing(judged, verdict.today)]
        lines += [verdict_line(verdict.today)]
    lines += ["", *(f"note: {note}" for note in verdict.notes)]
    lines += [colour(verdict_line(verdict), {HOLDS: PASS, FAILS: FAIL}.get(verdict.verdict, UNKNOWN))]
    return _with_short_paths("\n".join(lines), verdict, width) if width else "\n".join(lines)


def _with_short_paths(text: str, verdict: Verdict, width: int) -> str:
    """`text` with each log's path less the folder that all of them share, and its middle where it is still too long."""
    runs = [run for judgement in (verdict.judged, *verdict.others) for run in judgement.runs]
    paths = sorted({run["path"].partition("#")[0] for run in runs}, key=len, reverse=True)
    folders = {os.path.dirname(path) for path in paths}
    shared = os.path.commonpath(folders) if len(folders) > 1 and len({f[:1] == "/" for f in folders}) == 1 else ""
    shared = shared or (folders.pop() if len(folders) == 1 else "")
    room = max(LEAST_ROOM, width // 3)
    for path in paths:
        short = path.removeprefix(shared).lstrip("/") if shared else path
        if len(short) > room:
            short = f"{short[: room // 2 - 1]}…{short[-(room - room // 2) :]}"
        text = text.replace(path, short)
    return text.replace(f"{shared}/", "") if shared else text  # of paths that were cut off with their evidence


def _differing(judged: Judgement, today: Judgement) -> list[Check]:
    said = {(check.rule, check.status, check.evidence) for check in judged.checks}
    return [check for check in today.checks if (check.rule, check.status, check.evidence) not in said]


def _check_line(check: Check, colour) -> str:
    return f"{colour(f'{check.status.upper():8}', check.status)} {check.rule:18} {check.evidence}"


def _run_line(run: dict) -> str:
    loss = "no final loss" if run["val_loss"] is None else f"val_loss {run['val_loss']:.4f}"
    time = "no clock" if run["train_time_ms"] is None else f"{run['train_time_ms'] / 1000:.3f} s"
    label = f"  [{run['fidelity']}]" if run["fidelity"] else ""
    return f"  {run['path']}  {run['steps']}/{run['planned_steps'] or '?'} steps  {loss}  {time}{label}"


def to_json(verdict: Verdict) -> str:
    """The schema of the design; beyond it, `arms` holds the other arms, `today` the verdict by the latest edition."""
    content = _as_dict(verdict.judged) | {"verdict": verdict.verdict}
    content["today"] = _as_dict(verdict.today) if verdict.today else None
    content["arms"] = [_as_dict(other) for other in verdict.others]
    content["notes"] = list(verdict.notes)
    return json.dumps(content, indent=2, allow_nan=False)


def _as_dict(judgement: Judgement) -> dict:
    test = judgement.test
    return {
        "verdict": judgement.verdict,
        "edition": judgement.edition,
        "target": judgement.target,
        "arm": judgement.arm,
        "runs": list(judgement.runs),
        "n": judgement.n,
        "mean_val_loss": _rounded(test and test.mean),
        "std_val_loss": _rounded(test and test.std),
        "p_value": _significant(test and test.p_value),
        "anytime_p_value": _significant(test and test.anytime and test.anytime.p_value),
        "known_spread_rule": bool(test and test.known_spread_holds),
        "mean_train_time_s": _rounded(judgement.mean_time),
        "std_train_time_s": _rounded(judgement.std_time),
        "official_time_s": _rounded(judgement.mean_official_time),
        "official_time_uncertainty_s": _rounded(judgement.time_uncertainty),
        "runs_needed": judgement.runs_needed,
        "checks": [
            {"rule": each.rule, "status": each.status, "evidence": each.evidence, "edition": each.edition}
            for each in judgement.checks
        ],
    }


def _rounded(value: float | None) -> float | None:
    """Without the noise of floating-point sums: a mean of losses with four decimals has no figure beyond the eighth."""
    return round(float(value), 8) if value is not None and math.isfinite(value) else None


def _significant(value: float | None) -> float | None:
    return float(f"{value:.8g}") if value is not None and math.isfinite(value) else None


def to_markdown(verdict: Verdict) -> str:
    """A summary and the table of checks, for a pull request."""
    judged = verdict.judged
    lines = [f"**{_cell(verdict_line(verdict))}**", "", "| | rule | evidence |", "|---|---|---|"]
    lines += [f"| {check.status.upper()} | {_cell(check.rule)} | {_cell(check.evidence)} |" for check in judged.checks]
    lines += ["", "| log | steps | val loss | time (s) |", "|---|---|---|---|"]
    for run in judged.runs:
        loss = "" if run["val_loss"] is None else f"{run['val_loss']:.4f}"
        time = "" if run["train_time_ms"] is None else f"{run['train_time_ms'] / 1000:.3f}"
        lines.append(f"| {_cell(run['path'])} | {run['steps']} | {loss} | {time} |")
    for other in verdict.others:
        lines += ["", f"Another arm ({_cell(other.arm)}), judged apart: {_cell(verdict_line(other))}"]
    if verdict.today is not None:
        lines += ["", f"By today's rules: {_cell(verdict_line(verdict.today))}"]
    lines += [f"\nNote: {_cell(note)}" for note in verdict.notes]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that stays text in markdown: no HTML, table, link, emphasis or code, and nobody is mentioned."""
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", html.escape(printable(text, 1000), quote=False))
    return re.sub("([@#]|:(?=//)|(?<=www)[.])", "\\1\u200b", escaped)
