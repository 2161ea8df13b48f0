"""A long log is judged a stretch at a time, and what is wrong with it found wherever the stretches meet."""

import numpy as np
import pytest

from timing import clock, timed
from timing.clock import negative, stood_still, turned_back
from timing.clock_facts import clock_of
from timing.log import read_log
from timing.stutter import stutter
from timing.timed import TimedLines

STEPS = 600


@pytest.fixture
def short_stretches(monkeypatch):
    """Makes stretches so short that the logs of this file hold many."""

    def make(lines):
        monkeypatch.setattr(timed, "STRETCH", lines)
        monkeypatch.setattr(clock, "STRETCH", lines)

    return make


@pytest.fixture
def read(tmp_path):
    """Writes a log of the times (ms after each step), validated every 100 steps, and reads it. Its averages are those
    of the whole run, or of the last step alone."""

    def write(times, of_last_step=False):
        averages = np.diff(times, prepend=0) if of_last_step else times / np.arange(STEPS + 1).clip(1)
        lines = ["=" * 100]
        for step, (time, average) in enumerate(zip(times.tolist(), averages.tolist(), strict=True)):
            metric = f"train_time:{time:.0f}ms step_avg:{average:.2f}ms"
            lines += [f"step:{step}/{STEPS} val_loss:4.0 {metric}"] if step % 100 == 0 else []
            lines += [f"step:{step}/{STEPS} {metric}"] if step else []
        path = tmp_path / "log.txt"
        path.write_text("\n".join(lines) + "\n")
        return read_log(path)

    return write


def honest():
    """The clock of a run of 100 ms a step."""
    return 100.0 * np.arange(STEPS + 1)


def falling():
    times = honest()
    times[300:] -= 20_000
    return times


def below_zero():
    return honest() - 30_000


def standing():
    times = honest()
    times[250:450] = times[250]
    return times


def reset():
    return np.concatenate([5000 + honest()[:11], honest()[1:-10]])


@pytest.mark.parametrize("times", [honest, falling, below_zero, standing, reset])
@pytest.mark.parametrize("length", [7, 50, 64, 101, 300, 606])
def test_stretches_show_what_the_whole_shows(read, short_stretches, times, length):
    run = read(times())
    whole = TimedLines(run)
    expected = whole.start, turned_back(whole), negative(whole), stood_still(whole)
    facts = clock_of(run)
    short_stretches(length)
    lines = TimedLines(run)
    assert (lines.start, turned_back(lines), negative(lines), stood_still(lines)) == expected
    assert_same_averages(lines, facts)


def assert_same_averages(lines, facts):
    averages = [clock.nearest_definition(lines, validation) for validation in (True, False)]
    for found, known in zip(averages, facts.averages, strict=True):
        assert (found.definition, found.checked, found.misfits) == (known.definition, known.checked, known.misfits)
        assert found.lines.tolist() == known.lines.tolist()


def test_averages_since_the_last_line_are_followed_from_stretch_to_stretch(read, short_stretches):
    run = read(np.cumsum(np.arange(STEPS + 1.0)), of_last_step=True)
    facts = clock_of(run)
    assert facts.averages[1].definition == "since the last validation"
    short_stretches(50)
    assert_same_averages(TimedLines(run), facts)


def test_stretches_hold_every_line_once_in_the_order_of_the_file(read, short_stretches):
    run = read(honest())
    expected = np.sort(np.concatenate([run.train_line, run.val_line]))
    short_stretches(50)
    parts = list(TimedLines(run).stretches(overlap=0))
    assert len(parts) == 13
    assert np.array_equal(np.concatenate([part.line for part in parts]), expected)
    assert np.array_equal(np.concatenate([part.line[part.validation] for part in parts]), run.val_line)


def test_idle_steps_are_counted_over_all_stretches(read, short_stretches):
    times = honest()
    run = read(times[np.arange(STEPS + 1) // 4 * 4])
    whole = stutter(TimedLines(run))
    short_stretches(200)
    parts = stutter(TimedLines(run))
    assert (parts.steps, parts.idle, parts.idle_line) == (whole.steps, whole.idle, whole.idle_line) == (600, 450, 3)
    assert (parts.longest_idle, parts.longest_ms) == (whole.longest_idle, whole.longest_ms)
