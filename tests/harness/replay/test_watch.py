"""`replay --watch`: a planted explosion under each mode, what is kept of it, and that watching changes nothing."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.archive.settings import Setting
from harness.cli import main
from harness.machine import Gpu
from harness.replay.remedies import remedies
from harness.tokens.manifest import read_manifest
from harness.tokens.synthetic import ensure_synthetic

EXPLODES = ("--set", "do=descend", "--set", "learning_rate=30")  # 100 times its own


@pytest.fixture
def replay(fake_machine):
    """Calls `harness replay 40` with these arguments, in the small archive, and returns click's result."""
    return lambda *arguments: CliRunner().invoke(main, ["replay", "40", "--scale", "5", *arguments])


def runs_of(slug="2025-10-04-backout"):
    return [json.loads(path.read_text()) for path in sorted(Path("runs", slug).glob("*/run.json"))]


def test_an_explosion_is_stopped_and_its_reason_kept(replay):
    result = replay("--watch", "--telemetry", "1", *EXPLODES)
    assert result.exit_code == 1
    (facts,) = runs_of()
    assert (facts["outcome"], facts["on_anomaly"], facts["attempts"]) == ("stopped", "stop", [])
    (breach,) = facts["breaches"]
    assert (breach["kind"], breach["step"]) == ("rising", 2)
    assert breach["telemetry"].startswith("telemetry step:1 grad_norm:1.0100e+00")
    assert f"record 40 stopped: at step 2: {breach['reason']}" in result.stderr
    assert facts["witness"]["step"][-1] < 20


def test_an_explosion_is_gone_past_and_noted(replay):
    result = replay("--on-anomaly", "continue", *EXPLODES)
    assert "record 40 went on past step 2: validation loss" in result.output
    (facts,) = runs_of()
    assert (facts["outcome"], facts["on_anomaly"]) == ("finished", "continue")
    assert [breach["kind"] for breach in facts["breaches"]] == ["rising"]
    assert facts["witness"]["step"][-1] == 20


def test_an_explosion_falls_back_until_it_is_none(replay):
    result = replay("--on-anomaly", "fallback", *EXPLODES)
    assert result.exit_code == 0, result.output
    *stopped, final = runs_of()
    assert [facts["outcome"] for facts in stopped] == ["stopped"] * 4 and final["outcome"] == "finished"
    assert [attempt["remedy"] for attempt in final["attempts"]] == [
        None,
        "fp8 off",
        "learning rate x 0.5",
        "learning rate x 0.1",
    ]
    assert [attempt["run_id"] for attempt in final["attempts"]] == [facts["run_id"] for facts in stopped]
    assert final["overrides"] | {"fp8": "false", "learning_rate": "0.3"} == final["overrides"]
    assert "record 40 stopped at step 2" in result.output and "again with fp8 off" in result.output
    assert "fell back             4 attempts were stopped, the first at step 2" in result.output


def test_the_safer_precision_comes_first_and_stays(replay):
    result = replay("--on-anomaly", "fallback", "--set", "do=needs_bf16")
    assert result.exit_code == 0, result.output
    stopped, final = runs_of()
    assert (stopped["overrides"]["do"], final["overrides"]["fp8"]) == ("needs_bf16", "false")
    assert "learning_rate" not in final["overrides"]


def test_a_run_that_nothing_helps_ends_with_what_was_tried(replay):
    result = replay("--on-anomaly", "fallback", "--set", "do=refuse_nan")
    assert result.exit_code == 1 and len(runs_of()) == 5
    tried = "fp8 off, learning rate x 0.5, learning rate x 0.1, learning rate x 0.01"
    assert f"nothing is left to fall back to after: {tried}" in result.stderr


def test_a_script_that_stops_itself_is_understood_unwatched_too(replay):
    result = replay("--set", "do=refuse_nan")
    assert "record 40 stopped: at step 3: training loss nan, the weights are finite" in result.stderr
    (facts,) = runs_of()
    assert facts["outcome"] == "stopped" and facts["breaches"][0]["kind"] == "not finite"


def test_a_norm_and_a_loss_that_is_none(replay):
    assert "beyond its band" in replay("--watch", "--telemetry", "1", "--set", "do=norm").stderr
    assert replay("--watch", "--set", "do=norm").exit_code == 0  # no telemetry, no norms
    assert "stopped: at step 4: validation loss nan" in replay("--watch", "--set", "do=nan").stderr


def test_a_run_that_fell_back_is_never_official(replay, fake_machine, monkeypatch):
    """On 8 H100s with FineWeb: the same command is official as long as nothing happens."""
    eight = (Gpu("NVIDIA H100 80GB HBM3", 79.1, (9, 0)),) * 8
    monkeypatch.setattr("harness.replay.replay.this_machine", lambda: dataclasses.replace(fake_machine, gpus=eight))
    dataclasses.replace(ensure_synthetic("fineweb"), name="fineweb10B").write(Path("fineweb"))
    monkeypatch.setattr("harness.tokens.prepare.ensure_fineweb", lambda folder, shards: read_manifest(folder))
    (script,) = Path("records").glob("*backout/train.py")
    arguments = ["replay", "40", "--data-dir", "fineweb", "--repeat", "--on-anomaly", "fallback"]
    monkeypatch.setattr("harness.replay.plan.Plan.reference", ())  # its curve is not this fake's
    falling = script.read_text().replace('do: str = "finish"', 'do: str = "needs_bf16"')
    for text, labels in ((script.read_text(), ["official"]), (falling, ["official", "official", "shortened"])):
        script.write_text(text)
        facts = script.with_name("record.toml")
        digest = hashlib.sha256(text.encode()).hexdigest()
        facts.write_text(re.sub('sha256 = ".*"', f'sha256 = "{digest}"', facts.read_text()))
        result = CliRunner().invoke(main, arguments)
        assert [run["fidelity"] for run in runs_of()] == labels, result.output
    assert "shortened, 1 run" in result.output and "as a record run, which it is not" in result.output


def test_one_node_of_several_cannot_start_again_alone(replay):
    result = replay("--nnodes", "2", "--on-anomaly", "fallback")
    assert result.exit_code == 2 and "use stop or continue" in result.stderr and not Path("runs").exists()


def test_what_can_be_tried_depends_on_the_script():
    settings = {
        name: Setting(name, kind, value)
        for name, kind, value in (
            ("fp8", "bool", True),
            ("bf16_activations", "bool", True),
            ("adam_learning_rate", "float", 0.008),
            ("muon_learning_rate", "float", 0.05),
            ("final_learning_rate", "float", 0.1),
        )
    }
    found = list(remedies(settings, {"adam_learning_rate": "0.016"}))
    assert [remedy.words for remedy in found][:3] == ["fp8 off", "float32 activations", "learning rate x 0.5"]
    assert found[1].assignments == ("fp8=false", "bf16_activations=false")
    assert found[2].assignments[2:] == ("adam_learning_rate=0.008", "muon_learning_rate=0.025")
    assert next(remedies(settings, {"fp8": "false"})).words == "float32 activations"
    assert list(remedies({}, {})) == [] and list(remedies(None, {})) == []


def test_watching_changes_no_line_of_the_log(replay):
    """Neither the command line that the script gets nor what it writes, to the byte."""
    assert replay("--seed", "1").exit_code == replay("--seed", "1", "--watch").exit_code == 0
    plain, watched = runs_of()
    name = {facts["run_id"]: "RUN" for facts in (plain, watched)}
    commands = [
        [part.replace(facts["run_id"], name[facts["run_id"]]) for part in facts["command"]]
        for facts in (plain, watched)
    ]
    assert commands[0] == commands[1]
    assert (plain["fidelity"], plain["plan"]) == (watched["fidelity"], watched["plan"])
    logs = [next(Path("runs").glob(f"*/{facts['run_id']}/log.txt")).read_bytes() for facts in (plain, watched)]
    assert logs[0] == logs[1]
