"""What this machine can replay and why not more; on request, how fast its kernels and its links are."""

import json
import shutil
from itertools import groupby
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from harness.archive.find import discover
from harness.doctor import report
from harness.doctor.measure import benchmark
from harness.doctor.portability import prognosis
from harness.doctor.topology import topology
from harness.doctor.tricks import tricks
from harness.errors import UserError
from harness.machine import GIB, Machine, this_machine
from harness.replay.fidelity import FINEWEB
from harness.tokens.manifest import read_manifest

SHARD_BYTES = 200_001_024  # of FineWeb: 100M tokens of two bytes, and the header


def examine(console: Console, measured: bool, as_json: bool = False, into: Path | None = None) -> None:
    """Print what the machine is, what each record would be worth on it and, where `measured`, what its parts can do.

    `as_json` prints the facts instead, alone on stdout; `into` is a folder for both forms of the report. Raises
    UserError when nothing at all can be replayed here.
    """
    machine = this_machine()
    rows = [*describe(machine), *data_folder(Path("data", FINEWEB))]
    if machine.problem:
        _print(console, rows)
        raise UserError(f"torch cannot be used, so nothing can be replayed: {machine.problem}")
    quiet = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    found = benchmark(machine, quiet if as_json else console) if measured or into else {}
    facts = gather(machine, found)
    if into:
        console.print("\n".join(map(str, report.write(facts, into))))
    elif as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        _print(console, rows)
        _show(console, facts)


def gather(machine: Machine, found: dict[str, list[dict]]) -> dict:
    """All that the doctor knows: the machine, its links, a line for every record and, where measured, the rows."""
    kernels = {row["name"]: row for row in found.get("kernels", [])}
    lines = [(record, prognosis(record, machine, kernels)) for record in discover()]
    return {
        "schema": 1,
        "machine": machine.facts(),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.memory_gib, 1)} for gpu in machine.gpus],
        "versions": machine.versions(),
        "topology": topology(machine),
        "records": [{"record": record.number, "slug": record.slug, "verdict": line} for record, line in lines],
        **found,
        "tricks": tricks(found.get("kernels", []), found.get("collectives", [])) if found else [],
    }


def describe(machine: Machine) -> list[tuple[str, str]]:
    """The machine as pairs of a name and a value."""
    versions = machine.versions()
    gpus = [f"{len(list(same))} x {name}, {gib:.1f} GiB" for (name, gib), same in groupby(machine.gpus, key=_kind)]
    rows = [
        ("machine", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:.1f} GiB, {machine.os}"),
        ("gpu", f"{', '.join(gpus)}, driver {machine.driver}" if gpus else "none that torch can use"),
        ("versions", ", ".join(f"{name} {version or 'none'}" for name, version in versions.items())),
    ]
    if gpus and shutil.which("cc") is None and shutil.which("gcc") is None:
        rows.append(("missing", "a C compiler (gcc): Triton needs one to launch compiled kernels"))
    if gpus and versions["triton"] is None:
        rows.append(("missing", "triton: torch.compile and the records' own kernels need it"))
    return rows


def _kind(gpu) -> tuple[str, float]:
    return gpu.name, round(gpu.memory_gib, 1)


def data_folder(folder: Path) -> list[tuple[str, str]]:
    """What lies in FineWeb's folder, and what would fit there."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    fits = f"{free / GIB:.0f} GiB free, room for {free // SHARD_BYTES} more train shards"
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        return [("data", str(error))]
    if manifest is None:
        return [("data", f"{folder} is empty; {fits} (a replay fetches what it needs)")]
    shards = sum("_train_" in name for name in manifest.files)
    return [("data", f"{folder}: {manifest.name}, {shards} train shards, {manifest.tokens('train'):,} tokens; {fits}")]


def _print(console: Console, rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        console.print(f"{name:<10}{value}")


def _show(console: Console, facts: dict) -> None:
    """The rest of the doctor's facts, for a person."""
    _print(console, [("links", "; ".join(facts["topology"]["words"]))])
    console.print()
    for verdict, rows in groupby(facts["records"], key=lambda row: row["verdict"]):
        numbers = [row["record"] for row in rows]
        console.print(f"{'-'.join(dict.fromkeys((numbers[0], numbers[-1]))):<10}{verdict}")
    if "kernels" not in facts:
        return
    for heading, columns, rows in report.tables(facts):
        console.print(f"\n{heading}")
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print()
    for sentence in facts["tricks"]:
        console.print(sentence)
