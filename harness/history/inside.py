"""Figures of particular runs: the telemetry of one, the rungs of a ladder."""

import json
import math
from itertools import product
from pathlib import Path

import pandas as pd

from harness.archive.run_folder import LOG
from harness.errors import UserError
from harness.files import write_whole
from harness.replay.ladder import FILE, neighbours
from harness.replay.runs import read
from reports import charts
from timing.comparison import Interval, compare_paired
from timing.log import read_log
from timing.telemetry import read_telemetry
from timing.text import printable
from timing.witness import FALLBACK

NAMES = {"grad_norm": "gradient", "weight_norm": "weights", "update_norm": "update"}


def draw(kind: str, paths: tuple[str, ...], out: Path | None) -> str:
    """Draw `telemetry` of run folders or logs, or the `ladder` of its files, beside them or into `out`.

    Returns what was made. Raises UserError where there is nothing to draw.
    """
    if not paths:
        raise UserError(f"which {'run' if kind == 'telemetry' else 'ladder'}? harness chart {kind} PATH")
    said = []
    for path in map(Path, paths):
        data = telemetry(path) if kind == "telemetry" else {"steps": ladder(path)}
        folder = out or (path if path.is_dir() else path.parent)
        name = f"telemetry-{path.resolve().name}" if out and kind == "telemetry" else kind
        for theme, size in product((charts.LIGHT, charts.DARK), (charts.SLIDE, charts.COLUMN)):
            for form, content in charts.render(kind, data, theme, size, ("svg", "png")).items():
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / charts.file_name(name, theme, size, form), content)
        said.append(f"{kind}: {folder / name}[-column]-{{light,dark}}.{{svg,png}}")
    return "\n".join(said)


def telemetry(path: Path) -> dict[str, pd.DataFrame]:
    """The frames `telemetry` and `marks` of a run folder or a log, as `reports.telemetry` asks. UserError for none."""
    log = path / LOG if path.is_dir() else path
    lines = read_telemetry(log)
    if not lines:
        raise UserError(f"{log} has no telemetry line: replay with --telemetry STEPS")
    figures = ((line.step, *named) for line in lines for named in line.figures.items())
    rows = [
        _figure(step, name, i, len(values), value) for step, name, values in figures for i, value in enumerate(values)
    ]
    run = read_log(log)
    rows += [("loss", "loss", int(step), float(loss)) for step, loss in zip(run.val_step, run.val_loss)]
    frame = pd.DataFrame([row for row in rows if row], columns=["panel", "series", "step", "value"])
    facts = (read(path) or {}) if path.is_dir() else {}
    record = printable(str(facts.get("slug", "")), 60)
    words = (record, printable(str(facts.get("fidelity", "")), 20), printable(path.name, 60))
    frame.attrs["run"] = " ".join(filter(None, words))
    return {"telemetry": frame, "marks": marks(log, facts)}


def _figure(step: int, name: str, index: int, count: int, value: float) -> tuple | None:
    """The row of one figure of a telemetry line; None for what has no panel."""
    if name in NAMES:
        return "norms", NAMES[name], step, value
    if name == "activation_rms":
        return ("activations", f"block {index}", step, value) if index in (0, count // 2, count - 1) else None
    if name.startswith("fp8"):
        return "FP8", name.removeprefix("fp8_").replace("_", " "), step, value
    if name == "muon_orthogonality_error":
        return "Muon", "orthogonality error", step, value
    return None


def marks(log: Path, facts: dict) -> pd.DataFrame:
    """What is worth a line through all panels: fallbacks in the log, breaches in `run.json`."""
    rows = []
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith(f"{FALLBACK}step:"):
            step, _, text = line.removeprefix(f"{FALLBACK}step:").partition(" ")
            rows.append((int(step), printable(text, 40))) if step.isdigit() else None
    for breach in facts.get("breaches", []):
        rows.append((breach["step"], printable(str(breach["kind"]), 40)))
    return pd.DataFrame(rows, columns=["step", "text"])


def ladder(path: Path) -> pd.DataFrame:
    """The frame `steps` of a `ladder.json` or its folder, as `reports.ladder` asks: one row for each neighbour."""
    path = path / FILE if path.is_dir() else path
    try:
        facts = json.loads(path.read_text())
        where = f"{facts['machine'].get('gpu') or 'CPU'}, {', '.join(facts['fidelity'])}"
        return pd.DataFrame([_step(before, after) | {"where": where} for before, after in neighbours(facts)])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no ladder ({type(error).__name__}): harness ladder makes one") from None


def _step(before: dict, after: dict) -> dict:
    """What came of one technique: Student's intervals over the rounds, which pair the two records' runs."""
    found = compare_paired(
        [ms / (before["tokens_per_step"] or 1) for ms in before["step_ms"]],
        [ms / (after["tokens_per_step"] or 1) for ms in after["step_ms"]],
        before["losses"],
        after["losses"],
    )
    speed, loss = found.log_time, found.loss
    return {
        "name": f"{after['record']}: {printable(after['title'], 80)}",
        "n": speed.n,
        **dict(zip(("speed", "speed_low", "speed_high"), (100 * math.expm1(value) for value in _ends(speed)))),
        **dict(zip(("loss", "loss_low", "loss_high"), _ends(loss))),
        "speed_published": _change(before, after, lambda row: row["listed"]["step_ms"] / row["tokens_per_step"]),
        "published_tokens": _change(before, after, lambda row: row["listed"]["steps"] * row["tokens_per_step"]),
    }


def _ends(interval: Interval) -> tuple[float, float, float]:
    low, high = (math.nan if end is None else end for end in (interval.low, interval.high))
    return interval.estimate, low, high


def _change(before: dict, after: dict, figure) -> float:
    """Percent by which a published figure changed; nan where one is unknown."""
    try:
        return 100 * (figure(after) / figure(before) - 1)
    except (TypeError, ZeroDivisionError):
        return math.nan
