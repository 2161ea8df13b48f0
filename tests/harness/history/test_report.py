"""The commands chart, leaderboard and report, from the outside."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from harness.archive.find import ROOT
from harness.archive.record import load
from harness.cli import main
from harness.errors import UserError
from harness.history.report import page, renewed_pages, scripts
from reports import leaderboard, site


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_chart_draws_both_formats_themes_and_sizes(tmp_path):
    ended = call("chart", "attribution", "--out", tmp_path, "--runs-dir", tmp_path / "none")
    assert ended.exit_code == 0, ended.output
    names = {
        f"attribution{size}-{theme}.{kind}"
        for size in ("", "-column")
        for theme in ("light", "dark")
        for kind in ("svg", "png")
    }
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("chart", "pie"), "no chart 'pie'; there are progress, attribution"),
        (("chart", "machine", "--runs-dir", "nowhere"), "no replay under nowhere has a telling time"),
        (("chart", "curves", "--record", "99"), "no record '99'"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_2(arguments, says, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.history.replayed.ROOT", tmp_path)  # without the runs that the records have committed
    ended = call(*arguments, "--out", tmp_path)
    assert ended.exit_code == 2 and says in ended.output
    assert ended.output.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    ended = call("report", "--out", tmp_path / "file" / "x", "--runs-dir", tmp_path / "none")
    assert (ended.exit_code, ended.output.count("\n")) == (2, 1) and "cannot be made: Not a directory" in ended.output


def test_leaderboard_in_its_three_forms():
    assert call("leaderboard").output.startswith("| Record |")
    assert call("leaderboard", "--csv").output.startswith("number,date,title,")
    rows = json.loads(call("leaderboard", "--json").output)
    assert len(rows) >= 91 and rows[0]["number"] == "01"


def test_report_writes_one_file(tmp_path):
    ended = call("report", "--out", tmp_path, "--runs-dir", tmp_path / "none")
    assert ended.exit_code == 0, ended.output
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_draft_without_figures_breaks_nothing(tmp_path):
    for name in ("leaderboard.csv", "runs.csv", "curves.csv"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / "2026-11-23-mine"
    folder.mkdir()
    (folder / "train.py").write_text("x = 1\n")
    facts = (ROOT / "2025-10-04-backout" / "record.toml").read_text().replace('"40"', '"90"', 1)
    (folder / "record.toml").write_text(re.sub(r"(?s)\[listed\].*?\[rules\]", "[listed]\n[rules]", facts))
    drawn = page(tmp_path / "none", tmp_path)
    assert drawn.table.number.iloc[-1] == "90"
    assert "record-90" in site.render(drawn)
    assert "| [90](records/2026-11-23-mine) |" in leaderboard.to_markdown(drawn.table)


@pytest.fixture
def repository(tmp_path):
    """A repository with the archive's tables, its record 40, and a draft."""
    records = tmp_path / "records"
    records.mkdir()
    for name in ("leaderboard.csv", "runs.csv", "curves.csv", "retimed.csv", "standin.csv", "shown.csv", "README.md"):
        shutil.copy(ROOT / name, records)
    shutil.copy(ROOT.parent / "README.md", tmp_path)
    for name, number in (("2025-10-04-backout", "40"), ("2026-11-23-mine", "0")):
        folder = records / name
        shutil.copytree(ROOT / "2025-10-04-backout", folder, ignore=shutil.ignore_patterns("logs"))
        facts = (folder / "record.toml").read_text()
        (folder / "record.toml").write_text(facts.replace('"40"', f'"{number}"', 1))
    return tmp_path


def test_drafts_are_not_published(repository):
    pages = renewed_pages(repository)
    assert len(pages) == 2
    for text in pages.values():
        assert "2025-10-04-backout" in text and "2026-11-23-mine" not in text and "| 41 |" in "".join(pages.values())


def test_a_broken_record_is_not_dropped_from_the_pages(repository):
    (repository / "records" / "2025-10-04-backout" / "record.toml").write_text("garbage [")
    with pytest.raises(UserError, match=r"2025-10-04-backout/record\.toml"):
        renewed_pages(repository)


def test_the_page_tells_what_changed_section_by_section(archive, add):
    rule = "# " + "-" * 98 + "\n"
    body = "import torch\n\n" + "".join(f"{rule}# {name}\n{rule}{name.lower()} = 1\n" for name in ("Model", "Data"))
    for folder, claim in ((next(archive.glob("*llmc*")), "It is slow."), (add("41", "2025-10-24", "normuon"), "Fast.")):
        (folder / "train.py").write_text(f'"""{claim}"""\n' + body.replace("model = 1", f"model = {len(claim)}"))
    facts = folder / "record.toml"
    facts.write_text(facts.read_text().replace('parent = ""', 'parent = "05"'))
    found = scripts([load(path) for path in (next(archive.glob("*llmc*")), folder)])
    assert found["01"].claim == "It is slow." and found["01"].against == "" and found["01"].changes == ()
    assert found["41"].against == "01" and found["41"].summary.endswith("Its parent, 05, has no script here")
    told = [(row.kind, row.text) for row in found["41"].changes if row.text]
    assert told[:2] == [("section", "Claim and imports"), ("note", "2 lines unchanged")]
    assert told[2:] == [("section", "Model"), ("section", "Data: unchanged, 4 lines")]
    changed = [row for row in found["41"].changes if row.words]
    sources = {"gone": found["41"].against_source.split("\n"), "come": found["41"].source.split("\n")}
    assert [sources[row.kind][row.line - 1][slice(*row.words[0])] for row in changed] == ["11", "5"]
