"""Many commands on few cards: none lost, none left running, and no step timed while another runs on its card."""

import csv
import os
import sys
import time
from pathlib import Path

import pytest

from tests.on_cards import PLACES, Task, deal, read_plan, run

NAP = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep({})"
REPLAY = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
said, prepared = (folder / "stdout.txt").open("w", buffering=1), (folder / "prepared.txt").open("w", buffering=1)
said.write("step:0/3 val_loss:10.8258 train_time:0ms step_avg:0.00ms\\n")
for _ in range(int(sys.argv[2])):
    time.sleep(0.05)
    prepared.write(f"{time.monotonic()}\\n")
said.write("step:1/3 train_time:50ms step_avg:50.00ms\\n")
began = time.monotonic()
time.sleep(1)
said.write("peak memory allocated: 10 MiB reserved: 20 MiB\\n")
(folder / "timed.txt").write_text(f"{began} {time.monotonic()}")
time.sleep(float(sys.argv[3]))
(folder / "ended.txt").write_text(f"{time.monotonic()}")
"""
LATENCY = 0.5  # seconds until the other stands still, on a busy machine


def nap(number, needs, seconds, beside=False, out=Path()):
    return Task(number, needs, [sys.executable, "-c", NAP.format(seconds)], beside, out)


def rows(out):
    with (out / "tasks.csv").open() as file:
        return {int(row["number"]): row for row in csv.DictReader(file)}


def test_a_plan_is_read(tmp_path):
    plan = """
    # first the long one
    2 harness replay 40 --gpus 2 --data-dir {data}
    1 beside show 13 60   # against the published script's losses
    1 python -m pytest "-k a b"
    """
    whole, shown, tests = read_plan(plan, tmp_path / "out", tmp_path / "data")
    assert (whole.needs, whole.beside, whole.command[:3]) == (2, False, [sys.executable, "-m", "harness.cli"])
    assert whole.command[-1] == str(tmp_path / "data")
    said = " ".join(shown.command)
    assert shown.beside and "replay 13 --gpus 1" in said and f"--runs-dir {tmp_path}/out/runs/01" in said
    assert shown.runs == tmp_path / "out/runs/01"
    assert "val_loss_every=12" in said and "val_tokens=2097152" in said
    assert float(shown.command[shown.command.index("--scale") + 1]) * 1750 == pytest.approx(60)
    assert tests.command == [sys.executable, "-m", "pytest", "-k a b"]
    for wrong in ("harness replay 40", "1", "1 beside"):
        with pytest.raises(ValueError, match="not a number of cards"):
            read_plan(wrong, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="only a task of one card can share it"):
        read_plan("2 beside harness replay 40", tmp_path, tmp_path)


def test_the_plan_of_the_next_lease_can_be_read(tmp_path):
    read_plan((Path(__file__).parent / "lease.plan").read_text(), tmp_path, tmp_path)


def test_a_waiting_task_keeps_its_cards_free():
    one, two, half = nap(0, 1, 0), nap(1, 2, 0), nap(2, 1, 0, beside=True)
    assert deal([one, two, half], {0: 2, 1: 2, 2: 2}) == [(one, [0]), (two, [1, 2])]
    assert deal([two, one], {0: 0, 1: 2}) == []
    assert deal([two, one], {0: 0, 1: 2, 2: 0, 3: 0}) == []  # it waits for 1 and 0, the emptiest
    assert deal([two, half], {0: 1, 1: 2, 2: 1}) == [(half, [2])]


def test_places_are_shared_by_those_that_say_so():
    halves = [nap(number, 1, 0, beside=True) for number in range(4)]
    assert deal(halves, {0: 2, 1: 1}) == [(halves[0], [0]), (halves[1], [0]), (halves[2], [1])]
    assert deal([nap(9, 1, 0)], {0: PLACES - 1}) == []


def test_no_two_share_a_card(tmp_path):
    tasks = [nap(n, *what, out=tmp_path) for n, what in enumerate([(1, 0.8), (2, 0.3), (1, 0.1), (3, 0.1)])]
    run(tasks, [0, 1], tmp_path, 60)
    ended = rows(tmp_path)
    assert [ended[number]["cards"] for number in range(3)] == ["0", "0 1", "0"]
    assert all(row["exit"] == "0" for row in ended.values())
    assert tasks[0].began < 0.7 < tasks[1].began < tasks[2].began
    assert 3 not in ended  # there are no three cards
    assert (tmp_path / "01.txt").read_text() == "0,1\n"


def test_a_task_is_timed_while_all_else_on_its_card_stands_still(tmp_path):
    """And while it only winds up, the next may go on."""
    tasks = [Task(number, 1, [], True, tmp_path) for number in range(2)]
    for task, steps, winding_up in zip(tasks, ("10", "30"), ("3", "0"), strict=True):
        folder = str(task.runs / "a/b")
        task.command = ["env", "LOCAL_RANK=0", sys.executable, "-c", REPLAY, folder, steps, winding_up]
    run(tasks, [0], tmp_path, 60)
    assert [rows(tmp_path)[number]["exit"] for number in range(2)] == ["0", "0"]
    (begin, end), (later, _) = [map(float, (task.runs / "a/b/timed.txt").read_text().split()) for task in tasks]
    ended = float((tasks[0].runs / "a/b/ended.txt").read_text())
    assert end < later < ended
    prepared = list(map(float, (tasks[1].runs / "a/b/prepared.txt").read_text().split()))
    assert [at for at in prepared if at < begin] and not [at for at in prepared if begin + LATENCY < at < end]


def test_the_cards_are_watched_meanwhile(tmp_path, monkeypatch):
    """By nvidia-smi, which would go on for ever; here by a script of that name."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho index, clocks.sm\nexec sleep 300\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    began = time.monotonic()
    run([nap(0, 1, 0.5, out=tmp_path)], [0], tmp_path, 60)
    assert (tmp_path / "cards.csv").read_text() == "index, clocks.sm\n" and time.monotonic() - began < 30


def test_when_the_time_is_over_all_is_ended(tmp_path):
    tasks, began = [nap(number, 1, 60, out=tmp_path) for number in range(2)], time.monotonic()
    run(tasks, [0], tmp_path, 1)
    assert time.monotonic() - began < 15 and tasks[0].process.poll() is not None
    assert list(rows(tmp_path)) == [0]
