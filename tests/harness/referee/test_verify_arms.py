"""Arms are judged apart, and against a baseline only where one is named."""

import pytest

from harness.referee.verify import verify


def test_arms_are_judged_apart_and_never_averaged(forge, status, script):
    ablation = forge.runs([3.30, 3.301], "ablation", 50, source=script + "ablation = True\n")
    verdict = verify([forge.submission(), *ablation])
    assert len(verdict.judged.runs) == 5
    assert verdict.judged.test.mean == pytest.approx(3.27794, abs=1e-5)
    assert [len(other.runs) for other in verdict.others] == [2]
    assert verdict.others[0].verdict == "fails"
    assert (status(verdict, "arms"), verdict.verdict) == ("unknown", "inconclusive")


def test_other_steps_are_another_arm(forge):
    verdict = verify([forge.submission(), *forge.runs([3.27] * 2, "longer", steps=700)])
    assert [other.arm for other in verdict.others] == [verdict.judged.arm.replace("600", "700")]


def test_the_arm_of_the_record_is_judged_however_small(forge, draft, status, script):
    mine = forge.runs([3.2790, 3.2780], "mine", source=script + "mine = True\n")
    record = draft(script=script + "mine = True\n")
    verdict = verify([forge.submission(), *mine], record=record)
    assert len(verdict.judged.runs) == 2
    assert status(verdict, "arms") == status(verdict, "source") == "pass"


def test_token_stream_is_compared_with_the_record(forge, draft, status, script):
    tuned = draft(script=script.replace("Linear(8, 8)", "Linear(16, 8)"))
    assert status(verify([forge.submission()], record=tuned), "token-stream") == "pass"
    other = draft(script=script.replace("len(tokens) - size", "len(tokens) // 2"), name="other")
    assert status(verify([forge.submission()], record=other), "token-stream") == "unknown"


def test_faster_than_the_baseline(forge, status, evidence):
    baseline = forge.runs([3.278] * 4, "baseline", pace_ms=61.0)
    mine = forge.runs([3.2781, 3.2779, 3.2783, 3.2776, 3.2785])
    verdict = verify(mine, against=baseline)
    assert status(verdict, "faster") == "pass"
    assert "1.6%" in evidence(verdict, "faster") and "faster" in evidence(verdict, "faster")


@pytest.mark.parametrize(("pace", "expected"), [(59.0, "fail"), (60.0, "unknown")])
def test_slower_or_indistinguishable(forge, status, pace, expected):
    baseline = forge.runs([3.278] * 4, "baseline", pace_ms=pace)
    verdict = verify([forge.submission()], against=baseline)
    assert status(verdict, "faster") == expected
    assert verdict.verdict == {"fail": "fails", "unknown": "inconclusive"}[expected]


def test_baseline_on_other_gpus_decides_nothing(forge, status):
    baseline = forge.runs([3.278] * 4, "baseline", pace_ms=61.0, gpu="NVIDIA H200")
    assert status(verify([forge.submission()], against=baseline), "faster") == "unknown"


def test_baseline_on_fewer_gpus_decides_nothing(forge, status):
    baseline = forge.runs([3.278] * 4, "baseline", pace_ms=61.0, gpus=4)
    assert status(verify([forge.submission()], against=baseline), "faster") == "unknown"


def test_baseline_cut_short_has_no_time(forge, status, evidence):
    baseline = forge.runs([3.278], "baseline", pace_ms=600.0)
    baseline[0].write_text(baseline[0].read_text()[:-4000])
    verdict = verify([forge.submission()], against=baseline)
    assert status(verdict, "faster") == "unknown" and "no complete run" in evidence(verdict, "faster")


@pytest.mark.parametrize("fault", ["copies", "a clock that falls", "a run cut short"])
def test_a_broken_baseline_measures_nothing(forge, status, evidence, fault):
    baseline = forge.runs([3.278] * 4, "baseline", pace_ms=61.0)
    text = baseline[0].read_text()
    if fault == "copies":
        baseline[1].write_text(text)
    elif fault == "a clock that falls":
        baseline[1].write_text(baseline[1].read_text().replace("train_time:18", "train_time:10"))
    else:
        baseline[1].write_text(text[:-9000])
    verdict = verify([forge.submission()], against=baseline)
    assert status(verdict, "faster") == "unknown" and verdict.verdict == "inconclusive"
    assert "the baseline is no measure: " in evidence(verdict, "faster")


def test_what_is_left_out_of_the_baseline_is_told(forge):
    forge.runs([3.278] * 4, "baseline", pace_ms=61.0)
    (forge.folder / "baseline" / "more.txt").write_text("not a log\n")
    notes = verify([forge.submission()], against=[forge.folder / "baseline"]).notes
    assert any(note.startswith("left out of the baseline: ") and "more.txt" in note for note in notes)


def test_single_baseline_gives_no_interval(forge, evidence):
    baseline = forge.runs([3.278], "baseline", pace_ms=61.0)
    assert "Welch" not in evidence(verify([forge.submission()], against=baseline), "faster")


def test_baseline_of_several_arms_decides_nothing(forge, status):
    baseline = forge.runs([3.278] * 2, "b1") + forge.runs([3.278] * 2, "b2", steps=500)
    assert status(verify([forge.submission()], against=baseline), "faster") == "unknown"


def test_oddities_of_a_log_are_told(forge):
    log = forge.log()
    log.write_text(log.read_text().replace("val_loss:3.3", "val_loss:3.x", 1))
    assert any("run.txt:" in note for note in verify([log]).notes)


def on_other_machine(log, old, new):
    log.write_text(log.read_text().replace(old, new))
    return log


@pytest.mark.parametrize("told", ["bus ids", "driver 550.1 and 570.1"])
def test_faster_on_another_machine_decides_nothing(forge, status, evidence, told):
    old_version = ("Running Python", "| NVIDIA-SMI 550.1  Driver Version: 550.1  CUDA |\nRunning Python")
    baseline = [on_other_machine(log, *old_version) for log in forge.runs([3.278] * 4, "baseline", pace_ms=61.0)]
    mine = [on_other_machine(log, *old_version) for log in forge.runs([3.2781, 3.2779, 3.2783, 3.2776, 3.2785])]
    assert status(verify(mine, against=baseline), "faster") == "pass"
    mine = [
        on_other_machine(log, *((":00.0 Off", ":01.0 Off") if told == "bus ids" else ("550.1", "570.1")))
        for log in mine
    ]
    verdict = verify(mine, against=baseline)
    assert status(verdict, "faster") == "unknown"
    assert f"not one machine: {told}" in evidence(verdict, "faster")
