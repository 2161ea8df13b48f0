"""The leaderboard's figures, and every way in which listed, logged and archived facts disagree."""

from types import SimpleNamespace

import pytest

from harness.history.ledgers import ledger_of
from harness.history.standings import standings


@pytest.fixture(scope="module")
def table():
    return standings().set_index("number")


def test_record_40_has_its_published_figures(table):
    row = table.loc["40"]
    assert row.logged_minutes * 60 == pytest.approx(140.697, abs=1e-3)
    assert (row.runs, round(row.mean_loss, 5), round(row.p, 4), row.steps, row.tokens) == (
        5,
        3.27802,
        0.007,
        2330,
        610795520,
    )


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        ("16", "times disagree: logs say 3.850 min, +1.3 %"),
        ("17", "times differ: logs say 3.552 min, −0.5 %"),
        ("32", "times differ: logs say 2.600 min, −1.0 %"),
        ("37", "times differ: logs say 2.472 min, −0.4 %"),
        ("40", "times differ: logs say 2.345 min, −0.6 %"),
        ("03", "no usable log"),
        ("02", "its log has no times"),
        ("21c", "mean loss 3.2830 is above 3.28"),
        ("30", "the linked log itself ends at 3.2806"),
        ("26", "20 more logs of other sources or steps, kept apart"),
        ("82", "logged on NVIDIA H200: 1.331 min"),
        ("88", "logged on 1 GPU: 9.920 min, × 1/8 = 1.240"),
    ],
)
def test_the_known_disagreements_are_told(table, number, sentence):
    assert sentence in table.disagrees[number]


@pytest.mark.parametrize("number", ["04", "39", "58", "81"])
def test_where_all_agree_nothing_is_said(table, number):
    assert table.disagrees[number] == ()


def test_no_arm_is_mixed_into_a_mean(table):
    assert (table.runs["26"], table.runs["72"], table.runs["85"]) == (1, 15, 8)
    assert table.mean_loss["85"] == pytest.approx(3.2768, abs=5e-5)
    assert table.p["72"] == pytest.approx(
        1.067e-4, rel=1e-3
    )  # five spellings of one code: 0.1432 for any of them alone


def test_milliseconds_per_step_follow_from_the_time_where_no_log_has_them(table):
    assert table.step_ms["01"] == pytest.approx(45 * 60_000 / 19560)
    assert table.step_ms["40"] == 60.38


def test_a_record_that_contradicts_the_leaderboard_is_reported(tmp_path):
    import shutil

    from harness.archive.find import ROOT

    for name in ("leaderboard.csv", "runs.csv", "curves.csv"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / "2025-10-04-backout"
    folder.mkdir()
    text = (ROOT / folder.name / "record.toml").read_text()
    (folder / "train.py").write_text("")
    (folder / "record.toml").write_text(text.replace("steps = 2330", "steps = 2331", 1))
    sentences = standings(tmp_path).set_index("number").disagrees["40"]
    assert "record.toml says 2331 steps, the leaderboard's table 2330" in sentences


def test_times_of_a_record_stay_apart_in_its_ledger(table):
    row = table.reset_index().query("number == '21'").to_dict("records")[0]
    again = tuple(table.reset_index().query("number in ('21b', '21c')").to_dict("records"))
    book = ledger_of(row, again)
    assert [entry.kind for entry in book.entries] == ["listed", "logged", "re-timed", "re-timed"]
    assert [round(entry.seconds / 60, 3) for entry in book.entries] == [2.933, 2.933, 2.997, 3.014]
    assert [entry.note for entry in book.of("re-timed")] == ["as 21b", "as 21c"]


def test_a_shortened_replay_says_how_short_beside_its_time(table):
    row = table.reset_index().query("number == '40'").to_dict("records")[0]
    run = {"fidelity": "shortened", "complete": True, "minutes": 0.5, "machine": "2 × NVIDIA H200", "ranks": 2}
    run |= {"steps": 1120, "witness_ratio": 1.0, "projected_minutes": 2.2, "how": "median step × all steps × 2/8"}
    book = ledger_of(row, replays=[SimpleNamespace(**run), SimpleNamespace(**run | {"fidelity": "smoke"})])
    assert [entry.kind for entry in book.entries] == ["listed", "logged", "re-timed", "witnessed", "projected"]
    assert [entry.note for entry in book.entries[2:4]] == ["shortened, 1,120 steps"] * 2
