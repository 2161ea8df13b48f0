"""What this machine is: its GPUs, its processor and the versions that a run depends on.

Importing torch takes longer than all else that comes before a run, so torch is asked only where the files of torch and
the CUDA driver cannot answer.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

GIB = 1 << 30
# Both are asked in a process of their own, whose CUDA context and imports end with it.
TORCH_QUESTION = """
import json, torch
from torch.cuda import device_count, get_device_properties, is_available
cards = [get_device_properties(i) for i in range(device_count())] if is_available() else []
gpus = [{"name": c.name, "memory_gib": c.total_memory / 2**30, "capability": [c.major, c.minor]} for c in cards]
print(json.dumps({"gpus": gpus, "torch": torch.__version__, "cuda": torch.version.cuda}))
"""


# The driver sees what torch would, CUDA_VISIBLE_DEVICES included; attributes 75 and 76 are the compute capability.
DRIVER_QUESTION = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
number, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
def ask(function, *arguments):
    assert function(*arguments) == 0, function.__name__
    return number.value
ask(cuda.cuInit, 0)
version = ask(cuda.cuDriverGetVersion, ctypes.byref(number))
cards = []
for index in range(ask(cuda.cuDeviceGetCount, ctypes.byref(number))):
    device = ask(cuda.cuDeviceGet, ctypes.byref(number), index)
    ask(cuda.cuDeviceGetName, name, 256, device)
    ask(cuda.cuDeviceTotalMem_v2, ctypes.byref(memory), device)
    capability = [ask(cuda.cuDeviceGetAttribute, ctypes.byref(number), which, device) for which in (75, 76)]
    cards.append({"name": name.value.decode(), "memory_gib": memory.value / 2**30, "capability": capability})
print(json.dumps({"gpus": cards, "version": version}))
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
    """One machine. `torch` and `cuda` are version strings, None where absent; `problem` says why torch is unusable."""

    gpus: tuple[Gpu, ...]
    torch: str | None
    cuda: str | None
    driver: str | None
    cpu: str
    cores: int
    memory_gib: float
    os: str
    problem: str = ""

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
    """This machine, asked once."""
    answer, problem = _read_torch() or _ask_torch()
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
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_problem() -> str:
    """Why torch cannot be imported here, "" if it can. Takes as long as importing it does."""
    return _ask_torch()[1]


def _ask_torch() -> tuple[dict, str]:
    """What torch sees, or {} and the last line of what it said."""
    answer = subprocess.run([sys.executable, "-c", TORCH_QUESTION], capture_output=True, text=True)
    if answer.returncode:
        return {}, (answer.stderr.strip().splitlines() or ["torch did not answer"])[-1]
    return json.loads(answer.stdout.splitlines()[-1]), ""


def _read_torch() -> tuple[dict, str] | None:
    """What `_ask_torch` would say, from torch's own version file and the CUDA driver; None where these leave doubt."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return {}, "No module named 'torch'"
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    said = dict(re.findall(r"^(__version__|cuda|hip|xpu)\b[^=\n]*= *'([^']*)'", text, re.MULTILINE))
    version, cuda = said.get("__version__"), said.get("cuda")
    if version is None or "hip" in said or "xpu" in said:
        return None
    gpus = [] if cuda is None else _ask_driver(int(cuda.partition(".")[0]))
    return None if gpus is None else ({"gpus": gpus, "torch": version, "cuda": cuda}, "")


def _ask_driver(needed: int) -> list[dict] | None:
    """The GPUs as the CUDA driver lists them; None if it is older than the version `needed` or does not answer."""
    if not Path("/dev/nvidiactl").exists():  # no driver is loaded, or one of WSL (dxg) or of a Jetson (nvhost, nvmap)
        others = ("dxg", "nvhost*", "nvmap", "nvidia*")
        return None if sys.platform != "linux" or any(any(Path("/dev").glob(name)) for name in others) else []
    answer = subprocess.run([sys.executable, "-c", DRIVER_QUESTION], capture_output=True, text=True)
    if answer.returncode:
        return None
    said = json.loads(answer.stdout)
    return said["gpus"] if said["version"] // 1000 >= needed else None


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
