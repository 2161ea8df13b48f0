"""What a machine is told about itself: prognoses for every kind of machine, and the real benchmarks on this one."""

import dataclasses
import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from harness.archive import find as archive_module
from harness.cli import main
from harness.doctor import collectives, doctor, measure, report
from harness.doctor.portability import prognosis
from harness.doctor.topology import parse, topology
from harness.doctor.tricks import tricks
from harness.errors import RunFailed
from harness.machine import Gpu, Machine, _ask_torch, _read_torch, this_machine

FAKE = Path(__file__).parents[1] / "fake_train.py"
H100 = Gpu("NVIDIA H100 80GB HBM3", 79.1, (9, 0))
A100 = Gpu("NVIDIA A100-SXM4-80GB", 79.1, (8, 0))
SMALL = Gpu("NVIDIA A10", 22.0, (8, 6))


def machine(*gpus, problem=""):
    return Machine(gpus, "2.13.0", "13.0", "570", "cpu", 2, 24.0, "Linux", problem)


@pytest.fixture
def record(archive, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (archive / "2025-10-04-backout" / "train.py").write_bytes(FAKE.read_bytes())
    return archive_module.load(archive / "2025-10-04-backout")


@pytest.fixture
def ready(monkeypatch):
    """A machine that has Triton and a C compiler."""
    monkeypatch.setattr(Machine, "versions", lambda self: {"python": "3.12", "torch": self.torch, "triton": "3.6"})
    monkeypatch.setattr("harness.doctor.portability.shutil.which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(
    "gpus, words",
    [
        ((), "cannot, because there is no CUDA GPU: a smoke replay on 2 ranks is all"),
        ((H100,) * 8, "official on 8 ranks"),
        ((H100,), "same-batch on 1 rank: 1 of 8 GPUs: accumulates over 8 micro-steps"),
        ((H100,) * 3, "same-batch on 2 ranks: 3 of 8 GPUs: accumulates over 4 micro-steps"),
        (
            (A100,) * 8,
            "same-batch on 8 ranks: not of the Hopper generation; its fast path needs compute capability 9.0",
        ),
        ((SMALL,), "needs 45 GiB of GPU memory and NVIDIA A10 has 22.0"),
    ],
)
def test_prognosis(record, gpus, words, ready):
    assert prognosis(record, machine(*gpus)).startswith(words)


def test_the_machine_is_described():
    rows = dict(doctor.describe(machine(H100, H100)))
    assert rows["gpu"] == "2 x NVIDIA H100 80GB HBM3, 79.1 GiB, driver 570"
    assert dict(doctor.describe(machine()))["gpu"] == "none that torch can use"


def test_this_machine_knows_itself():
    here = this_machine()
    assert here.torch and here.cores >= 1 and here.memory_gib > 0 and not here.problem
    assert set(here.facts()) == {"gpu", "gpus", "driver", "cpu", "cores", "memory_gib", "os"}
    assert set(here.versions()) == {"python", "torch", "cuda", "triton"}


def test_doctor(fake_machine, monkeypatch):
    monkeypatch.setattr("harness.doctor.doctor.this_machine", lambda: fake_machine)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "01, 21-22, 39-40  cannot, because there is no CUDA GPU: a smoke replay on 2 ranks is all" in result.output
    assert "data/fineweb10B is empty" in result.output


def test_records_of_one_prognosis_are_one_line_whatever_stands_between():
    worth = {"01": "a", "02": "a", "21": "b", "21b": "b", "22": "a", "40": "a"}
    assert doctor.alike(worth) == {"a": "01-02, 22, 40", "b": "21-21b"}


def test_no_more_shards_are_offered_than_exist(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    for free, words in ((10**13, "room for all train shards that"), (10**9, "room for 4 of the 103 train shards")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: usage(free, 0, free))
        assert words in dict(doctor.data_folder(tmp_path / "none"))["data"]


def test_json(fake_machine, monkeypatch):
    monkeypatch.setattr("harness.doctor.doctor.this_machine", lambda: fake_machine)
    told = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert told["records"]["40"].startswith("cannot, because there is no CUDA GPU") and told["machine"]["cores"] == 2


def test_the_driver_says_what_torch_would():
    """On this machine; on one with a GPU this holds the two ways of asking against each other."""
    quick = _read_torch()
    assert quick is None or quick == _ask_torch()


def test_an_unusable_torch_is_said(fake_machine, monkeypatch):
    monkeypatch.setattr("harness.doctor.doctor.this_machine", lambda: machine(problem="ImportError: no libtorch"))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 2 and "nothing can be replayed: ImportError: no libtorch" in result.stderr


def test_every_kernel_is_measured_or_says_why_not():
    rows = measure.measure(measure.KERNELS, 1, bool(this_machine().gpus), Console(quiet=True))
    assert len(rows) == 9
    assert all(row.get("unavailable") or row["ms"] > 0 for row in rows)
    assert rows[0]["name"] == "bf16_matmul" and rows[0]["rate"].endswith("TFLOP/s")


def test_the_collectives_are_measured_over_real_ranks():
    rows = measure.measure(measure.COLLECTIVES, 2, False, Console(quiet=True))
    *calls, hidden = rows
    assert {row["name"] for row in calls} == {"all_reduce", "reduce_scatter", "all_gather"}
    assert {row["message"] for row in calls} == {"gate", "matrix", "DDP bucket", "embedding"}
    for row in calls:
        assert row["ranks"] == 2 and row["algorithm_gb_s"] == pytest.approx(row["bytes"] / row["ms"] / 1e6)
        factor = 1.0 if row["name"] == "all_reduce" else 0.5
        assert row["bus_gb_s"] == pytest.approx(factor * row["algorithm_gb_s"])
    assert hidden["name"] == "overlap" and 0 <= hidden["hidden"] <= 1 and hidden["together_ms"] > 0
    assert len(tricks([], rows)) == 4 + 1 + 1


def test_each_bucket_is_sent_before_the_matmuls_that_hide_it(monkeypatch):
    """Eight buckets of 0.1 s each, matmuls of 0.05 s: 0.8 s of either, of which 1.0 s together leave three quarters."""
    done, times = [], iter((0.8, 0.05, 0.8, 1.0))

    class Matrix:
        def __matmul__(self, other):
            done.append("multiply")

    def send(bucket, async_op):
        done.append("send")
        return SimpleNamespace(wait=lambda: done.append("wait"))

    def seconds_per_call(call, *_):
        done.clear()
        call()
        return next(times)

    monkeypatch.setattr(collectives.torch, "ones", lambda *_, **__: Matrix())
    monkeypatch.setattr(collectives.dist, "all_reduce", send)
    monkeypatch.setattr(collectives, "seconds_per_call", seconds_per_call)
    figures = collectives.overlap("gate", torch.device("cpu"), None)
    assert done == ["send", "multiply", "multiply"] * 8 + ["wait"] * 8
    assert figures["hidden"] == pytest.approx(0.75) and figures["together_ms"] == pytest.approx(1000)


def test_what_every_record_needs_is_named(record, ready, monkeypatch):
    eight = machine(*(H100,) * 8)
    assert prognosis(record, dataclasses.replace(eight, torch="2.9.1+cu126")).startswith("needs torch 2.11 or later")
    assert prognosis(record, dataclasses.replace(eight, torch="2.11.0+cu130")).startswith("official")
    monkeypatch.setattr(Machine, "versions", lambda self: {"triton": None})
    monkeypatch.setattr("harness.doctor.portability.shutil.which", lambda name: None)
    assert prognosis(record, eight) == "needs triton and a C compiler for Triton's launchers"


def test_measured_kernels_speak_for_the_record(record, ready):
    eight = machine(*(H100,) * 8)
    record.script.write_text("class Settings:\n    fp8: bool = True\n# varlen_attn\n")
    no_fp8 = {"fp8_matmul": {"unavailable": "sm_80"}}
    assert "no fp8 matmul (sm_80): its head runs in bf16" in prognosis(record, eight, no_fp8)
    broken = {"varlen_attention": {"unavailable": "no kernel"}, "flex_attention": {"unavailable": "also"}}
    assert prognosis(record, eight, broken).startswith(
        "cannot, because its attention, varlen_attention, fails here: no kernel"
    )


MATRIX = """\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tPHB\t0-15\t0\t\tN/A
GPU1\tNV18\t X \tSYS\t16-31\t1\t\tN/A
NIC0\tPHB\tSYS\t X
"""


def test_the_links_between_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert parse(MATRIX) == ({"NVLink (NV18)": 1}, {"GPU0": "0", "GPU1": "1"})
    assert parse("") == ({}, {})
    found = topology(machine(H100, H100), MATRIX)
    assert found["words"][0] == "1 pair by NVLink (NV18)" and found["words"][-1] == "GPUs on nodes GPU0: 0, GPU1: 1"
    assert topology(machine())["words"][0] == "no GPU"


THREE = """\tGPU0\tGPU1\tGPU2\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tPIX\tNV18\t0-15\t0\t\tN/A
GPU1\tPIX\t X \tPIX\t0-15\t0\t\tN/A
GPU2\tNV18\tPIX\t X \t16-31\t1\t\tN/A
"""


def test_links_of_gpus_that_are_not_visible_do_not_count(monkeypatch):
    assert parse(THREE)[0] == {"PCIe, one switch": 2, "NVLink (NV18)": 1}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    found = topology(machine(H100, H100), THREE)
    assert found["words"][0] == "1 pair by NVLink (NV18)" and set(found["numa"]) == {"GPU0", "GPU2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f2a,GPU-77b1")  # by names that the matrix has not: all
    assert sum(topology(machine(H100, H100), THREE)["links"].values()) == 3


def call(name, message, size, ms):
    return {"name": name, "message": message, "bytes": size, "ms": ms, "bus_gb_s": 1.0, "algorithm_gb_s": 1.0}


def test_what_pays_is_said_in_words():
    kernels = [{"name": "bf16_matmul", "ms": 2.0}, {"name": "fp8_matmul", "ms": 1.0}]
    rows = [
        *(
            call(name, "gate", 8192, ms)
            for name, ms in (("all_reduce", 0.1), ("reduce_scatter", 0.1), ("all_gather", 0.1))
        ),
        *(
            call(name, "embedding", 77e6, ms)
            for name, ms in (("all_reduce", 2), ("reduce_scatter", 0.9), ("all_gather", 0.9))
        ),
        {"name": "overlap", "message": "8 DDP buckets", "bytes": 1, "hidden": 0.85},
    ]
    fp8, gate, embedding, bundled, hidden = tricks(kernels, rows)
    assert fp8 == "fp8 (from record 19): a matmul is 2.00 times as fast as in bf16: it pays"
    assert gate.endswith("0.200 ms against 0.100 ms for all_reduce: it has to earn that back by sharing the update")
    assert embedding.endswith("1.800 ms against 2.000 ms for all_reduce: it pays")
    assert bundled.endswith("it pays") and "a byte of 8 KiB takes 470 times as long" in bundled
    assert hidden.endswith("behind matmuls, 85% of the time of the all_reduce of 8 DDP buckets is saved: it pays")
    assert tricks([{"name": "fp8_matmul", "unavailable": "x"}], []) == [
        "fp8 (from record 19): cannot be used here, the head runs in bf16"
    ]


def test_the_report_is_json_and_a_page(fake_machine, monkeypatch, tmp_path):
    monkeypatch.setattr("harness.doctor.doctor.this_machine", lambda: fake_machine)
    room = shutil.disk_usage(tmp_path)  # as it is now: other tests write to the same disk
    monkeypatch.setattr("harness.doctor.doctor.shutil.disk_usage", lambda place: room)
    rows = {"kernels": [{"name": "bf16_matmul", "ms": 2.0, "rate": "1 TFLOP/s"}, {"name": "a|b", "unavailable": "no"}]}
    rows["collectives"] = [call("all_reduce", "gate", 8192, 0.1) | {"ranks": 2, "backend": "gloo"}]
    monkeypatch.setattr("harness.doctor.doctor.benchmark", lambda machine, console: rows)
    result = CliRunner().invoke(main, ["doctor", "--report", "machines"])
    assert result.output.split()[-2:] == ["machines/cpu-cpu.json", "machines/cpu-cpu.md"], result.output
    facts = json.loads((tmp_path / "machines" / "cpu-cpu.json").read_text())
    assert facts["kernels"] == rows["kernels"] and facts["topology"]["nodes"] >= 1
    assert {verdict.split(",")[0] for verdict in facts["records"].values()} == {"cannot"}
    page = (tmp_path / "machines" / "cpu-cpu.md").read_text()
    assert page == report.markdown(facts) and "| a/b | - | unavailable: no |" in page
    assert json.loads(CliRunner().invoke(main, ["doctor", "--collectives", "--json"]).stdout) == facts
    assert "all_reduce" in CliRunner().invoke(main, ["doctor", "--collectives"]).output
    assert "kernels" not in json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)


def test_a_benchmark_that_dies_keeps_what_it_found(tmp_path, capsys):
    script = tmp_path / "bench.py"
    script.write_text(f"print('''{json.dumps({'name': 'one', 'ms': 1})}''', flush=True)\nraise OSError('gone')")
    console = Console(soft_wrap=True)
    assert measure.measure(script, 1, False, console) == [{"name": "one", "ms": 1}]
    assert "bench.py crashed after one" in capsys.readouterr().out
    script.write_text("raise OSError('gone')")
    with pytest.raises(RunFailed, match="OSError: gone"):
        measure.measure(script, 1, False, console)
