"""A small forge of logs: honest submissions of five runs, to be doctored one cheat at a time."""

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from harness.archive.record import Record

BANNER = "=" * 100
SCRIPT = '''"""A toy record: enough of a script for the referee to read, never run."""
import glob
import os
import time
import numpy as np
import torch

os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
torch._dynamo.config.recompile_limit = 64
# torch._inductor.config.coordinate_descent_tuning = True  was banned
train_files, val_files = "data/fineweb_train_*.bin", "data/fineweb_val_*.bin"
val_tokens = 20 * 524288


def load_shard(path):
    """Tokens of a shard."""
    return np.memmap(path, dtype=np.uint16, mode="r", offset=1024)


def batches(pattern, size):
    for path in sorted(glob.glob(pattern)):
        tokens = load_shard(path)
        for start in range(0, len(tokens) - size, size):
            yield torch.from_numpy(tokens[start : start + size + 1].astype(np.int64))


model = torch.compile(torch.nn.Linear(8, 8), dynamic=False, fullgraph=True)
train_loader = batches(train_files, 1024)
clock, start = 0.0, time.perf_counter()
for step in range(601):
    if step % 100 == 0:
        with torch.no_grad():
            val_loader = batches(val_files, 4096)
            loss = sum(model(next(val_loader)) for _ in range(val_tokens // 4096))
        clock += 1000 * (time.perf_counter() - start)
        print(f"step:{step}/600 val_loss:{loss:.4f} train_time:{clock:.0f}ms step_avg:{clock / max(step, 1):.2f}ms")
        start = time.perf_counter()
    model(next(train_loader)).backward()
'''
OFFSETS = (0.0001, 0.0012, -0.0011, -0.0009, 0.0004)
SMI_ROW = "|   {0}  {1:<26}  On  |   00000000:6{0}:00.0 Off |                    0 |"


@dataclass
class Forged:
    """One log to be: change what should lie, then `write` it."""

    steps: int = 600
    every: int = 100
    pace_ms: float = 60.0
    final: float = 3.2780
    source: str | None = SCRIPT
    helpers: dict = field(default_factory=dict)
    gpus: int = 8
    gpu: str = "NVIDIA H100 80GB HBM3"
    date: str = "Sat Oct  4 06:00:33 2025"
    torch: str = "2.4.1"
    era: str = "B"
    environment: list = field(default_factory=list)
    noise: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(self.noise)
        jitter = np.cumsum(rng.normal(0, 1.5, self.steps + 1))
        self.time = {step: self.pace_ms * step + jitter[step] * (step > 0) for step in range(self.steps + 1)}
        wobble = rng.normal(0, 0.0003, self.steps + 1)
        self.loss = {
            step: self.final
            + (10.83 - self.final - 3e-4 * self.steps) * (np.exp(-step / 60) - np.exp(-self.steps / 60))
            + 3e-4 * (self.steps - step)
            + wobble[step] * (step < self.steps)
            for step in range(0, self.steps + 1, self.every)
        }
        if self.era == "A":
            start = self.time[10]
            self.time = {step: 30_000 + t if step <= 10 else t - start for step, t in self.time.items()}

    def lines(self) -> list[str]:
        """The metric lines."""
        lines = []
        for step, time in self.time.items():
            if step:
                lines.append(f"step:{step}/{self.steps} train_time:{time:.0f}ms step_avg:{self.average(step, time)}ms")
            if step in self.loss:
                metrics = f"val_loss:{self.loss[step]:.4f} train_time:{time:.0f}ms"
                lines.append(f"step:{step}/{self.steps} {metrics} step_avg:{self.average(step, time)}ms")
        return lines

    def average(self, step: int, time: float) -> str:
        if self.era == "A":
            return f"{time / (step - 10):.2f}" if step > 12 else "nan"
        return f"{time / max(step, 1):.2f}"

    def text(self) -> str:
        """The whole log."""
        source = self.source or ""
        for name, text in self.helpers.items():
            source += f"\n\n{'-' * 40}\n# {name}\n{'-' * 40}\n\n{text}"
        table = [SMI_ROW.format(i, self.gpu) for i in range(self.gpus)]
        environment = [
            "Running Python 3.12.7",
            f"Running PyTorch {self.torch} compiled for CUDA 12.4",
            *self.environment,
        ]
        parts = [source] if self.source else []
        parts += [BANNER, *environment, self.date, *table, BANNER, *self.lines()]
        return "\n".join(parts) + "\npeak memory allocated: 29226 MiB reserved: 44076 MiB\n"

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text())
        return path


@dataclass
class Forge:
    """Writes submissions into one temporary folder."""

    folder: Path

    def log(self, name: str = "run.txt", **changes) -> Path:
        """One log, with the given fields of Forged changed."""
        return Forged(**changes).write(self.folder / name)

    def submission(self, doctor=None, which: int = 2, **changes) -> Path:
        """Five honest logs in a folder; `doctor` may change the Forged number `which` before it is written."""
        for i, offset in enumerate(OFFSETS):
            forged = Forged(**{"noise": i, "final": 3.2780 + offset} | changes)
            if doctor and i == which:
                forged = doctor(forged) or forged
            forged.write(self.folder / "logs" / f"run{i}.txt")
        return self.folder / "logs"

    def runs(self, finals, folder: str = "logs", noise: int = 0, **changes) -> list[Path]:
        """Honest logs that end at the given losses; `noise` is the seed of the first."""
        return [
            self.log(f"{folder}/run{i}.txt", noise=noise + i, **({"final": final} | changes))
            for i, final in enumerate(finals)
        ]

    def run_folder(self, name: str = "a", manifest=("fineweb10B", "f" * 64), fast: float = 1.0, **changes) -> Path:
        """A run folder of our own launcher: log.txt, run.json with a witness whose clock runs `fast` times as fast."""
        forged = Forged(environment=[f"manifest={manifest[1]}", "seed=none"], **changes)
        log = forged.write(self.folder / name / "log.txt")
        rows = [(line, line.split("val_loss:")) for line in forged.lines()]
        clock, last, witness = 5.0, 0.0, {"step": [], "kind": [], "log_ms": [], "clock_s": []}
        for line, parts in rows:
            ms = float(line.split("train_time:")[1].split("ms")[0])
            clock += fast * (ms - last) / 1000 + (0.8 if len(parts) > 1 else 0.0)
            last = ms
            witness["step"].append(int(line.split("/")[0].removeprefix("step:")))
            witness["kind"].append("val" if len(parts) > 1 else "train")
            witness["log_ms"].append(ms)
            witness["clock_s"].append(clock)
        facts = {"schema": 1, "run_id": name, "fidelity": "official", "witness": witness}
        facts["manifest"] = {"name": manifest[0], "digest": manifest[1]}
        (log.parent / "run.json").write_text(json.dumps(facts))
        (log.parent / "stdout.txt").write_text("\n".join(forged.lines()))
        return log.parent


@pytest.fixture
def forge(tmp_path):
    """A Forge in a temporary folder."""
    return Forge(tmp_path)


@pytest.fixture
def status():
    """status(verdict, rule) -> the status of a rule, and status(verdict) -> all of them by name."""

    def look(verdict, rule=None):
        found = {check.rule: check.status for check in verdict.judged.checks}
        return found[rule] if rule else found

    return look


@pytest.fixture
def evidence():
    """evidence(verdict, rule) -> the evidence of a rule."""
    return lambda verdict, rule: next(check.evidence for check in verdict.judged.checks if check.rule == rule)


@pytest.fixture
def script():
    """The script that honest logs embed."""
    return SCRIPT


@pytest.fixture
def draft(tmp_path):
    """draft(script, name, **facts) -> an unfrozen Record in a folder of its own."""

    def make(script="print('val_loss')\n", name="record", **facts):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.py").write_text(script)
        known = {"number": "99", "date": datetime.date(2025, 10, 4), "title": "A draft", "edition": "2025-02-01"}
        return Record(folder=folder, **(known | facts))

    return make
