"""What lies beside logs and is none: left out with a note, never a failed verdict, never exit code 2."""

import json
import shutil

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.referee.verify import verify


def names(verdict):
    return [run["path"].rpartition("/")[2] for run in verdict.judged.runs]


def test_console_copies_in_a_subfolder(forge, draft, script):
    folder = forge.submission()
    (folder / "console").mkdir()
    for log in sorted(folder.glob("*.txt")):
        lines = [line for line in log.read_text().splitlines() if line.startswith("step:")]
        (folder / "console" / log.name).write_text("\n".join(["compiling...", *lines]) + "\n")
    verdict = verify([folder], record=draft(script))
    assert (verdict.verdict, len(verdict.judged.runs)) == ("holds", 5)
    assert sum("console" in note and "prints what" in note for note in verdict.notes) == 5


def test_one_file_under_two_names_is_one_run(forge, draft, script):
    folder = forge.submission()
    (folder / "again.txt").symlink_to(folder / "run0.txt")
    verdict = verify([folder, folder / ".." / "logs" / "run1.txt"], record=draft(script))
    assert (verdict.verdict, len(verdict.judged.runs)) == ("holds", 5)
    assert sum("by another name" in note for note in verdict.notes) == 2


def test_what_a_search_passes_by_is_told(forge):
    folder = forge.submission()
    (folder / "run5.txt.gz").write_bytes(b"\x1f\x8b")
    (folder / "more").symlink_to(forge.folder)
    notes = verify([folder]).notes
    assert any("run5.txt.gz: is compressed" in note for note in notes)
    assert any("more: is a link to a folder" in note for note in notes)


def test_logs_put_into_one_file_do_not_share_a_script(forge, draft, script, status, evidence):
    logs = forge.runs([3.2781, 3.2779, 3.2783, 3.2776, 3.2785])
    whole = forge.folder / "all.txt"
    whole.write_text("".join(log.read_text() for log in logs))
    verdict = verify([whole], record=draft(script))
    assert (verdict.verdict, len(verdict.judged.runs)) == ("inconclusive", 5)
    assert "another log starts here" in evidence(verdict, "complete")


@pytest.mark.parametrize("name", ["b.txt", "b#1.txt"])
@pytest.mark.parametrize(("more", "said"), [("", "is byte for byte"), ("\n", "have the same run id x")])
def test_a_copy_fails_whatever_its_name(forge, evidence, name, more, said):
    log = forge.log("logs/a#1.txt", environment=["run_id=x"])
    (log.parent / name).write_text(log.read_text() + more)
    verdict = verify([log.parent])
    assert verdict.judged.named("fail") == ["independence"] and said in evidence(verdict, "independence")


def test_a_copy_that_claims_to_be_a_run_still_fails(forge):
    folder = forge.submission()
    (folder / "copy.txt").write_text(
        (folder / "run0.txt").read_text().replace("Running Python", "run_id=x\nRunning Python")
    )
    assert "independence" in verify([folder]).judged.named("fail")


def test_stderr_among_the_files_that_a_shell_names(forge, draft, script):
    folder = forge.submission()
    (folder / "stderr.txt").write_text("W0101 a warning of torch\n")
    (folder / "stdout.txt").write_text("")
    result = CliRunner().invoke(
        main, ["verify", *map(str, sorted(folder.glob("*.txt"))), "--record", str(draft(script).script)]
    )
    assert result.exit_code == 0
    assert "note: left out: " in result.output and "stderr.txt" in result.output


def test_a_file_named_by_mistake_is_still_an_error(forge):
    folder = forge.submission()
    (folder / "notes.txt").write_text("remember the milk\n")
    assert CliRunner().invoke(main, ["verify", str(folder / "run0.txt"), str(folder / "notes.txt")]).exit_code == 2
    (folder / "stderr.txt").write_text("W0101 a warning of torch\n")
    assert CliRunner().invoke(main, ["verify", str(folder / "stderr.txt")]).exit_code == 2


def stopped(forge, outcome, name="runs/b"):
    """Three finished run folders, and one that was stopped at its half."""
    for i, final in enumerate((3.2781, 3.2770, 3.2775)):
        folder = forge.run_folder(f"runs/a{i}", noise=i, final=final)
        facts = json.loads((folder / "run.json").read_text()) | {"outcome": "finished"}
        (folder / "run.json").write_text(json.dumps(facts))
    folder = forge.run_folder(name, noise=9)
    text = (folder / "log.txt").read_text()
    (folder / "log.txt").write_text(text[: text.index("step:310/")])
    if outcome is None:
        (folder / "run.json").unlink()
    else:
        (folder / "run.json").write_text(json.dumps({"schema": 1, "run_id": "b", "outcome": outcome}))
    return forge.folder / "runs"


def test_what_a_killed_replay_left(forge, status):
    for outcome in (None, "interrupted"):
        verdict = verify([stopped(forge, outcome)])
        assert len(verdict.judged.runs) == 3 and status(verdict, "complete") == "pass"
        assert any("a replay that was stopped at step 3" in note for note in verdict.notes)
        shutil.rmtree(forge.folder / "runs")


def test_a_crash_is_not_left_out(forge, status):
    verdict = verify([stopped(forge, "crashed")])
    assert len(verdict.judged.runs) == 4 and status(verdict, "complete") == "fail"


def test_a_log_cut_short_by_hand_is_not_left_out(forge, status):
    folder = forge.submission()
    cut = forge.log("logs/run5.txt", noise=9)
    cut.write_text(cut.read_text()[:-4000])
    assert status(verify([folder]), "complete") == "fail"
