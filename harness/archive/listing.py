"""The archive as a table: for people on a terminal, tab-separated for pipes, and as JSON."""

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from harness.archive.find import discover
from harness.archive.record import Record
from harness.errors import UserError

COLUMNS = ("number", "date", "title", "minutes", "steps", "ms/step", "shown on", "needs", "slug")
FIGURES = COLUMNS[3:6]


def show(console: Console, as_json: bool) -> None:
    """Print all records, oldest first. Raises UserError when there are none."""
    records = discover()
    if not records:
        raise UserError("the archive is empty: there is no record.toml below records/")
    if as_json:
        click.echo(json.dumps([facts(record) for record in records], indent=1))
    elif console.is_terminal:
        console.print(_table(records))
    else:
        for cells in (COLUMNS, *map(row, records)):
            click.echo("\t".join(cells))


def row(record: Record) -> tuple[str, ...]:
    """A record's cells, in the order of COLUMNS; "-" where a figure is not known."""
    listed = record.listed
    needs = f"{record.shards} shards, {record.gpu_memory_gib:g} GiB"
    figures = (_figure(listed.minutes, "{:g}"), _figure(listed.steps, "{:,}"), _figure(listed.step_avg_ms, "{:.2f}"))
    return (record.number, record.date.isoformat(), record.title, *figures, _shown(record), needs, record.slug)


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


def _shown(record: Record) -> str:
    """The machine that proved the frozen script at real size, "-" where none has."""
    return record.shown.machine if record.shown and record.shown.machine else "-"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(records: list[Record]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="right" if name in FIGURES else "left", no_wrap=name != "title")
    for record in records:
        table.add_row(*row(record)[:-1])
    return table
