"""How fast a log is read, and in how much memory: python tests/bench_log.py [--megabytes 100] [--workers N]

Realistic large logs are written to a temporary folder, each is read in a fresh process (best of three), and a line is
printed for each: MB per second of one core's time (user and system), and per second on the clock; and the process's
peak resident memory with everything that Python, numpy and the resulting Run take. The aim is 100 MB/s a core and
200 MB for a log of 100 MB.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from timing.log import read_log, read_logs

BANNER = "=" * 100 + "\n"
ENVIRONMENT = "Running Python 3.12.7 (main)\nRunning PyTorch 2.9.0 compiled for CUDA 12.6\n" + "".join(
    f"|   {gpu}  NVIDIA H100 80GB HBM3          On  |   00000000:{gpu + 97:X}:00.0 Off |                    0 |\n"
    for gpu in range(8)
)
HEAD = 'import torch\n\nprint0(f"step:{step}/{steps} val_loss:{loss:.4f}")\n' + BANNER + ENVIRONMENT + BANNER


def metric_lines() -> Iterator[str]:
    """Nothing but metric lines of era B, a validation every 125 steps."""
    yield HEAD
    for step in count(1):
        clock = f"train_time:{60 * step + step % 7}ms step_avg:{60 + step % 97 / 100:.2f}ms\n"
        yield f"step:{step}/2000000 {clock}"
        if step % 125 == 0:
            yield f"step:{step}/2000000 val_loss:{3 + 100 / (step + 13):.4f} {clock}"


def old_metric_lines() -> Iterator[str]:
    """The oldest step dialect: a training loss on every line."""
    yield HEAD
    for step in count(1):
        clock = f"train_time:{60 * step}ms step_avg:{60 + step % 97 / 100:.2f}ms\n"
        yield f"step:{step}/2000000 train_loss:{3 + 100 / (step + 13):.4f} {clock}"


def llmc_lines() -> Iterator[str]:
    """llm.c's dialect."""
    for step in count():
        yield f"s:{step} trl:{3 + 100 / (step + 13):.4f} lr:0.000600 norm:{step % 89 / 80:.4f}\n"
        if step % 250 == 0:
            yield f"s:{step} tel:{3 + 100 / (step + 11):.4f}\n"


def long_text() -> Iterator[str]:
    """A source of some 8 MB, then tensor prints and inductor's paths around few metric lines."""
    shuffle = random.Random(0)
    yield "import torch\n" + "".join(f"    weight_{i} = torch.zeros({i}, 64)  # {i * i}\n" for i in range(150_000))
    yield BANNER + ENVIRONMENT + BANNER
    for step in count(1):
        rows = (", ".join(f"{shuffle.gauss(0, 1):9.4f}" for _ in range(12)) for _ in range(40))
        text = "tensor([[" + "],\n        [".join(rows) + "]], device='cuda:0')\n"
        text += "Output code written to: /tmp/torchinductor_root/ab/cabcdefghijklmnopqrstuvwxyz.py\n"
        for repeat in range(20):
            yield text
            yield f"step:{20 * step + repeat}/2000000 train_time:{60 * step}ms step_avg:60.00ms\n"


def mixed_lines() -> Iterator[str]:
    """Several hundred thousand lines of every kind."""
    yield HEAD
    for step in count(1):
        clock = f"train_time:{60 * step}ms step_avg:60.38ms\n"
        yield f"step:{step}/2000000 {clock}"
        yield f"telemetry step:{step} grad_norm:0.1234 weight_norm:812.25 activation_rms:{[1.25] * 12}\n"
        yield (
            f"W0101 00:00:00.000000 {step} torch/_dynamo/convert_frame.py:1016] [3/8] recompile limit reached: " * 2
            + "\n"
        )
        if step % 125 == 0:
            yield f"step:{step}/2000000 val_loss:{3 + 100 / (step + 13):.4f} {clock}"


def further_pairs() -> Iterator[str]:
    """Metric lines with pairs of their own before the time and at the end."""
    yield HEAD
    for step in count(1):
        clock = f"train_time:{60 * step}ms step_avg:60.38ms batch:{step % 7}\n"
        yield f"step:{step}/2000000 train_loss:{3 + 100 / (step + 13):.4f} lr:{step % 89 / 80:.4f} {clock}"


def odd_metric_lines() -> Iterator[str]:
    """Metric lines that none of the fast forms fits: each is read by the grammar."""
    yield HEAD
    for step in count(1):
        clock = f"train_time:{60 * step}ms step_avg:60.38ms\n"
        yield f"step:{step}/2000000 lr:1e-03 train_loss:{3 + 100 / (step + 13):.4f} {clock}"


KINDS = [metric_lines, old_metric_lines, llmc_lines, further_pairs, long_text, mixed_lines, odd_metric_lines]


def main() -> None:
    """Write, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(measure(options.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder, "log.txt")
            write(path, kind(), options.megabytes * 1_000_000)
            runs = [in_fresh_process(path) for _ in range(3)]
            core, clock = (max(run[name] for run in runs) for name in ("core", "clock"))
            speed = f"{core:6.0f} MB/s a core {clock:6.0f} MB/s on the clock"
            peak = max(run["peak"] for run in runs)
            print(f"{kind.__name__:18}{runs[0]['lines']:>9,} lines {speed} {peak:5.0f} MB peak", flush=True)
        path.unlink()
        in_parallel(Path(folder), options)


def write(path: Path, lines: Iterator[str], size: int) -> None:
    """Write whole lines until the file has `size` bytes."""
    with open(path, "w") as file:
        while file.tell() < size:
            file.write("".join(line for line, _ in zip(lines, range(1000))))


def measure(path: Path) -> dict:
    """Read one log; MB/s by this process's own time and by the clock, and its peak resident MB."""
    started, spent = time.perf_counter(), time.process_time()
    run = read_log(path)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    size = run.bytes / 1e6
    return {"core": size / cpu_seconds, "clock": size / seconds, "peak": peak, "lines": run.lines}


def in_fresh_process(path: Path) -> dict:
    """`measure` in a process that has done nothing else."""
    child = subprocess.run([sys.executable, __file__, "--read", path], capture_output=True, check=True)
    return json.loads(child.stdout)


def in_parallel(folder: Path, options: argparse.Namespace) -> None:
    """A folder of logs of the usual size, with one worker and with all."""
    for number in range(options.megabytes * 20):
        write(folder / f"{number}.txt", metric_lines(), 250_000)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    for workers in dict.fromkeys([1, options.workers]):
        started = time.perf_counter()
        logs = len(read_logs([folder], workers))
        speed = size / (time.perf_counter() - started)
        print(f"{logs} logs of 0.25 MB, {workers} workers {speed:7.0f} MB/s on the clock", flush=True)


if __name__ == "__main__":
    main()
