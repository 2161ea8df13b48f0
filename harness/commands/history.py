"""The commands that read: what is in the archive, and how one record became the next."""

import os
import sys

import click
import cloup

from harness.commands.options import AS_JSON, NEAREST, RUNS_DIR, RecordName


@click.command("list")
@click.option("--all", "every", is_flag=True, help="Also the records whose script is not here.")
@click.option("--json", "as_json", is_flag=True, help="All facts, as JSON.")
def list_records(every, as_json):
    """The archive as a table; tab-separated when piped."""
    from rich.console import Console

    from harness.archive.listing import show

    show(Console(), as_json, every)


@click.command()
@click.argument("record", type=RecordName(everywhere=True))
@RUNS_DIR
@AS_JSON
def show(record, runs_dir, as_json):
    """One record on one screen: facts, claim, settings against its parent, curve, times."""
    from rich.console import Console

    from harness.history.show import show

    show(record, Console(highlight=False, markup=False, emoji=False), runs_dir, as_json=as_json)


@click.command()
@click.argument("old", type=RecordName())
@click.argument("new", type=RecordName())
@click.option("--side-by-side/--unified", default=False, help="Two columns, or one (the default).")
@click.option("--stat", "only_stat", is_flag=True, help="Only the lines changed, section by section.")
@click.option("--facts", "only_facts", is_flag=True, help="Only the settings and published figures that differ.")
@click.option("--context", type=click.IntRange(0), default=3, help="Unchanged lines around a change. Default: 3.")
@click.option("--whole", is_flag=True, help="Fold nothing that changed: claims and moved blocks in full.")
@click.option("--light", is_flag=True, help="Colours for a light terminal.")
@click.option("--color/--no-color", "colour", default=None, help="Default: colour on a terminal.")
@NEAREST
@AS_JSON
def diff(old, new, as_json, **options):
    """Show what changed from record OLD to record NEW: the scripts, section by section."""
    from harness.diff import report

    if as_json:
        click.echo(report.as_json(old, new, options["nearest"]))
        return
    text = report.diff(old, new, **options)
    if sys.stdout.isatty():
        os.environ.setdefault("LESS", "FRX")  # as git does: without R, less shows a colour as `ESC[1m`
        click.echo_via_pager(text, color=True)
    else:
        click.echo(text, nl=False, color=True)


@click.command()
@click.option("--csv", "form", flag_value="csv", help="As comma-separated values.")
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="As markdown (the default when piped).")
@click.option("--write", is_flag=True, help="Renew the tables in README.md and records/README.md instead.")
def leaderboard(form, write):
    """All records: listed and logged times, losses, what disagrees. A table on a terminal."""
    from harness.history.report import leaderboard_table, leaderboard_text, write_pages

    if write:
        click.echo(write_pages())
    elif form is None and sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False, markup=False, emoji=False).print(leaderboard_table())
    else:
        click.echo(leaderboard_text(form or "markdown"), nl=False)


SECTION = cloup.Section("Read the history", [list_records, show, diff, leaderboard])
