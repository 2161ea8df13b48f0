"""How much of a record's communication hides behind its computation, from a profile of single training steps:

    torchrun --standalone --nproc_per_node=2 tests/bench_overlap.py records/2025-05-30-reduce-scatter/train.py \
        --step 30 --data_dir data/fineweb10B --num_iterations 40 --val_tokens 524288

The frozen script is run as it is, but for a profiler around the call of `train_step` at the steps after `--step`; every
other option goes to the script. Each rank prints one line: how long the GPU was busy with NCCL's kernels, how much of
that time another kernel ran as well (hidden), and how much it waited alone (exposed). The time of an NCCL kernel holds
its wait for the other ranks, so what is exposed includes their differences. With `--kernels 20` rank 0 goes on to list
the twenty kernels that took longest.
"""

import argparse
import ast
import json
import os
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

Interval = tuple[float, float]


def union(intervals: list[Interval]) -> list[Interval]:
    """The same points in time as disjoint intervals, sorted."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def length(intervals: list[Interval]) -> float:
    """Total length of disjoint intervals."""
    return sum(end - start for start, end in intervals)


def common(first: list[Interval], second: list[Interval]) -> list[Interval]:
    """The intersection of two lists of disjoint, sorted intervals."""
    overlaps = ((max(a, c), min(b, d)) for a, b in first for c, d in second if c < b and a < d)
    return list(overlaps)


def with_profiler(source: str, path: str) -> ast.Module:
    """The script with its loop's call of `train_step` put under `with profiled(step):`. Raises ValueError if the
    script has no such call."""
    tree = ast.parse(source, path)
    loops = [node for node in tree.body if isinstance(node, ast.For)]
    for loop in loops:
        for i, node in enumerate(loop.body):
            if isinstance(node, ast.Expr) and ast.unparse(node).startswith("train_step("):
                wrapped = ast.parse("with profiled(step):\n    pass").body[0]
                wrapped.body = [node]
                loop.body[i] = ast.copy_location(wrapped, node)
                return ast.fix_missing_locations(tree)
    raise ValueError(f"{path} calls no train_step in its training loop")


def on_gpu(trace: dict) -> list[tuple[str, float, float]]:
    """Kernels and copies of a Chrome trace, (name, start, end) in microseconds; not the annotations beside them."""
    kinds = {"kernel", "gpu_memcpy", "gpu_memset"}
    events = [event for event in trace["traceEvents"] if event.get("cat") in kinds]
    return [(event["name"], event["ts"], event["ts"] + event["dur"]) for event in events]


def longest(events: list[tuple[str, float, float]], count: int) -> str:
    """The kernels that took longest in all, a line each: milliseconds, calls, name; then the time in which none ran."""
    total, calls = Counter(), Counter()
    for name, start, end in events:
        total[name] += (end - start) / 1e3
        calls[name] += 1
    lines = [f"{spent:9.2f} ms  {calls[name]:4} x  {name}" for name, spent in total.most_common(count)]
    busy = union([(start, end) for _, start, end in events])
    idle = (busy[-1][1] - busy[0][0] - length(busy)) / 1e3
    return "\n".join([*lines, f"{idle:9.2f} ms  idle"])


def report(events: list[tuple[str, float, float]], rank: str) -> str:
    """One line about the kernels of a step."""
    is_nccl = [name.startswith("nccl") for name, _, _ in events]
    communication = union([(a, b) for (_, a, b), nccl in zip(events, is_nccl) if nccl])
    computation = union([(a, b) for (_, a, b), nccl in zip(events, is_nccl) if not nccl])
    total, hidden = length(communication), length(common(communication, computation))
    span = max(b for _, _, b in events) - min(a for _, a, _ in events)
    share = f"{hidden / total:.1%}" if total else "-"
    return (
        f"rank {rank}: step {span / 1e3:.1f} ms, computation {length(computation) / 1e3:.1f} ms, "
        f"communication {total / 1e3:.2f} ms in {sum(is_nccl)} kernels, hidden {hidden / 1e3:.2f} ms ({share}), "
        f"exposed {(total - hidden) / 1e3:.2f} ms"
    )


def main() -> None:
    """Run the script given on the command line with the profiler around one step."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("script", type=Path)
    parser.add_argument("--step", type=int, nargs="+", default=[30])
    parser.add_argument("--kernels", type=int, default=0)
    arguments, sys.argv[1:] = parser.parse_known_args()
    source = arguments.script.read_text(encoding="utf-8")
    program = compile(with_profiler(source, str(arguments.script)), str(arguments.script), "exec")

    @contextmanager
    def profiled(step: int):
        if step not in arguments.step:
            yield
            return
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            yield
            torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "trace.json")
            profiler.export_chrome_trace(str(trace))
            events, rank = on_gpu(json.loads(trace.read_text())), os.environ.get("RANK", "0")
        print(f"step {step}, {report(events, rank)}", flush=True)
        if arguments.kernels and rank == "0":
            print(longest(events, arguments.kernels), flush=True)

    names = {"__name__": "__main__", "__file__": str(arguments.script), "profiled": profiled}
    exec(program, names)


if __name__ == "__main__":
    main()
