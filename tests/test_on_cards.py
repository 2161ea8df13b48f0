"""Many commands on few cards: each alone on its own, none lost, none left running."""

import csv
import sys
import time

import pytest

from tests.on_cards import Task, read_plan, run

NAP = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep({})"


def nap(number, needs, seconds):
    return Task(number, needs, [sys.executable, "-c", NAP.format(seconds)])


def rows(out):
    with (out / "tasks.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_plan_is_read(tmp_path):
    plan = """
    # first the long one
    2 harness replay 40 --gpus 2 --data-dir {data}
    1 show 13 60   # against the published script's losses
    1 python -m pytest "-k a b"
    """
    whole, shown, tests = read_plan(plan, tmp_path / "out", tmp_path / "data")
    assert (whole.needs, whole.command[:3]) == (2, [sys.executable, "-m", "harness.cli"])
    assert whole.command[-1] == str(tmp_path / "data")
    said = " ".join(shown.command)
    assert "replay 13 --gpus 1" in said and f"--runs-dir {tmp_path}/out/runs" in said
    assert "val_loss_every=12" in said and "val_tokens=2097152" in said
    assert float(shown.command[shown.command.index("--scale") + 1]) * 1750 == pytest.approx(60)
    assert tests.command == [sys.executable, "-m", "pytest", "-k a b"]
    with pytest.raises(ValueError, match="not a number of cards"):
        read_plan("harness replay 40", tmp_path, tmp_path)


def test_no_two_share_a_card_and_small_ones_overtake(tmp_path):
    tasks = [nap(0, 1, 0.8), nap(1, 2, 0.3), nap(2, 1, 0.1), nap(3, 3, 0.1)]
    run(tasks, [0, 1], tmp_path, 60)
    ended = {int(row["number"]): row for row in rows(tmp_path)}
    assert [ended[number]["cards"] for number in range(3)] == ["0", "0 1", "1"]
    assert all(row["exit"] == "0" for row in ended.values())
    assert tasks[2].began < 0.7 < tasks[1].began
    assert 3 not in ended  # there are no three cards
    assert (tmp_path / "01.txt").read_text() == "0,1\n"


def test_when_the_time_is_over_all_is_ended(tmp_path):
    tasks, began = [nap(0, 1, 60), nap(1, 1, 60)], time.monotonic()
    run(tasks, [0], tmp_path, 1)
    assert time.monotonic() - began < 15 and tasks[0].process.poll() is not None
    assert [row["number"] for row in rows(tmp_path)] == ["0"]
