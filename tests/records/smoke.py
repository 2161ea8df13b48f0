"""Smoke runs of a record's frozen script: its `[smoke]` settings, on forked ranks, and what a run leaves behind."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import forks
import numpy as np
import torch

from harness.archive.record import Record
from harness.archive.settings import read_settings
from timing.log import Run, read_log


@dataclass(frozen=True)
class Replay:
    """A run that ended well: rank 0's log, its text after the environment, its stdout, what `timing` reads in it."""

    ranks: int
    log: str
    stdout: str
    run: Run

    @property
    def body(self) -> list[str]:
        """The log's lines after the environment."""
        return self.log.split("=" * 100)[-1].strip().splitlines()


def start(record: Record, ranks: int, data_dir: Path, folder: Path, before=None, **settings) -> forks.Job:
    """A job that runs the record's script with its smoke settings, some of them changed; the log is `log.txt`."""
    settings = {"data_dir": data_dir, "log_file": folder / "log.txt", "seed": 1, **record.smoke, **settings}
    return forks.Job(*forks.script(record.script, settings, before), ranks, folder)


def shortest_step(record: Record, rows: int = 2) -> dict:
    """Settings that make a step as little work as so many ranks can share, and one step all of era B's warmup, for runs
    on which nothing is compiled and whose curve does not matter."""
    known = read_settings(record.script)
    rows_of = {name: rows for name in ("rows_per_step", "batches_per_step") if name in known}
    untimed_warmup = "warmup_iterations" in known and "untimed_iterations" not in known
    return rows_of | ({"warmup_iterations": 1} if untimed_warmup else {})


def finish(job: forks.Job) -> Replay:
    """The run, once it has ended; every rank must have ended well."""
    ended = job.wait()
    assert [rank.code for rank in ended] == [0] * len(ended), [rank.stderr[-3000:] for rank in ended]
    log = job.folder / "log.txt"
    return Replay(len(ended), log.read_text(encoding="utf-8"), ended[0].stdout, read_log(log))


def spoil_the_gradients(step: int = 1):
    """To be called in a rank before its script: on the last rank alone, every gradient of this training step is NaN.

    The script stays as it is; a hook of PyTorch's notices when its model is called, and what its loop counts.
    """

    def notice(module, inputs):
        script = sys.modules["__main__"]
        if isinstance(module, script.GPT) and getattr(script, "step", None) == step and not spoilt:
            spoilt.extend(weight.register_hook(lambda gradient: gradient * torch.nan) for weight in module.parameters())
        elif isinstance(module, script.GPT) and spoilt and script.step > step:
            for hook in spoilt:
                hook.remove()

    spoilt = []
    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        torch.nn.modules.module.register_module_forward_pre_hook(notice)


def poison_memory():
    """From now on in this process, memory is handed out full of NaN (PyTorch's own fill), not of what was left there:
    whatever is read before it is written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def leave_attributes_behind():
    """From now on in this process, a module that is moved to a device takes its parameters and buffers along and
    nothing else, as on the way from CPU to GPU: any other tensor that it holds is then where nothing can be computed
    with it."""
    move = torch.nn.Module.to

    def to(module, *target):
        moved = move(module, *target)
        if isinstance(target[0], torch.device):
            for each in moved.modules():
                held = {name: value for name, value in vars(each).items() if isinstance(value, torch.Tensor)}
                vars(each).update((name, value.to("meta")) for name, value in held.items())
        return moved

    torch.nn.Module.to = to


def compute_in_full_precision():
    """From now on in this process, what a script asks for in bf16 it gets in fp32: what is left of two runs' difference
    is then not rounding."""
    torch.bfloat16 = torch.float32
    torch.Tensor.bfloat16, torch.nn.Module.bfloat16 = torch.Tensor.float, torch.nn.Module.float


def update_whole(high, low, updates, factors, rates):
    """What `cautious_update` does to weights in two halves of 16 bits, where the upper half is the whole weight: in
    full precision there is no lower one."""
    learning_rate, decay = rates.unbind()
    agrees = updates * high >= 0
    high -= factors * learning_rate * (updates + decay * high * agrees)


def keep_weights(folder: Path, poisoned: bool = False):
    """To be called in a rank before its script, which then computes in full precision and may get poisoned memory and
    a GPU's distance from the CPU: the weights before the first step and after the last are saved as `<rank>-first.npz`
    and `<rank>-last.npz`."""

    def notice(module, inputs):
        script = sys.modules["__main__"]
        if not isinstance(module, script.GPT):
            return
        if "low" in getattr(script, "cautious_update", update_whole).__code__.co_varnames:
            script.cautious_update = update_whole
        moments = {0: "first", script.settings.num_iterations: "last"}
        moment = moments.get(getattr(script, "step", None))
        if moment and moment not in kept:
            kept.add(moment)
            weights = {name: weight.detach().float().numpy() for name, weight in module.named_parameters()}
            np.savez(folder / f"{os.environ['RANK']}-{moment}.npz", **weights)

    compute_in_full_precision()
    if poisoned:
        poison_memory()
        leave_attributes_behind()
    kept = set()
    torch.nn.modules.module.register_module_forward_pre_hook(notice)
