"""Ranks for the tests, forked from a process that has imported PyTorch already.

`torchrun` starts Python anew for itself and for every rank: seconds of CPU each, most of what a small run costs. Here
`multiprocessing` keeps one fork server beside each pytest worker. It has imported what the scripts import and has run
nothing, so that it has no thread that a fork could lose. All else is as under torchrun: the environment of a rank, its
output and its exit code, and no rank outlives the others.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path

from torch.distributed import TCPStore

# What takes long to import; the rest of what a script imports is nothing beside it. Dynamo would otherwise be imported
# by every rank when it makes its first optimizer.
PRELOAD = ["numpy", "torch", "torch._dynamo", "torch.distributed", "torch.nn.parallel", "torch.optim"]
PRELOAD += ["torch.nn.attention.flex_attention", "torch.nn.attention.varlen", "forks"]

# Without glibc's settings it gives every big tensor back to the system and faults it in again.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT |= {"PYTHONWARNINGS": "ignore", "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}

CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Rank:
    """How one rank ended: exit code as the shell sees it, minus the signal if it was killed; what it said."""

    code: int
    stdout: str
    stderr: str


class Job:
    """Ranks that run `function(*arguments)`, side by side with whatever else runs. A context: on leaving it, no process
    of it is left.

    `function` is defined in a module that can be imported, since it travels by name. The ranks meet in a store of this
    process, at a port that the system chose, as they meet in torchrun's.
    """

    def __init__(self, function: Callable, arguments: tuple, ranks: int, folder: Path, limit: float = 240):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.deadline = folder, time.monotonic() + limit
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        serve()
        tasks = [
            (function, arguments, environment(rank, ranks, self.store.port), folder, limit) for rank in range(ranks)
        ]
        self.processes = [CONTEXT.Process(target=become_rank, args=task, daemon=True) for task in tasks]
        for process in self.processes:
            process.start()

    def wait(self) -> list[Rank]:
        """Once all have ended. When one fails, the others get ten seconds to end by themselves, as under torchrun, and
        are killed. Raises TimeoutError beyond the job's limit."""
        running, end = {process.sentinel: process for process in self.processes}, self.deadline
        while running and (left := end - time.monotonic()) > 0:
            for sentinel in connection.wait(list(running), left):
                process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    end = min(end, time.monotonic() + 10)
        self.stop()
        results = [
            Rank(process.exitcode, *((self.folder / f"{rank}.{name}").read_text() for name in ("stdout", "stderr")))
            for rank, process in enumerate(self.processes)
        ]
        if running and end == self.deadline:
            raise TimeoutError(
                f"{len(running)} of {len(results)} ranks did not end: {[r.stderr[-500:] for r in results]}"
            )
        return results

    def stop(self):
        """End what still runs."""
        for process in self.processes:
            process.kill()
            process.join()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *exception):
        self.stop()


def run(function: Callable, arguments: tuple, ranks: int, folder: Path, limit: float = 240) -> list[Rank]:
    """Run `function(*arguments)` on so many ranks, to the end."""
    with Job(function, arguments, ranks, folder, limit) as job:
        return job.wait()


def script(path: Path, settings: dict, before: Callable[[], None] | None = None) -> tuple[Callable, tuple]:
    """What makes a rank run a train script with these settings; `before` is called first, in the rank."""
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return execute, (str(path), arguments, before)


def execute(path: str, arguments: list[str], before: Callable[[], None] | None):
    """In a rank: the script at `path`, as `python path arguments` would run it."""
    sys.argv = [path, *arguments]
    if before:
        before()
    runpy.run_path(path, run_name="__main__")


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    meeting = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}  # a store that is there already
    return {name: str(number) for name, number in numbers.items()} | meeting


def become_rank(function: Callable, arguments: tuple, variables: dict, folder: Path, limit: float):
    """In the fork: take on a rank's environment and output, then call `function`."""
    threading.Thread(target=die_with_the_tests, daemon=True).start()
    gc.disable()  # an eighth of a short rank's time, for nothing that it needs back
    signal.alarm(int(limit) + 30)
    os.environ |= variables
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        with (folder / f"{variables['RANK']}.{name}").open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    function(*arguments)


def die_with_the_tests():
    """Wait for the end of the process that started this rank: should it be killed, nobody else would end the rank."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)


def serve():
    """Start this process's fork server, unless it runs. It takes its environment from here, and keeps it."""
    CONTEXT.set_forkserver_preload(PRELOAD)
    before = dict(os.environ)
    os.environ |= ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        with warnings.catch_warnings():
            forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ |= before
