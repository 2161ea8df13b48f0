"""The leaderboard as a frame: what each record claims, what its logs show, and where the two disagree."""

import math
from pathlib import Path

import pandas as pd

from harness.archive.find import ROOT, discover
from harness.archive.leaderboard import read_retimed
from harness.archive.published import arms, history, read_table
from harness.history.ledgers import GPUS, ledger_of
from timing.stats import TargetTest, target_test

SMALL = 0.004
"""Share by which two times of one record must differ to be worth a word; the ledger says from where they disagree."""

TARGET = 3.28


def standings(root: Path | str | None = None) -> pd.DataFrame:
    """One row a record, in order of number, for `reports.leaderboard`.

    number, date, title, listed_minutes, logged_minutes, logged_std (minutes), runs (of the linked log's arm),
    mean_loss, std_loss, p, steps, step_ms, tokens_per_step, tokens, torch, credit, source, landmark, techniques,
    retiming, archived, slug, parent, kind, edition, gpus, gpu, disagrees (sentences). nan where unknown.
    """
    table, runs, told = history(root), arms(root), read_table("leaderboard.csv", root).set_index("number")
    curves = set(read_table("curves.csv", root).number)
    by_number = {number: rows for number, rows in runs.groupby("number")}
    records = {record.number: record for record in discover(root)}
    rows = []
    for record in table.to_dict("records"):
        arm = by_number.get(record["number"])
        row = record | _logged(arm) | {"listed_minutes": record["minutes"]}
        row["step_ms"] = row["step_avg_ms"]
        if pd.isna(row["step_ms"]) and row["steps"]:
            row["step_ms"] = row["minutes"] * 60_000 / row["steps"]
        row["tokens"] = row["steps"] * row["tokens_per_step"]
        row["disagrees"] = tuple(_disagreements(row, arm, records.get(row["number"]), told, curves))
        rows.append(row)
    return pd.DataFrame(rows).drop(
        columns=["minutes", "step_avg_ms", "mean_train_time_s", "mean_val_loss", "std_val_loss"]
    )


def _logged(arm: pd.DataFrame | None) -> dict:
    """Means and deviations over the runs of one arm, times in minutes; all nan without one."""
    if arm is None:
        return dict.fromkeys(("logged_minutes", "logged_std", "mean_loss", "std_loss", "p"), math.nan) | {"runs": 0}
    test: TargetTest = target_test(arm.final_val_loss)
    minutes = arm.final_train_time_ms / 60_000
    return {
        "runs": test.n,
        "logged_minutes": minutes.mean(),
        "logged_std": minutes.std(),
        "mean_loss": test.mean,
        "std_loss": math.nan if test.std is None else test.std,
        "p": math.nan if test.p_value is None else test.p_value,
    }


def _disagreements(row: dict, arm: pd.DataFrame | None, record, told: pd.DataFrame, curves: set) -> list[str]:
    """Every way in which listed facts, logs and the archive's record tell different stories, in words."""
    found = []
    if arm is None:
        found.append("its log has no times" if row["number"] in curves else "no usable log")
    else:
        found += _hardware(arm) or _time(row)
        if row["mean_loss"] > TARGET:
            found.append(f"mean loss {row['mean_loss']:.4f} is above {TARGET}")
        linked = arm[arm.linked == "yes"].final_val_loss.iloc[0]
        if linked > TARGET and row["runs"] > 1:
            found.append(f"the linked log itself ends at {linked:.4f}")
        if others := int(arm.others.iloc[0]):
            found.append(f"{others} more log{'s' * (others > 1)} of other sources or steps, kept apart")
    if record is not None and row["number"] in told.index:
        found += _against_table(record, told.loc[row["number"]])
    return found + ([row["note"]] if row["note"] else [])


def _hardware(arm: pd.DataFrame) -> list[str]:
    """A log from other hardware cannot be held against the listed time at all."""
    gpus, gpu, minutes = int(arm.gpus.iloc[0]), str(arm.gpu.iloc[0]), arm.final_train_time_ms.mean() / 60_000
    if gpus != GPUS:
        return [
            f"logged on {gpus} GPU{'s' * (gpus > 1)}: {minutes:.3f} min, × {gpus}/{GPUS} = {minutes * gpus / GPUS:.3f}"
        ]
    return [] if "H100" in gpu else [f"logged on {gpu}: {minutes:.3f} min"]


def _time(row: dict) -> list[str]:
    """Listed against logged time of the same hardware, as the ledger sees it."""
    found = ledger_of(row).difference()
    if found is None or abs(found.share) < SMALL:
        return []
    word = "disagree" if found.disagrees else "differ"
    return [f"times {word}: logs say {found.logged / 60:.3f} min, {100 * found.share:+.1f} %".replace("-", "−")]


def _against_table(record, told: pd.Series) -> list[str]:
    """The archive's `record.toml` against the public table: any listed figure that is not the same."""
    pairs = (
        ("minutes", record.listed.minutes, told.listed_minutes),
        ("steps", record.listed.steps, told.steps),
        ("tokens per step", record.listed.tokens_per_step, told.tokens_per_step),
    )
    differ = [(name, here, there) for name, here, there in pairs if here and not pd.isna(there) and here != there]
    return [f"record.toml says {here:g} {name}, the leaderboard's table {there:g}" for name, here, there in differ]


def ledgers(table: pd.DataFrame, replays: pd.DataFrame, root: Path | str | None = None) -> pd.DataFrame:
    """All ledgers as one frame, kinds never mixed: number, kind, minutes, std, n, gpus, machine, note.

    `table` is `standings()`; `replays` our runs with `projected_minutes` and `how`.
    """
    rows, again, others = [], {}, read_retimed(Path(root or ROOT))
    for row in table[table.retiming].to_dict("records"):
        again.setdefault(row["number"][:-1], []).append(row)
    for row in table.to_dict("records"):
        mine = replays[replays.number == row["number"]]
        retimings, told = (tuple(known.get(row["number"], ())) for known in (again, others))
        for entry in ledger_of(row, retimings, mine.itertuples(), told).entries:
            std = math.nan if entry.std is None else entry.std / 60
            figures = (entry.seconds / 60, std, entry.n, entry.gpus)
            rows.append((row["number"], entry.kind, *figures, entry.machine, entry.note))
    return pd.DataFrame(rows, columns=["number", "kind", "minutes", "std", "n", "gpus", "machine", "note"])
