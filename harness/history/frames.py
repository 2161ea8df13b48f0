"""One tidy frame per question, built from the archive, the published tables and our own runs, for `reports` to draw."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from harness.archive.find import resolve
from harness.archive.published import arms, history, published_curves
from harness.errors import UserError
from harness.history.ledgers import GPUS, projected
from harness.history.replayed import Replays, read_replays
from timing.ledger import gain
from timing.rules import EDITIONS, Edition
from timing.stats import target_test

LANDMARKS = ("01", "05", "12", "24", "40")
TRUST = ("official", "same-batch", "stand-in", "shortened")
"""Fidelities whose step time means something, the most telling first; a smoke replay times nothing."""


def progress(root: Path | str | None = None) -> pd.DataFrame:
    """`history` without drafts: every row has a listed time."""
    return history(root).dropna(subset=["minutes"]).reset_index(drop=True)


def eras() -> pd.DataFrame:
    """The editions of the rules in words for people who never read them: start, name, rule."""
    rows = []
    for before, edition in zip([None, *EDITIONS], EDITIONS, strict=False):
        last = edition is EDITIONS[-1]
        name = "Rules since" if last else ("Rules from" if before is None else "From")
        rows.append(
            {
                "start": pd.Timestamp(edition.date),
                "name": f"{name} {edition.date:%b %Y}",
                "rule": _in_plain_words(edition, before),
            }
        )
    return pd.DataFrame(rows)


def _in_plain_words(edition: Edition, before: Edition | None) -> str:
    """What an edition brought, against the one before."""
    words = []
    if before is None or edition.untimed_steps != before.untimed_steps:
        untimed = f"the first {edition.untimed_steps} steps are not timed"
        words.append(untimed if edition.untimed_steps else "every step counts, after an untimed warm-up")
    if edition.significance and (before is None or not before.significance):
        words.append(f"several runs must prove it (p < {edition.significance:g})")
    return " and ".join(words)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Each record's gain over the one before, split by time = steps x time per step (logs, so that the parts add up).

    `table` is `progress()`. A record without known steps cannot be split; it is joined with the next that can, and
    `covers` names both. A re-timing changes the clock only. Columns as `reports.attribution.draw` asks.
    """
    known = table[table.steps.notna()].reset_index()
    rows = []
    for (_, before), (_, row) in pairwise(known.iterrows()):
        split = gain(row.number, (before.minutes, before.steps), (row.minutes, row.steps))
        joined = table.number.iloc[before["index"] + 1]
        rows.append(
            {
                "number": row.number,
                "covers": row.number if joined == row.number else f"{joined}–{row.number}",
                "steps_log": 0.0 if row.retiming else split.steps,
                "speed_log": 0.0 if row.retiming else split.pace,
                "clock_log": split.total if row.retiming else 0.0,
                "minutes_before": before.minutes,
                "minutes": row.minutes,
            }
        )
    return pd.DataFrame(rows)


def losses(replays: Replays | None = None, root: Path | str | None = None) -> pd.DataFrame:
    """Final losses, one row a run: series, number, fidelity ("" if official), val_loss.

    Published runs of the linked log's arm, then our own complete ones that prove a loss (official and same-batch).
    """
    public = arms(root)
    public["fidelity"] = np.where(public.gpus == GPUS, "", "same-batch")
    public["series"], public["val_loss"] = public.number, public.final_val_loss
    frames = [public]
    if replays is not None and len(replays.runs):
        own = replays.runs[replays.runs.fidelity.isin(["official", "same-batch"]) & replays.runs.complete]
        own = own.assign(series="own " + own.number + " " + own.fidelity)
        frames.append(own.assign(fidelity=own.fidelity.replace("official", "") + " replay"))
    return pd.concat(frames, ignore_index=True)[["series", "number", "fidelity", "val_loss"]].dropna(subset="val_loss")


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, 98 % interval and one-sided p of each series of `losses()`, as `reports.significance.draw` asks.

    The interval's upper end is the 99 % bound of the rules' one-sided test: it lies under 3.28 just when p < 0.01.
    """
    rows = []
    for key, series in runs.groupby("series", sort=False):
        test = target_test(series.val_loss)
        error = math.nan
        if test.std:
            error = float(special.stdtrit(test.n - 1, 0.99)) * test.std / math.sqrt(test.n)
        rows.append(
            {
                "series": key,
                "number": series.number.iloc[0],
                "fidelity": series.fidelity.iloc[0].strip(),
                "n": test.n,
                "mean": test.mean,
                "std": math.nan if test.std is None else test.std,
                "low": test.mean - error,
                "high": test.mean + error,
                "p": math.nan if test.p_value is None else test.p_value,
                "shown": test.significant,
            }
        )
    frame = pd.DataFrame(rows)
    order = {number: index for index, number in enumerate(sorted(set(frame.number)))}
    return frame.sort_values(["number", "series"], key=lambda c: c.map(order).fillna(0) if c.name == "number" else c)


def curves(names: tuple[str, ...] = (), replays: Replays | None = None, root: Path | str | None = None) -> pd.DataFrame:
    """Validation curves of the records `names` (default: the landmarks and the last) and of our runs of them.

    A name is whatever `harness.archive.find.resolve` takes, or the number of a record without a script here. Columns as
    `reports.curves.draw` asks. Raises UserError for a record without a published curve or a run.
    """
    table, public = history(root).set_index("number"), published_curves(root)
    wanted = names or tuple(n for n in (*LANDMARKS, table.index[-1]) if n in set(public.number))
    series = []
    for name in wanted:
        number = name if name in table.index else resolve(name, root).number
        tokens = table.tokens_per_step[number]
        words = f"{number}: {table.landmark[number] or table.title[number]}"
        found = public[public.number == number]
        label = "same-batch" if table.gpus[number] < GPUS else ""  # 88's logs are of one GPU
        series.append(found.assign(series=number, name=words, mark=number, fidelity=label, tokens=found.step * tokens))
        for run in _told(replays, number, bool(names)).itertuples():
            rows = replays.curves[replays.curves.run_id == run.run_id]
            label = "" if run.fidelity == "official" else run.fidelity
            where = f"{number} on {run.machine.replace('NVIDIA ', '')}"
            read = rows.step * tokens
            series.append(rows.assign(series=run.run_id, name=where, mark=number, fidelity=label, tokens=read))
        if not sum(map(len, series[-1:])) and names:
            raise UserError(f"record {number} has no published validation curve and no replay here")
    return pd.concat(series, ignore_index=True)


def _told(replays: Replays | None, number: str, all_kinds: bool) -> pd.DataFrame:
    """Our runs of one record for the curves: all when asked by name, else the last full one on the record's tokens.

    A stand-in's loss is that of another corpus, to be drawn when it is asked for. A smoke replay's is that of a small
    vocabulary of synthetic tokens: it has no place on this scale.
    """
    if replays is None or replays.runs.empty:
        return pd.DataFrame(columns=["run_id"])
    mine = replays.runs[(replays.runs.number == number) & replays.runs.fidelity.isin(TRUST)]
    return mine if all_kinds else mine[mine.fidelity.isin(["official", "same-batch"]) & mine.complete].tail(1)


def machine(replays: Replays, root: Path | str | None = None) -> pd.DataFrame:
    """Replayed against listed time, one row a record, for `reports.machine`; its best fidelity counts."""
    table = history(root).set_index("number")
    rows = []
    for number, mine in replays.runs[replays.runs.fidelity.isin(TRUST)].groupby("number", sort=True):
        if number not in table.index or math.isnan(table.minutes[number]):
            continue
        best = min(mine.fidelity, key=TRUST.index)
        times = [projected(run, table.steps[number]) for run in mine[mine.fidelity == best].itertuples()]
        times = [time for time in times if time[0]]
        if times:
            rows.append(
                {
                    "number": number,
                    "listed_minutes": float(table.minutes[number]),
                    "minutes": float(np.mean([minutes for minutes, _ in times])),
                    "n": len(times),
                    "fidelity": "" if best == "official" else best,
                    "machine": mine[mine.fidelity == best].machine.iloc[0],
                    "how": times[0][1],
                }
            )
    return pd.DataFrame(rows)


def everything(runs_dir: Path | str = "runs", names: tuple[str, ...] = (), root: Path | str | None = None) -> dict:
    """All frames by the names that `reports.charts.CHARTS` asks for, and `table` (the whole history)."""
    replays = read_replays(runs_dir, root)
    table, runs = progress(root), losses(replays, root)
    return {
        "history": table,
        "eras": eras(),
        "gains": gains(table),
        "curves": curves(names, replays, root),
        "replays": machine(replays, root),
        "losses": runs,
        "summary": summary(runs),
    }
