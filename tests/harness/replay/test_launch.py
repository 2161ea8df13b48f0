"""A job ends in one of five ways, each in words, and leaves no process behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.replay import crash, launch, processes
from harness.replay.torchrun import Nodes, bearing, check_port, environment, torchrun_command

FAKE = Path(__file__).parents[1] / "fake_train.py"


def direct(folder, *arguments, **options):
    """The fake script as a job of one process, without torchrun."""
    log = ["--log_file", str(folder / "log.txt")]
    return launch.Job([sys.executable, str(FAKE), *log, *arguments], folder, environment(1, cuda=False), **options)


def under_torchrun(folder, *arguments):
    """The fake script as a job of two ranks."""
    arguments = ["--log_file", str(folder / "log.txt"), *arguments]
    return launch.Job(torchrun_command(FAKE, arguments, 2, folder), folder, environment(2, cuda=False))


def test_a_finished_job_is_witnessed(tmp_path):
    heard = []
    ended = launch.run(direct(tmp_path), lambda metric, clock: heard.append(metric.step))
    assert (ended.outcome, ended.exit, ended.trouble) == ("finished", 0, "")
    columns = ended.witness.as_columns()
    assert columns["step"] == heard and heard[-1] == 10
    assert columns["clock_s"] == sorted(columns["clock_s"])
    assert (tmp_path / "stdout.txt").read_text().endswith("peak memory allocated: 1 MiB reserved: 2 MiB\n")


def test_the_witness_measures_what_the_script_claims(tmp_path):
    ended = launch.run(direct(tmp_path, "--step_seconds", "0.05", "--val_loss_every", "100"))
    train = [(m.step, clock) for m, clock in zip(ended.witness.metrics, ended.witness.clock_s) if m.kind == "train"]
    (first, start), (last, end) = train[0], train[-1]
    assert (end - start) / (last - first) == pytest.approx(0.05, rel=0.2)


def test_exit_0_without_the_last_validation_is_unfinished(tmp_path):
    ended = launch.run(direct(tmp_path, "--do", "stop_early"))
    assert (ended.outcome, ended.exit) == ("unfinished", 0)
    assert "without its final validation" in ended.trouble


def test_a_stall_is_ended(tmp_path):
    ended = launch.run(direct(tmp_path, "--do", "stall", stall_timeout_s=0.5))
    assert ended.outcome == "stalled"
    assert ended.trouble == "no metric line for 0.5 s, after step 1"
    assert not processes_of(str(tmp_path / "log.txt"))


def test_a_line_of_error_is_passed_on(tmp_path):
    ended = launch.run(direct(tmp_path, "--do", "bad_input"))
    assert (ended.outcome, ended.trouble) == ("crashed", "error: num_iterations must be even")


def test_a_command_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="cannot start"):
        launch.run(launch.Job([str(tmp_path / "none")], tmp_path, {}))


def test_the_crashing_rank_speaks_and_the_others_stop(tmp_path):
    began = time.monotonic()
    ended = launch.run(under_torchrun(tmp_path, "--do", "crash"))
    assert ended.outcome == "crashed"
    assert ended.trouble.startswith("rank 1 crashed:\nTraceback")
    assert ended.trouble.endswith("ArithmeticError: the loss of rank 1 is not a number")
    assert "rank 1 ---" in (tmp_path / "stderr.txt").read_text()
    assert not (tmp_path / "ranks").exists()
    assert time.monotonic() - began < 60


def test_a_killed_rank_is_named(tmp_path):
    ended = launch.run(under_torchrun(tmp_path, "--do", "killed"))
    assert (ended.outcome, ended.trouble) == (
        "crashed",
        "rank 1 was killed by SIGKILL (signal 9) (out of memory?), after step 1",
    )


@pytest.mark.parametrize("sign, words", [(9, "was killed by SIGKILL (signal 9)"), (15, "SIGTERM (signal 15)")])
def test_a_killed_launcher_is_named_and_how_far_it_had_come(tmp_path, sign, words):
    """torchrun itself, not a rank, is ended from outside: by the kernel, or by somebody's kill."""

    def kill(metric, clock):
        if metric.step == 1 and not killed:
            killed.append(1)
            found = [pid for pid in processes_of("torch.distributed.run") if str(tmp_path) in command_of(pid)]
            os.kill(min(found), sign)  # a rank that is only just forked still bears the launcher's name

    killed = []
    ended = launch.run(under_torchrun(tmp_path, "--do", "stall"), kill)
    assert ended.outcome == "crashed" and words in ended.trouble and ended.trouble.endswith(", after step 1")
    assert not processes_of(str(tmp_path / "log.txt"))


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def test_a_disk_that_fills_names_the_file_and_stops_the_run(tmp_path):
    (tmp_path / "stdout.txt").symlink_to("/dev/full")
    ended = launch.run(direct(tmp_path, "--do", "stall"))
    assert ended.outcome == "unfinished"
    assert ended.trouble.startswith(f"{tmp_path / 'stdout.txt'}: No space left on device, ")
    assert not processes_of(str(tmp_path / "log.txt"))


def test_a_full_disk_of_the_script_is_explained():
    said = crash.describe("", {0: TRACEBACK + "OSError: [Errno 28] No space left on device"})
    assert said.endswith("(the disk is full: free some space, or choose another place with --runs-dir)")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_harness(tmp_path, sign):
    """Ctrl-C or the harness's death stops the rank, and what the rank has started in a session of its own."""
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[1:3]; import test_launch as t;"
        "ended = t.launch.run(t.direct(Path(sys.argv[3]), '--do', 'sleep'), lambda m, c: print(m.step, flush=True));"
        "print(ended.outcome, flush=True)"
    )
    paths = [str(FAKE.parents[2]), str(Path(__file__).parent), str(tmp_path)]
    harness = subprocess.Popen([sys.executable, "-c", program, *paths], stdout=subprocess.PIPE, text=True)
    assert harness.stdout.readline() == "0\n"
    assert harness.stdout.readline() == "1\n"
    time.sleep(0.3)
    log = str(tmp_path / "log.txt")
    assert len(processes_of(log)) == 2
    harness.send_signal(sign)
    said = harness.communicate(timeout=20)[0]
    assert said == ("" if sign == signal.SIGKILL else "interrupted\n")
    deadline = time.monotonic() + 20
    while processes_of(log) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(log)


def processes_of(argument):
    """Ids of living processes with this command line argument."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if argument.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_stop_finds_what_left_the_session_and_does_not_listen(tmp_path):
    """One process ignores SIGTERM, another has left the session: both are ended."""
    program = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen(['sleep', '300'], start_new_session=True); time.sleep(300)"
    )
    running = processes.start([sys.executable, "-c", program], dict(os.environ), tmp_path)
    while len(processes.marked(running.mark)) < 2:
        time.sleep(0.05)
    running.stop(grace_s=0.2)
    assert processes.marked(running.mark) == []
    assert running.keeper.poll() == 0


def test_a_port_in_use_is_said_before_the_start():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        endpoint = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(UserError, match="is in use on this machine"):
            check_port(Nodes(2, 0, endpoint))
        check_port(Nodes(2, 1, endpoint))


@pytest.mark.parametrize("endpoint", ["", "host", "host:", "host:0", ":29500", "host:99999"])
def test_an_endpoint_is_host_and_port(endpoint, tmp_path):
    with pytest.raises(UserError, match="HOST:PORT"):
        torchrun_command(FAKE, [], 2, tmp_path, Nodes(2, 0, endpoint))


def test_ranks_share_the_cores_and_have_one_thread_beside_a_gpu(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert environment(1, cuda=False)["OMP_NUM_THREADS"] == str(cores)
    assert environment(2 * cores, cuda=False)["OMP_NUM_THREADS"] == "1"
    assert environment(1, cuda=True)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(1, cuda=False)["OMP_NUM_THREADS"] == environment(1, cuda=True)["OMP_NUM_THREADS"] == "7"


def test_of_the_environment_what_bears_on_a_run_is_told():
    env = {"USER": "me", "NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": "/home/me/cache"}
    assert bearing(env) == {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "1"}


def test_ranks_on_the_cpu_keep_the_memory_they_freed_unless_told_otherwise(monkeypatch):
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert [environment(2, cuda=False)[name] for name in names] == ["4294967296", "8589934592"]
    assert not set(names) & set(environment(2, cuda=True))
    monkeypatch.setenv(names[0], "131072")
    assert [environment(2, cuda=False)[name] for name in names] == ["131072", "8589934592"]


TRACEBACK = "Traceback (most recent call last):\n  File x\n"


@pytest.mark.parametrize(
    "launcher, ranks, words",
    [
        (
            "",
            {0: TRACEBACK + "RuntimeError: Connection closed by peer", 1: TRACEBACK + "ValueError: mine"},
            "rank 1 .*mine",
        ),
        (
            "rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 7)",
            {0: TRACEBACK + "Broken pipe"},
            "rank 1 .*SIGKILL",
        ),
        ("", {0: TRACEBACK + "RuntimeError: EADDRINUSE"}, "^the port is in use"),
        ("", {0: "usage: train.py\ntrain.py: error: argument --seed: invalid int value"}, "^train.py: error: argument"),
        ("", {0: TRACEBACK + "torch.OutOfMemoryError: CUDA out of memory."}, "rank 0 crashed.*CUDA out of memory"),
        ("RuntimeError: address already in use", {}, "the port is in use"),
        ("", {}, "said nothing"),
        ("", {0: "[rank3]: " + TRACEBACK + "[rank3]: ValueError: mine"}, "^rank 3 crashed"),
        ("", {0: TRACEBACK + "ValueError: \x1b[31mred"}, r"ValueError: \[31mred"),
    ],
)
def test_the_culprit_is_named(launcher, ranks, words):
    assert crash.re.search(words, crash.describe(launcher, ranks), crash.re.DOTALL)
