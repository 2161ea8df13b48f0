"""The archive as a table: for people on a terminal, tab-separated for pipes, and as JSON."""

import dataclasses
import json
import re

import click
from rich.console import Console
from rich.table import Table

from harness.archive import find
from harness.archive.find import discover, number_key
from harness.archive.leaderboard import Listing, read_leaderboard
from harness.archive.record import Record
from harness.errors import UserError
from timing.text import printable

COLUMNS = ("number", "date", "title", "minutes", "steps", "ms/step", "shown on", "needs", "slug")
FIGURES = COLUMNS[3:6]
SHORT = {"number": "no"}
WIDE = 100  # columns of a terminal that has room for what a record needs


def show(console: Console, as_json: bool, every: bool = False) -> None:
    """Print all records, oldest first; `every`: also those of the leaderboard whose script is not here.

    Raises UserError when there are none.
    """
    rows: list[Record | Listing] = list(discover())
    if every:
        here = {record.number for record in rows}
        rows += [one for one in read_leaderboard(find.ROOT) if one.number not in here]
        rows.sort(key=lambda one: (one.date, number_key(one.number)))
    if not rows:
        raise UserError("the archive is empty: there is no record.toml below records/")
    if as_json:
        told = [facts(one) if isinstance(one, Record) else public_facts(one) for one in rows]
        click.echo(json.dumps(told, indent=1))
    elif console.is_terminal:
        console.print(_table(rows, console.width, every))
    else:
        for cells in (COLUMNS, *map(row, rows)):
            click.echo("\t".join(cells))


def row(record: Record | Listing) -> tuple[str, ...]:
    """A record's cells, in the order of COLUMNS; "-" where a figure is not known or the script is not here."""
    here = isinstance(record, Record)
    listed = record.listed if here else record
    needs = f"{record.shards} shards, {record.gpu_memory_gib:g} GiB" if here else "no script here"
    figures = (_figure(listed.minutes, "{:g}"), _figure(listed.steps, "{:,}"), _figure(listed.step_avg_ms, "{:.2f}"))
    slug = record.slug if here else "-"
    return (record.number, record.date.isoformat(), record.title, *figures, _shown(record), needs, slug)


def facts(record: Record) -> dict:
    """A record as JSON takes it."""
    return {
        "number": record.number,
        "date": record.date.isoformat(),
        "slug": record.slug,
        "title": record.title,
        "techniques": list(record.techniques),
        "parent": record.parent,
        "credit": list(record.credit),
        "source": record.source,
        "listed": {name: value for name, value in dataclasses.asdict(record.listed).items() if value is not None},
        "shown": dataclasses.asdict(record.shown) if record.shown else None,
        "needs": {"shards": record.shards, "gpu_memory_gib": record.gpu_memory_gib},
    }


def _shown(record: Record | Listing) -> str:
    """The machine that proved the frozen script at real size, such as 2x H200; "-" where none has."""
    shown = record.shown if isinstance(record, Record) else None
    return re.sub(r"NVIDIA (\S+).*", r"\1", shown.machine) if shown and shown.machine else "-"


def public_facts(one: Listing) -> dict:
    """A row of the leaderboard whose script is not here, as JSON takes it; its slug is null."""
    figures = ("minutes", "steps", "tokens_per_step", "step_avg_ms", "val_loss", "runs", "torch", "hardware")
    return {
        "number": one.number,
        "date": one.date.isoformat(),
        "slug": None,
        "title": one.title,
        "credit": one.credit.split(", ") if one.credit else [],
        "source": one.source,
        "listed": {name: getattr(one, name) for name in figures if getattr(one, name) not in (None, "")},
    }


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(records: list[Record | Listing], width: int, every: bool) -> Table:
    """A line a record, whatever the terminal's width: a long title is cut, and what a record needs goes first."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    left_out = {"slug"} | ({"needs"} if width < WIDE else set()) | ({"here"} if not every else set())
    names = [name for name in (*COLUMNS, "here") if name not in left_out]
    lines = [dict(zip(COLUMNS, row(one))) | {"here": "script" if isinstance(one, Record) else "-"} for one in records]
    heads = {name: SHORT.get(name, name) for name in names}
    others = [max(len(heads[name]), *(len(line[name]) for line in lines)) for name in names if name != "title"]
    room = max(10, width - sum(others) - 2 * len(others))
    for name in names:
        right = "right" if name in FIGURES else "left"
        table.add_column(heads[name], justify=right, no_wrap=True)
    for line, record in zip(lines, records):
        line["title"] = printable(line["title"], room)
        table.add_row(*(line[name] for name in names), style=None if isinstance(record, Record) else "dim")
    return table
