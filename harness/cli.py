"""The front door: each command parses its options and calls one function of one module.

Imports of the heavy rooms stand inside the commands, so that `harness --help` answers at once.
"""

import sys
from pathlib import Path

import click

from harness.errors import UserError


class FrontDoor(click.Group):
    """A click group that turns every foreseen failure into one line on stderr and its exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=FrontDoor)
@click.version_option(package_name="speedrun-archive", message="%(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug):
    """The NanoGPT speedrun, re-runnable: records, replays, verdicts and charts."""


@main.command()
@click.option("--shards", default=8, show_default=True, help="Train shards of FineWeb, 100M tokens (200 MB) each.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Default: data/fineweb10B, or data/synthetic.")
@click.option("--check", "only_check", is_flag=True, help="Read what is on disk and hold it against its manifest.")
@click.option("--synthetic", is_flag=True, help="Make the small synthetic source instead; needs no network.")
@click.option("--seed", default=0, show_default=True, help="Seed of the synthetic source.")
@click.option("--describe", "name", default="", metavar="NAME", help="Write the manifest of shards of your own.")
def data(**options):
    """Fetch FineWeb's tokens (resumable, verified), or make or check a data folder."""
    from harness.data import prepare

    click.echo(prepare(**options))


if __name__ == "__main__":
    main()
