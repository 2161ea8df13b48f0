"""Our own runs as tables: read from folders that anybody may have written."""

import json
import shutil

import pytest

from harness.history.replayed import read_replays
from harness.history.run_rows import witness_ratio

LOG = """x = 1
{bar}
Running Python 3.11.7 (main) [GCC 12.2.0]
Running PyTorch 2.13.0+cpu compiled for CUDA None
world_size=1 accumulation=8
seed=1337
{bar}
step:0/4 val_loss:10.8258 train_time:0ms step_avg:0.00ms
step:1/4 train_time:500ms step_avg:500.00ms
step:2/4 train_time:980ms step_avg:490.00ms
step:3/4 train_time:1460ms step_avg:486.67ms
step:4/4 train_time:1940ms step_avg:485.00ms
step:4/4 val_loss:3.2781 train_time:1940ms step_avg:485.00ms
peak memory allocated: 29226 MiB reserved: 44076 MiB
""".format(bar="=" * 100)


def write_run(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(LOG)
    facts = {
        "schema": 1,
        "record": "40",
        "slug": "2025-10-04-backout",
        "run_id": folder.name,
        "fidelity": "stand-in",
        "gpus": 1,
        "nnodes": 1,
        "machine": {"gpu": "NVIDIA H100 80GB HBM3", "cores": 16},
        "outcome": "finished",
        "witness": {"kind": ["train"] * 4, "log_ms": [500, 980, 1460, 1940], "clock_s": [1.0, 1.485, 1.97, 2.455]},
    }
    (folder / "run.json").write_text(json.dumps(facts | changes))
    return folder


def test_a_run_with_its_curve_pace_and_witness(tmp_path):
    write_run(tmp_path / "2025-10-04-backout" / "a")
    replays = read_replays(tmp_path, tmp_path / "none")
    (run,) = replays.runs.itertuples()
    assert (run.number, run.fidelity, run.machine, run.ranks) == ("40", "stand-in", "1 × NVIDIA H100 80GB HBM3", 1)
    assert (run.steps, run.val_loss, run.step_ms, run.peak_memory_mib) == (4, 3.2781, 480.0, 29226)
    assert run.minutes == pytest.approx(1940 / 60_000) and run.complete and not run.committed
    assert run.witness_ratio == pytest.approx(1.455 / 1.44)
    assert list(replays.curves.val_loss) == [10.8258, 3.2781]


@pytest.mark.parametrize(
    "row, pace, minutes",
    [("480,4", 480.0, 1940 / 60_000), ("490,4", 490.0, 1940 / 60_000), ("470,2", 470.0, None), (",", None, None)],
)
def test_a_kept_run_has_the_times_that_its_card_to_itself_gave(tmp_path, row, pace, minutes):
    write_run(tmp_path / "2025-10-04-backout" / "logs" / "a")
    (tmp_path / "shown.csv").write_text(f"run,median_ms,alone_steps\nb,1,4\na,{row}\n")
    run = read_replays(tmp_path / "none", tmp_path).runs.iloc[0]
    assert (run.step_ms, run.minutes) == (pace, minutes) and (run.witness_ratio is None) == (minutes is None)


def test_a_committed_run_counts_once(tmp_path):
    run = write_run(tmp_path / "runs" / "slug" / "a")
    shutil.copytree(run, tmp_path / "records" / "2025-10-04-backout" / "logs" / "a")
    replays = read_replays(tmp_path / "runs", tmp_path / "records")
    assert list(replays.runs.committed) == [True]
    assert len(replays.curves) == 2


@pytest.mark.parametrize(
    ("file", "content"), [("run.json", "{"), ("run.json", '{"schema": 99}'), ("log.txt", ""), ("log.txt", None)]
)
def test_a_folder_that_cannot_be_read_is_left_out_with_a_reason(tmp_path, file, content):
    write_run(tmp_path / "slug" / "good")
    bad = write_run(tmp_path / "slug" / "bad")
    (bad / file).unlink()
    if content is not None:
        (bad / file).write_text(content)
    replays = read_replays(tmp_path, tmp_path / "none")
    assert "good" in set(replays.runs.run_id)
    if "bad" not in set(replays.runs.run_id):
        assert replays.unread[str(bad)]
    else:
        assert not replays.runs.set_index("run_id").complete["bad"]


def test_texts_of_a_stranger_are_made_harmless(tmp_path):
    escape = "\x1b[31mred\u202e" + "x" * 500
    machine = {"gpu": escape, "cores": "many"}
    write_run(
        tmp_path / "slug" / "a", record=escape, fidelity=escape, machine=machine, outcome=escape, gpus=True, seed=[]
    )
    (run,) = read_replays(tmp_path, tmp_path / "none").runs.itertuples()
    assert run.fidelity == "unknown fidelity" and run.ranks == 1
    for text in (run.number, run.machine, run.outcome, run.seed):
        assert "\x1b" not in text and "\u202e" not in text and len(text) < 100


def test_machine_without_a_gpu_or_without_facts(tmp_path):
    write_run(tmp_path / "slug" / "a", machine={"gpu": None, "cpu": "Some CPU", "cores": 2})
    write_run(tmp_path / "slug" / "b", machine=None)
    runs = read_replays(tmp_path, tmp_path / "none").runs
    assert list(runs.machine) == ["Some CPU, 2 cores", "unknown CPU, 0 cores"]


@pytest.mark.parametrize(
    "witness",
    [None, {}, 7, {"kind": ["train"]}, {"kind": ["train", "train"], "log_ms": [1], "clock_s": [1, 2]},
     {"kind": ["train", "train"], "log_ms": ["x", 2], "clock_s": [1, 2]},
     {"kind": ["train", "val"], "log_ms": [1, 2], "clock_s": [1, 2]}],
)  # fmt: skip
def test_a_useless_witness_says_nothing(witness):
    assert witness_ratio(witness) is None


def test_the_witness_is_compared_only_between_training_lines():
    witness = {"kind": ["train", "val", "train", "train"], "log_ms": [0, 0, 100, 200], "clock_s": [0, 9, 10, 10.101]}
    assert witness_ratio(witness) == pytest.approx(1.01)


def test_the_witness_is_not_compared_where_era_a_sets_its_clock_back():
    witness = {"kind": ["train"] * 4, "log_ms": [8000, 9000, 100, 200], "clock_s": [18, 19.01, 20, 20.101]}
    assert witness_ratio(witness) == pytest.approx(1.111 / 1.1)
