"""The main job, from a name to a verdict, on fake scripts; and every way in which it ends early."""

import dataclasses
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.archive.evidence import stage_medians
from harness.archive.find import resolve
from harness.cli import main
from harness.errors import UserError
from harness.files import write_whole
from harness.machine import Gpu
from harness.replay import runs
from harness.replay.outcome import Result, pace, smoke_problem
from harness.tokens.synthetic import ensure_synthetic
from tests.harness.mine import replay_mine
from timing.log import read_log


@pytest.fixture
def replay(fake_machine):
    """Calls `harness replay` with these arguments, in the small archive, and returns click's result."""
    return lambda *arguments: CliRunner().invoke(main, ["replay", *arguments])


def runs_of(slug="2025-10-04-backout"):
    return [json.loads(path.read_text()) for path in sorted(Path("runs", slug).glob("*/run.json"))]


def test_a_date_is_replayed(replay, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    result = replay("2025-10-15", "--seed", "3")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "2025-10-15 is record 40, set on 2025-10-04"
    assert lines[1].startswith("no CUDA here: smoke replay (toy size") and lines[1].endswith("its speed or its loss")
    for said in ("first validation loss 7.0000", "last validation loss  6.0000", "entropy floor         1.8", "PASSED"):
        assert said in result.output
    (facts,) = runs_of()
    folder = Path("runs/2025-10-04-backout", facts["run_id"])
    assert f"run folder            {folder}" in result.output
    assert {path.name for path in folder.iterdir()} == {"log.txt", "stdout.txt", "stderr.txt", "run.json"}
    assert facts["schema"] == 1 and facts["outcome"] == "finished" and facts["exit"] == 0
    assert (facts["record"], facts["fidelity"], facts["seed"]) == ("40", "smoke", 3)
    assert facts["overrides"] == {"num_iterations": 4}
    assert facts["manifest"]["name"] == "synthetic" and len(facts["manifest"]["digest"]) == 64
    assert not any(part.startswith("/") for part in facts["command"])
    assert facts["environment"]["NCCL_DEBUG"] == "WARN" and facts["environment"]["OMP_NUM_THREADS"].isdigit()
    witness = facts["witness"]
    assert witness["step"] == [0, 1, 2, 2, 3, 4, 4] and witness["kind"][-1] == "val"
    assert witness["clock_s"] == sorted(witness["clock_s"]) and len(witness["log_ms"]) == 7


def test_several_runs_are_taken_up_again(replay):
    assert replay("40", "--seed", "5").exit_code == 0
    result = replay("40", "--seed", "5", "--runs", "3")
    assert "1 of 3 runs are done already" in result.output
    assert [facts["seed"] for facts in runs_of()] == [5, 6, 7]
    assert "last validation loss  6.0000 ± 0.0000" in result.output
    assert result.output.count("run folder") == 3
    assert replay("40", "--seed", "5", "--runs", "3").exit_code == 0
    assert len(runs_of()) == 3
    assert replay("40", "--seed", "5", "--runs", "2", "--fresh").exit_code == 0
    assert len(runs_of()) == 5
    assert "2 of 3 runs are done already" in replay("40", "--seed", "5", "--runs", "3").output  # of the fresh ones
    assert len(runs_of()) == 6


def test_runs_that_did_not_finish_are_made_again(replay, archive):
    script = archive / "2025-10-04-backout" / "train.py"
    assert replay("40", "--runs", "2", "--set", "do=stop_early").exit_code == 1
    assert replay("40", "--runs", "2", "--set", "do=stop_early").exit_code == 1
    assert [facts["outcome"] for facts in runs_of()] == ["unfinished", "unfinished"]
    script.write_text(script.read_text() + "\n")
    assert "done already" not in replay("40", "--runs", "2").output


def test_one_run_asked_for_is_one_run_made(replay):
    replay("40")
    replay("40")
    assert len(runs_of()) == 2


@pytest.mark.parametrize(
    "what, words",
    [
        ("stop_early", "record 40 unfinished: the script exited with 0 after step 4, without its final validation"),
        ("bad_input", "record 40 crashed: error: num_iterations must be even"),
    ],
)
def test_a_run_that_fails_exits_1_and_keeps_what_it_wrote(replay, what, words):
    result = replay("40", "--set", f"do={what}")
    assert result.exit_code == 1
    (facts,) = runs_of()
    assert words in result.output and f"what it wrote is in runs/2025-10-04-backout/{facts['run_id']}" in result.output


def test_a_run_shorter_than_the_smoke_test_is_not_held_to_its_margin(replay):
    result = replay("40", "--scale", "0.5", "--set", "last_loss=6.95")
    assert result.exit_code == 0 and "PASSED" not in result.output
    assert (
        "it runs and stays above the floor; too short for a smoke test, which asks for a fall by 0.1" in result.output
    )
    result = replay("40", "--scale", "0.5", "--set", "do=diverge")
    assert result.exit_code == 1 and "smoke test failed: the loss went from 7.0000 to nan" in result.output


def test_a_stall_exits_1(replay):
    result = replay("40", "--set", "do=stall", "--stall-timeout", "0.5")
    assert result.exit_code == 1
    assert "record 40 stalled: no metric line for 0.5 s, after step 1" in result.output


@pytest.mark.parametrize(
    "changes, words",
    [
        (["last_loss=6.95"], "the loss went from 7.0000 to 6.9500, and should have fallen by 0.1"),
        (["do=diverge"], "and should have fallen by 0.1"),
        (["last_loss=1.5"], "the loss 1.5000 is below the source's entropy"),
    ],
)
def test_a_smoke_test_fails_on_its_loss(replay, changes, words):
    result = replay("40", *(part for change in changes for part in ("--set", change)))
    assert result.exit_code == 1
    assert "smoke test failed" in result.output and words in result.output


def test_the_smoke_rule():
    assert smoke_problem([7.0, 6.0], 1.0, 2.0) == ""
    assert smoke_problem([7.0, 6.0], 1.0, None) == ""
    assert "fewer than two" in smoke_problem([7.0], 1.0, 2.0)


def test_the_guard_reports_fallbacks(replay):
    assert "fp8 fallbacks         none" in replay("40", "--guard").output
    result = replay("40", "--guard", "--set", "do=fallback")
    assert "fp8 fallbacks         fallback step:1 fp8 -> bf16: a scale overflowed" in result.output


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["bakout"], "no record 'bakout'; near it: 40 (2025-10-04-backout)"),
        (["40", "--set", "model_dim=3"], "the script has no setting 'model_dim'"),
        (["40", "--runs", "0"], "'--runs': 0 is not in the range"),
        (["40", "--node-rank", "5"], "--node-rank 5: of 1 nodes (--nnodes) the last is 0"),
        (["40", "--nnodes", "0"], "'--nnodes': 0 is not in the range"),
        (["40", "--stall-timeout", "nan"], "nan is not a number that anything could be done with"),
        (["40", "--scale", "inf"], "inf is not a number that anything could be done with"),
        (["40", "--telemetry", "-1"], "'--telemetry': -1 is not in the range"),
        (["40", "--set", "num_iterations=-3"], "num_iterations is at least 1, not -3"),
        (["40", "--set", "val_tokens=0"], "val_tokens is at least 1, not 0"),
        (["40", "--set", "last_loss=nan"], "last_loss is a finite number, not nan"),
        (["40", "--seed", str(2**63)], "is not in the range"),
        (["40", "--seed", str(2**63 - 1), "--runs", "2"], "it must stay below 2**63"),
        (["40", "--data-dir", "nowhere"], "--data-dir nowhere: no such folder; `harness data --data-dir nowhere`"),
        (["40", "--gpus", "0"], "'--gpus': 0 is not in the range"),
        (["40", "--no-such-option"], "No such option"),
        (["40", "--runs-dir", "/proc/nowhere"], "cannot be made"),
        (["40", "--nnodes", "2", "--gpus", "1"], "several nodes need node 0's HOST:PORT"),
        (["missing/train.py"], "no such script or record folder"),
    ],
)
def test_user_mistakes_are_one_line(replay, arguments, words):
    result = replay(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.output
    assert not Path("runs").exists()


def test_a_record_with_a_missing_key(replay, archive):
    facts = archive / "2025-10-04-backout" / "record.toml"
    facts.write_text(facts.read_text().replace('title = "backout"\n', ""))
    result = replay("40")
    assert result.exit_code == 2 and "missing key title" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(replay, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    result = replay("40", "--runs-dir", str(tmp_path / "locked"))
    assert result.exit_code == 2 and "choose another place with --runs-dir" in result.stderr


def test_code_of_others_is_not_run_unasked(replay, tmp_path):
    (tmp_path / "theirs.py").write_text("open('ran', 'w')")
    result = replay("theirs.py")
    assert result.exit_code == 2
    assert "theirs.py is not of this archive" in result.stderr and "add --trust" in result.stderr
    assert not list(tmp_path.rglob("ran"))


@pytest.fixture
def with_a_gpu(fake_machine, monkeypatch):
    """The same machine, with an H100 as far as the harness can tell."""
    gpu = Gpu("NVIDIA H100 80GB HBM3", 79.1, (9, 0))
    monkeypatch.setattr("harness.replay.replay.this_machine", lambda: dataclasses.replace(fake_machine, gpus=(gpu,)))


def test_a_stand_in_run_is_projected_and_judged(replay, with_a_gpu):
    ensure_synthetic("books")
    refused = replay("40", "--data-dir", "books")
    assert refused.exit_code == 2 and "1.2 passes: add shards, ask for fewer steps" in refused.stderr
    result = replay("40", "--data-dir", "books", "--repeat", "--set", "step_seconds=0.01")
    assert result.exit_code == 0, result.output
    assert "shortened replay" in result.output and "1.2 passes" in result.output
    assert "projected" not in result.output and "entropy floor" not in result.output
    result = replay("40", "--data-dir", "books", "--repeat")
    assert "stand-in replay (real size, another corpus)" in result.output
    assert "training time         0.010 s for 10 steps" in result.output
    assert "projected on 8 GPUs   0.001 s, if communication cost nothing" in result.output
    assert "median step           1.0 ms" in result.output
    assert "proves                speed and stability, not the loss target" in result.output
    assert "verdict               as a record run, which it is not, it FAILS under" in result.output


def test_the_pace_is_told_for_each_stage_of_a_batch_that_grows(tmp_path):
    record = resolve("89")
    folder = record.logs / record.shown.run
    facts = json.loads((folder / "run.json").read_text())
    result = Result.of(folder, facts)
    assert result.stages_ms(3) == stage_medians(read_log(folder / "log.txt"), facts, 3)
    assert result.step_ms == sorted(result.stages_ms(3))[1]
    assert ("median step", "{:.1f}, {:.1f}, {:.1f} ms in its stages".format(*result.stages_ms(3))) in pace(
        record, [result]
    )
    (tmp_path / "stdout.txt").write_text("nothing\n")
    assert pace(record, [Result.of(tmp_path, facts)]) == []


def test_fineweb_is_fetched_for_a_record_run(replay, with_a_gpu, monkeypatch):
    def ensure_fineweb(data_dir, shards):
        raise UserError(f"asked for {shards} shards in {data_dir}")

    monkeypatch.setattr("harness.tokens.prepare.ensure_fineweb", ensure_fineweb)
    result = replay("40")
    assert "same-batch replay (FineWeb" in result.output
    assert result.stderr == "error: asked for 8 shards in data/fineweb10B\n"
    assert "asked for 4 shards" in replay("40", "--scale", "0.5").stderr


PUBLIC = """\
import glob, os
assert glob.glob("data/fineweb10B/fineweb_train_*.bin"), "no data"
os.mkdir("logs")
with open("logs/1234.txt", "w") as log:
    for step, loss in ((0, 9.0), (1, 8.0)):
        line = f"step:{step}/1 val_loss:{loss} train_time:{step}ms step_avg:nanms"
        print(line, flush=True)
        print(line, file=log)
"""


def test_a_script_without_settings_finds_the_data_and_its_log_is_kept(replay, with_a_gpu, tmp_path):
    (tmp_path / "theirs.py").write_text(PUBLIC)
    ensure_synthetic("books")
    result = replay("theirs.py", "--trust", "--data-dir", "books")
    assert result.exit_code == 0, result.output
    assert "as-found replay (someone's script as it is: its data, batch and clock are its own affair)" in result.output
    assert "first validation loss 9.0000" in result.output
    (facts,) = runs_of("theirs")
    assert Path("runs/theirs", facts["run_id"], "log.txt").read_text().startswith("step:0/1")
    assert facts["fidelity"] == "as-found"
    assert replay("theirs.py", "--trust", "--seed", "1").exit_code == 2


def test_a_script_without_settings_is_refused_without_cuda(replay, tmp_path):
    (tmp_path / "theirs.py").write_text(PUBLIC)
    result = replay("theirs.py", "--trust")
    assert result.exit_code == 2 and "smoke" not in result.output
    assert "takes no settings, so it has no toy size" in result.stderr and "there is no CUDA here" in result.stderr
    assert not Path("runs").exists()


def test_a_full_disk_leaves_a_run_json_that_says_so(replay, monkeypatch):
    def create(runs_dir, slug):
        folder = make(runs_dir, slug)
        (folder / "stdout.txt").symlink_to("/dev/full")
        return folder

    make = runs.create
    monkeypatch.setattr("harness.replay.runs.create", create)
    result = replay("40", "--set", "do=stall")
    assert result.exit_code == 1 and "stdout.txt: No space left on device" in result.stderr
    (facts,) = runs_of()
    assert facts["outcome"] == "unfinished" and "No space left on device" in facts["trouble"]


def test_a_full_disk_has_room_for_the_facts(tmp_path, monkeypatch):
    """Whatever a run has written, its `run.json` finds the space that was kept, if need be without its witness."""
    folder = runs.create(tmp_path, "slug")
    assert (folder / runs.RESERVE).stat().st_size == runs.RESERVE_BYTES
    sizes = []

    def write(path, text):
        sizes.append(len(text))
        if len(text) > 1000:
            raise OSError(28, "No space left on device")
        return write_whole(path, text)

    monkeypatch.setattr("harness.replay.runs.write_whole", write)
    runs.write(folder, {"outcome": "unfinished", "witness": {"step": list(range(1000))}})
    assert [path.name for path in folder.iterdir()] == ["run.json"] and len(sizes) == 2
    assert runs.read(folder) == {"schema": 1, "outcome": "unfinished", "witness": None}


def test_a_dry_run_tells_all_and_does_nothing(replay, tmp_path):
    result = replay("40", "--dry-run", "--runs", "3")
    assert result.exit_code == 0, result.output
    facts = dict(line.split(maxsplit=1) for line in result.output.splitlines()[1:] if len(line.split(maxsplit=1)) == 2)
    assert facts["fidelity"] == "smoke" and facts["steps"] == "4" and facts["on"].startswith("2 ranks on cpu")
    assert "synthetic source in data/synthetic, made in a few seconds" in facts["data"]
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


def test_a_dry_run_with_a_gpu_tells_data_and_time(replay, with_a_gpu):
    told = json.loads(replay("40", "--dry-run", "--json").stdout)
    assert told["fidelity"] == "same-batch" and told["does not prove"] == "the time"
    assert "8 train shards of FineWeb" in told["data"] and "9 to fetch, 1.8 GB" in told["data"]
    assert told["cost"].startswith("about 18.9 minutes of training a run")  # 2.358 on eight


def test_json_goes_to_stdout_alone(replay):
    result = replay("40", "--json")
    told = json.loads(result.stdout)
    assert told["record"] == "40" and told["runs"][0]["last_val_loss"] == 6.0 and "PASSED" in told["verdict"]
    assert "smoke replay" in result.stderr


def test_the_nearest_is_taken_only_when_asked(replay, archive):
    header = "number,date,title,listed_minutes,steps,tokens_per_step,log_step_avg_ms,log_val_loss,runs,mean_val_loss,"
    row = "41,2025-10-24,NorMuon,2.345,2315,,,,,,,,,@li,144"
    (archive / "leaderboard.csv").write_text(f"{header}torch,gpus,gpu,credit,pull_request\n{row}\n")
    refused = replay("2025-12-25")
    assert refused.exit_code == 2 and not Path("runs").exists()
    assert "2025-12-25 is record 41, set on 2025-10-24; its script is not in this archive" in refused.stderr
    assert "The nearest that is: 40 (2025-10-04-backout); name it, or add --nearest" in refused.stderr
    assert "record 41 is of 2025-10-24 (NorMuon)" in replay("41").stderr
    taken = replay("2025-12-25", "--nearest")
    assert taken.exit_code == 0 and "taking record 40, 2025-10-04-backout" in taken.output


def test_ctrl_c_stops_every_rank(tmp_path):
    """The real thing: the command, torchrun, two ranks, each with a child in a session of its own."""
    process = replay_mine(tmp_path, "--set", "do=sleep", "--runs-dir", "runs", "--data-dir", ".")
    while "step 0/10" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    ranks = below(tmp_path)
    assert len(ranks) >= 5  # torchrun, two ranks, their children
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "mine.py interrupted: by SIGINT, after step 1; every rank was stopped" in said and "Traceback" not in said
    assert not below(tmp_path)
    (folder,) = (tmp_path / "runs" / "mine").iterdir()
    assert json.loads((folder / "run.json").read_text())["outcome"] == "interrupted"


def test_a_key_that_is_held_down_loses_no_facts(tmp_path):
    process = replay_mine(tmp_path, "--set", "do=sleep", "--runs-dir", "runs", "--data-dir", ".")
    while "step 0/10" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)
    process.communicate(timeout=30)
    assert not below(tmp_path)
    (folder,) = (tmp_path / "runs" / "mine").iterdir()
    assert json.loads((folder / "run.json").read_text())["outcome"] == "interrupted"


def test_a_reader_that_goes_away_ends_no_run(tmp_path):
    process = replay_mine(tmp_path, "--set", "step_seconds=0.2", "--runs-dir", "runs", "--data-dir", ".", "--runs", "2")
    while "step 0/10" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == ""
    outcomes = [json.loads(path.read_text())["outcome"] for path in (tmp_path / "runs").rglob("run.json")]
    assert outcomes == ["finished", "finished"]


def test_two_nodes(tmp_path):
    """Two machines, here one: node 0 has the metrics and the verdict, node 1 says where they are."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        endpoint = f"localhost:{probe.getsockname()[1]}"
    nodes = []
    for rank in (0, 1):
        place = ["--nnodes", "2", "--gpus", "1", "--node-rank", str(rank), "--rdzv-endpoint", endpoint]
        (tmp_path / f"data{rank}").mkdir()
        nodes.append(replay_mine(tmp_path, *place, "--data-dir", f"data{rank}", "--runs-dir", f"runs{rank}"))
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "last validation loss  6.0000" in said[0] and "PASSED" in said[0]
    assert said[1].endswith("done; node 0 has the log and the verdict\n")


def below(folder):
    """Ids of living processes whose command line names something in `folder`, after a moment to settle."""
    time.sleep(0.5)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found
