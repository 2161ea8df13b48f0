"""The three commands that show the archive: pictures, the leaderboard, the static page."""

import ast
from itertools import product
from pathlib import Path

import pandas as pd

from harness import frames
from harness.archive import ROOT, Record, discover
from harness.errors import UserError
from harness.fidelity import LABELS
from harness.files import write_whole
from harness.ledgers import ledgers
from harness.published import published_curves
from harness.replayed import read_replays
from harness.standings import standings
from reports import charts, leaderboard, site
from reports.cards import Script

REPOSITORY = ROOT.parent
OUT = REPOSITORY / "reports" / "out"
FIGURES = REPOSITORY / "reports" / "figures"
COMMITTED = ("progress", "attribution")
PAGES = {"README.md": True, "records/README.md": False}
"""Pages with a generated table, and whether it is the compact one of the records in the archive."""


def draw(names: tuple[str, ...], out: Path | None, records: tuple[str, ...], runs_dir: Path, write: bool) -> str:
    """Draw charts (default: all) as SVG and PNG, light and dark, slide and column, into `out`; returns what was made.

    `write` also renews the committed figures. UserError for an unknown chart, and for one asked for by name that has
    nothing to show; among all of them such a one is left out, and the text says so.
    """
    out, said = out or OUT, []
    if unknown := [name for name in names if name not in charts.CHARTS]:
        raise UserError(f"no chart {unknown[0]!r}; there are {', '.join(charts.CHARTS)}")
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
        said += [str(_save(FIGURES, file, content)) for file, content in committed_figures(data).items()]
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


def _save(folder: Path, name: str, content: bytes | str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write_whole(folder / name, content)
    except OSError as error:
        raise UserError(
            f"{folder / name} cannot be written: {error.strerror}; choose another place with --out"
        ) from None


def leaderboard_text(kind: str, root: Path | None = None) -> str:
    """The whole leaderboard as `markdown`, `csv` or `json`."""
    makers = {"markdown": leaderboard.to_markdown, "csv": leaderboard.to_csv, "json": leaderboard.to_json}
    return makers[kind](standings(root))


def renewed_pages(repository: Path = REPOSITORY) -> dict[Path, str]:
    """Each page with a generated table, and the text that it should have. UserError where the markers are missing."""
    table, pages = standings(repository / "records"), {}
    for name, compact in PAGES.items():
        path = repository / name
        if not path.is_file():
            continue
        shown = table[table.archived] if compact else table
        text = leaderboard.to_markdown(shown, compact, "records" if compact else "")
        try:
            pages[path] = leaderboard.splice(path.read_text(), text)
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
    return _save(out or OUT, "index.html", site.render(page(runs_dir, root)))


def page(runs_dir: Path, root: Path | None = None) -> site.Page:
    """All that the static page shows, gathered."""
    replays, table = read_replays(runs_dir, root), standings(root)
    data = frames.everything(runs_dir, (), root)
    steps = table.set_index("number").steps
    shown = replays.runs[replays.runs.number.isin(table.number)].reset_index(drop=True)
    times = [frames.projected(run, steps[run.number]) for run in shown.itertuples()]
    shown["projected_minutes"] = [
        float("nan") if run == "smoke" or not t else t for run, (t, _) in zip(shown.fidelity, times)
    ]
    shown["how"] = [how for _, how in times]
    return site.Page(
        table=table,
        curves=published_curves(root),
        ledger=ledgers(table, shown),
        figures={
            name: _figure(name, data) for name in charts.CHARTS if not (name == "machine" and data["replays"].empty)
        },
        replays=shown,
        replay_curves=replays.curves,
        scripts=scripts(discover(root)),
        fidelities=tuple(LABELS.values()),
    )


def _figure(name: str, data: dict) -> site.Figure:
    wide, narrow = (
        charts.render(name, data, charts.LIGHT, size, ("svg",))["svg"] for size in (charts.SLIDE, charts.COLUMN)
    )
    return site.Figure(wide, narrow, charts.CHARTS[name].says)


def scripts(records: list[Record]) -> dict[str, Script]:
    """Each archived record's script with its claim and with the nearest ancestor that is in the archive too."""
    by_number = {record.number: record for record in records}
    found, latest = {}, None
    for record in records:
        against = by_number.get(record.parent) or latest
        source = _text(record.script)
        note = ""
        if against and against.number != record.parent:
            note = (
                f"{against.number} is the nearest before it with a script here; its parent is {record.parent or 'none'}"
            )
        found[record.number or record.slug] = Script(
            source=source,
            claim=claim(source),
            against=against.number if against else "",
            against_source=_text(against.script) if against else "",
            note=note,
        )
        latest = record
    return found


def claim(source: str) -> str:
    """A script's opening docstring, "" if it has none or is not Python. Nothing of the script is executed."""
    try:
        return ast.get_docstring(ast.parse(source)) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
