"""The three commands that show the archive: pictures, the leaderboard, the static page."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd
from rich.table import Table

from harness.archive import places
from harness.archive.find import ROOT, Record, ancestor, discover
from harness.archive.leaderboard import read_leaderboard, read_retimed
from harness.archive.outline import docstring
from harness.archive.published import published_curves
from harness.diff import hunks
from harness.diff.diff import Line, SectionDiff, compare
from harness.diff.report import summary
from harness.errors import UserError
from harness.files import write_whole
from harness.history import frames, inside
from harness.history.chain import chain_table
from harness.history.ledgers import projected
from harness.history.replayed import read_replays
from harness.history.standings import ledgers, standings
from harness.replay.fidelity import LABELS
from reports import charts, leaderboard, site
from reports.cards import Script
from reports.diffs import Row

REPOSITORY = ROOT.parent
FIGURES = REPOSITORY / "reports" / "figures"
COMMITTED = ("progress", "attribution")
CONTEXT = 2  # unchanged lines around a change, on the page
PAGES = {"README.md": True, "records/README.md": False}
"""Pages with a generated table, and whether it is the compact one of the records in the archive."""


def draw(names: tuple[str, ...], out: Path | None, records: tuple[str, ...], runs_dir: Path, write: bool) -> str:
    """Draw charts (default: all) as SVG and PNG, light and dark, slide and column, into `out`; returns what was made.

    `telemetry` and `ladder` are followed by the runs, or ladders, that they show.
    `write` also renews the committed figures. UserError for an unknown chart, and for one asked for by name that has
    nothing to show; among all of them such a one is left out, and the text says so.
    """
    if names and names[0] in charts.OF_RUNS:
        return inside.draw(names[0], names[1:], out)
    if unknown := [name for name in names if name not in charts.CHARTS]:
        raise UserError(f"no chart {unknown[0]!r}; there are {', '.join([*charts.CHARTS, *charts.OF_RUNS])}")
    out, said = _folder(out or places.reports_dir()), []
    data = frames.everything(runs_dir, records)
    for name in names or charts.CHARTS:
        if name == "machine" and data["replays"].empty:
            missing = f"no replay under {runs_dir} has a telling time; `harness replay RECORD` on a GPU makes one"
            if names:
                raise UserError(missing)
            said.append(f"machine: left out, {missing}")
            continue
        for theme, size in product((charts.LIGHT, charts.DARK), (charts.SLIDE, charts.COLUMN)):
            for kind, content in charts.render(name, data, theme, size, ("svg", "png")).items():
                path = _save(out, charts.file_name(name, theme, size, kind), content)
        said.append(f"{name}: {path.with_name(name)}[-column]-{{light,dark}}.{{svg,png}}")
    if write:
        said += [str(_save(_folder(FIGURES), file, content)) for file, content in committed_figures(data).items()]
    return "\n".join(said)


def committed_figures(data: dict[str, pd.DataFrame]) -> dict[str, bytes]:
    """The figures that the README shows, by file name."""
    themes = (charts.LIGHT, charts.DARK)
    return {
        charts.file_name(name, theme, charts.SLIDE, "svg"): charts.render(name, data, theme, charts.SLIDE, ("svg",))[
            "svg"
        ]
        for name in COMMITTED
        for theme in themes
    }


def _folder(out: Path) -> Path:
    """The folder `out`, made where it is missing. UserError where that cannot be, before anything is drawn."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}; choose another place with --out") from None
    return out


def _save(folder: Path, name: str, content: bytes | str) -> Path:
    try:
        return write_whole(folder / name, content)
    except OSError as error:
        raise UserError(
            f"{folder / name} cannot be written: {error.strerror}; choose another place with --out"
        ) from None


def leaderboard_text(kind: str, root: Path | None = None) -> str:
    """The whole leaderboard as `markdown`, `csv` or `json`."""
    makers = {"markdown": leaderboard.to_markdown, "csv": leaderboard.to_csv, "json": leaderboard.to_json}
    return makers[kind](standings(root))


def leaderboard_table(root: Path | None = None) -> Table:
    """The leaderboard for a terminal: what fits on a line of it; `show` has the rest of a record."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, wide in (("", False), ("date", False), ("what was new", True), ("listed", False), ("logged", False)):
        table.add_column(name, justify="right" if name.endswith("ed") else "left", no_wrap=not wide)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("what disagrees", max_width=34)
    for row in standings(root).itertuples():
        figures = (row.listed_minutes, ".4g"), (row.logged_minutes, ".3f"), (row.mean_loss, ".4f")
        minutes, logged, loss = (leaderboard.number(*figure) for figure in figures)
        words = (f"{row.date:%Y-%m-%d}", row.title, minutes, logged, loss, "; ".join(row.disagrees))
        table.add_row(row.number, *words, style=None if row.archived else "dim")
    return table


def renewed_pages(repository: Path = REPOSITORY) -> dict[Path, str]:
    """Each page with a generated table, and the text that it should have, drafts left out. UserError where the markers
    are missing, and for a broken `record.toml`: its record would be gone from the pages."""
    records, pages = repository / "records", {}
    drafts = {record.number for record in discover(records, strict=True) if record.is_draft}
    drafts -= {row.number for row in read_leaderboard(records)}
    table = standings(records)
    table = table[~table.number.isin(drafts)]
    for name, compact in PAGES.items():
        path = repository / name
        if not path.is_file():
            continue
        shown = table[table.archived] if compact else table
        text = leaderboard.to_markdown(shown, compact, "records" if compact else "")
        try:
            pages[path] = leaderboard.splice(path.read_text(), text)
            if not compact and (repository / "records" / "shown.csv").is_file():
                pages[path] = leaderboard.splice(pages[path], chain_table(repository / "records"), "chain")
        except leaderboard.NoMarkers as error:
            raise UserError(f"{path} {error}") from None
    return pages


def write_pages(repository: Path = REPOSITORY) -> str:
    """Bring the generated tables up to date; returns which pages changed, in words."""
    stale = {path: text for path, text in renewed_pages(repository).items() if path.read_text() != text}
    written = [str(write_whole(path, text)) for path, text in stale.items()]
    return "\n".join(written) if written else "every table was up to date"


def write_report(out: Path | None, runs_dir: Path, root: Path | None = None) -> Path:
    """Write the static page `index.html` into `out`; returns its path."""
    return _save(_folder(out or places.reports_dir()), "index.html", site.render(page(runs_dir, root)))


def page(runs_dir: Path, root: Path | None = None) -> site.Page:
    """All that the static page shows, gathered."""
    replays, table = read_replays(runs_dir, root), standings(root)
    data = frames.everything(runs_dir, (), root)
    steps = table.set_index("number").steps
    shown = replays.runs[replays.runs.number.isin(table.number)].reset_index(drop=True)
    times = [projected(run, steps[run.number]) for run in shown.itertuples()]
    shown["projected_minutes"] = [
        float("nan") if run == "smoke" or not t else t for run, (t, _) in zip(shown.fidelity, times)
    ]
    shown["how"] = [how for _, how in times]
    return site.Page(
        table=table,
        curves=published_curves(root),
        ledger=ledgers(table, shown, root),
        figures={
            name: _figure(name, data) for name in charts.CHARTS if not (name == "machine" and data["replays"].empty)
        },
        replays=shown,
        replay_curves=replays.curves,
        scripts=scripts(discover(root)),
        others=read_retimed(Path(root or ROOT)),
        fidelities=tuple(LABELS.values()),
    )


def _figure(name: str, data: dict) -> site.Figure:
    wide, narrow = (
        charts.render(name, data, charts.LIGHT, size, ("svg",))["svg"] for size in (charts.SLIDE, charts.COLUMN)
    )
    return site.Figure(wide, narrow, charts.CHARTS[name].says)


def scripts(records: list[Record]) -> dict[str, Script]:
    """Each archived record's script, and what changed in it since the nearest ancestor that is in the archive too."""
    found = {}
    for record in records:
        base = ancestor(record, records)
        source, before = record.read_script(), base.read_script() if base else ""
        parts = compare(before, source) if base else []
        aside = f". Its parent, {record.parent}, has no script here" if base and base.number != record.parent else ""
        found[record.number or record.slug] = Script(
            source=source,
            claim=docstring(source),
            against=base.number if base else "",
            against_source=before,
            changes=tuple(row for part in parts for row in _rows(part)),
            summary=summary(parts) + aside if parts else "",
            shown=record.shown.text if record.shown else "",
        )
    return found


def _rows(part: SectionDiff) -> Iterator[Row]:
    """One section of a diff as the page draws it; the rewritten claim is left out, which stands above the diff."""
    yield Row("section", part.title if part.changed else f"{part.title}: unchanged, {len(part.lines)} lines")
    for row in hunks.rows(part, CONTEXT) if part.changed else ():
        if isinstance(row, Line):
            kind = "moved" if row.moved else row.kind
            yield Row(kind, line=row.old if kind == "gone" else row.new, words=row.words)
        elif isinstance(row, hunks.Heading):
            yield Row("scope", row.text)
        elif not (isinstance(row, hunks.Fold) and row.reason == "claim"):
            yield Row("note", row.text)
