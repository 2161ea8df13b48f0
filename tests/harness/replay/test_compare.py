"""Two records run in turn: the order, the resumption and the verdict."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main


@pytest.fixture
def compare(fake_machine, archive):
    """Calls `harness compare 39 40` with further arguments; record 39 takes twice as long a step as record 40."""
    for slug, seconds in (("2025-09-30-custom-batching", 0.02), ("2025-10-04-backout", 0.01)):
        script = archive / slug / "train.py"
        script.write_text(script.read_text().replace("step_seconds: float = 0.001", f"step_seconds: float = {seconds}"))
    return lambda *arguments: CliRunner().invoke(main, ["compare", "39", "40", *arguments])


def made():
    """(record, pair number, outcome) of all runs, oldest first."""
    facts = [json.loads(path.read_text()) for path in Path("runs").glob("*/*/run.json")]
    return [(run["record"], run["number"], run["outcome"]) for run in sorted(facts, key=lambda run: run["run_id"])]


def test_the_order_is_abba_and_the_verdict_is_plain(compare):
    result = compare("--pairs", "3")
    assert result.exit_code == 0, result.output
    assert [(record, number) for record, number, _ in made()] == [
        *(("39", 0), ("40", 0)),
        *(("40", 1), ("39", 1)),
        *(("39", 2), ("40", 2)),
    ]
    verdict = (
        "verdict: none on the records: at toy size neither time nor loss ranks them; of these toy runs, record 40 is "
    )
    assert result.output.splitlines()[-1] == verdict + "50.0% ± 0.0% faster (smoke, 3 pairs)"


def test_an_announcement_is_made_once(compare):
    output = compare("--pairs", "1").output
    assert output.count("smoke replay (toy size") == 1


def test_json(compare):
    told = json.loads(compare("--pairs", "1", "--json").stdout)
    assert told["records"] == ["record 39", "record 40"] and len(told["pairs"]) == 1 and "toy" in told["verdict"]


def test_a_comparison_goes_on_with_the_pairs_it_lacks(compare):
    assert compare("--pairs", "1").exit_code == 0
    last = sorted(Path("runs/2025-10-04-backout").iterdir())[-1]
    result = compare("--pairs", "2")
    assert "1 of 2 pairs are done already" in result.output and len(made()) == 4
    facts = json.loads((last / "run.json").read_text())
    (last / "run.json").write_text(json.dumps(facts | {"outcome": "interrupted"}))
    result = compare("--pairs", "2")  # half a pair is no pair: both of its runs are made again
    assert result.exit_code == 0 and len(made()) == 6
    assert compare("--pairs", "1", "--fresh").exit_code == 0
    assert len(made()) == 8
    assert "1 of 1 pairs are done already" in compare("--pairs", "1").output


def test_a_replay_is_no_part_of_a_comparison(compare):
    CliRunner().invoke(main, ["replay", "39"])
    CliRunner().invoke(main, ["replay", "40"])
    assert "done already" not in compare("--pairs", "1").output


def test_a_record_against_itself(compare):
    result = CliRunner().invoke(main, ["compare", "40", "40", "--pairs", "1"])
    assert result.exit_code == 0 and len(made()) == 2
    assert "none on the records" not in result.output and "at the same loss" in result.output


@pytest.mark.parametrize("arguments", [["--pairs", "0"], ["--set", "nope=1"]])
def test_mistakes_are_one_line(compare, arguments):
    result = compare(*arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and not made()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--set", "do=diverge"], "pair 1: record 39 ended at a loss of nan"),
        (["--set", "step_seconds=0"], "pair 1: record 39 ended at 0.0 s by its own clock"),
    ],
)
def test_runs_without_a_loss_or_a_time_are_not_compared(compare, arguments, words):
    result = compare("--pairs", "1", *arguments)
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {words}")
    assert result.stderr.count("\n") == 1 and "verdict" not in result.output


def test_a_failing_side_ends_it(compare):
    result = compare("--set", "do=stop_early")
    assert result.exit_code == 1
    assert "pair 1 of 3, A: record 39 unfinished" in result.output
