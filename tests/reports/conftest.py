"""The frames of the real history, and invented replays and records for what the history does not have yet."""

import pandas as pd
import pytest

from harness.archive.find import ROOT
from harness.archive.leaderboard import read_retimed
from harness.archive.published import published_curves
from harness.history import frames
from harness.history.standings import ledgers, standings
from reports import charts, site
from reports.cards import Script
from reports.diffs import Row

HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=alert(1)> \u2028 $\\frac{ {{7*7}} &amp; \"'`"
)


@pytest.fixture(scope="session")
def hostile():
    """A string that tries everything at once."""
    return HOSTILE


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """All chart frames of the archive as it is, with three invented replays in place of our own."""
    empty = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.history.replayed.ROOT", empty)  # without the runs that the records have committed
        made = frames.everything(empty)
    made["replays"] = pd.DataFrame(
        [
            {"number": "40", "listed_minutes": 2.358, "minutes": 2.31, "n": 2, "fidelity": "stand-in"},
            {"number": "24", "listed_minutes": 2.966, "minutes": 2.95, "n": 1, "fidelity": "shortened"},
            {"number": "12", "listed_minutes": 5.03, "minutes": 5.2, "n": 1, "fidelity": ""},
        ]
    ).assign(machine="1 × NVIDIA H100", how="time × 1/8")
    return made


@pytest.fixture(scope="session")
def table():
    """The standings of the archive as it is."""
    return standings()


def _replay_row(**changes) -> dict:
    return {
        "run_id": "20260101-000000-aaaa",
        "number": "40",
        "fidelity": "stand-in",
        "machine": "1 × NVIDIA H100 80GB HBM3",
        "ranks": 1,
        "outcome": "finished",
        "steps": 2330,
        "val_loss": 3.5,
        "minutes": 18.7,
        "step_ms": 481.0,
        "complete": True,
        "witness_ratio": 1.001,
        "projected_minutes": 2.34,
        "how": "time × 1/8",
    } | changes


def _script(source: str, before: str = "a = 1\n", **told) -> Script:
    rows = [Row("gone", line=i + 1) for i in range(before.count("\n"))]
    rows += [Row("come", line=i + 1) for i in range(source.count("\n"))]
    told = {"claim": "It is fast.", "against": "24", "summary": "1 line added, 1 deleted"} | told
    return Script(source, against_source=before, changes=(Row("section", "All"), *rows), **told)


@pytest.fixture(scope="session")
def script():
    """A factory of scripts in whose diff every line of `before` went and every one of `source` came."""
    return _script


@pytest.fixture(scope="session")
def replay_row():
    """A factory of our own runs as `harness.history.replayed` reads them, with their projection."""
    return _replay_row


@pytest.fixture(scope="session")
def make_page(data, table):
    """A factory of pages: the real history, with changes to single rows, scripts and replays."""
    drawn = {
        name: site.Figure(
            *(charts.render(name, data, charts.LIGHT, size, ("svg",))["svg"] for size in (charts.SLIDE, charts.COLUMN)),
            charts.CHARTS[name].says,
        )
        for name in charts.CHARTS
    }

    def make(rows: dict | None = None, scripts: dict[str, Script] | None = None, replays: list[dict] | None = None):
        shown = table.copy()
        for number, changes in (rows or {}).items():
            for column, value in changes.items():
                shown.loc[shown.index[shown.number == number][0], column] = value
        own = pd.DataFrame(
            [_replay_row(), _replay_row(run_id="smoke-1", fidelity="smoke")] if replays is None else replays
        )
        points = pd.DataFrame(
            [(run, step, 8 - step / 500, step * 0.48) for run in own.run_id for step in range(0, 2331, 233)],
            columns=["run_id", "step", "val_loss", "seconds"],
        )
        return site.Page(
            table=shown,
            curves=published_curves(),
            ledger=ledgers(shown, own),
            figures=drawn,
            replays=own,
            replay_curves=points,
            scripts={"40": _script("a = 2\n")} if scripts is None else scripts,
            others=read_retimed(ROOT),
        )

    return make
