"""The static page: one self-contained file with every record, its figures, its curves and what changed.

No request leaves the page: style, script and data stand inside, and a strict Content-Security-Policy allows these two
blocks by their hashes and nothing else. All texts go through jinja2's autoescape or, in the data, through `embedded`.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from reports.axes import minutes_text
from reports.cards import COLUMNS, Card, Script, facts, make_card, replay_rows
from reports.cards import minutes_text as listed_text
from reports.inline import Inliner
from reports.style import DARK, LIGHT, Theme

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("table.js", "curves.js", "page.js")  # of the page, in this order
TARGET = 3.28
GPUS = 8
DIFFS_BYTES = 1_500_000
"""What all diffs of the page may take together: each gets its share, and one that is longer is cut and says so."""


@dataclass(frozen=True)
class Figure:
    """A chart for the page: SVG bytes in the light theme for wide and for narrow screens, and its words."""

    wide: bytes
    narrow: bytes
    says: str


@dataclass(frozen=True)
class Page:
    """All that the page is made of.

    table: as `reports.leaderboard` takes it.  curves: number, step, val_loss, seconds.  replays: our runs, with
    `projected_minutes` and `how`.  replay_curves: run_id, step, val_loss, seconds.  ledger: number, kind, minutes, std,
    n, machine, note.  scripts: by record number.  others: by record number, what other people measured (objects with
    seconds, seconds_faster, sentence, source).  figures: by name, "progress" among them.  fidelities: objects with
    name, means, proves, not_proved.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    ledger: pd.DataFrame
    figures: dict[str, Figure]
    replays: pd.DataFrame = field(default_factory=pd.DataFrame)
    replay_curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    scripts: dict[str, Script] = field(default_factory=dict)
    others: dict[str, tuple] = field(default_factory=dict)
    fidelities: tuple = ()


def render(page: Page) -> str:
    """The whole page as HTML. The same input gives the same text."""
    inliner = Inliner(LIGHT)
    drawn = {name: _figure(inliner, name, figure) for name, figure in page.figures.items()}
    cards = _cards(page)
    style = "\n".join((_variables(), (TEMPLATES / "page.css").read_text(), inliner.stylesheet()))
    script = "\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)
    timed = page.table.dropna(subset=["listed_minutes"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded(_data(page))),
        records=cards,
        columns=COLUMNS,
        figures=drawn,
        sprite=inliner.sprite(),
        archived=sum(card.archived for card in cards),
        compare=_first_comparison(page.table),
        fidelities=page.fidelities,
        first_time=minutes_text(timed.listed_minutes.iloc[0]),
        last_time=minutes_text(timed.listed_minutes.iloc[-1]),
    )


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows this style, this script and no request at all."""

    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    sources = f"style-src {allowed(style)}; script-src {allowed(script)}"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def embedded(value) -> str:
    """JSON that cannot end its script element, whatever strings are in it, nor break a line of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _variables() -> str:
    """The two themes of the charts as CSS variables, so that page and figures share their colours."""

    def block(theme: Theme) -> str:
        names = ("paper", "ink", "muted", "grid", "accent", "second", "target")
        bands = "".join(f"--band{index}:{colour};" for index, colour in enumerate(theme.bands))
        return "{" + "".join(f"--{name}:{getattr(theme, name)};" for name in names) + bands + "}"

    dark = block(DARK)
    return f":root{block(LIGHT)}\n:root.dark{dark}\n@media (prefers-color-scheme:dark){{:root:not(.light){dark}}}"


def _figure(inliner: Inliner, name: str, figure: Figure) -> Markup:
    wide = inliner.inline(figure.wide, f"{name}-wide", figure.says, "wide")
    return wide + inliner.inline(figure.narrow, f"{name}-narrow", figure.says, "narrow")


def _cards(page: Page) -> list[Card]:
    drawable = set(page.curves.number)
    share = DIFFS_BYTES // max(len(page.scripts), 5)
    return [
        make_card(
            row,
            ledger=page.ledger[page.ledger.number == row.number],
            replays=replay_rows(_of(page.replays, row.number)),
            curves=drawable | set(_of(page.replays, row.number).get("number", ())),
            script=page.scripts.get(row.number),
            most_bytes=share,
            others=page.others.get(row.number, ()),
        )
        for row in page.table.itertuples()
    ]


def _of(replays: pd.DataFrame, number: str) -> pd.DataFrame:
    return replays[replays.number == number] if len(replays) else replays


def _first_comparison(table: pd.DataFrame) -> tuple[str, str]:
    """The two records that the page compares at first: the latest whose parent is archived too, else the last two."""
    known = table[table.archived & table.parent.isin(table.number[table.archived])]
    if len(known):
        return known.parent.iloc[-1], known.number.iloc[-1]
    return table.number.iloc[max(-2, -len(table))], table.number.iloc[-1]


def _data(page: Page) -> dict:
    """What the script needs: the records' figures and texts, the published curves, the replays' curves."""
    records, before, clock = [], None, 1.0
    for row in page.table.itertuples():
        gain = ""
        if before and row.listed_minutes > 0:
            gain = f"{100 * (before / row.listed_minutes - 1):+.1f} % speed".replace("-", "−")
            clock *= row.listed_minutes / before if row.retiming else 1.0
        records.append(
            {
                "number": row.number,
                "title": row.title,
                "date": f"{row.date:%Y-%m-%d}",
                "listed": listed_text(row.listed_minutes),
                "gain": gain,
                "credit": row.credit,
                "minutes": _plain(row.listed_minutes),
                "clock": _plain(clock),
                "others": [[_plain(one.seconds), one.source] for one in page.others.get(row.number, ()) if one.seconds],
                "steps": _plain(row.steps),
                "tokens_per_step": _plain(row.tokens_per_step),
                "share": row.gpus / GPUS if row.gpus > 0 else 1,
                "facts": [[name, text, _plain(figure)] for name, text, figure in facts(row)],
            }
        )
        before = row.listed_minutes if row.listed_minutes > 0 else before
    tokens = {row.number: _plain(row.tokens_per_step) for row in page.table.itertuples()}
    replays: dict[str, list] = {}
    for run in page.replays.itertuples():
        points = _points(page.replay_curves[page.replay_curves.run_id == run.run_id])
        one = {
            "fidelity": run.fidelity,
            "points": points,
            "tokens": None if run.fidelity == "smoke" else tokens.get(run.number),
            "share": run.ranks / GPUS,
        }
        replays.setdefault(run.number, []).append(one)
    curves = {number: _points(rows) for number, rows in page.curves.groupby("number")}
    return {"target": TARGET, "records": records, "curves": curves, "replays": replays}


def _points(rows: pd.DataFrame) -> list[list]:
    return [[int(one.step), _plain(one.val_loss), _plain(one.seconds)] for one in rows.itertuples()]


def _plain(value) -> float | None:
    """A figure as JSON knows it: six digits, whole numbers without a point, null for nan."""
    if value is None or pd.isna(value):
        return None
    rounded = float(f"{float(value):.6g}") if abs(value) < 1e6 else float(value)
    return int(rounded) if rounded == int(rounded) else rounded
