"""Processes of a job: found wherever they are, ended at once, and never left behind.

torchrun puts every rank in a session of its own, and a rank's compile workers may go further, so that no process group
holds them all. Each inherits the job's mark in its environment instead, and is found by it. A keeper, this very file
run as a program, waits at a pipe whose other end only the harness holds: if the harness dies, the keeper ends the job.
"""

import os
import resource
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "SPEEDRUN_JOB"
GRACE_S = 3.0  # what a rank may take to end by itself
KILLS = 20  # a process in an uninterruptible wait (a hung driver) outlives even these: then we go on without it


@dataclass(frozen=True)
class Processes:
    """A running job: its first process with both outputs piped, the mark of all others, and the keeper."""

    first: subprocess.Popen
    keeper: subprocess.Popen
    mark: str

    def ask_where(self, patience_s: float = 2.0) -> None:
        """Have every rank write to its stderr where it stands, and end: PYTHONFAULTHANDLER's answer to SIGABRT."""
        ranks = children(self.first.pid) or [self.first.pid]
        for rank in ranks:
            try:
                if hasattr(resource, "prlimit"):  # else the kernel may write gigabytes beside the log
                    resource.prlimit(rank, resource.RLIMIT_CORE, (0, 0))
                os.kill(rank, signal.SIGABRT)
            except OSError:  # ended meanwhile
                continue
        deadline = time.monotonic() + patience_s
        while set(ranks) & set(marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End whatever is left of the job, and the keeper's watch."""
        sweep(self.mark, grace_s)
        try:
            self.first.wait(grace_s)
        except subprocess.TimeoutExpired:  # a system without /proc, where no mark is found
            os.killpg(self.first.pid, signal.SIGKILL)
        self.keeper.communicate()


def start(command: list[str], env: dict[str, str], cwd: Path) -> Processes:
    """Start `command` in a session of its own, under a keeper. Raises OSError when it cannot be started."""
    mark = secrets.token_hex(8)
    own_session = {"start_new_session": True}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    keeper = subprocess.Popen([sys.executable, "-P", __file__, mark], stdin=subprocess.PIPE, **quiet, **own_session)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        first = subprocess.Popen(command, env={**env, MARK: mark}, cwd=cwd, **pipes, **own_session)
    except OSError:
        keeper.communicate()
        raise
    return Processes(first, keeper, mark)


def marked(mark: str) -> list[int]:
    """Ids of all living processes that carry `mark`, wherever in the process tree they are (Linux; elsewhere none)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def other_jobs(mark: str) -> set[str]:
    """Marks of the jobs that other replays on this machine have running (Linux; of other users' only root sees any)."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {one.partition(b"=")[2].decode() for one in variables if one.startswith(f"{MARK}=".encode())}
    return found - {mark}


def children(parent: int) -> list[int]:
    """Ids of the processes that `parent` has started itself: torchrun's are the ranks (Linux; elsewhere none)."""
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def sweep(mark: str, grace_s: float = GRACE_S) -> None:
    """End all processes of a job: ask with SIGTERM, and after `grace_s` seconds insist with SIGKILL."""
    if not _signal_all(mark, signal.SIGTERM):
        return
    deadline = time.monotonic() + grace_s
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(KILLS):
        if not _signal_all(mark, signal.SIGKILL):
            return
        time.sleep(0.05)


def _signal_all(mark: str, sign: signal.Signals) -> int:
    """Send `sign` to the whole job; how many processes it had."""
    ranks = marked(mark)
    for rank in ranks:
        try:
            os.kill(rank, sign)
        except ProcessLookupError:
            continue
    return len(ranks)


if __name__ == "__main__":
    sys.stdin.read()
    sweep(sys.argv[1])
