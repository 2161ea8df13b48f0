"""The commands that draw: figures and the page."""

from pathlib import Path

import click
import cloup


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME... | telemetry RUN... | ladder PATH...]")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: reports/out in the repository.")
@click.option("--record", "records", multiple=True, metavar="RECORD", help="A record for the loss curves; repeatable.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True, help="Our own replays.")
@click.option("--write", is_flag=True, help="Also renew the committed figures in reports/figures/.")
def chart(**options):
    """Draw the figures (default: all) as PNG and SVG, light and dark, for slides and for a column.

    NAME is progress, attribution, curves, machine or significance. `telemetry` shows a run from inside, `ladder` what
    `harness ladder` found.
    """
    from harness.history.report import draw

    click.echo(draw(**options))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: reports/out in the repository.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True, help="Our own replays.")
def report(out, runs_dir):
    """Build the static page: one file with every record, its curves and what changed."""
    from harness.history.report import write_report

    click.echo(write_report(out, runs_dir))


SECTION = cloup.Section("Draw", [chart, report])
