"""Verdicts: what holds, what fails, what stays open, under which edition, for which arm, against which baseline."""

import datetime
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.errors import UserError
from harness.record import Record
from harness.verify import to_json, verdict_line, verify


def submission_of(forge, finals, folder="logs", **changes):
    """Logs of which only the final losses are chosen."""
    return [
        forge.log(f"{folder}/run{i}.txt", noise=i, **({"final": final} | changes)) for i, final in enumerate(finals)
    ]


def test_verdict_line_names_what_it_rests_on(forge):
    line = verdict_line(verify([forge.submission()]))
    assert line.startswith(
        "HOLDS under the rules of 2025-02-01: mean 3.27794 ± 0.00095, p 0.0042, n = 5, 35.991 s ± 0.0"
    )
    assert line.endswith("not shown: data, token-stream, faster")


def test_few_runs_are_inconclusive_and_say_how_many_more(forge):
    verdict = verify(submission_of(forge, [3.2790, 3.2770]))
    assert verdict.verdict == "inconclusive"
    assert verdict.exit_code == 3
    assert verdict.judged.runs_needed == 4
    assert verdict_line(verdict).startswith("INCONCLUSIVE (4 more runs) under the rules")


def test_one_run_is_inconclusive(forge, status):
    verdict = verify([forge.log()])
    assert (verdict.verdict, status(verdict, "target")) == ("inconclusive", "unknown")


def test_mean_above_the_target_fails(forge, status):
    verdict = verify(submission_of(forge, [3.2805, 3.2807, 3.2801]))
    assert (verdict.verdict, verdict.exit_code, status(verdict, "target")) == ("fails", 1, "fail")


def test_significance_is_waived_for_systems(forge, status):
    logs = submission_of(forge, [3.2795, 3.2790])
    assert status(verify(logs, systems=True), "target") == "waived"
    assert verify(logs, systems=True).verdict == "holds"
    assert verify(logs).verdict == "inconclusive"


def test_waiver_does_not_cover_other_mathematics(forge, status):
    assert status(verify(submission_of(forge, [3.2950, 3.2960]), systems=True), "target") == "fail"


def test_first_edition_asks_for_the_mean_alone(forge, status):
    verdict = verify([forge.log(era="A", date="Fri Oct 11 06:00:33 2024")])
    assert verdict.judged.edition == "2024-05-28"
    assert (verdict.verdict, status(verdict, "target")) == ("holds", "pass")


def test_both_editions_are_shown_unless_one_is_asked_for(forge):
    log = forge.log(era="A", date="Fri Oct 11 06:00:33 2024")
    verdict = verify([log])
    assert verdict.today.edition == "2025-02-01"
    assert "clock-era" in verdict.today.named("fail")
    assert verdict.today.mean_official_time > verdict.today.mean_time
    assert verify([log], edition="2025-02-01").today is None
    assert verify([log], edition="2025-06-30").judged.edition == "2025-02-01"


def test_edition_that_is_no_date(forge):
    with pytest.raises(UserError, match="not a date"):
        verify([forge.log()], edition="latest")


def test_record_brings_its_edition_and_kind(forge, tmp_path):
    record = draft(tmp_path, edition="2025-01-01", kind="systems")
    verdict = verify(submission_of(forge, [3.2795, 3.2790], era="A"), record=record)
    assert verdict.judged.edition == "2025-01-01"
    assert "target" in verdict.judged.named("waived")


def test_log_without_a_clock_proves_no_time(forge, tmp_path):
    log = tmp_path / "main.log"
    log.write_text("\n".join(f"s:{i} trl:{11 - i / 20:.4f}" for i in range(100)) + "\ns:100 tel:3.2700\n")
    verdict = verify([log], edition="2024-05-28")
    assert verdict.verdict == "inconclusive"
    assert {"clock-forward", "clock-running", "hardware"} <= set(verdict.judged.named("unknown"))


def test_left_out_source_is_unknown_not_pass(forge, status):
    found = status(verify([forge.submission(source="import torch\nprint('left out')\n")]))
    unknown = {rule for rule, state in found.items() if state == "unknown"}
    assert {"source", "compiler-flags", "val-tokens", "validation-reads", "token-stream"} <= unknown
    assert status(verify([forge.submission(source=None)]), "source") == "unknown"


def test_unreadable_source_is_unknown(forge, status, script):
    found = status(verify([forge.submission(source=script + "x = " + "-" * 100_000 + "1\n")]))
    assert found["compiler-flags"] == found["validation-reads"] == "unknown"


# Arms


def test_arms_are_judged_apart_and_never_averaged(forge, status, script):
    ablation = submission_of(forge, [3.30, 3.301], "ablation", source=script + "ablation = True\n")
    verdict = verify([forge.submission(), *ablation])
    assert len(verdict.judged.runs) == 5
    assert verdict.judged.test.mean == pytest.approx(3.27794, abs=1e-5)
    assert [len(other.runs) for other in verdict.others] == [2]
    assert verdict.others[0].verdict == "fails"
    assert status(verdict, "arms") == "unknown"


def test_other_steps_are_another_arm(forge):
    verdict = verify([forge.submission(), *submission_of(forge, [3.27] * 2, "longer", steps=700)])
    assert [other.arm for other in verdict.others] == [verdict.judged.arm.replace("600", "700")]


def test_the_arm_of_the_record_is_judged_however_small(forge, tmp_path, status, script):
    mine = submission_of(forge, [3.2790, 3.2780], "mine", source=script + "mine = True\n")
    record = draft(tmp_path, script=script + "mine = True\n")
    verdict = verify([forge.submission(), *mine], record=record)
    assert len(verdict.judged.runs) == 2
    assert status(verdict, "arms") == status(verdict, "source") == "pass"


def test_token_stream_is_compared_with_the_record(forge, tmp_path, status, script):
    tuned = draft(tmp_path, script=script.replace("Linear(8, 8)", "Linear(16, 8)"))
    assert status(verify([forge.submission()], record=tuned), "token-stream") == "pass"
    other = draft(tmp_path, script=script.replace("len(tokens) - size", "len(tokens) // 2"), name="other")
    assert status(verify([forge.submission()], record=other), "token-stream") == "unknown"


# The baseline


def test_faster_than_the_baseline(forge, status, evidence):
    baseline = submission_of(forge, [3.278] * 4, "baseline", pace_ms=61.0)
    mine = submission_of(forge, [3.2781, 3.2779, 3.2783, 3.2776, 3.2785])
    verdict = verify(mine, against=baseline)
    assert status(verdict, "faster") == "pass"
    assert "1.6%" in evidence(verdict, "faster") and "faster" in evidence(verdict, "faster")


@pytest.mark.parametrize(("pace", "expected"), [(59.0, "fail"), (60.0, "unknown")])
def test_slower_or_indistinguishable(forge, status, pace, expected):
    baseline = submission_of(forge, [3.278] * 4, "baseline", pace_ms=pace)
    verdict = verify([forge.submission()], against=baseline)
    assert status(verdict, "faster") == expected
    assert verdict.verdict == {"fail": "fails", "unknown": "inconclusive"}[expected]


def test_baseline_on_other_gpus_decides_nothing(forge, status):
    baseline = submission_of(forge, [3.278] * 4, "baseline", pace_ms=61.0, gpu="NVIDIA H200")
    assert status(verify([forge.submission()], against=baseline), "faster") == "unknown"


def test_baseline_of_several_arms_decides_nothing(forge, status):
    baseline = submission_of(forge, [3.278] * 2, "b1") + submission_of(forge, [3.278] * 2, "b2", steps=500)
    assert status(verify([forge.submission()], against=baseline), "faster") == "unknown"


def test_oddities_of_a_log_are_told(forge):
    log = forge.log()
    log.write_text(log.read_text().replace("val_loss:3.3", "val_loss:3.x", 1))
    assert any("run.txt:" in note for note in verify([log]).notes)


# Run folders of our own launcher


def test_witness_and_manifest_of_a_run_folder(forge, status):
    found = status(verify([forge.run_folder()]))
    assert found["witness"] == found["data"] == "pass"


def test_launchers_copies_of_the_output_are_no_further_runs(forge):
    folder = forge.run_folder()
    (folder / "ranks").mkdir()
    shutil.copy(folder / "stdout.txt", folder / "ranks" / "stdout.log")
    assert len(verify([folder]).judged.runs) == 1


def test_witness_that_saw_a_slower_clock(forge, status, evidence):
    verdict = verify([forge.run_folder(fast=1.02)])
    assert status(verdict, "witness") == "fail"
    assert "at least 1.8%" in evidence(verdict, "witness")


def test_validation_is_not_held_against_the_clock(forge, status):
    assert status(verify([forge.run_folder(every=20)]), "witness") == "pass"


@pytest.mark.parametrize(
    ("old", "new"),
    [("val_loss:3.2780", "val_loss:3.2710"), ("step:600/600 train_time:359", "step:600/600 train_time:349")],
)
def test_log_edited_after_the_launcher_saw_it(forge, status, old, new):
    folder = forge.run_folder()
    text = (folder / "log.txt").read_text()
    assert old in text
    (folder / "log.txt").write_text(text.replace(old, new))
    assert status(verify([folder]), "witness") == "fail"


def test_damaged_run_json_is_unknown(forge, status):
    folder = forge.run_folder()
    (folder / "run.json").write_text("{")
    assert status(verify([folder]), "witness") == "unknown"
    (folder / "run.json").write_text(
        json.dumps({"witness": {"step": [1], "kind": ["train"], "log_ms": ["x"], "clock_s": [0]}})
    )
    assert status(verify([folder]), "witness") == "unknown"


def test_another_corpus_fails(forge, status):
    assert status(verify([forge.run_folder(manifest=("books", "a" * 64))]), "data") == "fail"


def test_manifest_that_nobody_describes_is_unknown(forge, status):
    assert status(verify([forge.log(environment=["manifest=" + "c" * 64])]), "data") == "unknown"


# The command


def test_command_prints_and_exits(forge):
    folder = forge.submission()
    result = CliRunner().invoke(main, ["verify", str(folder)])
    assert result.exit_code == 0
    assert "HOLDS" in result.output.splitlines()[-1]
    assert any(line.startswith("PASS     complete ") for line in result.output.splitlines())


def test_json_follows_the_schema(forge):
    content = json.loads(to_json(verify([forge.submission()])))
    expected = {"verdict", "edition", "target", "runs", "n", "mean_val_loss", "std_val_loss", "p_value"}
    expected |= {"mean_train_time_s", "std_train_time_s", "runs_needed", "checks"}
    assert expected <= set(content)
    run = {"path", "dialect", "steps", "planned_steps", "complete", "val_loss", "train_time_ms", "step_avg_ms"}
    run |= {"torch", "gpus", "gpu", "source_sha256", "seed", "fidelity"}
    assert set(content["runs"][0]) == run
    assert {"rule", "status", "evidence", "edition"} == set(content["checks"][0])
    assert (content["verdict"], content["n"], content["runs_needed"]) == ("holds", 5, 0)


def test_json_of_a_diverged_run_has_no_nan(forge):
    text = to_json(verify([forge.log(final=float("nan"))]))
    assert "NaN" not in text and json.loads(text)["mean_val_loss"] is None


def test_nothing_in_a_log_is_executed(forge, tmp_path, script):
    mark = tmp_path / "executed"
    verify([forge.log(source=f"open({str(mark)!r}, 'w')\n" + script)])
    assert not mark.exists()


def draft(folder, script="print('val_loss')\n", name="record", **changes):
    home = folder / name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "train.py").write_text(script)
    facts = {"number": "99", "date": datetime.date(2025, 10, 4), "title": "A draft", "edition": "2025-02-01"} | changes
    return Record(folder=home, **facts)


def test_the_manual_describes_every_rule_and_no_other(forge):
    manual = (Path(__file__).parents[3] / "docs" / "judging.md").read_text()
    described = set(re.findall(r"^\| `([a-z-]+)` \|", manual, flags=re.MULTILINE))
    assert described == {check.rule for check in verify([forge.run_folder()]).judged.checks}
