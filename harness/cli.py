"""The front door: it gathers the commands of `harness/commands/` and turns every foreseen failure into one line.

Imports of the heavy rooms stand inside the commands, so that `harness --help` answers at once.
"""

import sys
import traceback

import click
import cloup

from harness.commands import contribute, draw, history, judge, replay
from harness.errors import INTERRUPTED, UserError, in_one_line

WANTS_TRACEBACK = "harness.debug"


class FrontDoor(cloup.Group):
    """A click group that turns every foreseen failure into one line on stderr and its exit code.

    Every command in it takes `--debug`, before or after its name: the traceback is shown first then. Ctrl-C is 130.
    """

    def add_command(self, command, name=None, section=None, fallback_to_default_section=True):
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option())
        super().add_command(command, name, section, fallback_to_default_section)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("stopped", err=True)
            sys.exit(INTERRUPTED)
        except (UserError, OSError, ValueError) as error:
            said = in_one_line(error)
            if said is None:
                raise
            if ctx.meta.get(WANTS_TRACEBACK):
                traceback.print_exception(error)
            click.echo(f"error: {said}", err=True)
            sys.exit(getattr(error, "exit_code", UserError.exit_code))


def _debug_option() -> click.Option:
    def keep(ctx, param, value):
        if value:
            ctx.meta[WANTS_TRACEBACK] = True

    words = "Show the traceback of an error."
    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=keep, help=words)


@cloup.group(cls=FrontDoor, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="speedrun-archive", message="%(version)s")
def main():
    """The NanoGPT speedrun, re-runnable: records, replays, verdicts and charts."""


main.params.append(_debug_option())
for room in (history, replay, judge, draw, contribute):
    main.add_section(room.SECTION)


if __name__ == "__main__":
    main()
