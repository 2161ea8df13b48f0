"""What `harness verify` prints, and what each line of it rests on."""

import json
import re
from pathlib import Path

from click.testing import CliRunner

from harness.cli import main
from harness.referee import reading
from harness.referee.verify import render_text, to_json, verdict_line, verify


def test_every_check_says_where(forge):
    baseline = forge.runs([3.278] * 4, "baseline", pace_ms=61.0)
    verdicts = [verify([forge.submission()], against=baseline), verify([forge.run_folder()], against=baseline)]
    verdicts += [verify([forge.submission(source=None)], against=baseline), verify([forge.log(steps=20)])]
    checks = [check for verdict in verdicts for check in verdict.judged.checks]
    silent = [check for check in checks if not re.search(r"\(.*\.txt(:\d+)?\)", check.evidence)]
    assert {check.evidence for check in silent} == {"no logs of the prior record were given (--against)"}


def test_evidence_from_a_log_of_several_runs_names_the_file_and_its_line(forge, evidence):
    log, second = forge.log(), forge.log("second.txt", noise=1)
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-1] + second.read_text().split("=" * 100 + "\n")[-1].splitlines()) + "\n")
    verdict = verify([log])
    assert [Path(run["path"]).name for run in verdict.judged.runs] == ["run.txt#1", "run.txt#2"]
    place = re.search(r"\((.*):(\d+)\)", evidence(verdict, "complete"))
    assert Path(place[1]) == log
    assert log.read_text().splitlines()[int(place[2]) - 1].startswith("step:600/600 val_loss:")


def test_command_prints_and_exits(forge, draft, script):
    folder = forge.submission()
    result = CliRunner().invoke(main, ["verify", str(folder), "--record", str(draft(script).script)])
    assert result.exit_code == 0
    assert "HOLDS" in result.output.splitlines()[-1]
    assert any(line.startswith("PASS     complete ") for line in result.output.splitlines())


def test_json_follows_the_schema(forge, draft, script):
    content = json.loads(to_json(verify([forge.submission()], record=draft(script))))
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


def test_the_manual_describes_every_rule_and_no_other(forge):
    manual = (Path(__file__).parents[3] / "docs" / "judging.md").read_text()
    described = set(re.findall(r"^\| `([a-z-]+)` \|", manual, flags=re.MULTILINE))
    assert described == {check.rule for check in verify([forge.run_folder()]).judged.checks}


def test_log_on_standard_input(forge, draft, script):
    log = forge.log()
    result = CliRunner().invoke(main, ["verify", "-"], input=log.read_bytes())
    assert result.exit_code == 3
    assert "(-:" in result.output and "/tmp" not in result.output
    assert CliRunner().invoke(main, ["verify", "-"], input=b"hello\n").exit_code == 2


def test_quiet_prints_the_verdict_alone(forge):
    folder = forge.submission(era="A")
    result = CliRunner().invoke(main, ["verify", "--quiet", str(folder)])
    assert result.exit_code == 1
    assert result.output == verdict_line(verify([folder])) + "\n"


def test_paths_are_shortened_for_a_narrow_terminal(forge, draft, script):
    folder = forge.folder / ("a_long_name_of_a_folder_" * 4)
    for path in list(forge.submission().iterdir()):
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"514e7581-fbd4-4338-a3e4-{path.stem}.txt")
    verdict = verify([folder], record=draft(script))
    narrow = [line for line in render_text(verdict, width=80).splitlines() if not line.startswith("HOLDS")]
    assert "514e7581-fbd…" in "\n".join(narrow) and str(folder) not in "\n".join(narrow)
    assert str(folder) in render_text(verdict)


def test_colour_and_shortening_are_for_terminals_only(forge):
    folder = forge.submission()
    output = CliRunner().invoke(main, ["verify", str(folder)]).output
    assert "\x1b" not in output and str(folder / "run0.txt") in output
    coloured = render_text(verify([folder]), lambda text, status: f"<{status}>{text}")
    assert "<pass>PASS" in coloured and "<unknown>UNKNOWN" in coloured


def test_a_bar_shows_on_long_folders_only(forge, monkeypatch):
    told = []
    monkeypatch.setattr(reading.Progress, "__init__", lambda self, *columns, **options: told.append(options["disable"]))
    monkeypatch.setattr(reading.Progress, "__enter__", lambda self: self)
    monkeypatch.setattr(reading.Progress, "__exit__", lambda self, *error: None)
    monkeypatch.setattr(reading.Progress, "add_task", lambda self, *rest, **options: 0)
    monkeypatch.setattr(reading.Progress, "advance", lambda self, task: told.append("read"))
    monkeypatch.setattr(reading.Console, "is_terminal", True)
    log = forge.log()
    reading.read_files([log])
    monkeypatch.setattr(reading, "WORTH_A_BAR", 10)
    reading.read_files([log, log])
    assert told == [True, "read", False, "read", "read"]
