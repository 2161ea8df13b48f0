"""`harness ladder`: which rungs, at which steps, what it will cost, in turn, taken up again, and charted."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.archive.find import discover, resolve
from harness.archive.record import Listed
from harness.cli import main
from harness.errors import UserError
from harness.history import inside
from harness.machine import Gpu
from harness.replay.ladder import equal_steps, rungs, set_stages
from harness.replay.plan import Options
from harness.tokens.synthetic import ensure_synthetic

ROOT = Path(__file__).parents[3] / "records"


@pytest.fixture
def ladder(fake_machine):
    """Calls `harness ladder` with these arguments, in the small archive, and returns click's result."""
    return lambda *arguments: CliRunner().invoke(main, ["ladder", *arguments])


def made():
    """(record, round) of all runs, oldest first."""
    facts = [json.loads(path.read_text()) for path in Path("runs").glob("*/*/run.json")]
    return [(run["record"], run["number"]) for run in sorted(facts, key=lambda run: run["run_id"])]


@pytest.mark.parametrize(
    "names, numbers",
    [
        (("21..40",), ["21", "22", "21c", "39", "40"]),
        (("40", "01"), ["01", "40"]),
        (("01,39..40",), ["01", "39", "40"]),
    ],
)
def test_the_rungs(fake_machine, names, numbers):
    assert sorted(record.number for record in rungs(names)) == sorted(numbers)
    dates = [record.date for record in rungs(names)]
    assert dates == sorted(dates)


def test_one_rung_is_no_ladder(ladder):
    result = ladder("40")
    assert result.exit_code == 2 and "a ladder has two rungs or more" in result.stderr
    assert ladder("40..39").exit_code == 2


def test_tokens_are_equal_whatever_the_batch(archive):
    first, second, *_ = discover(archive)
    records = [
        dataclasses.replace(first, listed=Listed(steps=5100, tokens_per_step=524288)),
        dataclasses.replace(second, listed=Listed(steps=2330, tokens_per_step=262144)),
    ]
    steps = equal_steps(records, 1.0)
    assert steps == {first.slug: 1165, second.slug: 2330}  # the shorter one in full, the other on its tokens
    assert equal_steps(records, 0.1) == {first.slug: 116, second.slug: 233}
    with pytest.raises(UserError, match="tokens cannot be made equal"):
        equal_steps([first, dataclasses.replace(second, listed=Listed())], 1.0)


def test_a_ladder_is_climbed_up_and_down_and_taken_up_again(ladder):
    result = ladder("39", "40", "--rounds", "3")
    assert result.exit_code == 0, result.output
    assert made() == [("39", 0), ("40", 0), ("40", 1), ("39", 1), ("39", 2), ("40", 2)]
    (path,) = Path("runs/ladders").glob("*/ladder.json")
    assert {file.suffix for file in path.parent.iterdir()} == {".json", ".svg", ".png"} and str(path) in result.output
    min(Path("runs").glob("*custom-batching/*/run.json")).unlink()
    assert ladder("39", "40", "--rounds", "3").exit_code == 0
    assert made()[-1] == ("39", 0) and len(made()) == 6
    assert result.output.count("smoke replay") == 1


@pytest.mark.parametrize("asked", [("--budget", "nan"), ("--price", "nan"), ("--price", "-5"), ("--rounds", "0")])
def test_a_limit_that_limits_nothing_is_refused(ladder, asked):
    result = ladder("39", "40", *asked, "--dry-run")
    assert result.exit_code == 2 and asked[0] in result.stderr


def test_time_and_money_are_told_before_anything_starts(ladder, fake_machine, monkeypatch):
    eight = (Gpu("NVIDIA H100 80GB HBM3", 79.1, (9, 0)),) * 8
    monkeypatch.setattr("harness.replay.replay.this_machine", lambda: dataclasses.replace(fake_machine, gpus=eight))
    ensure_synthetic("books")
    for facts in Path("records").glob("*/record.toml"):
        facts.write_text(facts.read_text().replace("steps = 10\n", "steps = 10\nstep_avg_ms = 36_000.0\n", 1))
    asked = ["39", "40", "--data-dir", "books", "--repeat", "--rounds", "2", "--price", "2"]
    result = ladder(*asked, "--dry-run")
    # Of each record two runs of 150 s, 10 steps of 36 s, and 6 validations of 40 steps' tokens at a third: 2880 s.
    assert result.exit_code == 0, result.output
    assert "in all about 3:46:00, about $60.27" in result.output and made() == []
    assert "the published step, by GPUs" in result.output and "2,621,440" in result.output
    refused = ladder(*asked, "--budget", "60")
    assert refused.exit_code == 2 and "is beyond --budget 60" in refused.stderr and made() == []


def test_a_shortened_rung_follows_its_whole_schedule(fake_machine, monkeypatch, tmp_path):
    eight = (Gpu("NVIDIA H100 80GB HBM3", 79.1, (9, 0)),) * 8
    monkeypatch.setattr("harness.replay.replay.this_machine", lambda: dataclasses.replace(fake_machine, gpus=eight))
    ensure_synthetic(tmp_path / "books")
    records = [resolve(number, ROOT) for number in ("05", "12")]
    options = Options(scale=0.1, data_dir=tmp_path / "books", repeat=True, trust=True)
    first, second = (stage.plan.overrides for stage in set_stages(records, options, Console()))
    assert first == {"num_iterations": 188, "cooldown_iterations": 53}
    assert second == {"num_iterations": 188, "cooldown_iterations": 56}


RUNG = {"record": "39", "title": "a", "tokens_per_step": 4, "step_ms": [40.0, 44.0], "losses": [3.5, 3.4]}


def test_the_chart_holds_what_came_of_it_here_beside_what_was_published(tmp_path):
    after = RUNG | {"record": "40", "title": "b", "step_ms": [36.0, 39.6], "losses": [3.4, 3.3]}
    rungs = [
        RUNG | {"listed": {"steps": 100, "step_ms": 50.0}},
        after | {"listed": {"steps": 90, "step_ms": 55.0}},
        RUNG | {"listed": {"steps": None, "step_ms": None}},
    ]
    facts = {"fidelity": ["stand-in"], "machine": {"gpu": "H200"}, "rungs": rungs}
    (tmp_path / "ladder.json").write_text(json.dumps(facts))
    frame = inside.ladder(tmp_path)
    up = frame.iloc[0]
    assert (up.speed, up.loss) == pytest.approx((-10, -0.1)) and up.n == 2
    assert (up.speed_low, up.speed_high) == pytest.approx((-10, -10)) and up.loss_low == pytest.approx(-0.1)
    assert (up.speed_published, up.published_tokens) == pytest.approx((10, -10))
    assert frame.iloc[1].isna()[["speed_published", "published_tokens"]].all()
    assert "ladder: " in inside.draw("ladder", (str(tmp_path),), None)
    svg = (tmp_path / "ladder-light.svg").read_bytes()
    inside.draw("ladder", (str(tmp_path),), None)
    assert (tmp_path / "ladder-light.svg").read_bytes() == svg
    (tmp_path / "ladder.json").write_text("{}")
    with pytest.raises(UserError, match="is no ladder"):
        inside.ladder(tmp_path)
