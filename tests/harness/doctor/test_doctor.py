"""What a machine is told about itself: prognoses for every kind of machine, and the real benchmarks on this one."""

import json
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.archive import find as archive_module
from harness.cli import main
from harness.doctor import doctor
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


@pytest.mark.parametrize(
    "gpus, words",
    [
        ((), "smoke on 2 ranks: no CUDA GPU"),
        ((H100,) * 8, "official on 8 ranks"),
        ((H100,), "same-batch on 1 rank: 1 of 8 GPUs: accumulates over 8 micro-steps"),
        ((H100,) * 3, "same-batch on 2 ranks: 3 of 8 GPUs: accumulates over 4 micro-steps"),
        (
            (A100,) * 8,
            "same-batch on 8 ranks: not of the Hopper generation; its fast path needs compute capability 9.0",
        ),
        ((SMALL,), "cannot run: it needs 45 GiB of GPU memory and NVIDIA A10 has 22.0"),
    ],
)
def test_prognosis(record, gpus, words):
    assert doctor.prognosis(record, machine(*gpus)).startswith(words)


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
    assert "01, 21-22, 39-40  smoke on 2 ranks: no CUDA GPU" in result.output
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
    assert told["records"]["40"] == "smoke on 2 ranks: no CUDA GPU" and told["machine"]["cores"] == 2


def test_the_driver_says_what_torch_would():
    """On this machine; on one with a GPU this holds the two ways of asking against each other."""
    quick = _read_torch()
    assert quick is None or quick == _ask_torch()


def test_an_unusable_torch_is_said(fake_machine, monkeypatch):
    monkeypatch.setattr("harness.doctor.doctor.this_machine", lambda: machine(problem="ImportError: no libtorch"))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 2 and "nothing can be replayed: ImportError: no libtorch" in result.stderr


def test_every_kernel_is_measured_or_says_why_not():
    rows = doctor.measure(doctor.KERNELS, 1, bool(this_machine().gpus), Console(quiet=True))
    assert len(rows) == 8
    assert all(row.get("unavailable") or row["ms"] > 0 for row in rows)
    assert rows[0]["name"] == "bf16_matmul" and rows[0]["rate"].endswith("TFLOP/s")


def test_the_collectives_are_measured_over_real_ranks():
    rows = doctor.measure(doctor.COLLECTIVES, 2, False, Console(quiet=True))
    assert {row["name"] for row in rows} == {"all_reduce", "reduce_scatter", "all_gather"}
    for row in rows:
        assert row["ranks"] == 2 and row["algorithm_gb_s"] == pytest.approx(row["bytes"] / row["ms"] / 1e6)
        factor = 1.0 if row["name"] == "all_reduce" else 0.5
        assert row["bus_gb_s"] == pytest.approx(factor * row["algorithm_gb_s"])


def test_a_benchmark_that_dies_keeps_what_it_found(tmp_path, capsys):
    script = tmp_path / "bench.py"
    script.write_text(f"print('''{json.dumps({'name': 'one', 'ms': 1})}''', flush=True)\nraise OSError('gone')")
    console = Console(soft_wrap=True)
    assert doctor.measure(script, 1, False, console) == [{"name": "one", "ms": 1}]
    assert "bench.py crashed after one" in capsys.readouterr().out
    script.write_text("raise OSError('gone')")
    with pytest.raises(RunFailed, match="OSError: gone"):
        doctor.measure(script, 1, False, console)
