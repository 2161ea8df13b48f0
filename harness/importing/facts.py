"""The `record.toml` of an imported record: what its logs show, and nothing that they do not."""

import datetime
import json
import math
import re
from statistics import fmean, stdev

from harness.referee.submission import changes
from timing.log import Run, printable
from timing.rules import EDITIONS, RulesError, edition

_CAPABILITY = {"H100": "9.0", "H200": "9.0", "GH200": "9.0", "H800": "9.0", "A100": "8.0", "L40": "8.9", "4090": "8.9"}
_MOST_POINTS = 200
_HEAD = """\
# Written by `harness import` from the logs in logs/: a further import of logs of this source writes it anew.
# No log says how many shards the script needs (8 is what most records took) or how to shrink it for a smoke replay,
# unless the logs are themselves of a smaller run: [smoke] then holds their overrides.
"""
_OF_THE_TABLE = {"margin", "gpus"}
_PLAIN = re.compile(r"true|false|-?(?:0|[1-9]\d{0,17})(?:\.\d{1,20})?")


def record_toml(runs: list[Run], number: str, date: datetime.date, origin: str, digest: str) -> str:
    """A `record.toml` for the script with SHA-256 `digest` that wrote the logs `runs`; `origin` says whence they are.

    Means and deviation are over the complete runs of the commonest number of steps and the same overrides.
    """
    arm = main_arm(runs)
    lines = [
        f"number = {_text(number)}",
        f"date = {date.isoformat()}",
        f"title = {_text(f'Imported from {origin}')}",
        "techniques = []",
        'parent = ""',
        "credit = []",
        f"source = {_text(origin)}",
        "",
        "[listed]",
        *[f"{key} = {value}" for key, value in _listed(runs, arm).items()],
        "",
        "[rules]",
        f"edition = {_text(_edition(date))}",
        'kind = "ml"',
        "",
        "[needs]",
        "shards = 8",
        f"gpu_memory_gib = {max((math.ceil((run.peak_memory_mib or 0) / 1024) for run in runs), default=0)}",
        f"compute_capability = {_text(_capability(runs))}",
        *(["", "[reference]", f"curve = {_curve(arm[0])}"] if arm else []),
        "",
        "[smoke]",
        "margin = 0.0",
        *[f"{_key(name)} = {_plain(value)}" for name, value in _overrides(arm) if name not in _OF_THE_TABLE],
        "",
        "[frozen]",
        f"sha256 = {_text(digest)}",
    ]
    return _HEAD + "\n".join(lines) + "\n"


def main_arm(runs: list[Run]) -> list[Run]:
    """The complete runs of the commonest steps and overrides (a log of several runs gives each).

    On a tie those without overrides, then the longest.
    """
    trials = [trial for run in runs for trial in run.trials() if trial.complete]
    groups: dict[tuple, list[Run]] = {}
    for trial in trials:
        groups.setdefault((trial.steps, changes(trial)), []).append(trial)
    return max(groups.values(), key=lambda group: (len(group), not changes(group[0]), group[0].steps), default=[])


def _overrides(arm: list[Run]) -> tuple[tuple[str, str], ...]:
    return changes(arm[0]) if arm else ()


def _listed(runs: list[Run], arm: list[Run]) -> dict[str, str]:
    losses = [run.final_val_loss for run in arm if math.isfinite(run.final_val_loss)]
    times = [run.final_train_time_ms for run in arm if run.final_train_time_ms is not None]
    averages = [run.final_step_avg_ms for run in arm if run.final_step_avg_ms is not None]
    facts = {}
    if arm:
        facts["steps"] = str(arm[0].steps)
    if averages:
        facts["step_avg_ms"] = f"{fmean(averages):.4f}"
    if losses:
        facts["val_loss"] = f"{fmean(losses):.6f}"
    if len(losses) > 1:
        facts["val_loss_std"] = f"{stdev(losses):.6f}"
    facts["runs"] = str(len(arm))
    torch = next((run.torch for run in arm or runs if run.torch), None)
    gpu = next((run for run in arm or runs if run.gpu or run.device), None)
    if torch:
        facts["torch"] = _text(torch)
    if gpu:
        facts["hardware"] = _text(f"{gpu.gpus or gpu.world_size or '?'}x {gpu.gpu or gpu.device}")
    if times:
        facts["logged_minutes"] = f"{fmean(times) / 60_000:.4f}"
    note = f"no leaderboard figure; the mean of {_counted(arm, 'complete run')}, of {_counted(runs, 'log')} in all"
    note += "; with the overrides in [smoke]: no record run" if _overrides(arm) else ""
    note += "" if any(run.date for run in runs) else "; no log says when, the date is the file's"
    facts["note"] = _text(note)
    return facts


def _edition(date: datetime.date) -> str:
    """Name of the rules' edition of that day; of the first one for a day before all."""
    try:
        return edition(date).name
    except RulesError:
        return EDITIONS[0].name


def _capability(runs: list[Run]) -> str:
    names = " ".join(filter(None, (run.gpu or run.device for run in runs)))
    return next((capability for name, capability in _CAPABILITY.items() if name in names), "")


def _curve(run: Run) -> str:
    """Validation curve as [[step, loss], ...], thinned to some 200 points that keep the last."""
    points = [
        [step, loss]
        for step, loss in zip(run.val_step.tolist(), run.val_loss.tolist(), strict=True)
        if math.isfinite(loss)
    ]
    stride = math.ceil(len(points) / _MOST_POINTS) or 1
    return json.dumps(points[::-1][::stride][::-1])


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_]+", name) else _text(name)


def _plain(value: str) -> str:
    """A logged setting as TOML: a number or truth value as such, anything else as text."""
    return value if _PLAIN.fullmatch(value) else _text(value)


def _counted(things: list, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's once no surrogate and no control character is left."""
    return json.dumps(printable(value, 300), ensure_ascii=False)
