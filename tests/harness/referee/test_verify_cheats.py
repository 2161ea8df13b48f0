"""Every cheat is caught by the name of its rule, and its honest neighbour passes."""

import datetime

import pytest

from harness.archive.record import Record
from harness.referee.verify import verify


def broken(verdict) -> list[str]:
    return verdict.judged.named("fail")


def test_the_honest_submission_holds(forge, status, draft, script):
    verdict = verify([forge.submission()], record=draft(script))
    assert verdict.verdict == "holds"
    assert verdict.exit_code == 0
    assert broken(verdict) == []
    for rule in ("complete", "target", "curve", "independence", "steps", "clock-forward", "clock-running"):
        assert status(verdict, rule) == "pass"
    for rule in ("clock-average", "clock-era", "hardware", "settings", "source", "compiler-flags", "val-tokens"):
        assert status(verdict, rule) == "pass"
    for rule in (
        "validation-reads",
        "token-stream",
        "clock-source",
        "fresh-start",
        "script-settings",
        "loss-range",
        "date",
    ):
        assert status(verdict, rule) == "pass"


def test_clock_reset_in_the_middle(forge, evidence):
    def doctor(log):
        log.time = {step: time - (10_000 if step > 300 else 0) for step, time in log.time.items()}

    verdict = verify([forge.submission(doctor)])
    assert "clock-forward" in broken(verdict)
    assert "step 301" in evidence(verdict, "clock-forward") and "run2.txt:" in evidence(verdict, "clock-forward")


def test_clock_reset_in_era_a_is_allowed_at_step_ten_only(forge, status):
    folder = forge.submission(era="A", date="Mon Jan 13 06:00:33 2025")
    verdict = verify([folder])
    assert verdict.judged.edition == "2025-01-01"
    assert status(verdict, "clock-forward") == status(verdict, "clock-era") == "pass"


def test_clock_of_the_old_era_in_a_new_submission(forge):
    assert broken(verify([forge.submission(era="A")])) == ["clock-era"]


def test_frozen_clock(forge):
    def doctor(log):
        log.time = {step: time - 60 * min(max(step - 200, 0), 50) for step, time in log.time.items()}

    assert "clock-running" in broken(verify([forge.submission(doctor)]))


def test_negative_time(forge):
    def doctor(log):
        log.time[1] = -80.0

    assert "clock-forward" in broken(verify([forge.submission(doctor)]))


def test_final_time_edited_without_its_average(forge, evidence):
    def doctor(log):
        text = log.text().replace(f"{log.time[600]:.0f}ms step", f"{log.time[600] - 400:.0f}ms step")
        log.text = lambda: text

    verdict = verify([forge.submission(doctor)])
    assert "clock-average" in broken(verdict)
    assert "run2.txt:" in evidence(verdict, "clock-average")


@pytest.mark.parametrize("off", [-0.006, -0.02])
def test_final_loss_edited_without_its_step(forge, evidence, off):
    def doctor(log):
        log.loss[600] += off

    verdict = verify([forge.submission(doctor)])
    assert "curve" in broken(verdict)
    assert "step 600" in evidence(verdict, "curve")


def test_a_late_loss_edited(forge, evidence):
    def doctor(log):
        log.loss[500] -= 0.01

    verdict = verify([forge.submission(doctor)])
    assert "curve" in broken(verdict)
    assert "step 500" in evidence(verdict, "curve")


def test_two_losses_for_one_step(forge):
    def doctor(log):
        text = log.text().replace("\npeak", "\nstep:600/600 val_loss:3.2701 train_time:99999ms step_avg:166.67ms\npeak")
        log.text = lambda: text

    assert "curve" in broken(verify([forge.submission(doctor)]))


def test_an_unlucky_run_is_not_an_edited_one(forge, status):
    """A whole curve that lies higher moves with its run, not by itself."""

    def doctor(log):
        log.loss = {step: loss + 0.003 for step, loss in log.loss.items()}

    assert status(verify([forge.submission(doctor)]), "curve") == "pass"


def test_steps_skipped(forge, evidence):
    def doctor(log):
        log.time = {step: time for step, time in log.time.items() if not 220 < step < 260}

    verdict = verify([forge.submission(doctor)])
    assert "steps" in broken(verdict)
    assert "step 260 follows step 220" in evidence(verdict, "steps")


def test_copied_run_with_a_new_id(forge, evidence):
    folder = forge.submission()
    text = (folder / "run0.txt").read_text()
    (folder / "copy.txt").write_text(text.replace("Running Python", "run_id=new\nRunning Python"))
    verdict = verify([folder])
    assert "independence" in broken(verdict)
    assert "copy.txt" in evidence(verdict, "independence") and "run0.txt" in evidence(verdict, "independence")


@pytest.mark.parametrize("shift", [{"loss": 0.0004}, {"time": 150.0}])
def test_copied_run_moved_by_a_constant(forge, evidence, shift):
    """Losses moved, times drawn anew; or times moved and losses drawn anew."""

    def doctor(log):
        other = type(log)(noise=1, final=3.2792)
        log.loss = {step: loss + shift["loss"] for step, loss in other.loss.items()} if "loss" in shift else log.loss
        if "time" in shift:
            log.time = {step: time + shift["time"] for step, time in other.time.items()}

    verdict = verify([forge.submission(doctor)])
    assert "independence" in broken(verdict)
    assert "repeats" in evidence(verdict, "independence")


def test_repeated_run_id(forge):
    assert "independence" in broken(verify([forge.submission(environment=["run_id=5b1c"])]))


def test_the_same_file_named_twice_is_read_once(forge):
    folder = forge.submission()
    assert len(verify([folder, folder / "run1.txt"]).judged.runs) == 5


def test_repeated_seeds_are_pointed_out(forge, status, evidence):
    verdict = verify([forge.submission(environment=["seed=1337"])])
    assert status(verdict, "independence") == "unknown"
    assert "5 runs have seed 1337" in evidence(verdict, "independence")


@pytest.mark.parametrize("fewer", ["val_tokens = 5 * 524288", "val_tokens = 10_000_000"])
def test_validation_tokens_reduced_in_the_script(forge, evidence, script, fewer):
    from_the_script = forge.submission(source=script.replace("val_tokens = 20 * 524288", fewer))
    verdict = verify([from_the_script])
    assert broken(verdict) == ["val-tokens"]
    assert ".txt:12" in evidence(verdict, "val-tokens")


def test_validation_tokens_reduced_by_an_override(forge):
    verdict = verify([forge.submission(environment=["override val_tokens=1048576"])])
    assert broken(verdict) == ["settings", "val-tokens"]


def test_banned_flag_in_a_helper_module(forge, evidence):
    helper = "from torch._inductor import config as c\nc.coordinate_descent_tuning = True\n"
    verdict = verify([forge.submission(helpers={"triton_kernels.py": helper})])
    assert broken(verdict) == ["compiler-flags"]
    assert "triton_kernels.py:2" in evidence(verdict, "compiler-flags")


@pytest.mark.parametrize("names", [("x/.py",), ("a/tuning.py", "b/tuning.py"), ("tuning.py", "tuning.py")])
def test_a_helper_module_that_hides_another(forge, draft, script, status, names):
    """The last of them is innocent, or the record's own script."""
    flag = "import torch._inductor.config as c\nc.coordinate_descent_tuning = True\n"
    main, texts = (script + flag, [script]) if len(names) == 1 else (script, [flag, "x = 1\n"])
    for name, text in zip(names, texts, strict=True):
        main += f"\n\n{'-' * 40}\n# {name}\n{'-' * 40}\n\n{text}"
    verdict = verify([forge.submission(source=main)], record=draft(script))
    assert status(verdict, "compiler-flags") == "unknown" and status(verdict, "source") != "pass"
    assert verdict.verdict != "holds"


def test_harmless_helper_module_passes(forge, status):
    helper = (
        '"""torch._inductor.config.max_autotune = True"""\nimport torch\nprint(torch._inductor.config.max_autotune)\n'
    )
    assert status(verify([forge.submission(helpers={"triton_kernels.py": helper})]), "compiler-flags") == "pass"


def test_flags_were_allowed_in_their_time(forge, status, script):
    flag = "\nimport torch\ntorch._inductor.config.coordinate_descent_tuning = True\n"
    verdict = verify([forge.submission(source=script + flag, era="A", date="Sun Jan 26 03:00:00 2025")])
    assert verdict.judged.edition == "2025-01-01"
    assert status(verdict, "compiler-flags") == "pass"
    assert set(verdict.today.named("fail")) == {"compiler-flags", "clock-era"}


def test_training_on_validation_shards(forge, script):
    greedy = script.replace('"data/fineweb_train_*.bin"', '"data/fineweb_val_*.bin"')
    assert broken(verify([forge.submission(source=greedy)])) == ["validation-reads"]


def test_script_that_differs_from_the_logs_source(forge, status, script):
    record = draft_record(forge.folder, script + "print()\n")
    assert broken(verify([forge.submission()], record=record)) == ["source"]
    record = draft_record(forge.folder, script, "same")
    assert status(verify([forge.submission()], record=record), "source") == "pass"


@pytest.mark.parametrize(
    ("gpu", "gpus", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 8, "pass"),
        ("NVIDIA H200", 8, "pass"),
        ("NVIDIA H100 80GB HBM3", 4, "fail"),
        ("NVIDIA A100-SXM4-80GB", 8, "fail"),
        ("NVIDIA H100 80GB HBM3", 0, "unknown"),
    ],
)
def test_hardware(forge, status, gpu, gpus, expected):
    assert status(verify([forge.submission(gpu=gpu, gpus=gpus)]), "hardware") == expected


def test_an_h200_is_not_called_an_h100(forge, evidence):
    assert "its times are its own" in evidence(verify([forge.submission(gpu="NVIDIA H200")]), "hardware")


def test_fewer_ranks_than_gpus(forge):
    assert "hardware" in broken(verify([forge.submission(environment=["world_size=1 accumulation=8"])]))


def test_run_cut_short(forge, evidence):
    def doctor(log):
        log.time = {step: time for step, time in log.time.items() if step < 450}

    verdict = verify([forge.submission(doctor)])
    assert "complete" in broken(verdict)
    assert "step 449 of 600" in evidence(verdict, "complete")


def test_diverged_run_is_not_dropped(forge):
    def doctor(log):
        log.loss[600] = float("nan")

    assert {"complete", "target"} <= set(broken(verify([forge.submission(doctor)])))


def test_overridden_setting(forge, evidence):
    verdict = verify([forge.submission(environment=["override model_dim=64"])])
    assert broken(verdict) == ["settings"]
    assert "model_dim=64" in evidence(verdict, "settings")


def draft_record(folder, script, name="record"):
    home = folder / name
    home.mkdir()
    (home / "train.py").write_text(script)
    return Record(folder=home, number="99", date=datetime.date(2025, 10, 4), title="A draft", edition="2025-02-01")
