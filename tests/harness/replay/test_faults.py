"""What goes wrong on rented machines, made to happen: each ends in words, with everything stopped and the log kept."""

import dataclasses
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.machine import Gpu
from harness.replay import cache, launch, processes, runs
from harness.replay.fidelity import LABELS, in_company
from harness.replay.torchrun import Nodes, environment, torchrun_command
from tests.harness.mine import replay_mine

OTHER_JOBS = processes.other_jobs  # as it is: `fake_machine` has nobody else on the machine
COLLECTIVE = Path(__file__).parents[1] / "collective_train.py"


@pytest.fixture
def replay(fake_machine):
    """Calls `harness replay 40` with these arguments, in the small archive, and returns click's result."""
    return lambda *arguments: CliRunner().invoke(main, ["replay", "40", *arguments])


@pytest.fixture
def with_a_gpu(fake_machine, monkeypatch, tmp_path):
    """Gives the machine an H100 and a driver of this version; its caches are of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def give(driver):
        machine = dataclasses.replace(fake_machine, gpus=(Gpu("H100", 79.1, (9, 0)),), driver=driver)
        monkeypatch.setattr("harness.replay.replay.this_machine", lambda: machine)
        return machine

    return give


def runs_of(slug="2025-10-04-backout"):
    return [json.loads(path.read_text()) for path in sorted(Path("runs", slug).glob("*/run.json"))]


def two_ranks(folder, do, **options):
    """A job of two real ranks that meet in collectives, run to its end."""
    command = torchrun_command(COLLECTIVE, [do], 2, folder)
    return launch.run(launch.Job(command, folder, environment(2, cuda=False), **options))


def test_a_rank_killed_in_the_middle_of_a_step(tmp_path):
    ended = two_ranks(tmp_path, "killed")
    assert ended.outcome == "crashed"
    assert ended.trouble.startswith("rank 1 was killed by SIGKILL (signal 9)") and "after step 3" in ended.trouble
    assert ended.witness.metrics[-1].step == 3


def test_a_rank_that_hangs_in_a_collective_is_the_one_that_stands_elsewhere(tmp_path):
    ended = two_ranks(tmp_path, "hang", stall_timeout_s=25.0)
    assert ended.outcome == "stalled"
    first, zero, one = ended.trouble.splitlines()
    assert first == "no metric line for 25 s, after step 3"
    lines = COLLECTIVE.read_text().splitlines()
    waits, sleeps = (next(i for i, line in enumerate(lines, 1) if text in line) for text in ("dist.all_r", "sleep(300"))
    assert zero == f"rank 0 stood at collective_train.py:{waits} in step, within all_reduce"
    assert one == f"rank 1 stood at collective_train.py:{sleeps} in oversleep"
    assert not list(tmp_path.glob("core*"))


def test_two_nodes_meet_in_collectives(tmp_path):
    """Two launchers with a rank each, as on two machines: one group of two, and only node 0 speaks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"

    def node(rank):
        folder = tmp_path / f"node{rank}"
        folder.mkdir()
        command = torchrun_command(COLLECTIVE, ["finish"], 1, folder, Nodes(2, rank, endpoint))
        return launch.run(launch.Job(command, folder, environment(1, cuda=False), speaks=rank == 0))

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(node, (0, 1))
    assert (first.outcome, second.outcome) == ("finished", "finished"), (first.trouble, second.trouble)
    assert first.witness.validations[0].loss == 2.0 and not second.witness.metrics


def test_out_of_memory_names_the_setting_to_lower_and_what_it_costs(replay):
    result = replay("--set", "do=memory")
    assert result.exit_code == 1 and "MemoryError" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("out of memory: ")]
    assert line.startswith("out of memory: lower row_tokens with --set row_tokens=512 (now 1024), which leaves the")
    assert "`shortened`: the code path at full size alone" in line


def test_out_of_memory_is_not_the_compile_caches_fault(with_a_gpu, replay, monkeypatch):
    """Compiled code lies in the cache, so that every traceback through it names the cache."""
    with_a_gpu("570")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", os.getcwd())
    result = replay("--smoke", "--set", "do=memory")
    assert result.exit_code == 1 and os.getcwd() in result.stderr
    assert "out of memory: lower" in result.stderr and "stale or damaged" not in result.stderr


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_ends_the_run(tmp_path, sign):
    harness = replay_mine(tmp_path, "--set", "do=stall", "--runs-dir", "runs")
    while "step 0/10" not in (line := harness.stdout.readline()):
        assert line, harness.stderr.read()
    harness.send_signal(sign)
    _, said = harness.communicate(timeout=60)
    assert harness.returncode == 128 + sign
    assert f"mine.py interrupted: by {sign.name}, after step" in said and "Traceback" not in said
    (facts,) = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "mine").glob("*/run.json")]
    assert facts["outcome"] == "interrupted"


def test_two_replays_at_once_keep_apart_and_say_so(replay, monkeypatch):
    assert not runs.create(Path("runs"), "x").samefile(runs.create(Path("runs"), "x"))
    assert "another replay" not in replay().output
    monkeypatch.setattr("harness.replay.processes.other_jobs", OTHER_JOBS)
    busy = "import time; print('up', flush=True); time.sleep(300)"
    env = {**os.environ, "SPEEDRUN_JOB": "another"}
    other = subprocess.Popen([sys.executable, "-c", busy], env=env, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        assert "another" in OTHER_JOBS("mine") and "another" not in OTHER_JOBS("another")
        result = replay()
    finally:
        other.kill()
        other.wait()
    assert result.exit_code == 0 and "another replay ran on this machine meanwhile" in result.output
    assert [facts["company"] for facts in runs_of()] == [False, True]


def test_a_run_in_company_is_not_official():
    assert [in_company(label).name for label in LABELS.values()] == ["same-batch", *list(LABELS)[1:]]


def test_kernels_of_another_driver_are_not_met(with_a_gpu, replay, monkeypatch, tmp_path):
    arguments = ["--smoke", "--set", "do=cache", "--set"]
    for driver in ("570", "580", "570"):
        with_a_gpu(driver)
        assert replay(*arguments, f"driver={driver}").exit_code == 0
    assert len(list((tmp_path / "cache").rglob("kernel"))) == 2
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared))  # what the user sets stays, and can be stale
    assert replay(*arguments, "driver=570").exit_code == 0
    result = replay(*arguments, "driver=580")
    assert result.exit_code == 1 and f"stale or damaged: delete {shared} and run again" in result.stderr


def test_nothing_is_cached_where_nothing_is_compiled(fake_machine):
    assert cache.compile_cache(fake_machine) == {}


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_jumps_in_the_middle_of_a_run(replay, monkeypatch, hours):
    true_now, began = runs.now, time.monotonic()
    assert replay("--runs", "2").exit_code == 0
    leap = datetime.timedelta(hours=hours)
    calls = iter([datetime.timedelta()] * 2)
    monkeypatch.setattr("harness.replay.runs.now", lambda: true_now() + next(calls, leap))
    assert replay("--runs", "3").exit_code == 0
    facts = runs_of()[-1]  # the newest by its name, though the clock may say otherwise
    assert facts["number"] == 2 and facts["clock_jump_s"] == pytest.approx(3600 * hours, abs=2)
    started, ended = (datetime.datetime.fromisoformat(facts[name]) for name in ("started", "ended"))
    assert 0 <= (ended - started).total_seconds() < time.monotonic() - began + 1
    assert facts["witness"]["clock_s"] == sorted(facts["witness"]["clock_s"])
    assert replay("--runs", "4").exit_code == 0
    newest = runs_of()[-1]
    assert newest["number"] == 3 and newest["batch"] == facts["batch"] and newest["run_id"] > facts["run_id"]


def test_a_scripts_own_clock_that_jumps_is_told_by_the_witness(replay):
    replay("--scale", "5", "--set", "do=clock")
    (facts,) = runs_of()
    witness = facts["witness"]
    assert witness["log_ms"][-1] > 3_600_000 and witness["clock_s"][-1] < 600
