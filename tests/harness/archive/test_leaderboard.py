"""The public tables as the archive's index: what stood though its script is not here, and what others measured."""

import re

import pytest
from click.testing import CliRunner

from harness.archive import find
from harness.archive.leaderboard import linked_arms, read_leaderboard, read_retimed
from harness.archive.published import read_table
from harness.cli import main
from harness.errors import UserError

HEADER = (
    "number,date,title,listed_minutes,steps,tokens_per_step,log_step_avg_ms,log_val_loss,runs,mean_val_loss,torch,gpus,"
    "gpu,credit,pull_request\n"
)
ROWS = (
    "40,2025-10-04,Backout,2.358,2330,262144,60.38,3.278,5,3.278,2.10,8,H100,@a,140\n"
    "41,2025-10-24,NorMuon,2.345,2315,262144,60.7,3.278,20,3.2784,2.10,8,H100,@li,144\n"
    "42,2025-10-27,NorMuon learning rate,2.313,2285,,,,,,,,,-,\n"
)


@pytest.fixture
def archive(archive, monkeypatch):
    """The small archive, frozen, with a leaderboard that goes on after its last record."""
    for path in archive.glob("*/record.toml"):
        path.write_text(path.read_text().replace('sha256 = ""', f'sha256 = "{"f" * 64}"'))
    (archive / "leaderboard.csv").write_text(HEADER + ROWS)
    monkeypatch.setattr("harness.archive.find.ROOT", archive)
    return archive


@pytest.mark.parametrize(
    "name, words",
    [
        ("2025-10-25", "2025-10-25 is record 41, set on 2025-10-24; its script is not in this archive. The nearest"),
        ("2025-10-27", "2025-10-27 is record 42, set that day; its script is not in this archive"),
        ("42", "record 42 is of 2025-10-27 (NorMuon learning rate); its script is not in this archive"),
        ("normun", "near it: 41 (NorMuon; no script here)"),
        ("xyzzy", "01 (2024-05-28-llmc-baseline) to 42 (NorMuon learning rate; no script here)"),
    ],
)
def test_what_stood_is_named_though_its_script_is_missing(archive, name, words):
    with pytest.raises(UserError, match=re.escape(words)):
        find.find(name)


def test_the_nearest_is_the_last_one_before_and_is_named(archive):
    found = find.find("2025-10-27", nearest=True)
    assert found.record.number == "40" and "taking record 40" in found.note
    assert find.find("2025-10-23").record.number == "40", "it stood until the next was set"


def test_a_draft_of_a_listed_record_is_said_to_be_one(archive, add):
    add("41", "2025-10-24", "normuon")
    found = find.find("2025-10-25")
    assert found.record.number == "41" and found.note.endswith("its script here is not frozen yet")


def test_every_date_of_the_history_names_its_own_record():
    """Of the real archive: never another record than the leaderboard's last one of that day or before."""
    rows = read_leaderboard(find.ROOT)
    for row in rows:
        same_day = [one.number for one in rows if one.date == row.date]
        found = find.lookup(row.date.isoformat())
        assert (found.record or found.listing).number == max(same_day, key=find.number_key)


def test_show_and_list_tell_the_public_facts(archive):
    told = CliRunner().invoke(main, ["show", "41"])
    assert told.exit_code == 0, told.output
    assert "record 41 · 2025-10-24 · NorMuon" in told.output and "2.345 minutes, 2,315 steps" in told.output
    assert "not in this archive" in told.output and "modded-nanogpt/pull/144" in told.output
    lines = CliRunner().invoke(main, ["list", "--all"]).output.splitlines()
    figures = ["NorMuon learning rate", "2.313", "2,285", "-", "-", "no script here", "-"]
    assert lines[-1].split("\t") == ["42", "2025-10-27", *figures]
    assert "41" not in CliRunner().invoke(main, ["list"]).output


def test_a_table_that_is_none_is_named(archive):
    (archive / "leaderboard.csv").write_text("number,date\n41,never\n")
    with pytest.raises(UserError, match=r"leaderboard\.csv is not the table"):
        find.lookup("41")


def complete(*words):
    """What the shell would be offered for the last of these words."""
    environment = {"_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["harness", *words])}
    environment["COMP_CWORD"] = str(len(words))
    result = CliRunner().invoke(main, [], prog_name="harness", env=environment)
    return [line.split(",")[1] for line in result.output.splitlines()]


def test_the_shell_completes_commands_and_records(archive):
    assert "replay" in complete("re")
    assert complete("replay", "4") == ["40"]
    assert complete("show", "4") == ["40", "41", "42"]
    assert complete("diff", "39", "2025-10") == ["2025-10-04-backout"]


def broken(archive, text="number = "):
    path = archive / "2025-09-30-custom-batching" / "record.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["number = ", "[" * 50_000, "title = 3", "x = " + "[" * 20_000 + "]" * 20_000])
def test_one_broken_record_is_named_and_left_out(archive, text):
    path = broken(archive, text)
    (archive / "2025-10-04-backout" / "train.py").write_text('"""Claim."""\n')
    for command in (["list"], ["show", "40"], ["diff", "40", "40"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, (command, result.output)
    assert str(path) not in CliRunner().invoke(main, ["list"]).stdout
    with pytest.raises(UserError, match=re.escape(str(path))):
        find.discover(strict=True)


def test_the_warning_names_the_file(archive, capsys):
    path = broken(archive)
    find.discover()
    err = capsys.readouterr().err
    assert (
        err.startswith(f"warning: {path}: ")
        and err.rstrip().endswith("this record is left out")
        and err.count("\n") == 1
    )


@pytest.mark.parametrize("name", ["39", "custom-batching", "2025-09-30-custom-batching"])
def test_the_broken_record_itself_says_what_is_wrong(archive, name):
    path = broken(archive, 'number = "39"\n')
    with pytest.raises(UserError, match=re.escape(f"{path}: missing key date")):
        find.find(name)


def test_others_times_are_kept_with_their_source():
    retimed = read_retimed(find.ROOT)
    (twelve,), (forty,) = retimed["12"], retimed["40"]
    assert twelve.seconds == pytest.approx(317.8, abs=0.1) and twelve.runs == 3 and "llm-speedrunner" in twelve.source
    assert forty.seconds is None and forty.sentence == "22.1 s faster than 29" and "NanoGPT-Bench" in forty.source
    assert "22" not in retimed and "48" not in retimed


def test_arms_are_those_of_the_linked_log():
    arms, table = linked_arms(find.ROOT), read_table("runs.csv", find.ROOT)
    assert len(arms["26"]) == 1 and (table.number == "26").sum() == 21
    assert set(arms) == set(table[table.linked == "yes"].number)
