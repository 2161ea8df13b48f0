"""The commands that read: what is in the archive, and how one record became the next."""

import sys
from pathlib import Path

import click
import cloup


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="All facts, as JSON.")
def list_records(as_json):
    """The archive as a table; tab-separated when piped."""
    from rich.console import Console

    from harness.archive.listing import show

    show(Console(), as_json)


@click.command()
@click.argument("record")
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True, help="Our own replays.")
def show(record, runs_dir):
    """One record on one screen: facts, claim, settings against its parent, curve, times."""
    from rich.console import Console

    from harness.history.show import show

    show(record, Console(highlight=False, markup=False, emoji=False), runs_dir)


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--side-by-side/--unified", default=False, help="Two columns, or one (the default).")
@click.option("--stat", "only_stat", is_flag=True, help="Only the lines changed, section by section.")
@click.option("--facts", "only_facts", is_flag=True, help="Only the settings and published figures that differ.")
@click.option("--context", type=click.IntRange(0), default=3, help="Unchanged lines around a change. Default: 3.")
@click.option("--whole", is_flag=True, help="Fold nothing that changed: claims and moved blocks in full.")
@click.option("--light", is_flag=True, help="Colours for a light terminal.")
@click.option("--color/--no-color", "colour", default=None, help="Default: colour on a terminal.")
def diff(old, new, **options):
    """Show what changed from record OLD to record NEW: the scripts, section by section."""
    from harness.diff.report import diff

    text = diff(old, new, **options)
    click.echo_via_pager(text, color=True) if sys.stdout.isatty() else click.echo(text, nl=False, color=True)


@click.command()
@click.option("--csv", "form", flag_value="csv", help="As comma-separated values.")
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option("--markdown", "form", flag_value="markdown", default="markdown", help="As markdown (the default).")
@click.option("--write", is_flag=True, help="Renew the tables in README.md and records/README.md instead.")
def leaderboard(form, write):
    """All records: listed and logged times, losses, what disagrees."""
    from harness.history.report import leaderboard_text, write_pages

    click.echo(write_pages() if write else leaderboard_text(form), nl=write)


SECTION = cloup.Section("Read the history", [list_records, show, diff, leaderboard])
