"""A plan is settled before anything starts: ranks, overrides, tokens, memory, label."""

import dataclasses
import re
from pathlib import Path

import pytest

from harness.archive import find as archive_module
from harness.errors import UserError
from harness.machine import Gpu, Machine
from harness.replay.plan import Options, make_plan
from harness.replay.tokens import check_tokens, shards_needed
from harness.tokens.manifest import Manifest

FAKE = (Path(__file__).parents[1] / "fake_train.py").read_text()
H100 = Gpu("NVIDIA H100 80GB HBM3", 79.1, (9, 0))
SMALL = Gpu("NVIDIA A10", 22.0, (8, 6))


def machine(*gpus):
    return Machine(gpus, "2.13.0", "13.0", "570", "cpu", 2, 24.0, "Linux")


@pytest.fixture
def record(archive):
    folder = archive / "2025-10-04-backout"
    (folder / "train.py").write_text(FAKE)
    return archive_module.load(folder)


def plan(record, *gpus, **options):
    options.setdefault("data_dir", record.folder / "data")
    (record.folder / "data").mkdir(exist_ok=True)
    return make_plan(record, Options(**options), machine(*gpus))


def test_without_cuda_it_is_the_records_smoke_test(record):
    made = plan(record)
    assert (made.label.name, made.ranks, made.overrides, made.steps) == ("smoke", 2, {"num_iterations": 4}, 4)


def test_with_eight_hoppers_it_is_the_record(record):
    made = plan(record, *[H100] * 8)
    assert (made.label.name, made.ranks, made.overrides, made.steps) == ("official", 8, {}, 10)


@pytest.mark.parametrize("present, ranks", [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8)])
def test_as_many_gpus_as_the_contract_allows(record, present, ranks):
    assert plan(record, *[H100] * present).ranks == ranks


def test_set_and_scale_change_the_label_and_the_steps(record):
    scaled = plan(record, H100, scale=0.5)
    assert (scaled.label.name, scaled.overrides) == ("shortened", {"num_iterations": 5})
    altered = plan(record, H100, assignments=("fp8=false",))
    assert (altered.label.name, altered.overrides) == ("shortened", {"fp8": "false"})
    smoke = plan(record, scale=0.5, assignments=("fp8=false",))
    assert smoke.overrides == {"num_iterations": 2, "fp8": "false"}


def test_the_published_curve_is_the_reference_of_the_records_own_run_alone(record):
    curve = ((0, 10.8), (10, 4.0))
    assert plan(record, *[H100] * 8).reference == plan(record, H100).reference == curve
    assert plan(record).reference == ()  # smoke
    assert plan(record, H100, scale=0.5).reference == plan(record, H100, assignments=("fp8=false",)).reference == ()


@pytest.mark.parametrize(
    "number, scheduled",
    [
        ("01", {"num_iterations": 196, "warmup_iterations": 7}),
        ("02", {"num_iterations": 95, "warmup_iterations": 3, "cooldown_iterations": 20}),
        ("05", {"num_iterations": 51, "cooldown_iterations": 14}),
        ("24", {"num_iterations": 18}),
        ("40", {"num_iterations": 23, "extension_iterations": 1}),
    ],
)
def test_a_schedule_is_scaled_with_its_parts(number, scheduled, tmp_path):
    """Not the untimed steps before it, which era B calls `warmup_iterations`."""
    scaled = Options(scale=0.01, data_dir=tmp_path)
    assert make_plan(archive_module.resolve(number), scaled, machine(H100)).overrides == scheduled


@pytest.mark.parametrize(
    "options, mode",
    [
        ({}, None),
        ({"watch": True}, "stop"),
        ({"guard": True}, "stop"),
        ({"on_anomaly": "continue"}, "continue"),
        ({"watch": True, "on_anomaly": "fallback"}, "fallback"),
    ],
)
def test_who_watches_and_what_for(options, mode):
    assert Options(**options).watching == mode


def test_watching_alone_logs_nothing_more(record):
    assert plan(record, *[H100] * 8, watch=True).label.name == "official"
    guarded = plan(record, *[H100] * 8, guard=True)
    assert guarded.telemetry == 1 and guarded.label.name == "same-batch"


def test_a_changed_frozen_script_is_no_record_run(record):
    frozen = dataclasses.replace(record, sha256=record.script_sha256())
    assert plan(frozen, *[H100] * 8).label.name == "official"
    changed = plan(dataclasses.replace(record, sha256="0" * 64), *[H100] * 8)
    assert changed.label.name == "shortened"
    assert changed.notes == ("train.py is not the frozen script of record 40: this is no record run",)


def test_arguments(record, tmp_path):
    made = plan(record, seed=7, telemetry=5)
    arguments = made.arguments(tmp_path / "log.txt", run=2)
    given = dict(zip(arguments[::2], arguments[1::2]))
    assert given == {
        "--data_dir": str(record.folder / "data"),
        "--log_file": str(tmp_path / "log.txt"),
        "--seed": "9",
        "--telemetry_every": "5",
        "--num_iterations": "4",
    }


def test_the_guard_watches(record):
    assert plan(record).telemetry == 0
    assert plan(record, guard=True).telemetry == 1
    assert plan(record, H100, guard=True, scale=100.0).telemetry == 100
    assert plan(record, H100, guard=True, telemetry=7).telemetry == 7


@pytest.mark.parametrize(
    "gpus, options, words",
    [
        ((), {"gpus": 3}, "3 ranks: a record runs on 1, 2, 4 or 8"),
        ((H100,), {"gpus": 2}, "--gpus 2: this machine has 1"),
        ((), {"gpus": 8, "nnodes": 2}, "16 ranks"),
        ((H100,), {"scale": -1.0}, "--scale -1.0"),
        ((), {"assignments": ("nope=1",)}, "no setting 'nope'"),
        ((SMALL,), {}, "record 40 needs 45 GiB of GPU memory and NVIDIA A10 has 22.0"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(record, gpus, options, words):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        plan(record, *gpus, **options)
    assert "\n" not in str(caught.value)


def test_a_small_gpu_is_told_what_to_lower(record):
    record.script.write_text(FAKE.replace("    do: str", "    val_row_tokens: int = 8\n    do: str"))
    said = r"lower row_tokens with --set row_tokens=512 \(now 1024\), which leaves the record's fidelity"
    with pytest.raises(UserError, match=said):
        plan(record, SMALL)
    assert plan(record, SMALL, assignments=("row_tokens=256",)).label.name == "shortened"


def test_a_smoke_setting_that_the_script_lacks_is_traced_to_its_file(record):
    broken = dataclasses.replace(record, smoke={"model_dimension": 3})
    with pytest.raises(UserError, match=r"record.toml, \[smoke\]: the script has no setting 'model_dimension'"):
        plan(broken)


def test_the_identity_of_a_plan(record):
    manifest = Manifest("books", "", "", {})
    same = plan(record).digest(manifest)
    assert plan(record, runs=5).digest(manifest) == same
    for other in (plan(record, seed=1), plan(record, scale=0.5), plan(record, gpus=1), plan(record, H100, smoke=True)):
        assert other.digest(manifest) != same
    assert plan(record).digest(None) != same


def corpus(name, millions):
    files = {f"fineweb_train_{n:06d}.bin": {"sha256": "", "tokens": 1_000_000} for n in range(millions)}
    return Manifest(name, "", "", files)


def test_too_few_tokens_are_said_with_the_shards_needed(record):
    made = plan(record, H100)  # 10 steps of 262,144 tokens
    assert check_tokens(made, corpus("fineweb10B", 3), repeat=False) == ""
    with pytest.raises(UserError, match=r"holds 2,000,000 .* take 2,621,440, 1.3 passes: fetch 8 shards"):
        check_tokens(made, corpus("fineweb10B", 2), repeat=False)
    with pytest.raises(UserError, match="allow several passes"):
        check_tokens(made, corpus("books", 2), repeat=False)
    assert "1.3 passes" in check_tokens(made, corpus("books", 2), repeat=True)


def test_fewer_steps_need_fewer_shards(record):
    assert shards_needed(plan(record, H100)) == 8
    assert shards_needed(plan(record, H100, scale=0.5)) == 4
    assert shards_needed(plan(record, H100, scale=0.1)) == 1
