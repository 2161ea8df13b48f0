"""The chain of records as a table: how far each script is from its parent's, and what ran it here at what pace."""

import statistics

import pandas as pd

from harness.archive.find import discover
from harness.archive.published import read_table
from harness.archive.record import Record
from harness.diff.diff import compare

COLUMNS = ("Record", "Diff to its parent", "Shown on", "Median ms", "at most", "Largest difference")
UNKNOWN = ""


def chain_table(root=None) -> str:
    """Markdown, one row a record with a script. Raises UserError when a table is missing or a script unreadable.

    The diff counts lines outside the docstring. `shown.csv` has the measured medians, taken over the steps during which
    no other run worked on the card, and the largest difference of a validation loss to the published script's on the
    same corpus and schedule (`standin.csv`): the shown run's, else that of the last that was compared. "at most" is the
    published step times 8 GPUs, over the GPUs that ran it.
    """
    records = [record for record in discover(root) if not record.is_draft]
    runs = read_table("shown.csv", root).set_index("run")
    by_number = {record.number: record for record in records}
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- | ---: | --- | ---: | ---: | ---: |"]
    for record in records:
        cells = (_link(record), _distance(record, by_number.get(record.parent)), *_shown(record, runs))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _link(record: Record) -> str:
    return f"[{record.number}]({record.folder.name}/train.py)"


def _distance(record: Record, parent: Record | None) -> str:
    """Lines added and deleted, such as `+88 −39`."""
    if parent is None:
        return UNKNOWN
    parts = compare(parent.read_script(), record.read_script())
    come, gone = (
        sum(line.kind == kind and not line.claim for part in parts for line in part.lines) for kind in ("come", "gone")
    )
    return f"+{come} −{gone}"


def _shown(record: Record, runs: pd.DataFrame) -> tuple[str, str, str, str]:
    """Machine and steps, median step, the most it may be, largest difference to the published script's losses."""
    if record.shown is None or record.shown.run not in runs.index:
        return (record.shown.text if record.shown and record.shown.machine else "not yet", UNKNOWN, UNKNOWN, UNKNOWN)
    run = runs.loc[record.shown.run]
    pace = UNKNOWN if pd.isna(run.median_ms) else f"{run.median_ms:,.0f}"
    stages = record.listed.stages_ms
    published = statistics.fmean(stages) if stages else record.listed.step_avg_ms
    most = f"{published * 8 / run.gpus:,.0f}" if published else UNKNOWN
    compared = runs.loc[(runs.number == record.number) & runs.difference.notna(), "difference"]
    off = compared.get(record.shown.run, compared.iloc[-1] if len(compared) else None)
    return record.shown.text, pace, most, UNKNOWN if off is None else f"{off:+.4f}"
