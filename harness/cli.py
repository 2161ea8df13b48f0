"""The front door: each command parses its options and calls one function of one module.

Imports of the heavy rooms stand inside the commands, so that `harness --help` answers at once.
"""

import sys

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


if __name__ == "__main__":
    main()
