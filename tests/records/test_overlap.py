"""The overlap bench: its arithmetic, and that it finds the training step of every record."""

import ast
import importlib.util
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench_overlap.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_overlap", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_communication_is_hidden_where_another_kernel_runs(bench):
    nccl = "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL"
    events = [(nccl, 0, 1000), (nccl, 800, 2000), ("gemm", 500, 900), ("gemm", 850, 1500), ("copy", 3000, 4000)]
    assert bench.report(events, "1") == (
        "rank 1: step 4.0 ms, computation 2.0 ms, communication 2.00 ms in 2 kernels, hidden 1.00 ms (50.0%), "
        "exposed 1.00 ms"
    )


def test_one_rank_has_nothing_to_hide(bench):
    assert "communication 0.00 ms in 0 kernels, hidden 0.00 ms (-)" in bench.report([("gemm", 0, 10)], "0")


def test_the_longest_kernels_are_told_and_the_time_in_which_none_ran(bench):
    events = [("gemm", 0, 4000), ("copy", 3000, 5000), ("gemm", 6000, 9000), ("fill", 8000, 8500)]
    gemm, copy, idle = [line.split() for line in bench.longest(events, 2).splitlines()]
    assert gemm == ["7.00", "ms", "2", "x", "gemm"] and copy[0] == "2.00" and idle == ["1.00", "ms", "idle"]


def test_annotations_are_no_kernels(bench):
    span = {"ts": 0, "dur": 9}
    trace = [{"cat": "kernel", "name": "gemm", **span}, {"cat": "gpu_user_annotation", "name": "nccl:x", **span}, {}]
    assert bench.on_gpu({"traceEvents": trace}) == [("gemm", 0, 9)]


def test_the_step_of_every_record_is_found(bench, folder):
    source = (folder / "train.py").read_text(encoding="utf-8")
    before, after = ast.unparse(ast.parse(source)), ast.unparse(bench.with_profiler(source, "train.py"))
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(added) == 2 and added[0] == "    with profiled(step):" and "train_step(" in added[1]


def test_a_script_without_a_step_is_refused(bench):
    with pytest.raises(ValueError, match="no train_step"):
        bench.with_profiler("for step in range(3):\n    pass", "x.py")
