"""How torchrun is called: command line, environment, and where several nodes meet."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.archive.run_folder import RANKS
from harness.errors import UserError
from harness.machine import GIB, cores

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")

# glibc takes every large block from the system and gives it back as soon as it is freed, to be faulted in anew, page by
# page, at the next step: with these a smoke step of record 40 on two ranks takes 0.67 s instead of 1.01 s (mallopt(3)).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(4 * GIB), "MALLOC_TRIM_THRESHOLD_": str(8 * GIB)}

BEARING = ("CUDA_", "MALLOC_", "NCCL_", "OMP_", "PYTORCH_", "TORCH", "TRITON_")  # how their names begin


@dataclass(frozen=True)
class Nodes:
    """Where this machine stands among several. `endpoint` is node 0's HOST:PORT."""

    count: int = 1
    rank: int = 0
    endpoint: str = ""


ALONE = Nodes()


def torchrun_command(script: Path, arguments: list[str], ranks: int, folder: Path, nodes: Nodes = ALONE) -> list[str]:
    """The launcher's command line for `ranks` ranks on this machine. Every rank's stderr goes to a file of its own."""
    place = ["--standalone"]
    if nodes.count > 1:
        host, port = split_endpoint(nodes.endpoint)
        place = [
            f"--nnodes={nodes.count}",
            f"--node_rank={nodes.rank}",
            f"--master_addr={host}",
            f"--master_port={port}",
        ]
    logs = ["--redirects=2", f"--log_dir={folder / RANKS}"]
    return [*TORCHRUN, *place, f"--nproc_per_node={ranks}", *logs, str(script), *arguments]


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. Raises UserError for anything else."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--rdzv-endpoint {endpoint!r}: several nodes need node 0's HOST:PORT, such as 10.0.0.1:29500")
    return host, int(port)


def check_port(nodes: Nodes) -> None:
    """Raise UserError if this is node 0 of several and its port is in use."""
    if nodes.count == 1 or nodes.rank != 0:
        return
    port = split_endpoint(nodes.endpoint)[1]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            raise UserError(
                f"port {port} is in use on this machine: name another with --rdzv-endpoint HOST:PORT"
            ) from None


def environment(ranks: int, cuda: bool) -> dict[str, str]:
    """Environment of a job. On the CPU the ranks share the cores and keep freed memory.

    Beside a GPU a rank has one thread, as torchrun itself has it where there are several ranks. Otherwise PyTorch wakes
    a thread a core for each operation on more than 32,768 numbers (ATen/ParallelOpenMP.h), such as the tokens of a row,
    and waits for the last of them while the GPU idles. A rank that is told to abort says first where it stood. What the
    user set stays, and all that concerns NCCL is the user's.
    """
    threads = 1 if cuda else max(1, cores() // ranks)
    on_cpu = {} if cuda else KEEP_MEMORY
    own = {"PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": str(threads), **on_cpu}
    return {**own, **os.environ, "PYTHONUNBUFFERED": "1"}


def bearing(env: dict[str, str]) -> dict[str, str]:
    """Of a job's environment what may bear on its numbers or its pace, by name; places on the disk left out."""
    return {name: value for name, value in sorted(env.items()) if name.startswith(BEARING) and "/" not in value}
