"""How much of a record's communication hides behind its computation, from a profile of one training step:

    torchrun --standalone --nproc_per_node=2 tests/bench_overlap.py records/2025-05-30-reduce-scatter/train.py \
        --step 30 --data_dir data/fineweb10B --num_iterations 40 --val_tokens 524288

The frozen script is run as it is, but for a profiler around the call of `train_step` at step `--step`; every other
option goes to the script. Each rank prints one line: how long the GPU was busy with NCCL's kernels, how much of that
time another kernel ran as well (hidden), and how much it waited alone (exposed). The time of an NCCL kernel holds its
wait for the other ranks, so what is exposed includes their differences.
"""

import argparse
import ast
import json
import os
import sys
import tempfile
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
    parser.add_argument("--step", type=int, default=30)
    arguments, sys.argv[1:] = parser.parse_known_args()
    source = arguments.script.read_text(encoding="utf-8")
    program = compile(with_profiler(source, str(arguments.script)), str(arguments.script), "exec")

    @contextmanager
    def profiled(step: int):
        if step != arguments.step:
            yield
            return
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            yield
            torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "trace.json")
            profiler.export_chrome_trace(str(trace))
            print(report(on_gpu(json.loads(trace.read_text())), os.environ.get("RANK", "0")), flush=True)

    names = {"__name__": "__main__", "__file__": str(arguments.script), "profiled": profiled}
    exec(program, names)


if __name__ == "__main__":
    main()
