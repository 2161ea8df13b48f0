"""What this machine can replay and why not more; on request, how fast its kernels and its links are."""

import json
import shutil
import tempfile
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.archive.find import discover
from harness.archive.record import Record
from harness.archive.run_folder import STDOUT
from harness.errors import RunFailed, UserError
from harness.machine import GIB, Machine, this_machine
from harness.replay import launch
from harness.replay.fidelity import FINEWEB, WORLD_SIZES
from harness.replay.plan import Options, make_plan
from harness.replay.signals import Interrupted
from harness.replay.torchrun import environment, torchrun_command
from harness.tokens.manifest import read_manifest

KERNELS = Path(__file__).with_name("kernels.py")
COLLECTIVES = Path(__file__).with_name("collectives.py")
SHARD_BYTES = 200_001_024  # of FineWeb: 100M tokens of two bytes, and the header


def examine(console: Console, benchmark: bool) -> None:
    """Print what the machine is, what each record would be worth on it and, on request, what its parts can do.

    Raises UserError when nothing at all can be replayed here.
    """
    machine = this_machine()
    for name, value in (*describe(machine), *data_folder(Path("data", FINEWEB))):
        console.print(f"{name:<10}{value}")
    if machine.problem:
        raise UserError(f"torch cannot be used, so nothing can be replayed: {machine.problem}")
    console.print()
    for found, records in groupby(discover(), key=lambda record: prognosis(record, machine)):
        console.print(f"{_numbers(list(records)):<10}{found}")
    if benchmark:
        _benchmark(console, machine)


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


def prognosis(record: Record, machine: Machine) -> str:
    """What a plain `harness replay` of this record would be here, and what keeps it from being more."""
    try:
        plan = make_plan(record, Options(), machine)
    except UserError as error:
        return f"cannot run: {error}".replace(record.label, "it")
    obstacles = []
    if not machine.gpus:
        obstacles.append("no CUDA GPU")
    elif len(machine.gpus) < max(WORLD_SIZES):
        obstacles.append(f"{len(machine.gpus)} of 8 GPUs: accumulates over {8 // plan.ranks} micro-steps")
    if machine.gpus and not all(gpu.hopper for gpu in machine.gpus):
        obstacles.append("not of the Hopper generation")
    wanted = tuple(int(part) for part in record.compute_capability.split(".") if part)
    if machine.gpus and machine.gpus[0].capability < wanted:
        obstacles.append(f"its fast path needs compute capability {record.compute_capability}")
    ranks = "1 rank" if plan.ranks == 1 else f"{plan.ranks} ranks"
    return f"{plan.label.name} on {ranks}" + (f": {'; '.join(obstacles)}" if obstacles else "")


def _numbers(records: list[Record]) -> str:
    """A stretch of neighbouring records, as `01-12`."""
    return "-".join(dict.fromkeys((records[0].number, records[-1].number)))


def _benchmark(console: Console, machine: Machine) -> None:
    """Measure the kernels in one process and the links in as many ranks as a replay would use."""
    cuda = bool(machine.gpus)
    table = Table("kernel", "ms", "rate, or why not", box=None, pad_edge=False)
    for row in measure(KERNELS, 1, cuda, console):
        missing = row.get("unavailable")
        table.add_row(
            row["name"], "-" if missing else f"{row['ms']:.3f}", f"unavailable: {missing}" if missing else row["rate"]
        )
    console.print(table)
    ranks = max(size for size in WORLD_SIZES if size <= (len(machine.gpus) or 2))
    if ranks == 1:
        console.print("\ncollectives: unavailable, they take two GPUs or more")
        return
    table = Table("collective", "size", "ms", "algorithm GB/s", "bus GB/s", box=None, pad_edge=False)
    for row in (rows := measure(COLLECTIVES, ranks, cuda, console)):
        figures = (f"{row['ms']:.3f}", f"{row['algorithm_gb_s']:.2f}", f"{row['bus_gb_s']:.2f}")
        table.add_row(row["name"], _size(row["bytes"]), *figures)
    console.print(f"collectives over {ranks} ranks, {rows[0]['backend']}, bf16")
    console.print(table)


def measure(script: Path, ranks: int, cuda: bool, console: Console) -> list[dict]:
    """The JSON lines that a benchmark prints under torchrun; if it dies half-way, what it had found, and a line on it.

    Raises RunFailed, in the benchmark's own words, if it printed none, and Interrupted on Ctrl-C.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        command = torchrun_command(script, [], ranks, folder)
        with console.status(f"measuring ({script.stem})"):
            ended = launch.run(launch.Job(command, folder, environment(ranks, cuda), speaks=False))
        lines = (folder / STDOUT).read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    if ended.outcome == "interrupted":
        raise Interrupted("interrupted", ended.sign)
    if not rows:
        raise RunFailed(f"{script.name} {ended.outcome}: {ended.trouble}")
    console.print()
    if ended.outcome != "finished":
        console.print(f"{script.name} {ended.outcome} after {rows[-1]['name']}: {ended.trouble}")
    return rows


def _size(number_of_bytes: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number_of_bytes < 1024:
            return f"{number_of_bytes} {unit}"
        number_of_bytes //= 1024
    return f"{number_of_bytes} GiB"
