"""The commands that add to an archive: a submission from its start to its freezing, the runs that show it, and other
people's logs."""

from pathlib import Path

import click
import cloup

from harness.commands.options import RecordName


@click.command()
@click.argument("slug")
@click.option("--from", "parent", required=True, type=RecordName(), help="The record that the submission builds on.")
@click.option("--into", type=click.Path(path_type=Path), help="Where the folder is made. Default: the archive.")
def new(slug, parent, into):
    """Start a submission: a folder named after today and SLUG, with RECORD's script to change."""
    from harness.archive.draft_checks import what_to_change
    from harness.archive.record import load
    from harness.archive.submit import new

    folder = new(slug, parent, into)
    click.echo("\n".join([f"{folder} is a copy of {parent}; to make it yours:", *what_to_change(load(folder))]))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--again", is_flag=True, help="Freeze a changed script of a frozen record anew.")
def freeze(folder, again):
    """Run the contract tests on FOLDER and write the hash of its script if they pass."""
    from harness.archive.submit import freeze

    click.echo(freeze(folder, again))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--shared", is_flag=True, help="Other work ran on their GPUs meanwhile: their times show nothing.")
@click.option("--corpus", default="", help="What they were trained on, if their data had no manifest to say so.")
def keep(runs, shared, corpus):
    """Take finished RUNS into the `logs/` of their records, and say there what they show."""
    from harness.archive.keep import keep

    for folder in runs:
        click.echo(keep(folder, shared, corpus))
    click.echo("the tables follow with `harness leaderboard --write`")


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), default="imported", show_default=True, metavar="DIR")
def import_(path, into):
    """Make records of your own from someone else's folder of logs; nothing in them is run."""
    from harness.importing.imports import import_logs

    import_logs(path, into, click.echo)


SECTION = cloup.Section("Contribute", [new, freeze, keep, import_])
