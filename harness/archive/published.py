"""The public history as tables: every record of the leaderboard, its runs, its curves, and what the archive adds.

The files are `leaderboard.csv`, `runs.csv` and `curves.csv` beside the records; `SOURCES.md` there says where they come
from. A record in the archive speaks through its `record.toml`, the others through `leaderboard.csv`.
"""

from pathlib import Path

import pandas as pd

from harness.archive.find import ROOT, Record, discover, number_key
from harness.archive.leaderboard import UPSTREAM, linked_arms
from harness.errors import UserError

TOLD_BY_RECORD = ("minutes", "steps", "tokens_per_step", "step_avg_ms", "torch", "logged_minutes", "note")


def read_table(name: str, root: Path | str | None = None) -> pd.DataFrame:
    """One of the three tables, numbers of records as text. Raises UserError if it is missing or cannot be parsed."""
    path = Path(root or ROOT) / name
    try:
        return pd.read_csv(path, dtype={"number": str, "source": str, "code": str, "pull_request": str})
    except FileNotFoundError:
        raise UserError(f"{path} is missing; take it from the project's repository") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a table: {' '.join(str(error).split())}") from None


def history(root: Path | str | None = None) -> pd.DataFrame:
    """One row a record, in order of number: what was listed, who did it, and whether its script is in the archive.

    number, date, title, landmark, minutes, steps, tokens_per_step, step_avg_ms, torch, credit, source, gpu, gpus,
    retiming, archived, slug, parent, techniques (text), kind, edition, note, logged_minutes; nan or "" where unknown.
    A record of the archive without a listed time (a draft) has `minutes` nan.
    """
    table = read_table("leaderboard.csv", root).rename(
        columns={"listed_minutes": "minutes", "log_step_avg_ms": "step_avg_ms"}
    )
    rows = {row["number"]: _listed_row(row) for row in table.to_dict("records")}
    previous = ""
    for number, row in rows.items():
        row["parent"], previous = previous, number
    for record in discover(root):
        key = record.number or record.slug
        rows[key] = _with_record(rows.get(key, {}), key, record)
    frame = pd.DataFrame(sorted(rows.values(), key=lambda row: number_key(row["number"])))
    words = ["landmark", "credit", "torch", "gpu", "slug", "parent", "techniques", "kind", "edition", "note"]
    frame[words] = frame[words].fillna("").astype(str)
    frame["archived"] = frame.slug != ""
    return frame.reset_index(drop=True)


def _listed_row(row: dict) -> dict:
    """A row of the leaderboard with the columns that the archive would fill."""
    pull = str(row["pull_request"]).removesuffix(".0")
    return row | {
        "date": pd.Timestamp(row["date"]),
        "source": f"{UPSTREAM}/pull/{pull}" if pull.isdigit() else UPSTREAM,
        "retiming": not row["number"].isdigit(),
        "slug": "",
        "techniques": "",
        "kind": "",
        "edition": "",
        "note": "",
        "logged_minutes": None,
        "credit": "" if row["credit"] == "-" or str(row["credit"]).startswith("not a new record") else row["credit"],
    }


def _with_record(row: dict, key: str, record: Record) -> dict:
    """A leaderboard row (or none) overlaid with what the record in the archive says."""
    told = {name: getattr(record.listed, name) for name in TOLD_BY_RECORD}
    row = {"landmark": "", "gpu": "", "gpus": None, "retiming": False} | row
    row |= {name: value for name, value in told.items() if value is not None or name not in row}
    return row | {
        "number": key,
        "date": pd.Timestamp(record.date),
        "title": record.title,
        "credit": ", ".join(record.credit) or row.get("credit", ""),
        "source": record.source or row.get("source", ""),
        "slug": record.slug,
        "parent": record.parent,
        "techniques": ", ".join(record.techniques),
        "kind": record.kind,
        "edition": record.edition,
    }


def arms(root: Path | str | None = None) -> pd.DataFrame:
    """The runs that may be averaged: of each record those with the code, steps and GPUs of its linked log.

    number, log, source, code, steps, final_val_loss, final_train_time_ms, gpus, gpu, linked; `others` counts the runs
    of the record's folder that were set apart. A record without a linked log is missing.
    """
    runs = read_table("runs.csv", root)
    chosen = {(row["number"], row["log"]) for rows in linked_arms(Path(root or ROOT)).values() for row in rows}
    inside = pd.Series([pair in chosen for pair in zip(runs.number, runs.log)], index=runs.index, dtype=bool)
    others = (~inside).groupby(runs.number).sum()
    return runs[inside].assign(others=runs.number.map(others)).reset_index(drop=True)


def published_curves(root: Path | str | None = None) -> pd.DataFrame:
    """Validation curves of the linked logs (number, step, val_loss, seconds); a record's `[reference]` fills gaps."""
    table = read_table("curves.csv", root)
    table["seconds"] = table.train_time_ms / 1000
    known = set(table.number)
    own = [
        {"number": record.number, "step": step, "val_loss": loss}
        for record in discover(root)
        if record.number not in known
        for step, loss in record.curve
    ]
    return pd.concat([table[["number", "step", "val_loss", "seconds"]], pd.DataFrame(own)], ignore_index=True)
