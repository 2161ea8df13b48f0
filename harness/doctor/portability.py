"""One plain line for every record: `official`, `same-batch`, `needs ...` or `cannot, because ...`, from facts."""

import re
import shutil

from harness.archive.record import Record
from harness.archive.settings import read_settings
from harness.errors import UserError
from harness.machine import Machine
from harness.replay.fidelity import WORLD_SIZES
from harness.replay.plan import Options, Plan, make_plan

LEAST_TORCH = (2, 11)  # the record contract's
ATTENTION = {"flex_attention": "flex_attention", "varlen_attn": "varlen_attention"}  # a name in the script: the probe


def prognosis(record: Record, machine: Machine, kernels: dict[str, dict] | None = None) -> str:
    """What a plain `harness replay` of this record would be here, and what keeps it from being more.

    `kernels` are the rows of the kernel benchmark by name, where it was run: a record whose attention failed there
    cannot be replayed, one whose fp8 did goes on in bf16.
    """
    if not machine.gpus:
        return f"cannot, because there is no CUDA GPU: a smoke replay on {_ranks(record.smoke_gpus)} is all"
    lacking = missing(machine)
    if lacking:
        return f"needs {' and '.join(lacking)}"
    try:
        plan = make_plan(record, Options(), machine)
    except UserError as error:
        words = str(error).removeprefix(f"{record.label} ")
        return words if words.startswith("needs ") else f"cannot, because {words}"
    failed, weaker = _measured(record, kernels or {})
    if failed:
        return f"cannot, because {failed}"
    obstacles = [*_obstacles(record, machine, plan), *weaker]
    return f"{plan.label.name} on {_ranks(plan.ranks)}" + (f": {'; '.join(obstacles)}" if obstacles else "")


def missing(machine: Machine) -> list[str]:
    """What every record needs beside a GPU, and this machine lacks."""
    found = re.match(r"(\d+)\.(\d+)", machine.torch or "")
    lacking = []
    if found and tuple(map(int, found.groups())) < LEAST_TORCH:
        lacking.append(f"torch {'.'.join(map(str, LEAST_TORCH))} or later (here is {machine.torch})")
    if machine.versions()["triton"] is None:
        lacking.append("triton")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        lacking.append("a C compiler for Triton's launchers")
    return lacking


def _obstacles(record: Record, machine: Machine, plan: Plan) -> list[str]:
    obstacles = []
    if len(machine.gpus) < max(WORLD_SIZES):
        obstacles.append(f"{len(machine.gpus)} of 8 GPUs: accumulates over {8 // plan.ranks} micro-steps")
    if not all(gpu.hopper for gpu in machine.gpus):
        obstacles.append("not of the Hopper generation")
    wanted = tuple(int(part) for part in record.compute_capability.split(".") if part)
    if machine.gpus[0].capability < wanted:
        obstacles.append(f"its fast path needs compute capability {record.compute_capability}")
    return obstacles


def _measured(record: Record, kernels: dict[str, dict]) -> tuple[str, list[str]]:
    """Why the measured kernels keep the record from running, "" if they do not; and what they make less of it."""
    source = record.read_script() if kernels else ""
    for word, probe in ATTENTION.items():
        why = kernels.get(probe, {}).get("unavailable")
        if why and re.search(rf"\b{word}\b", source):
            return f"its attention, {probe}, fails here: {why}", []
    why = kernels.get("fp8_matmul", {}).get("unavailable")
    wants_fp8 = why and "fp8" in (read_settings(record.script) or {})
    return "", [f"no fp8 matmul ({why}): its head runs in bf16"] if wants_fp8 else []


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"
