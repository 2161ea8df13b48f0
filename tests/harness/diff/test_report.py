"""`harness diff`: what is told of two records, and nothing of theirs that a terminal would obey."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.archive.record import load
from harness.archive.settings import read_settings
from harness.cli import main
from harness.commands import history
from harness.diff.report import diff, settings

SCRIPT = (
    '"""Record 1 · a start\n\nNew        The first one\n           of all.\n"""\n\nimport torch\n\n'
    f"# {'-' * 98}\n# Settings\n# {'-' * 98}\n\n"
    "class Settings:\n    steps: int = 10  # of the record\n    dim: int = 64\n"
)


@pytest.fixture
def two(archive):
    """Folders of records 39 and 40 with scripts that differ a little."""
    old, new = sorted(archive.glob("*custom-batching"))[0], sorted(archive.glob("*backout"))[0]
    (old / "train.py").write_text(SCRIPT)
    (new / "train.py").write_text(
        SCRIPT.replace("steps: int = 10 ", "steps: int = 20 ").replace("all.", "all. Backout.")
    )
    facts = (new / "record.toml").read_text().replace("steps = 10\n", "steps = 20000\n")
    (new / "record.toml").write_text(facts)
    return f"{old}/", f"{new}/"


def test_the_report_begins_with_what_is_new(two):
    text = diff(*two, colour=False)
    assert "- record 39" in text and "+ record 40" in text and "The first one of all. Backout." in text
    assert "2 lines added, 2 deleted, 0 moved, in 2 of 2 sections" in text
    assert "+     steps: int = 20  # of the record" in text and "its claim, rewritten" in text
    assert "its claim, rewritten" not in diff(*two, colour=False, whole=True)


def test_a_table_in_what_is_new_stays_a_table(two):
    path = Path(two[1]) / "train.py"
    path.write_text(path.read_text().replace("Backout.\n", "Backout:\n           before  3.3\n           then  3.2\n"))
    assert "  The first one of all. Backout:\n  before  3.3\n  then  3.2\n" in diff(*two, colour=False)


def test_a_copy_does_not_boast_with_what_its_parent_brought(two):
    old, new = two
    (Path(new) / "train.py").write_text((Path(old) / "train.py").read_text() + "# more\n")
    text = diff(*two, colour=False)
    assert "1 line added, 0 deleted" in text
    assert "The first one of all" not in text


def test_stat_is_a_table_without_code(two):
    text = diff(*two, only_stat=True, colour=False)
    assert "Settings" in text and "dim: int" not in text


def test_facts_tell_settings_and_figures_apart(two):
    text = diff(*two, only_facts=True, colour=False)
    assert [line.split() for line in text.splitlines() if line.startswith("steps")] == [
        ["steps", "10", "20"],
        ["steps", "10", "20,000"],
    ]
    assert "training tokens" in text and "5,242,880,000" in text and "minutes" not in text


def test_settings_that_only_one_script_has(tmp_path):
    for name, body in (("a", "x: int = 1\n    y: int = 2"), ("b", "y: int = 2\n    z: tuple = f()")):
        (tmp_path / f"{name}.py").write_text(f"class Settings:\n    {body}\n")
    old, new = (read_settings(tmp_path / f"{name}.py") for name in "ab")
    assert settings(old, new) == [("z", "—", "(computed)"), ("x", "1", "—")]


def test_the_command(two):
    told = CliRunner().invoke(main, ["diff", *two, "--side-by-side", "--no-color"])
    assert told.exit_code == 0 and "│" in told.output
    equal = CliRunner().invoke(main, ["diff", two[0], two[0]])
    assert equal.exit_code == 0 and equal.output.endswith("\nthe scripts are equal\n")
    unknown = CliRunner().invoke(main, ["diff", two[0], "no-such-record"])
    assert unknown.exit_code == 2 and unknown.output.startswith("error: ")


def test_the_pager_is_handed_its_colour_option(two, monkeypatch):
    """Without R, less shows every colour as `ESC[1m`."""
    seen = []
    monkeypatch.delenv("LESS", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.echo_via_pager", lambda text, color: seen.append((os.environ.get("LESS"), color)))
    history.diff.callback(*two, as_json=False, nearest=False, colour=None)
    assert seen == [("FRX", True)]
    monkeypatch.setenv("LESS", "-S")
    history.diff.callback(*two, as_json=False, nearest=False, colour=None)
    assert seen[1][0] == "-S", "what the user has set stays"


def test_json(two):
    told = json.loads(CliRunner().invoke(main, ["diff", *two, "--json"]).stdout)
    assert told["summary"].startswith("2 lines added, 2 deleted")
    assert {"name": "steps", "old": "10", "new": "20"} in told["settings"]
    assert {line["kind"] for line in told["lines"]} == {"come", "gone"}
    assert [line["text"] for line in told["lines"] if line["section"] == "Settings"][
        1
    ] == "    steps: int = 20  # of the record"


def test_escape_sequences_of_a_script_do_not_reach_the_terminal(two):
    hostile = SCRIPT.replace("import torch", "import torch  # \x1b[2J\x1b]0;title\x07 \u202e")
    (load(two[1].rstrip("/")).script).write_text(hostile)
    text = diff(*two, colour=False)
    assert "\x1b" not in text and "\u202e" not in text and "import torch  #" in text


def test_a_script_that_is_missing_or_no_text(two):
    script = load(two[1].rstrip("/")).script
    script.write_bytes(b"\xff\xfe\x00")
    assert "record 40" in diff(*two, colour=False)
    script.unlink()
    assert CliRunner().invoke(main, ["diff", *two]).exit_code == 2
