"""What this machine's kernels and links can do, measured: each benchmark is a job of its own under torchrun."""

import json
import tempfile
from pathlib import Path

from rich.console import Console

from harness.archive.run_folder import STDOUT
from harness.errors import RunFailed
from harness.machine import Machine
from harness.replay import launch
from harness.replay.fidelity import WORLD_SIZES
from harness.replay.signals import Interrupted
from harness.replay.torchrun import environment, torchrun_command

KERNELS = Path(__file__).with_name("kernels.py")
COLLECTIVES = Path(__file__).with_name("collectives.py")


def benchmark(machine: Machine, console: Console) -> dict[str, list[dict]]:
    """The rows `kernels`, of one process, and `collectives`, of as many ranks as a replay would use; [] on one GPU."""
    cuda = bool(machine.gpus)
    ranks = max(size for size in WORLD_SIZES if size <= (len(machine.gpus) or 2))
    kernels = measure(KERNELS, 1, cuda, console)
    return {"kernels": kernels, "collectives": measure(COLLECTIVES, ranks, cuda, console) if ranks > 1 else []}


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
