"""The archive as a table."""

import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.archive.find import ROOT, discover
from harness.archive.leaderboard import read_leaderboard
from harness.archive.listing import show
from harness.cli import main


def listed(*arguments):
    result = CliRunner().invoke(main, ["list", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_piped_it_is_one_tab_separated_line_a_record(archive, monkeypatch):
    monkeypatch.setattr("harness.archive.find.ROOT", archive)
    lines = [line.split("\t") for line in listed().splitlines()]
    assert lines[0][0] == "number" and all(len(line) == len(lines[0]) for line in lines)
    assert [line[0] for line in lines[1:]] == ["01", "21", "21c", "22", "39", "40"]
    assert lines[-1][:6] == ["40", "2025-10-04", "backout", "2.358", "10", "-"]
    assert lines[-1][6:] == ["-", "8 shards, 45 GiB", "2025-10-04-backout"]  # not shown on any machine yet


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("every", [False, True])
def test_on_a_terminal_it_is_one_line_a_record(width, every):
    """Of the real archive, on a terminal of 80 columns too."""
    out = io.StringIO()
    show(Console(file=out, force_terminal=True, width=width, color_system=None), False, every)
    lines = out.getvalue().splitlines()
    records, rows = discover(), read_leaderboard(ROOT)
    assert len(lines) == 1 + (len({one.number for one in (*records, *rows)}) if every else len(records))
    assert max(map(len, lines)) <= width and ("needs" in lines[0]) == (width > 100) and ("here" in lines[0]) == every
    if every:
        assert sum(line.rstrip().endswith("script") for line in lines) == len(records)


def test_json(archive, monkeypatch):
    monkeypatch.setattr("harness.archive.find.ROOT", archive)
    records = json.loads(listed("--json"))
    assert records[-1]["number"] == "40"
    assert records[-1]["listed"] == {"minutes": 2.358, "steps": 10, "tokens_per_step": 262144}


def test_an_empty_archive_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.archive.find.ROOT", tmp_path)
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 2 and "the archive is empty" in result.stderr
