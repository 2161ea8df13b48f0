"""Do many things on the cards of one machine, as many at once as they hold:

    python tests/on_cards.py tests/lease.plan --cards 4 --data /tmp/books --out /tmp/lease [--minutes 25]

A line of the plan is a number of cards and a command: `2 harness replay 40 --gpus 2` has its two cards to itself.
`1 beside harness replay 13 --gpus 1` shares its card with one other such task, for as long as both prepare: from a
task's first training step to its last, all else on its card stands still (SIGSTOP), so that its steps are timed alone.
Not so with several cards: where one rank stands still, another's kernel may wait for it, and keep its card busy. Tasks
start in their order; one that waits keeps the cards that it waits for free. `show 25 36` stands for a replay of record
25 on one card, its schedule shortened to 36 steps. `{out}` and `{data}` in a command are the two folders, `{runs}` one
for the task's replays; a first word `harness` or `python` is that of this Python.

In the out folder: `tasks.csv`, a line for each that has ended (which cards, from when to when in seconds, exit code),
what each said, `runs/NN/`, for `harness keep`, and `cards.csv`, nvidia-smi's word on clocks, power and memory of each
card every five seconds: a step that took too long may have been made by a card that was held back. When the minutes
are over, or on a signal, all that runs is ended.
"""

import argparse
import csv
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.archive.find import resolve  # noqa: E402

PLACES = 2  # on a card, for tasks beside each other
MARK = "ON_CARDS_TASK"  # a variable by which the processes of a task are known
STEP = re.compile(rb"^step:[1-9]\d*/\d+ train_time:", re.MULTILINE)
LAST = b"\npeak memory "  # what a script says when its training is over
FIELDS = ("number", "cards", "began_s", "ended_s", "exit", "command")
STANDS_FOR = {"harness": [sys.executable, "-m", "harness.cli"], "python": [sys.executable]}
REPLAY = ["--repeat", "--seed", "1", "--data-dir", "{data}", "--runs-dir", "{runs}"]
SECONDS_TO_END = 20  # between asking a command to end and ending it
WATCHED = "timestamp,index,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used,clocks_event_reasons.active"


@dataclass
class Task:
    """A command that needs so many cards, or a place on each; once it runs, its process and the cards it has."""

    number: int
    needs: int
    command: list[str]
    beside: bool = False
    out: Path = Path()
    process: subprocess.Popen | None = None
    cards: list[int] = field(default_factory=list)
    began: float = 0.0
    timed: bool = False
    still: bool = False

    @property
    def places(self) -> int:
        """How many places it takes on each of its cards."""
        return 1 if self.beside else PLACES

    @property
    def said(self) -> Path:
        """The file of its output."""
        return self.out / f"{self.number:02}.txt"

    @property
    def runs(self) -> Path:
        """The folder of its replays."""
        return self.out / "runs" / f"{self.number:02}"

    def trains(self) -> bool:
        """Whether it, or a replay of it, makes its training steps."""
        told = [said.read_bytes() for said in (self.said, *self.runs.glob("*/*/stdout.txt"))]
        return any(STEP.search(text) and LAST not in text for text in told)


def read_plan(text: str, out: Path, data: Path) -> list[Task]:
    """The tasks of a plan; empty lines and comments are none. Raises ValueError for a line that is neither, and for one
    that would share several cards."""
    tasks = []
    for line in text.splitlines():
        cards, *words = shlex.split(line, comments=True) or [""]
        if not cards:
            continue
        beside = words[:1] == ["beside"]
        words = words[beside:]
        if beside and cards != "1":
            raise ValueError(f"only a task of one card can share it: {line!r}")
        if not cards.isdigit() or not words:
            raise ValueError(f"not a number of cards and a command: {line!r}")
        command = show(*words[1:]) if words[0] == "show" else words
        task = Task(len(tasks), int(cards), [], beside, out)
        places = {"{out}": out, "{data}": data, "{runs}": task.runs}
        filled = [functools.reduce(lambda word, at: word.replace(at, str(places[at])), places, one) for one in command]
        task.command = [*STANDS_FOR.get(filled[0], filled[:1]), *filled[1:]]
        tasks.append(task)
    return tasks


def show(number: str, steps: str, *more: str) -> list[str]:
    """A replay of a record in so many steps, with the validations that `records/standin.csv` has at 60."""
    count = int(steps)
    every, tokens = (12, 2**21) if count == 60 else (max(1, count // 3), 2**20)
    ask = ["--scale", str(count / resolve(number).listed.steps), "--set", f"val_loss_every={every}"]
    return ["harness", "replay", number, "--gpus", "1", *REPLAY, *ask, "--set", f"val_tokens={tokens}", *more]


@contextmanager
def watched(out: Path):
    """Meanwhile nvidia-smi, where there is one, writes down what the cards do."""
    if not shutil.which("nvidia-smi"):
        yield
        return
    command = ["nvidia-smi", f"--query-gpu={WATCHED}", "--format=csv", "-l", "5"]
    with (out / "cards.csv").open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as watcher:
        try:
            yield
        finally:
            watcher.terminate()


def run(tasks: list[Task], cards: list[int], out: Path, seconds: float) -> None:
    """All of them, until they are done or the time is over; nothing that was started is left running."""
    began, running, waiting = time.monotonic(), [], [task for task in tasks if task.needs <= len(cards)]
    with watched(out), (out / "tasks.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(FIELDS)
        try:
            while (waiting or running) and time.monotonic() - began < seconds:
                for task, chosen in deal(waiting, room(cards, running)):
                    waiting.remove(task)
                    running.append(start(task, chosen, out, began))
                for task in [task for task in running if task.process.poll() is not None]:
                    running.remove(task)
                    tell(table, file, task, began)
                take_turns(running)
                time.sleep(0.1)
        finally:
            end(running)
            for task in running:
                tell(table, file, task, began)


def room(cards: list[int], running: list[Task]) -> dict[int, int]:
    """How many places are free on each card."""
    return {card: PLACES - sum(task.places for task in running if card in task.cards) for card in cards}


def deal(waiting: list[Task], free: dict[int, int]) -> list[tuple[Task, list[int]]]:
    """Which tasks may start now, and on which cards: in their order, on the emptiest. Cards that a task waits for are
    not given to later ones."""
    dealt = []
    for task in waiting:
        chosen = sorted(free, key=lambda card: (-free[card], card))[: task.needs]
        if len(chosen) < task.needs:
            break
        if all(free[card] >= task.places for card in chosen):
            dealt.append((task, sorted(chosen)))
            free = {card: places - task.places * (card in chosen) for card, places in free.items()}
        else:
            free = {card: places for card, places in free.items() if card not in chosen}
    return dealt


def start(task: Task, cards: list[int], out: Path, began: float) -> Task:
    """Start a task on these cards, its output in a file named by its number."""
    print(f"{time.monotonic() - began:6.0f} s  cards {cards}  {shlex.join(task.command)}", flush=True)
    own = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, cards)), MARK: str(task.number)}
    own |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with task.said.open("wb") as said:
        task.process = subprocess.Popen(
            task.command, cwd=ROOT, env=os.environ | own, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    task.cards, task.began = cards, time.monotonic() - began
    return task


def take_turns(running: list[Task]) -> None:
    """Let one task a card make its steps; what shares the card stands still meanwhile."""
    for task in running:
        task.timed = task.timed and task.trains()
    taken = {task.cards[0] for task in running if task.timed}
    for task in running:
        if task.beside and not task.timed and task.cards[0] not in taken and task.trains():
            task.timed = True
            taken.add(task.cards[0])
    for task in running:
        before, task.still = task.still, task.beside and not task.timed and task.cards[0] in taken
        if task.still or before:  # again and again, as new ranks may have come
            signal_ranks(task, signal.SIGSTOP if task.still else signal.SIGCONT)


def signal_ranks(task: Task, sign: signal.Signals) -> None:
    """To a task's ranks and what they have started; torchrun and the harness, whose clocks matter, go on."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if f"{MARK}={task.number}".encode() in variables and any(v.startswith(b"LOCAL_RANK=") for v in variables):
                os.kill(int(folder.name), sign)
        except OSError:  # ended meanwhile, or another user's
            continue


def tell(table, file, task: Task, began: float) -> None:
    """A line on a task that has ended."""
    cards = " ".join(map(str, task.cards))
    ended = time.monotonic() - began
    table.writerow(
        [task.number, cards, f"{task.began:.0f}", f"{ended:.0f}", task.process.returncode, shlex.join(task.command)]
    )
    file.flush()


def end(running: list[Task]) -> None:
    """Ask all to end, and after a while make them. Not as Ctrl-C would: a shell's background jobs do not hear that."""
    for task in running:
        signal_ranks(task, signal.SIGCONT)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for task in running:
            if task.process.poll() is None:
                os.killpg(task.process.pid, sign)
        until = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < until and any(task.process.poll() is None for task in running):
            time.sleep(0.1)


def main() -> None:
    """Read the plan, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--cards", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tasks = read_plan(asked.plan.read_text(), asked.out.resolve(), asked.data.resolve())
    run(tasks, list(range(asked.cards)), asked.out, 60 * asked.minutes)


if __name__ == "__main__":
    main()
