"""What lies beside logs and is none: left out with a note, never a failed verdict, never exit code 2."""

import json
import shutil

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
