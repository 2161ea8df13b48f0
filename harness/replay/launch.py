"""One job: start it, watch it, be the outside witness of its metric lines, stop all of it."""

import contextlib
import dataclasses
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.archive.run_folder import RANKS, STDERR, STDOUT
from harness.errors import UserError
from harness.replay import crash, processes
from harness.replay.anomaly import Breach, Watcher
from harness.replay.signals import deaf, interruptible, name_of
from timing.witness import Metric, Witness

DRAIN_S = 2.0  # how long a finished launcher's last output may take to arrive


@dataclass(frozen=True)
class Job:
    """A command to run in the run folder `folder`, which exists. `speaks`: metric lines are expected from it."""

    command: list[str]
    folder: Path
    env: dict[str, str]
    stall_timeout_s: float = 900.0
    speaks: bool = True


@dataclass(frozen=True)
class Ended:
    """How a job ended. `outcome`: finished, crashed, stalled, stopped, interrupted or unfinished; `trouble` says why.

    "stopped" is a run that the watcher, or the script itself, ended over the `breach`; `sign` names the signal behind
    an interruption, and `company` says that another replay ran on this machine meanwhile.
    """

    outcome: str
    exit: int | None
    witness: Witness
    trouble: str = ""
    breach: Breach | None = None
    sign: str = ""
    company: bool = False


@dataclass
class _Watch:
    """A running job as the main thread sees it."""

    job: Job
    process: subprocess.Popen
    began: float
    mark: str
    watcher: Watcher | None = None
    breach: Breach | None = None
    company: bool = False
    witness: Witness = field(default_factory=Witness)
    lines: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    writing: str = STDOUT

    def read(self, stream, name: str) -> None:
        """Reader thread: stamp every line at its arrival; None marks the end of the stream."""
        for line in stream:
            self.lines.put((time.monotonic() - self.began, name, line))
        self.lines.put((0.0, name, None))

    def look_around(self) -> None:
        """Note whether another replay is running."""
        self.company = self.company or bool(processes.other_jobs(self.mark))

    def listen(self, on_metric: Callable[[Metric, float], None]) -> str | None:
        """Keep the output and the metrics until the job ends. Why it has to be ended, or None if it ended itself."""
        heard, ended, open_streams = time.monotonic(), None, 2
        with (self.job.folder / STDOUT).open("wb") as stdout, (self.job.folder / STDERR).open("wb") as stderr:
            files = {STDOUT: stdout, STDERR: stderr}
            while open_streams and (ended is None or time.monotonic() - ended < DRAIN_S):
                if ended is None and self.process.poll() is not None:
                    ended = time.monotonic()
                if ended is None and self.job.speaks and time.monotonic() - heard > self.job.stall_timeout_s:
                    return "stalled"
                try:
                    clock, name, line = self.lines.get(timeout=0.2)
                except queue.Empty:
                    continue
                if line is None:
                    open_streams -= 1
                    continue
                self.writing = name
                files[name].write(line)
                files[name].flush()
                if name == STDERR:
                    continue
                text = line.decode(errors="replace").rstrip()
                if metric := self.witness.hear(text, clock):
                    heard = time.monotonic()
                    on_metric(metric, clock)
                    if metric.kind == "val":  # now and then, and off the clock
                        self.look_around()
                if self.watcher and (breach := self.watcher.hear(text, metric)) and self.watcher.stops:
                    self.breach = breach
                    return "stopped"
        return None


def run(
    job: Job,
    on_metric: Callable[[Metric, float], None] = lambda metric, clock: None,
    watcher: Watcher | None = None,
    told: contextlib.ExitStack | None = None,
) -> Ended:
    """Run `job` to its end and leave nothing of it running. `on_metric` gets each metric and its clock in seconds; the
    watcher hears every line of stdout and may have the job stopped.

    Ctrl-C, SIGTERM and a closed terminal end the job and give the outcome "interrupted"; if this process is killed, the
    job ends too. Output that cannot be kept (a full disk) ends it as "unfinished". From then on signals are ignored, up
    to the end of `told`, in which the caller writes down what became of the run. Raises UserError when the command
    cannot be started.
    """
    why = ""
    with contextlib.nullcontext(told) if told else contextlib.ExitStack() as told:
        told.enter_context(interruptible())
        try:
            running = processes.start(job.command, job.env, job.folder)
        except OSError as error:
            raise UserError(f"cannot start {job.command[0]}: {error.strerror}") from None
        process = running.first
        watch = _Watch(job, process, time.monotonic(), running.mark, watcher)
        for stream, name in ((process.stdout, STDOUT), (process.stderr, STDERR)):
            threading.Thread(target=watch.read, args=(stream, name), daemon=True).start()
        lost = None
        try:
            outcome = watch.listen(on_metric)
            if outcome == "stalled":
                running.ask_where()
            elif outcome is None:
                process.wait(timeout=processes.GRACE_S)
        except KeyboardInterrupt as interruption:
            outcome, why = "interrupted", name_of(interruption)
        except subprocess.TimeoutExpired:
            outcome = None
        except OSError as error:
            outcome, lost = "unfinished", error
        finally:
            told.enter_context(deaf())
            running.stop()
    return dataclasses.replace(_ended(watch, outcome, why, lost), company=watch.company)


def _ended(watch: _Watch, outcome: str | None, sign: str, lost: OSError | None) -> Ended:
    """The end of a job in words, and its ranks' stderr files joined to the launcher's. `sign`: what interrupted it;
    `lost`: why output was."""
    exit_code, witness, folder = watch.process.returncode, watch.witness, watch.job.folder
    launcher = (folder / STDERR).read_text(errors="replace") if (folder / STDERR).is_file() else ""
    outputs = crash.rank_outputs(folder / RANKS)
    ranks = {rank: path.read_text(errors="replace") for rank, path in outputs.items()}
    shutil.rmtree(folder / RANKS, ignore_errors=True)
    joined = "".join(f"--- rank {rank} ---\n{text.rstrip()}\n" for rank, text in sorted(ranks.items()) if text)
    with contextlib.suppress(OSError), (folder / STDERR).open("a") as stderr:  # a full disk has been told already
        stderr.write(joined)
    last = f"after step {witness.metrics[-1].step}" if witness.metrics else "before its first metric line"
    if lost is not None:
        return Ended(outcome, exit_code, witness, f"{folder / watch.writing}: {lost.strerror}, {last}; it was stopped")
    if outcome == "stalled":
        stood = crash.where_they_stood(ranks, launcher)
        trouble = f"no metric line for {watch.job.stall_timeout_s:g} s, {last}"
        return Ended(outcome, exit_code, witness, "\n".join([trouble, *stood]))
    if outcome == "interrupted":
        return Ended(outcome, exit_code, witness, f"by {sign}, {last}; every rank was stopped", sign=sign)
    if outcome == "stopped":
        return Ended(outcome, exit_code, witness, f"at step {watch.breach.step}: {watch.breach.reason}", watch.breach)
    if exit_code != 0:
        why = crash.describe(launcher, ranks, exit_code)
        if found := crash.STOPPED_ITSELF.match(why):
            breach = (watch.watcher or Watcher()).stopped_itself(int(found[1]), found[2])
            return Ended("stopped", exit_code, witness, f"at step {breach.step}: {breach.reason}", breach)
        by_signal = "\n" not in why and ("killed by" in why or "told to end by" in why)
        return Ended("crashed", exit_code, witness, f"{why}, {last}" if by_signal else why)
    if watch.job.speaks and not witness.complete:
        return Ended("unfinished", exit_code, witness, f"the script exited with 0 {last}, without its final validation")
    return Ended("finished", exit_code, witness)
