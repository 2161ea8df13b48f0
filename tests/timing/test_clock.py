"""Clocks that were turned back, stopped or skipped, and their honest neighbours."""

from pathlib import Path

import pytest

from timing.clock import (
    definition_of_average,
    era_of,
    negative,
    skipped,
    stood_still,
    turned_back,
)
from timing.log import read_log
from timing.timed import TimedLines

STEPS = 300


def times_b(pace=100.0):
    return {step: pace * step for step in range(STEPS + 1)}


def read(tmp_path, times, average=lambda step, time: time / max(step, 1), validate=(0, 125, 250, STEPS)):
    """A log with a train line per step and validations, from {step: ms}; a step left out is not printed."""
    lines = []
    for step, time in times.items():
        tail = f"train_time:{time:.0f}ms step_avg:{average(step, time):.2f}ms"
        if step:
            lines.append(f"step:{step}/{STEPS} {tail}")
        if step in validate:
            lines.append(f"step:{step}/{STEPS} val_loss:{11 - step / 40:.4f} {tail}")
    path = tmp_path / "log.txt"
    path.write_text("print('val_loss')\n" + "=" * 100 + "\nRunning PyTorch 2.9\n" + "=" * 100 + "\n" + "\n".join(lines))
    return read_log(path)


def test_honest_clock_has_no_findings(tmp_path):
    run = read(tmp_path, times_b())
    lines = TimedLines(run)
    assert not (turned_back(lines) or negative(lines) or stood_still(lines) or skipped(run))


def test_reset_in_the_middle_is_found_at_its_line(tmp_path):
    times = {step: time if step < 150 else time - 9_000 for step, time in times_b().items()}
    run = read(tmp_path, times)
    (finding,) = turned_back(TimedLines(run))
    assert "step 150" in finding.text
    assert finding.line == run.train_line[run.train_step == 150][0]


def test_reset_at_step_ten_is_era_a(tmp_path):
    times = {step: 30_000 + 100 * step if step <= 10 else 100.0 * (step - 10) for step in range(STEPS + 1)}
    lines = TimedLines(read(tmp_path, times))
    assert lines.start > 0
    assert not turned_back(lines)


def test_second_reset_is_not_excused_by_the_first(tmp_path):
    times = {step: 30_000 + 100 * step if step <= 10 else 100.0 * (step - 10) for step in range(STEPS + 1)}
    times |= {step: 100.0 * (step - 200) for step in range(200, STEPS + 1)}
    assert len(turned_back(TimedLines(read(tmp_path, times)))) == 1


def test_frozen_stretch_is_found(tmp_path):
    times = {step: 100.0 * (step - min(max(step - 100, 0), 20)) for step in range(STEPS + 1)}
    (finding,) = stood_still(TimedLines(read(tmp_path, times)))
    assert "step 100" in finding.text


def test_host_running_three_steps_ahead_is_not_frozen(tmp_path):
    times = times_b() | {1: 290.0, 2: 300.0, 3: 310.0}
    assert not stood_still(TimedLines(read(tmp_path, times)))


def test_pace_that_triples_is_not_frozen(tmp_path):
    times = {step: 30.0 * step if step < 100 else 3000 + 90.0 * (step - 100) for step in range(STEPS + 1)}
    assert not stood_still(TimedLines(read(tmp_path, times)))


def test_toy_clock_with_steps_under_a_millisecond_is_not_judged(tmp_path):
    assert not stood_still(TimedLines(read(tmp_path, times_b(pace=0.4))))


def test_negative_time_is_found(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(
        "=" * 100 + "\nstep:0/2 val_loss:9.0 train_time:-5ms step_avg:0ms\nstep:2/2 val_loss:8 train_time:9ms"
    )
    assert negative(TimedLines(read_log(path)))


def test_step_that_comes_twice_is_found(tmp_path):
    run = read(tmp_path, times_b())
    lines = (tmp_path / "log.txt").read_text().splitlines()
    lines.insert(int(run.train_line[99]), lines[run.train_line[99] - 1])
    (tmp_path / "log.txt").write_text("\n".join(lines) + "\n")
    (finding,) = skipped(read_log(tmp_path / "log.txt"))
    assert (finding.line, finding.text) == (run.train_line[99] + 1, "step 100 comes twice")


def test_skipped_steps_are_found(tmp_path):
    run = read(tmp_path, {step: time for step, time in times_b().items() if not 100 < step < 140})
    (finding,) = skipped(run)
    assert "step 140 follows step 100" in finding.text


def test_sparse_but_steady_train_lines_are_not_skips(tmp_path):
    assert not skipped(read(tmp_path, {step: time for step, time in times_b().items() if step % 20 == 0}))


@pytest.mark.parametrize(
    ("average", "name"),
    [
        (lambda step, time: time / max(step, 1), "from the start"),
        (lambda step, time: time / (step - 10) if step > 10 else float("nan"), "from step 10"),
    ],
)
def test_definitions_of_the_average(tmp_path, average, name):
    times = {step: 100.0 * step + step % 7 for step in range(STEPS + 1)}
    lines = TimedLines(read(tmp_path, times, average))
    assert definition_of_average(lines, validation=False) == (name, pytest.approx([]))
    assert definition_of_average(lines, validation=True)[0] == name


def test_average_since_the_last_validation(tmp_path):
    path = tmp_path / "log.txt"
    rows = [(100, 20.0), (200, 35.0), (300, 48.0)]
    text, last = "", (0, 0.0)
    for step, seconds in rows:
        average = 1000 * (seconds - last[1]) / (step - last[0])
        text += f"step:{step}/300 val_loss:4.0 train_time:{seconds:.3f}s step_avg:{average:.2f}ms\n"
        last = step, seconds
    path.write_text("=" * 100 + "\n" + text)
    assert definition_of_average(TimedLines(read_log(path)), validation=True)[0] == "since the last validation"


def test_edited_final_time_breaks_its_average(tmp_path):
    run = read(tmp_path, times_b())
    edited = Path(run.path)
    edited.write_text(edited.read_text().replace("train_time:30000ms", "train_time:29000ms"))
    name, misfits = definition_of_average(TimedLines(read_log(run.path)), validation=False)
    assert name == "from the start"
    assert len(misfits) == 1


def test_scaled_times_follow_no_definition(tmp_path):
    run = read(
        tmp_path, {step: 0.9 * time for step, time in times_b().items()}, lambda step, time: time / 0.9 / max(step, 1)
    )
    assert definition_of_average(TimedLines(run), validation=False)[0] is None


def test_reset_where_an_override_puts_it(tmp_path):
    """A toy run of an era A record, whose clock is reset after two steps."""
    times = {step: 900 + 100 * step if step <= 2 else 100.0 * (step - 2) for step in range(STEPS + 1)}
    run = read(tmp_path, times, lambda step, time: time / (step - 2) if step > 2 else float("nan"))
    assert turned_back(TimedLines(run))
    text = (
        Path(run.path).read_text().replace("Running PyTorch 2.9", "Running PyTorch 2.9\noverride untimed_iterations=2")
    )
    Path(run.path).write_text(text)
    run = read_log(run.path)
    assert not turned_back(TimedLines(run))
    assert era_of(run) == "A"
