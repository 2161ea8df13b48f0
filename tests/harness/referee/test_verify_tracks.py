"""Other tracks have rules of their own, and track 1's are never theirs."""

import pytest

from harness.referee.verify import verdict_line, verify
from timing.rules import EDITIONS, today
from timing.tracks import MEDIUM, on_track

TUNING = "import torch\ntorch._inductor.config.coordinate_descent_tuning = True\n"


def medium(script):
    return script.replace("val_tokens = 20", "model_dim = 1024\nval_tokens = 20")


def test_the_medium_track_by_its_source(forge, status, evidence, script):
    finals = [2.9181, 2.9192, 2.9169, 2.9171, 2.9184]
    verdict = verify(forge.runs(finals, source=medium(script) + TUNING))
    assert status(verdict, "target") == status(verdict, "compiler-flags") == status(verdict, "loss-range") == "pass"
    assert "track 2 (GPT-2 medium), judged by its own rules: a model 1024 wide" in evidence(verdict, "track")
    assert "2025-02-01, track 2 (GPT-2 medium)" in verdict_line(verdict)
    assert verdict.judged.target == 2.92


def test_the_medium_track_by_its_settings(forge, status, evidence):
    verdict = verify([forge.log(final=2.918, source=None, environment=["override model_dim=1024"])])
    assert "model_dim=1024 (" in evidence(verdict, "track")


def test_the_medium_tracks_flags_are_banned_in_track_1(forge, status, script):
    verdict = verify([forge.submission(source=script + TUNING)])
    assert status(verdict, "compiler-flags") == "fail"


def test_its_target_is_not_met_by_track_1s_loss(forge, status, script):
    assert status(verify([forge.submission(source=medium(script))]), "target") == "fail"


@pytest.mark.parametrize(
    "line",
    ["Using run_stop_step=600 train_steps=600", "Running on device_name=NVIDIA L40S with world_size=8"],
)
def test_the_track_of_steps_takes_any_hardware(forge, status, evidence, line):
    gpus = {"gpus": 0} if "device_name" in line else {"gpu": "NVIDIA A100-SXM4-80GB"}
    verdict = verify([forge.submission(environment=[line], **gpus)])
    assert status(verdict, "hardware") == status(verdict, "clock-era") == "waived"
    assert "track 3 (fewest steps, any hardware)" in evidence(verdict, "track")


def test_one_run_does_not_bring_its_tracks_rules_to_the_others(forge, status, evidence):
    others = forge.runs([3.2781, 3.2779, 3.2783, 3.2776], gpu="NVIDIA B200")
    one = forge.log("logs/a.txt", noise=9, environment=["Using run_stop_step=600 train_steps=600"])
    verdict = verify([one, *others])
    assert status(verdict, "track") == "unknown" and status(verdict, "hardware") == "fail"
    assert "track 1: " in evidence(verdict, "track") and "track 3 (fewest steps" in evidence(verdict, "track")


def test_a_named_record_is_track_1s(forge, draft, script, status):
    source = medium(script)
    verdict = verify([forge.submission(source=source)], record=draft(source))
    assert verdict.judged.edition == "2025-02-01" and status(verdict, "target") == "pass"


def test_editions_keep_their_names():
    assert today().title == today().name
    assert on_track(EDITIONS[0], MEDIUM).compiler.settings is None
