"""The frames that the reports draw, held against the published figures they come from."""

import math

import pandas as pd
import pytest

from harness.errors import UserError
from harness.history import frames
from harness.history.replayed import COLUMNS, Replays


def own_runs(*rows):
    """Our own runs, as `read_replays` would give them."""
    usual = {
        "run_id": "r",
        "number": "40",
        "fidelity": "stand-in",
        "machine": "1 × H100",
        "ranks": 1,
        "complete": True,
        "steps": 2330,
        "minutes": 18.8,
        "step_ms": 482.0,
        "val_loss": 3.278,
    }
    made = pd.DataFrame([usual | {"run_id": f"r{i}"} | row for i, row in enumerate(rows)], columns=list(COLUMNS))
    points = [(run, step, 5 - step / 2000, step / 2.0) for run in made.run_id for step in (0, 1000, 2330)]
    return Replays(made, pd.DataFrame(points, columns=["run_id", "step", "val_loss", "seconds"]), {})


@pytest.fixture(scope="module")
def table():
    return frames.progress()


def test_the_whole_history_from_45_to_1_23_minutes(table):
    assert list(table.number[:2]) == ["01", "02"] and table.number.iloc[-1] == "89"
    assert (table.minutes.iloc[0], table.minutes.iloc[-1]) == (45, 1.23)
    assert list(table[table.retiming].number) == ["21b", "21c"]
    assert list(table.number[20:24]) == ["21", "21b", "21c", "22"]


def test_gains_add_up_to_the_whole_factor_and_split_without_a_rest(table):
    gains = frames.gains(table)
    parts = gains[["steps_log", "speed_log", "clock_log"]]
    assert parts.to_numpy().sum() == pytest.approx(math.log(45 / 1.23))
    assert parts.sum(axis=1).to_numpy() == pytest.approx(
        [math.log(a / b) for a, b in zip(gains.minutes_before, gains.minutes)]
    )
    assert math.exp(gains.steps_log.sum()) == pytest.approx(19560 / 1285)
    retimed = gains[gains.number.isin(["21b", "21c"])]
    assert (retimed[["steps_log", "speed_log"]] == 0).all(axis=None) and (retimed.clock_log < 0).all()


def test_records_without_a_log_are_split_together_with_the_next(table):
    gains = frames.gains(table).set_index("number")
    assert gains.covers["67"] == "66–67" and gains.covers["87"] == "86–87"
    assert "66" not in gains.index and gains.covers["68"] == "68"
    assert gains.minutes_before["67"] == 1.613


def test_eras_speak_plainly():
    eras = frames.eras()
    assert list(eras.start) == [pd.Timestamp("2024-05-28"), pd.Timestamp("2025-01-01"), pd.Timestamp("2025-02-01")]
    assert (
        "10 steps are not timed" in eras.rule[0] and "p < 0.01" in eras.rule[1] and "every step counts" in eras.rule[2]
    )


def test_the_significance_of_record_40_is_the_published_one():
    summary = frames.summary(frames.losses()).set_index("series")
    row = summary.loc["40"]
    assert (row.n, round(row["mean"], 5), round(row["std"], 4), round(row.p, 4)) == (5, 3.27802, 0.0011, 0.0070)
    assert row.high < 3.28 and row.shown
    assert summary.loc["88"].fidelity == "same-batch"


def test_the_interval_ends_below_the_target_just_when_p_is_below_one_percent():
    summary = frames.summary(frames.losses())
    several = summary[summary.n > 1]
    assert ((several.high < 3.28) == (several.p < 0.01)).all()
    assert several.shown.sum() > 40
    assert summary[summary.n == 1].p.isna().all()


def test_only_our_runs_that_prove_a_loss_are_judged():
    runs = own_runs(
        {}, {"fidelity": "same-batch"}, {"fidelity": "smoke"}, {"fidelity": "same-batch", "complete": False}
    )
    series = frames.losses(runs)
    own = series[series.series.str.startswith("own")]
    assert list(own.fidelity.str.strip()) == ["same-batch replay"]


def test_curves_carry_tokens_seconds_and_fidelity():
    curves = frames.curves(("24", "40", "88", "89"), own_runs({}, {"fidelity": "shortened"}, {"fidelity": "smoke"}))
    last = curves.groupby("series").last()
    assert last.tokens["40"] == 2330 * 262144 and last.seconds["40"] == pytest.approx(140.693)
    assert math.isnan(curves[curves.series == "89"].tokens.iloc[-1])
    assert (
        last.fidelity["r0"] == "stand-in" and last.fidelity["r1"] == "shortened" and last.fidelity["88"] == "same-batch"
    )
    assert "r2" not in last.index, "a toy's loss has another scale"


def test_unasked_only_runs_on_the_records_own_tokens_are_drawn():
    runs = own_runs({}, {"fidelity": "same-batch"}, {"fidelity": "shortened"})
    assert {"r0", "r1", "r2"} & set(frames.curves((), runs).series) == {"r1"}


def test_records_answer_to_all_their_names(monkeypatch):
    monkeypatch.setattr("harness.archive.record.Record.is_draft", False)  # a script under work is no matter here
    for name in ("40", "2025-10-04", "2025-10-15", "2025-10-04-backout", "backout"):
        assert set(frames.curves((name,)).series) == {"40"}, name


def test_without_names_no_toy_is_among_the_curves():
    curves = frames.curves((), own_runs({"fidelity": "smoke"}, {"fidelity": "shortened", "complete": True}))
    assert not set(curves.series) & {"r0", "r1"}
    assert {"01", "05", "12", "24", "40", "89"} <= set(curves.series)


@pytest.mark.parametrize(("name", "says"), [("99", "no record '99'"), ("03", "no published validation curve")])
def test_a_record_without_a_curve_is_refused(name, says):
    with pytest.raises(UserError, match=says):
        frames.curves((name,), own_runs())


def test_one_point_a_record_of_its_best_fidelity_projected_to_eight_gpus():
    runs = own_runs(
        {},
        {"minutes": 19.0},
        {"fidelity": "smoke", "minutes": 0.1},
        {"number": "12", "fidelity": "shortened", "step_ms": 1300.0, "minutes": 2.0},
        {"number": "24", "fidelity": "official", "ranks": 8, "minutes": 2.97},
        {"number": "05", "fidelity": "smoke"},
        {"number": "77x", "fidelity": "official"},
    )
    points = frames.machine(runs).set_index("number")
    assert sorted(points.index) == ["12", "24", "40"]
    assert points.minutes["40"] == pytest.approx(18.9 / 8) and points.n["40"] == 2
    assert points.how["40"] == "time × 1/8" and points.fidelity["40"] == "stand-in"
    assert points.minutes["12"] == pytest.approx(1300 * 1875 / 60_000 / 8)
    assert points.how["12"] == "median step × all steps × 1/8"
    assert (points.minutes["24"], points.how["24"], points.fidelity["24"]) == (2.97, "measured", "")


def test_no_replay_no_point(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.history.replayed.ROOT", tmp_path)  # without the runs that the records have committed
    assert frames.machine(own_runs()).empty
    assert frames.everything(tmp_path)["replays"].empty
