"""Verdicts: what holds, what fails, what stays open, and under which edition."""

import hashlib
import json

import pytest

from harness.errors import UserError
from harness.referee.verify import to_json, verdict_line, verify
from timing.log import read_log


def test_verdict_line_names_what_it_rests_on(forge, draft, script):
    line = verdict_line(verify([forge.submission()], record=draft(script)))
    assert line.startswith(
        "HOLDS under the rules of 2025-02-01: mean 3.27794 ± 0.00095, p 0.0042, n = 5, 35.991 s ± 0.0"
    )
    assert line.endswith("not shown: data, faster")


def test_few_runs_are_inconclusive_and_say_how_many_more(forge):
    verdict = verify(forge.runs([3.2790, 3.2770]))
    assert verdict.verdict == "inconclusive"
    assert verdict.exit_code == 3
    assert verdict.judged.runs_needed == 4
    assert verdict_line(verdict).startswith("INCONCLUSIVE (4 more runs) under the rules")


def test_one_run_is_inconclusive(forge, status):
    verdict = verify([forge.log()])
    assert (verdict.verdict, status(verdict, "target")) == ("inconclusive", "unknown")


def test_mean_above_the_target_fails(forge, status):
    verdict = verify(forge.runs([3.2805, 3.2807, 3.2801]))
    assert (verdict.verdict, verdict.exit_code, status(verdict, "target")) == ("fails", 1, "fail")


def test_significance_is_waived_for_systems(forge, status, draft, script):
    logs = forge.runs([3.2795, 3.2790])
    assert status(verify(logs, systems=True), "target") == "waived"
    record = draft(script)
    assert verify(logs, record=record, systems=True).verdict == "holds"
    assert verify(logs, record=record).verdict == "inconclusive"


def test_waiver_does_not_cover_other_mathematics(forge, status):
    assert status(verify(forge.runs([3.2950, 3.2960]), systems=True), "target") == "fail"


def test_a_run_cut_short_fails_and_is_never_averaged(forge, status):
    folder = forge.submission()
    cut = forge.log("logs/run5.txt", noise=9)
    cut.write_text(cut.read_text()[:-4000])
    verdict = verify([folder])
    content = json.loads(to_json(verdict))
    assert (status(verdict, "complete"), status(verdict, "target")) == ("fail", "pass")
    assert (content["n"], len(content["runs"]), content["mean_val_loss"]) == (5, 6, pytest.approx(3.27794, abs=1e-9))
    assert "n = 5 of 6, 35.991 s" in verdict_line(verdict)


def test_a_lone_run_cut_short_has_no_final_loss(forge, status):
    cut = forge.log()
    cut.write_text(cut.read_text()[:-4000])
    verdict = verify([cut])
    assert (status(verdict, "complete"), status(verdict, "target")) == ("fail", "unknown")
    assert json.loads(to_json(verdict))["mean_val_loss"] is None


def curve_of(log):
    run = read_log(log)
    return tuple(zip(run.val_step.tolist(), run.val_loss.tolist()))


def test_lone_loss_off_the_published_curve_fails(forge, draft, status, evidence):
    record = draft(curve=curve_of(forge.log("published.txt", noise=7)))
    assert status(verify([forge.log()], record=record), "curve") == "pass"
    edited = forge.log()
    edited.write_text(edited.read_text().replace("val_loss:3.2780", "val_loss:3.2680"))
    verdict = verify([edited], record=record)
    assert status(verdict, "curve") == "fail"
    assert "3.2680 at step 600: the change to it is -0.0" in evidence(verdict, "curve")


def test_other_tokens_are_not_held_against_the_published_curve(forge, draft, status):
    record = draft(curve=curve_of(forge.log("published.txt", noise=7)))
    folder = forge.run_folder("books")
    log = folder / "log.txt"
    log.write_text(log.read_text().replace("val_loss:3.2780", "val_loss:3.2680"))
    for name, rules in (("fineweb10B", {"curve": "fail"}), ("books", {"curve": "unknown", "data": "fail"})):
        facts = json.loads((folder / "run.json").read_text())
        facts["manifest"]["name"] = name
        (folder / "run.json").write_text(json.dumps(facts))
        verdict = verify([folder], record=record)
        assert {rule: status(verdict, rule) for rule in rules} == rules


def test_a_run_of_the_script_frozen_before_decides_nothing(forge, draft, status, evidence):
    old = read_log(forge.log()).source
    new = old + "x = 1\n"
    earlier = ((hashlib.sha256(old.encode()).hexdigest(), "x is set"),)
    record = draft(new, sha256=hashlib.sha256(new.encode()).hexdigest(), earlier=earlier)
    verdict = verify([forge.log()], record=record)
    assert status(verdict, "source") == "unknown" and "since then: x is set" in evidence(verdict, "source")


def test_another_size_is_not_held_against_the_published_curve(forge, draft, status):
    record = draft(curve=curve_of(forge.log("published.txt", noise=7)))
    small = forge.log(final=3.9, environment=["override model_dim=64"])
    small.write_text(small.read_text().replace("val_loss:3.9000", "val_loss:3.8000"))
    assert status(verify([small], record=record), "curve") == "unknown"


def test_first_edition_asks_for_the_mean_alone(forge, status, draft, script):
    record = draft(script, edition="")
    verdict = verify([forge.log(era="A", date="Fri Oct 11 06:00:33 2024")], record=record)
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


@pytest.mark.parametrize("name", ["latest", ""])
def test_edition_that_is_no_date(forge, name):
    with pytest.raises(UserError, match="not a date"):
        verify([forge.log()], edition=name)


def test_record_brings_its_edition_and_kind(forge, draft):
    record = draft(edition="2025-01-01", kind="systems")
    verdict = verify(forge.runs([3.2795, 3.2790], era="A"), record=record)
    assert verdict.judged.edition == "2025-01-01"
    assert "target" in verdict.judged.named("waived")


def test_log_without_a_clock_proves_no_time(forge, tmp_path):
    log = tmp_path / "main.log"
    log.write_text("\n".join(f"s:{i} trl:{11 - i / 20:.4f}" for i in range(100)) + "\ns:100 tel:3.2700\n")
    verdict = verify([log], edition="2024-05-28")
    assert verdict.verdict == "inconclusive"
    assert {"clock-forward", "clock-running", "hardware"} <= set(verdict.judged.named("unknown"))


def test_validations_alone_do_not_show_the_end(tmp_path, status, evidence):
    log = tmp_path / "main.log"
    log.write_text("".join(f"s:{step} tel:{3.27 + 10 / (step + 1):.4f}\n" for step in range(0, 1000, 250)))
    verdict = verify([log])
    assert (status(verdict, "complete"), verdict.verdict) == ("unknown", "inconclusive")
    assert "main.log:4" in evidence(verdict, "complete")


def test_left_out_source_is_unknown_not_pass(forge, status):
    found = status(verify([forge.submission(source="import torch\nprint('left out')\n")]))
    unknown = {rule for rule, state in found.items() if state == "unknown"}
    assert {"source", "compiler-flags", "val-tokens", "validation-reads", "token-stream"} <= unknown
    assert status(verify([forge.submission(source=None)]), "source") == "unknown"


def test_unreadable_source_is_unknown(forge, status, script):
    found = status(verify([forge.submission(source=script + "x = " + "-" * 100_000 + "1\n")]))
    assert found["compiler-flags"] == found["validation-reads"] == "unknown"
