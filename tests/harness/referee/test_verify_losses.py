"""Losses that no model has, runs made of other runs, and what one run may say of the target."""

import numpy as np
import pytest

from harness.referee.verify import verify


def test_negative_losses(forge, status, evidence):
    verdict = verify(forge.runs([-3.2780, -3.2771, -3.2785, -3.2776, -3.2784]))
    assert (verdict.verdict, status(verdict, "loss-range")) == ("fails", "fail")
    assert "no cross-entropy is negative" in evidence(verdict, "loss-range")


@pytest.mark.parametrize(("final", "expected"), [(0.07, "fails"), (2.9, "fails"), (3.2, "inconclusive")])
def test_losses_that_such_a_model_does_not_reach(forge, final, expected):
    assert verify(forge.runs([final + off for off in (0.0001, 0.0012, -0.0011, -0.0009)])).verdict == expected


def test_weights_that_were_there_before_the_first_step(forge, evidence):
    def doctor(log):
        log.loss = {step: 3.2770 + 0.0001 * (600 - step) / 100 for step in log.loss}

    verdict = verify([forge.submission(doctor)])
    assert verdict.verdict == "fails"
    assert "3.2776 at step 0: an untrained model has at least ln(50257) = 10.82" in evidence(verdict, "loss-range")


def test_a_trained_model_at_the_first_validation_that_is_shown(forge, evidence):
    def doctor(log):
        log.loss = {step: 3.2770 + 0.0001 * (600 - step) / 100 for step in log.loss if step}

    verdict = verify([forge.submission(doctor)])
    assert "3.2775 at step 100: no public run has come under 3.45" in evidence(verdict, "loss-range")
    assert verdict.verdict != "holds"


def test_bounds_are_not_held_against_other_settings(forge, status):
    small = forge.log(final=1.2, environment=["override vocab_size=64"])
    assert status(verify([small]), "loss-range") == "unknown"


def test_a_run_that_ends_badly_is_noted_and_no_edit(forge, status, evidence):
    def doctor(log):
        log.loss[600] += 0.0075

    verdict = verify([forge.submission(doctor)])
    assert status(verdict, "curve") == "pass"
    assert "noted: val_loss 3.2844 at step 600: the change to it is +0.00" in evidence(verdict, "curve")


def test_an_edit_of_all_runs_alike_shows_against_the_published_curve(forge, draft, evidence):
    def edited(log):
        log.loss[600] -= 0.008

    record = draft(curve=((500, 3.3098), (600, 3.2780)))
    logs = []
    for i, final in enumerate((3.2781, 3.2792, 3.2769)):
        folder = forge.submission(edited, which=0, noise=i, final=final)
        logs.append((folder / "run0.txt").rename(forge.folder / f"{i}.txt"))
    assert "published curve" in evidence(verify(logs, record=record), "curve")


def spliced(forge, at=300):
    """Two runs and their two cross-splices at a step, losses and times."""
    first, second = (forge.runs([final], noise=i)[0] for i, final in enumerate((3.2774, 3.2772)))
    logs = [forge.log(f"m{i}.txt", noise=i, final=final, every=50) for i, final in enumerate((3.2774, 3.2772))]
    del first, second
    lines = [log.read_text().splitlines() for log in logs]
    cut = next(i for i, line in enumerate(lines[0]) if line.startswith(f"step:{at}/"))
    for name, head, tail in (("x.txt", 0, 1), ("y.txt", 1, 0)):
        path = forge.folder / name
        path.write_text("\n".join(lines[head][:cut] + lines[tail][cut:]) + "\n")
        logs.append(path)
    return logs


def test_runs_made_of_runs(forge, status, evidence):
    verdict = verify(spliced(forge))
    assert status(verdict, "independence") == "fail"
    assert "losses running from" in evidence(verdict, "independence")


def test_runs_made_of_runs_by_their_times_alone(forge, status, evidence):
    logs = spliced(forge)
    for i, path in enumerate(logs):
        text = path.read_text()
        for step in range(50, 601, 50):
            old = text.split(f"step:{step}/600 val_loss:")[1][:6]
            text = text.replace(
                f"/600 val_loss:{old}", f"/600 val_loss:{float(old) + 0.0007 * np.sin(step + 5 * i):.4f}"
            )
        path.write_text(text)
    verdict = verify(logs)
    assert status(verdict, "independence") == "fail"
    assert "steps running from" in evidence(verdict, "independence")


def test_one_run_five_times_with_noise(forge, evidence, status):
    rng = np.random.default_rng(5)

    def noisy(log):
        other = type(log)(every=50)
        log.loss = {step: loss + rng.normal(0, 0.001) for step, loss in other.loss.items()}
        log.time = {step: time + rng.normal(0, 3) * (step > 0) for step, time in other.time.items()}

    logs = []
    for i in range(5):
        folder = forge.submission(noisy, which=0)
        logs.append((folder / "run0.txt").rename(forge.folder / f"{i}.txt"))
    verdict = verify(logs)
    assert status(verdict, "independence") == "fail"
    assert "with noise on it" in evidence(verdict, "independence")


def test_losses_that_scatter_early_on_as_at_their_end(forge, status, evidence):
    logs = forge.runs([3.2781, 3.2792, 3.2769, 3.2771], every=50)
    verdict = verify(logs)
    assert (status(verdict, "independence"), verdict.verdict) == ("unknown", "inconclusive")
    assert "runs scatter by 0.00" in evidence(verdict, "independence")


def test_copies_in_another_arm_are_that_arms_matter(forge, status, script):
    other = forge.runs([3.30], "baseline", 50, source=script + "ablation = True\n")[0]
    twin = forge.folder / "baseline" / "twin.txt"
    twin.write_text(other.read_text())
    verdict = verify([forge.submission(), other, twin])
    assert status(verdict, "independence") == "pass"
    assert verdict.others[0].named("fail") == ["target", "independence"]


@pytest.mark.parametrize("loss", [3.2807, 3.2830])
def test_one_run_above_the_target_shows_nothing(forge, status, loss):
    verdict = verify(forge.runs([loss]))
    assert (verdict.verdict, status(verdict, "target")) == ("inconclusive", "unknown")
    assert verify(forge.runs([loss]), systems=True).verdict == "inconclusive"


def test_one_run_far_above_the_target_fails(forge):
    assert verify(forge.runs([3.29])).verdict == "fails"


def test_only_the_significance_is_waived_for_systems(forge, status):
    verdict = verify(forge.runs([3.2801, 3.2803]), systems=True)
    assert (verdict.verdict, status(verdict, "target")) == ("inconclusive", "unknown")
