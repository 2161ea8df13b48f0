"""What the page says about one record: table cells, facts, ledger entries, replays, all as plain text."""

import re
from dataclasses import dataclass

import pandas as pd

from reports.diffs import Diff, Row, diff
from reports.leaderboard import number, p_text, spread


@dataclass(frozen=True)
class Script:
    """A record's frozen script: its source, its claim, and how it differs from another record's.

    against: number of that record, "" if there is none.  changes: the rows of the diff.  summary: the diff in a
    sentence without a full stop.  shown: on what it ran at real size, or that it has not.
    """

    source: str
    claim: str
    against: str = ""
    against_source: str = ""
    changes: tuple[Row, ...] = ()
    summary: str = ""
    shown: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the page's table."""

    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the key it sorts by ("" sorts last). `more` unfolds below the text."""

    text: str
    key: str
    more: tuple[str, ...] = ()


COLUMNS = (
    *(Column("No"), Column("Date"), Column("What was new"), Column("Listed", True), Column("Logged (n)", True)),
    *(Column("Others’", True), Column("Loss", True), Column("p", True), Column("Steps", True)),
    *(Column("ms/step", True), Column("Credit"), Column("What disagrees")),
)


@dataclass(frozen=True)
class Card:
    """One record as the templates read it."""

    number: str
    id: str
    title: str
    day: str
    listed: str
    archived: bool
    shown: str
    retiming: bool
    cells: tuple[Cell, ...]
    claim: str
    facts: tuple[tuple[str, str], ...]
    source: str
    link: str
    ledger: list
    disagrees: tuple[str, ...]
    rival: str
    has_curve: bool
    replays: list
    diff: Diff | None
    diff_against: str
    diff_summary: str


def record_id(name: str) -> str:
    """The record's address in the page: `record-40`."""
    return "record-" + re.sub(r"[^\w.-]", "-", name)


def safe_link(target: str) -> str:
    """The address if it is a web address, else "": no other scheme becomes a link."""
    return target if re.fullmatch(r"https?://[^\s\"'<>]+", target or "") else ""


def minutes_text(minutes: float) -> str:
    """`2.358 min`, or a dash where nobody knows."""
    return f"{minutes:.4g} min" if minutes and not pd.isna(minutes) else "–"


def make_card(
    row,
    *,
    ledger: pd.DataFrame,
    replays: list,
    curves: set[str],
    script: Script | None,
    most_bytes: int,
    others: tuple = (),
) -> Card:
    """The card of one row of the standings.

    `others` are what other people measured (`seconds` or None, `seconds_faster`, `sentence`, `source`); `curves` holds
    the numbers that have a curve to draw; `most_bytes` is what the markup of its diff may take.
    """
    rival = row.parent if row.parent in curves else ""
    return Card(
        number=row.number,
        id=record_id(row.number),
        title=row.title,
        day=f"{row.date:%Y-%m-%d}",
        listed=minutes_text(row.listed_minutes),
        archived=bool(row.archived),
        shown=script.shown if script else "",
        retiming=bool(row.retiming),
        cells=cells(row, others),
        claim=script.claim if script else "",
        facts=tuple((name, text) for name, text, _ in facts(row) if text),
        source=row.source,
        link=safe_link(row.source),
        ledger=[
            {
                "kind": f"{one.kind} ({one.note})" if one.note else one.kind,
                "minutes": number(one.minutes, ".3f") + spread(one.std, ".3f"),
                "n": one.n or "",
                "machine": one.machine,
            }
            for one in ledger.itertuples()
        ]
        + [
            {"kind": "others’ difference", "minutes": "", "n": "", "machine": f"{one.sentence}, says {one.source}"}
            for one in others
            if one.sentence
        ],
        disagrees=row.disagrees,
        rival=rival,
        has_curve=row.number in curves,
        replays=replays,
        diff=_diff(script, most_bytes) if script and script.against else None,
        diff_against=script.against if script else "",
        diff_summary=script.summary if script else "",
    )


def _diff(script: Script, most_bytes: int) -> Diff:
    return diff(script.against_source, script.source, script.changes, most_bytes)


def cells(row, others: tuple = ()) -> tuple[Cell, ...]:
    """The row of the big table, in the order of `COLUMNS`; `others` as `make_card` takes them."""
    runs = f" ({row.runs})" if row.runs else ""

    def figure(value: float, how: str, more: str = "") -> Cell:
        return Cell(number(value, how) + more, number(value, ".9g"))

    return (
        Cell(row.number, row.number),
        Cell(f"{row.date:%Y-%m-%d}", f"{row.date:%Y-%m-%d}"),
        Cell(row.title, row.title.lower()),
        figure(row.listed_minutes, ".4g"),
        figure(row.logged_minutes, ".3f", spread(row.logged_std, ".3f") + runs),
        _others(others),
        figure(row.mean_loss, ".4f", spread(row.std_loss, ".4f")),
        Cell(p_text(row.p), number(row.p, ".9g")),
        figure(row.steps, ",.0f"),
        figure(row.step_ms, ".2f"),
        Cell(row.credit, row.credit.lower()),
        Cell(row.disagrees[0] if row.disagrees else "", str(len(row.disagrees) or ""), row.disagrees[1:]),
    )


def _others(others: tuple) -> Cell:
    """What others measured: minutes, or seconds against record 29 where they tell no more; these sort as unknown."""
    timed = next((one for one in others if one.seconds), None)
    if timed is not None:
        return Cell(f"{timed.seconds / 60:.3f}", f"{timed.seconds / 60:.9g}")
    told = next((one for one in others if one.seconds_faster), None)
    return Cell("" if told is None else f"{-told.seconds_faster:+.1f} s".replace("-", "−"), "")


def facts(row) -> list[tuple[str, str, float | None]]:
    """Name, text and figure (None where it is no figure) of each fact; the same names for every record."""
    runs = f" ({row.runs} run{'s' * (row.runs != 1)})" if row.runs else ""
    hardware = f"{row.gpus:.0f} × {row.gpu}" if row.gpu and row.gpus > 0 else ""

    def figure(name: str, value: float, how: str, more: str = "") -> tuple[str, str, float | None]:
        return name, number(value, how) + (more if number(value, how) else ""), None if pd.isna(value) else float(value)

    return [
        figure("listed minutes", row.listed_minutes, ".4g"),
        figure("logged minutes", row.logged_minutes, ".3f", spread(row.logged_std, ".3f") + runs),
        figure("steps", row.steps, ",.0f"),
        figure("ms per step", row.step_ms, ".2f"),
        figure("tokens per step", row.tokens_per_step, ",.0f"),
        figure("tokens in all", row.tokens, ",.0f"),
        figure("final loss", row.mean_loss, ".4f", spread(row.std_loss, ".4f") + runs),
        ("p (mean below 3.28)", p_text(row.p), None),
        ("date", f"{row.date:%Y-%m-%d}", None),
        ("credit", row.credit, None),
        ("techniques", row.techniques, None),
        ("parent", row.parent, None),
        ("kind of change", {"ml": "machine learning", "systems": "systems only"}.get(row.kind, row.kind), None),
        ("rules of", row.edition, None),
        ("PyTorch of its log", row.torch, None),
        ("hardware of its log", hardware, None),
    ]


def replay_rows(runs: pd.DataFrame) -> list[dict]:
    """Our own runs of one record as texts; `runs` as `harness` hands them over, with `projected_minutes` and `how`."""
    return [
        {
            "fidelity": run.fidelity,
            "machine": run.machine,
            "steps": number(run.steps, ",.0f"),
            "loss": number(run.val_loss, ".4f"),
            "minutes": number(run.minutes, ".3f"),
            "step_ms": number(run.step_ms, ".2f"),
            "projected": f"{run.projected_minutes:.3f} ({run.how})" if run.projected_minutes > 0 else "",
            "run_id": run.run_id,
            "outcome": run.outcome,
        }
        for run in runs.itertuples()
    ]
