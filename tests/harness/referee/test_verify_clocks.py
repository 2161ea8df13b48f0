"""Clocks that stutter, averages that lie, step lines that end early: the bigger the damage, the clearer the verdict."""

import numpy as np
import pytest

from harness.referee.verify import verify
from timing.log import read_log
from timing.stutter import stutter
from timing.timed import TimedLines


def stuttering(every, pace=60.0):
    """A doctor: the clock moves on every `every`th step only, by one step's time."""

    def doctor(log):
        log.time = {step: pace * (step // every) for step in log.time}

    return doctor


@pytest.mark.parametrize("every", [2, 4, 8, 16])
def test_clock_that_moves_on_some_steps_only(forge, status, evidence, every):
    verdict = verify([forge.submission(stuttering(every))])
    assert status(verdict, "clock-running") == "fail"
    assert f"of 600 steps take no time ({100 - 100 / every:.1f}%), {every - 1} in a row" in evidence(
        verdict, "clock-running"
    )


def test_the_time_that_idle_steps_hide_is_told(forge, evidence):
    said = evidence(verify([forge.submission(stuttering(2))]), "clock-running")
    assert "at the usual 60 ms they are 18.0 s" in said


def test_clock_that_crawls_between_its_steps(forge, status):
    def doctor(log):
        pace = [60.0 if step % 8 == 0 else 5.0 for step in log.time]
        log.time = dict(zip(log.time, np.cumsum(pace) - pace[0], strict=True))

    assert status(verify([forge.submission(doctor)]), "clock-running") == "fail"


@pytest.mark.parametrize(("idle", "expected"), [(9, "pass"), (18, "unknown"), (36, "fail")])
def test_a_few_idle_steps_decide_nothing(forge, status, draft, script, idle, expected):
    def doctor(log):
        still = set(range(5, 600, 600 // idle)[:idle])
        pace = [0.0 if step in still or not step else 60.0 for step in log.time]
        log.time = dict(zip(log.time, np.cumsum(pace), strict=True))

    verdict = verify([forge.submission(doctor)], record=draft(script))
    assert status(verdict, "clock-running") == expected
    assert verdict.verdict == {"pass": "holds", "unknown": "inconclusive", "fail": "fails"}[expected]


def test_windows_that_grow_are_no_stutter(forge, status):
    def doctor(log):
        log.time = {step: 5.0 * min(step, 300) + 90.0 * max(0, step - 300) for step in log.time}

    assert status(verify([forge.submission(doctor)]), "clock-running") == "pass"


def test_a_step_of_many_seconds_is_noted(forge, status, evidence):
    def doctor(log):
        log.time = {step: time + 26_000 * (step > 350) for step, time in log.time.items()}

    verdict = verify([forge.submission(doctor)])
    assert status(verdict, "clock-running") == "pass"
    assert "noted: step 351 takes 26.1 s (" in evidence(verdict, "clock-running")


def test_stutter_is_told_of_lines_of_their_own_step_only(forge):
    seen = stutter(TimedLines(read_log(forge.log())))
    assert (seen.steps, seen.idle, seen.longest_idle) == (600, 0, 0)
    assert seen.usual_ms == pytest.approx(62, abs=2)


@pytest.mark.parametrize("share", [0.05, 0.33, 1.0])
def test_averages_that_contradict_the_times_never_get_milder(forge, status, evidence, share):
    def doctor(log):
        honest = log.time
        lines = log.lines()
        log.time = {step: time * (0.9 if step > 600 * (1 - share) else 1.0) for step, time in honest.items()}
        text = log.text()
        for old, new in zip(lines, log.lines(), strict=True):
            text = text.replace(new, new.split("step_avg")[0] + "step_avg" + old.split("step_avg")[1])
        log.text = lambda: text

    verdict = verify([forge.submission(doctor)])
    assert status(verdict, "clock-average") == "fail"
    assert "run2.txt:" in evidence(verdict, "clock-average")


def test_step_lines_that_end_before_the_validations(forge, evidence, status):
    def doctor(log):
        kept = [line for line in log.lines() if "val_loss" in line or int(line[5:].split("/")[0]) < 440]
        log.lines = lambda: kept

    verdict = verify([forge.submission(doctor)])
    assert status(verdict, "steps") == "fail"
    assert "step lines end at step 439, validations go on to step 600" in evidence(verdict, "steps")


def test_step_lines_that_begin_late(forge, evidence):
    def doctor(log):
        kept = [line for line in log.lines() if "val_loss" in line or int(line[5:].split("/")[0]) > 40]
        log.lines = lambda: kept

    verdict = verify([forge.submission(doctor)])
    assert "steps" in verdict.judged.named("fail") and "first step line is of step 41" in evidence(verdict, "steps")


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_averages_taken_away_keep_a_verdict_from_holding(forge, status, draft, script, share):
    def doctor(log):
        lines = [
            line.split("step_avg")[0] + "step_avg:nanms" if i % 10 < 10 * share else line
            for i, line in enumerate(log.lines())
        ]
        log.lines = lambda: lines

    verdict = verify([forge.submission(doctor)], record=draft(script))
    assert (status(verdict, "clock-average"), verdict.verdict) == ("unknown", "inconclusive")
