"""Synthetic submissions, honest and doctored: five runs each of record 40's own script, as its public logs look.

Losses follow the record's published curve and scatter about it as its public runs do: widely early on, by 0.0011 at the
end. Clocks make 60 ms a step, the same long steps in every run, whole milliseconds. Each kind of doctor changes what
its name says; `EXPECTED` has the verdicts that are right for it. An honest submission may be INCONCLUSIVE: five runs of
a true mean of 3.2776 show p < 0.01 nineteen times in twenty.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.archive.find import resolve

BANNER = "=" * 100
STEPS, EVERY, RUNS = 2330, 250, 5
MACHINE = {"bus": range(8), "driver": "570.148.08"}
SMI_ROW = "|   {0}  NVIDIA H100 80GB HBM3          On  |   00000000:{1:02X}:00.0 Off |                    0 |"
CLOCK = "training_time += time.perf_counter() - clock"


@dataclass
class Log:
    """One run to be written."""

    loss: dict[int, float]
    time: np.ndarray
    source: str
    date: str = "Sat Oct  4 06:00:33 2025"
    torch: str = "2.10.0.dev20250926+cu126"
    planned: int = STEPS
    gpus: int = 8
    environment: list[str] = field(default_factory=list)
    edit: Callable[[list[str]], list[str]] = lambda lines: lines

    def text(self) -> str:
        lines = []
        for step, ms in enumerate(np.round(self.time).astype(int).tolist()):
            clock = f"train_time:{ms}ms step_avg:{ms / max(step, 1):.2f}ms"
            if step:
                lines.append(f"step:{step}/{self.planned} {clock}")
            if step in self.loss:
                lines.append(f"step:{step}/{self.planned} val_loss:{self.loss[step]:.4f} {clock}")
        table = [SMI_ROW.format(i, 0x61 + i) for i in range(self.gpus)]
        head = ["Running Python 3.10.12 (main, May 27 2025, 17:12:29) [GCC 11.4.0]"]
        head += [f"Running PyTorch {self.torch} compiled for CUDA 12.6", *self.environment, self.date]
        head += ["| NVIDIA-SMI 570.148.08   Driver Version: 570.148.08   CUDA Version: 12.8 |", *table]
        return "\n".join([self.source, BANNER, *head, BANNER, *self.edit(lines), ""])


def honest(rng: np.random.Generator, mean: float = 3.2776, runs: int = RUNS) -> list[Log]:
    """An honest submission's logs, of a true mean loss."""
    record = resolve("40")
    curve = dict(record.curve)
    source = record.script.read_text()
    steps = [*range(0, STEPS, EVERY), STEPS]
    level = np.interp(steps, list(curve), list(curve.values()))
    level[1:] += mean - level[-1]
    spread = np.interp(np.array(steps) / STEPS, [0.0, 0.1, 0.2, 0.4, 1.0], [0.0, 0.0066, 0.003, 0.0018, 0.0011])
    shape = 60.3 + 12 * (rng.random(STEPS) < 0.03)
    logs = []
    for _ in range(runs):
        noise = rng.normal(size=len(steps))
        for at in range(1, len(steps)):
            kept = 0.6 if steps[at] < STEPS / 2 else 0.96
            noise[at] = kept * noise[at - 1] + (1 - kept**2) ** 0.5 * noise[at]
        taken = shape + rng.normal(0, 0.7, STEPS) + rng.exponential(8, STEPS) * (rng.random(STEPS) < 0.01)
        time = np.concatenate([[0.0], np.cumsum(taken * rng.normal(1, 0.0004))])
        logs.append(Log(dict(zip(steps, level + spread * noise, strict=True)), time, source))
    return logs


def _each(change: Callable[[Log], object]):
    def doctor(logs, rng):
        for log in logs:
            change(log)

    return doctor


def _one(change: Callable[[Log], object]):
    return lambda logs, rng: change(logs[2]) and None


def _stutter(every: int):
    def change(log):
        log.time = log.time[np.arange(STEPS + 1) // every]

    return change


def _idle(every: int):
    def change(log):
        taken = np.diff(log.time)
        taken[::every] = 0
        log.time = np.concatenate([[0.0], np.cumsum(taken)])

    return change


def _later(by: float):
    def change(log):
        log.time = log.time + by * (np.arange(STEPS + 1) > 1200)

    return change


def _set(**changes):
    def change(log):
        for name, value in changes.items():
            setattr(log, name, value)

    return change


def _source(old: str, new: str):
    def change(log):
        assert old in log.source, old
        log.source = log.source.replace(old, new, 1)

    return change


def _shift_last(by: float):
    return lambda log: log.loss.update({STEPS: log.loss[STEPS] + by})


def _losses(function):
    return lambda log: log.loss.update({step: function(step, loss) for step, loss in log.loss.items()})


def _scaled_times(log):
    honest_lines = log.time.copy()
    share = STEPS * 2 // 3

    def edit(lines):
        found = []
        for line in lines:
            step = int(line[5:].split("/")[0])
            if step > share:
                now = f"train_time:{0.9 * honest_lines[step]:.0f}ms"
                line = " ".join(now if part.startswith("train_time") else part for part in line.split(" "))
            found.append(line)
        return found

    log.edit = edit


def _spliced(logs, rng):
    first, second = logs[:2]
    for log, (head, tail) in zip(logs[2:4], ((first, second), (second, first)), strict=True):
        log.loss = {step: (head if step < 1300 else tail).loss[step] for step in head.loss}
        rest = head.time[1300] - tail.time[1300]
        log.time = np.concatenate([head.time[:1300], tail.time[1300:] + rest])
    del logs[4:]


def _noisy_copies(logs, rng):
    for log in logs[1:]:
        log.loss = {step: loss + rng.normal(0, 0.001) * (step > 0) for step, loss in logs[0].loss.items()}
        log.time = logs[0].time + rng.normal(0, 4, STEPS + 1) * (np.arange(STEPS + 1) > 0)


def _copy(logs, rng):
    logs[4].loss, logs[4].time = dict(logs[1].loss), logs[1].time + 40


def _spelt(logs, rng):
    for i, log in enumerate(logs):
        log.source = log.source.replace("\n\n\n", f"\n\n\n# run {i}\n", 1)


def _bad_end(logs, rng):
    logs[3].loss[STEPS] += 0.0075
    for i in (0, 1, 2, 4):
        logs[i].loss = {step: loss - 0.002 * (step > 0) for step, loss in logs[i].loss.items()}


def _nothing(logs, rng):
    """As it is."""


def _train_lines(keep: Callable[[int], bool]):
    def change(log):
        log.edit = lambda lines: [x for x in lines if "val_loss" in x or keep(int(x[5:].split("/")[0]))]

    return change


HONEST = {
    "honest": _nothing,
    "honest, spelt in five ways": _spelt,
    "honest, one ended badly": _bad_end,
    "honest, a step of 20 s": _one(
        lambda log: log.__setattr__("time", log.time + 20_000 * (np.arange(STEPS + 1) > 1200))
    ),
    "honest, source left out": _each(_set(source="import torch\n\nprint('left out')")),
}
FAILING = {
    "clock stutters, 2": _each(_stutter(2)),
    "clock stutters, 8": _each(_stutter(8)),
    "clock stutters in one run": _one(_stutter(4)),
    "averages off in the last third": _each(_scaled_times),
    "losses below zero": _each(_losses(lambda step, loss: -loss if step else loss)),
    "losses of 0.07": _each(_losses(lambda step, loss: loss * 0.0213 if step == STEPS else loss)),
    "trained before the start": _each(_losses(lambda step, loss: 3.2770 + (STEPS - step) * 1e-7)),
    "last loss lowered": _one(_shift_last(-0.01)),
    "a copy moved in time": _copy,
    "two runs make four": _spliced,
    "one run five times under noise": _noisy_copies,
    "last 830 step lines gone": _each(_train_lines(lambda step: step < 1500)),
    "clock set back": _one(_later(-9_000)),
    "four GPUs": _each(_set(gpus=4)),
    "backdated": _each(_set(date="Fri Oct 11 06:00:33 2024")),
    "of the future": _each(_set(date="Fri Oct 11 06:00:33 2999")),
    "a second of 900 ms": _each(_source(CLOCK, "training_time += 0.9 * (time.perf_counter() - clock)")),
    "a clock replaced": _each(_source("import time\n", "import time\ntime.perf_counter = fast\n")),
    "a flag by sys.modules.get": _each(
        _source(
            "import time\n", "import sys\nimport time\nsys.modules.get('torch._inductor.config').max_autotune = True\n"
        )
    ),
    "steps that the source does not plan": _each(_source("num_iterations: int = 2330", "num_iterations: int = 9330")),
}
HIDING = {
    "exec": _each(_source("import time\n", "import time\nexec(text)\n")),
    "weights from a disk": _each(_source("import time\n", "import time\nimport torch\nw = torch.load('w.pt')\n")),
    "one seed for all": _each(_source("import time\n", "import time\nimport torch\ntorch.manual_seed(1337)\n")),
    "settings from outside": _each(_source("import time\n", "import time\nimport os\nlr = os.getenv('LR')\n")),
    "too few runs": lambda logs, rng: logs.__delitem__(slice(1, None)),
    "every thirtieth step takes no time": _each(_idle(30)),
}
KINDS = {**HONEST, **FAILING, **HIDING}
EXPECTED = {
    **dict.fromkeys(HONEST, ("holds", "inconclusive")),
    **dict.fromkeys(FAILING, ("fails",)),
    **dict.fromkeys(HIDING, ("inconclusive",)),
}


def write(folder: Path, kind: str, seed: int) -> Path:
    """A submission of a kind, in a folder of its own."""
    rng = np.random.default_rng(seed)
    logs = honest(rng)
    KINDS[kind](logs, rng)
    folder.mkdir(parents=True)
    for i, log in enumerate(logs):
        (folder / f"run{i}.txt").write_text(log.text())
    return folder
