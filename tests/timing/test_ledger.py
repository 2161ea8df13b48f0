"""Times kept apart, their disagreements, and gains that split without a remainder."""

import csv
import math
from pathlib import Path

import pytest

from timing.ledger import Entry, Ledger, attribute, gain, measured, projected

LEADERBOARD = Path(__file__).parents[2] / "records" / "leaderboard.csv"
H100 = "8x NVIDIA H100 80GB HBM3"


def published(number):
    """A published record's ledger: the listed time, and the mean of the logs in its folder."""
    with LEADERBOARD.open() as file:
        row = next(row for row in csv.DictReader(file) if row["number"] == number)
    listed = Entry("listed", 60 * float(row["listed_minutes"]), H100)
    logged = Entry("logged", float(row["mean_train_time_s"]), f"{row['gpus']}x {row['gpu']}", int(row["gpus"]))
    return Ledger(number, (listed, logged))


@pytest.mark.parametrize(
    ("number", "percent", "disagrees"),
    [("16", 1.3, True), ("17", -0.5, False), ("32", -1.0, False), ("37", -0.4, False), ("40", -0.5, False)],
)
def test_known_inconsistencies_are_shown_and_flagged_above_one_percent(number, percent, disagrees):
    difference = published(number).difference()
    assert 100 * difference.share == pytest.approx(percent, abs=0.06)
    assert difference.disagrees is disagrees
    assert str(difference).startswith("DISAGREES" if disagrees else "differs")


def test_the_difference_is_written_out():
    assert str(published("40").difference()) == "differs: listed 2.358 min, logged 2.345 min (-0.55%)"
    assert str(published("39").difference()) == "agrees: listed 2.447 min, logged 2.447 min (-0.01%)"


def test_times_of_other_hardware_are_not_compared():
    assert published("88").difference() is None
    assert published("82").difference() is None


def test_without_logs_there_is_no_difference():
    assert Ledger("01", (Entry("listed", 2700, H100),)).difference() is None


def test_measured_carries_mean_deviation_and_number():
    entry = measured("logged", [140.693, 140.678, 140.626, 140.769, 140.718], H100)
    assert (entry.n, round(entry.seconds, 3), round(entry.std, 3)) == (5, 140.697, 0.053)
    assert measured("witnessed", [140.0], H100).std is None


def test_projection_keeps_its_kind_and_says_how():
    entry = projected(measured("re-timed", [1120.0, 1122.0], "1x NVIDIA H100", gpus=1))
    assert (entry.kind, entry.gpus, entry.n) == ("projected", 8, 2)
    assert entry.seconds == pytest.approx(1121 / 8)
    assert entry.std == pytest.approx(math.sqrt(2) / 8)
    assert "1/8" in entry.note


def test_kinds_are_never_mixed():
    ledger = Ledger(
        "40", (Entry("listed", 141.5, H100), Entry("logged", 140.7, H100, n=5), Entry("logged", 140.9, H100))
    )
    assert [entry.seconds for entry in ledger.of("logged")] == [140.7, 140.9]
    assert ledger.of("projected") == ()


@pytest.mark.parametrize(("kind", "seconds"), [("guessed", 1.0), ("listed", 0.0), ("listed", math.nan)])
def test_what_is_no_time_is_refused(kind, seconds):
    with pytest.raises(ValueError):
        Entry(kind, seconds, H100)


def test_no_runs_is_an_error():
    with pytest.raises(ValueError, match="no run"):
        measured("logged", [], H100)


def test_gain_splits_exactly():
    """Record 39 to 40: 2,420 to 2,330 steps, 60.70 to 60.38 ms."""
    found = gain("40", (146.893, 2420), (140.693, 2330))
    assert found.steps == pytest.approx(math.log(2420 / 2330))
    assert found.pace == pytest.approx(math.log(60.70 / 60.38), abs=1e-4)
    assert found.total == pytest.approx(math.log(146.893 / 140.693))


def test_gains_add_up_to_the_whole_history():
    with LEADERBOARD.open() as file:
        rows = [row for row in csv.DictReader(file) if row["steps"]]
    records = [(row["number"], float(row["listed_minutes"]), float(row["steps"])) for row in rows]
    gains = attribute(records)
    assert len(gains) == len(records) - 1
    assert sum(each.total for each in gains) == pytest.approx(math.log(records[0][1] / records[-1][1]))
    assert all(each.total == pytest.approx(each.steps + each.pace, abs=1e-12) for each in gains)


def test_gain_needs_positive_figures():
    with pytest.raises(ValueError, match="record 41"):
        gain("41", (1.0, 100), (1.0, 0))
