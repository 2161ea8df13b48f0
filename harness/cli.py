"""The front door: it gathers the commands of `harness/commands/` and turns every foreseen failure into one line.

Imports of the heavy rooms stand inside the commands, so that `harness --help` answers at once.
"""

import sys

import click
import cloup

from harness.commands import contribute, draw, history, judge, replay
from harness.errors import UserError, in_one_line
from harness.version import version


class FrontDoor(cloup.Group):
    """A click group that turns every foreseen failure into one line on stderr and its exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (UserError, OSError, ValueError) as error:
            said = in_one_line(error)
            if ctx.params.get("debug") or said is None:
                raise
            click.echo(f"error: {said}", err=True)
            sys.exit(getattr(error, "exit_code", UserError.exit_code))


def _say_version(ctx, option, wanted):
    if wanted:
        click.echo(version())
        ctx.exit()


@cloup.group(cls=FrontDoor)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_version, help="Version, commit."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug):
    """The NanoGPT speedrun, re-runnable: records, replays, verdicts and charts."""


for room in (history, replay, judge, draw, contribute):
    main.add_section(room.SECTION)


if __name__ == "__main__":
    main()
