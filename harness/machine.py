"""What this machine is: its GPUs, its processor and the versions that a run depends on."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

GIB = 1 << 30
# Asked in a process of its own, whose CUDA context and imports end with it.
QUESTION = """
import json, torch
from torch.cuda import device_count, get_device_properties, is_available
cards = [get_device_properties(i) for i in range(device_count())] if is_available() else []
gpus = [{"name": c.name, "memory_gib": c.total_memory / 2**30, "capability": [c.major, c.minor]} for c in cards]
nccl = ".".join(map(str, torch.cuda.nccl.version())) if gpus else None
cudnn = torch.backends.cudnn.version() if gpus else None
about = {"gpus": gpus, "torch": torch.__version__, "cuda": torch.version.cuda}
print(json.dumps(about | {"libraries": {"nccl": nccl, "cudnn": cudnn}}))
"""


@dataclass(frozen=True)
class Gpu:
    """One GPU that torch can use. Memory in GiB, compute capability as (major, minor)."""

    name: str
    memory_gib: float
    capability: tuple[int, int]

    @property
    def hopper(self) -> bool:
        """Whether it is of the generation of the H100."""
        return self.capability[0] == 9


@dataclass(frozen=True)
class Machine:
    """One machine. `torch` and `cuda` are version strings, None where absent; `problem` says why torch is unusable.

    `libraries` holds the versions of those that torch brings along for GPUs, None where there is none.
    """

    gpus: tuple[Gpu, ...]
    torch: str | None
    cuda: str | None
    driver: str | None
    cpu: str
    cores: int
    memory_gib: float
    os: str
    problem: str = ""
    libraries: dict = field(default_factory=dict)

    def facts(self, gpus: int | None = None) -> dict:
        """The `machine` table of `run.json` for a run on the first `gpus` of them."""
        used = self.gpus[:gpus]
        return {
            "gpu": used[0].name if used else None,
            "gpus": len(used),
            "driver": self.driver,
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_gib": round(self.memory_gib, 1),
            "os": self.os,
        }

    def versions(self) -> dict:
        """The `versions` table of `run.json`."""
        return {
            "python": platform.python_version(),
            "torch": self.torch,
            "cuda": self.cuda,
            "triton": _version("triton"),
        }


@cache
def this_machine() -> Machine:
    """This machine, asked once. Takes as long as importing torch does."""
    answer, problem = _ask_torch()
    gpus = [Gpu(gpu["name"], gpu["memory_gib"], tuple(gpu["capability"])) for gpu in answer.get("gpus", [])]
    return Machine(
        gpus=tuple(gpus),
        torch=answer.get("torch"),
        cuda=answer.get("cuda"),
        driver=_driver() if gpus else None,
        cpu=_cpu(),
        cores=cores(),
        memory_gib=_memory_gib(),
        os=platform.platform(),
        problem=problem,
        libraries=answer.get("libraries", {}),
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ask_torch() -> tuple[dict, str]:
    """What torch sees, or {} and the last line of what it said."""
    answer = subprocess.run([sys.executable, "-c", QUESTION], capture_output=True, text=True)
    if answer.returncode:
        return {}, (answer.stderr.strip().splitlines() or ["torch did not answer"])[-1]
    return json.loads(answer.stdout.splitlines()[-1]), ""


def _driver() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said[0] if said else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError):
        return 0.0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
