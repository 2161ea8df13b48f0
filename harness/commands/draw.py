"""The commands that draw: figures and the page."""

import click
import cloup

from harness.commands.options import RUNS_DIR, RecordName, folder

OUT = folder("--out", "reports/out")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME... | telemetry RUN... | ladder PATH...]")
@OUT
@click.option(
    "--record",
    "records",
    multiple=True,
    type=RecordName(everywhere=True),
    help="A record for the loss curves; repeatable.",
)
@RUNS_DIR
@click.option("--write", is_flag=True, help="Also renew the committed figures in reports/figures/.")
def chart(**options):
    """Draw the figures (default: all) as PNG and SVG, light and dark, for slides and for a column.

    NAME is progress, attribution, curves, machine or significance. `telemetry` shows a run from inside, `ladder` what
    `harness ladder` found.
    """
    from harness.history.report import draw

    click.echo(draw(**options))


@click.command()
@OUT
@RUNS_DIR
def report(out, runs_dir):
    """Build the static page: one file with every record, its curves and what changed."""
    from harness.history.report import write_report

    click.echo(write_report(out, runs_dir))


SECTION = cloup.Section("Draw", [chart, report])
