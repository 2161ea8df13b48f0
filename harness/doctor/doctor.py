"""What this machine can replay and why not more; on request, how fast its kernels and its links are."""

import shutil
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.archive import places
from harness.archive.find import discover, number_key
from harness.doctor import report
from harness.doctor.measure import benchmark
from harness.doctor.portability import prognosis
from harness.doctor.topology import topology
from harness.doctor.tricks import tricks
from harness.errors import UserError
from harness.machine import GIB, Machine, this_machine, torch_problem
from harness.replay.fidelity import FINEWEB
from harness.terminal import say
from harness.tokens.manifest import TRAIN_SHARDS, read_manifest

SHARD_BYTES = 200_001_024  # of FineWeb: 100M tokens of two bytes, and the header


def examine(console: Console, measured: bool, into: Path | None = None) -> dict:
    """Print what the machine is, what each record would be worth on it and, where `measured`, what its parts can do.

    Returns all of it as data. `into` is a folder for both forms of the report, for which it is measured. Raises
    UserError when nothing at all can be replayed here.
    """
    machine = this_machine()
    rows = [*describe(machine), *data_folder(places.data_dir(FINEWEB))]
    _print(console, rows)
    if problem := machine.problem or torch_problem():
        raise UserError(f"torch cannot be used, so nothing can be replayed: {problem}")
    facts = gather(machine, benchmark(machine, console) if measured or into else {}) | {"found": rows}
    _show(console, facts)
    for path in report.write(facts, into) if into else ():
        console.print(str(path))
    return facts


def gather(machine: Machine, found: dict[str, list[dict]]) -> dict:
    """All that the doctor knows: the machine, its links, a line for every record and, where measured, the rows."""
    kernels = {row["name"]: row for row in found.get("kernels", [])}
    return {
        "schema": 1,
        "machine": machine.facts(),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.memory_gib, 1)} for gpu in machine.gpus],
        "versions": machine.versions(),
        "topology": topology(machine),
        "records": {record.number: prognosis(record, machine, kernels) for record in discover()},
        **found,
        "tricks": tricks(found.get("kernels", []), found.get("collectives", [])) if found else [],
    }


def alike(worth: dict[str, str]) -> dict[str, str]:
    """The numbers of records that share a prognosis, stretches without a gap as `01-12`: prognosis -> `01-12, 24`."""
    grouped: dict[str, list[list[str]]] = {}
    for number, found in worth.items():
        stretches = grouped.setdefault(found, [])
        if stretches and number_key(number)[0] - number_key(stretches[-1][-1])[0] in (0, 1):
            stretches[-1].append(number)
        else:
            stretches.append([number])
    return {
        found: ", ".join("-".join(dict.fromkeys((part[0], part[-1]))) for part in stretches)
        for found, stretches in grouped.items()
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
    free, name = shutil.disk_usage(place).free, places.shown(folder)
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        return [("data", str(error))]
    shards = sum("_train_" in file for file in manifest.files) if manifest else 0
    room, lacking = free // SHARD_BYTES, TRAIN_SHARDS - shards
    fits = f"room for {room} of the {lacking} train shards" if room < lacking else "room for all train shards"
    fits = f"{free / GIB:.0f} GiB free, {fits} that are not here" if lacking else f"{free / GIB:.0f} GiB free"
    if manifest is None:
        return [("data", f"{name} is empty; {fits} (a replay fetches what it needs)")]
    return [("data", f"{name}: {manifest.name}, {shards} train shards, {manifest.tokens('train'):,} tokens; {fits}")]


def _print(console: Console, rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        say(console, f"{name:<10}{value}", hang=10)


def _show(console: Console, facts: dict) -> None:
    """The rest of the doctor's facts, for a person."""
    _print(console, [("links", "; ".join(facts["topology"]["words"]))])
    console.print()
    for found, numbers in alike(facts["records"]).items():
        say(console, f"{numbers:<10}{found}" if len(numbers) < 10 else f"{numbers}  {found}", hang=10)
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
