"""How the GPUs of this machine hang together: NVLink or PCIe between them, and the NUMA nodes they belong to."""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

from harness.machine import Machine

# nvidia-smi's legend, in order of speed.
LINKS = {
    "NV": "NVLink",
    "PIX": "PCIe, one switch",
    "PXB": "PCIe, several switches",
    "PHB": "PCIe, through the processor",
    "NODE": "PCIe, across one NUMA node",
    "SYS": "PCIe and across NUMA nodes",
}


def topology(machine: Machine, matrix: str | None = None) -> dict:
    """`links`: pairs of GPUs by kind; `numa`: NUMA node by GPU; `nodes`: how many the machine has; `words` for people.

    `matrix` is what `nvidia-smi topo -m` says, asked here unless given.
    """
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
    text = matrix if matrix is not None else _ask() if machine.gpus else ""
    links, numa = parse(text, visible())
    words = [f"{count} {'pair' if count == 1 else 'pairs'} by {kind}" for kind, count in links.items()]
    if len(machine.gpus) < 2:
        words = ["one GPU" if machine.gpus else "no GPU"]
    elif not words:
        words = ["nvidia-smi does not tell"]
    words.append(f"{nodes} NUMA node{'s' if nodes > 1 else ''}")
    if len(set(numa.values())) > 1:
        words.append("GPUs on nodes " + ", ".join(f"{gpu}: {node}" for gpu, node in numa.items()))
    return {"links": links, "numa": numa, "nodes": nodes, "words": words}


def visible() -> set[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by their names in nvidia-smi's matrix, which knows nothing of it; None
    for all of them, as where it does not number them."""
    numbers = [number.strip() for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return {f"GPU{number}" for number in numbers} if all(number.isdigit() for number in numbers) else None


def parse(matrix: str, only: set[str] | None = None) -> tuple[dict[str, int], dict[str, str]]:
    """(pairs of GPUs by kind of link, NUMA node by GPU) of nvidia-smi's matrix, for all GPUs or `only` these; what
    cannot be read is left out."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in matrix.splitlines()]
    header = next((line for line in lines if re.match(r"\s+GPU0", line)), "")
    gpus = re.findall(r"\bGPU\d+\b", header)
    kept = [gpu for gpu in gpus if only is None or gpu in only]
    titles = [title.strip() for title in header.strip().split("\t")]
    pairs: Counter = Counter()
    numa = {}
    for line in lines:
        name, *cells = (cell.strip() for cell in line.split("\t"))
        if name not in kept:
            continue
        for other, cell in zip(gpus, cells):
            kind = next((key for key in LINKS if cell.startswith(key)), None)
            if kind and other in kept and gpus.index(other) > gpus.index(name):
                pairs[f"{LINKS[kind]} ({cell})" if kind == "NV" else LINKS[kind]] += 1
        if "NUMA Affinity" in titles and titles.index("NUMA Affinity") < len(cells):
            numa[name] = cells[titles.index("NUMA Affinity")]
    return dict(pairs), numa


def _ask() -> str:
    try:
        return subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
