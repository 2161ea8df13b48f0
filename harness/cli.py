"""The front door: it gathers the commands of `harness/commands/` and turns every foreseen failure into one line.

Imports of the heavy rooms stand inside the commands, so that `harness --help` answers at once.
"""

import io
import signal
import sys
import traceback

import click
import cloup

from harness.commands import contribute, draw, history, judge, replay
from harness.errors import UserError, in_one_line
from harness.replay.signals import interruptible, name_of
from harness.version import version

WANTS_TRACEBACK = "harness.debug"


def _ask_for_traceback(ctx, param, value):
    if value:
        ctx.meta[WANTS_TRACEBACK] = True


DEBUG = {"is_flag": True, "expose_value": False, "help": "Show the traceback of an error."}
DEBUG |= {"callback": _ask_for_traceback}


class FrontDoor(cloup.Group):
    """A click group that turns every foreseen failure into one line on stderr and its exit code.

    Every command in it takes `--debug`, before or after its name: the traceback is shown first then. Ctrl-C ends it in
    order with 130, SIGTERM with 143, a closed terminal with 129.
    """

    def add_command(self, command, name=None, section=None, fallback_to_default_section=True):
        if not any("--debug" in parameter.opts for parameter in command.params):
            command.params.append(click.Option(["--debug"], **DEBUG))
        super().add_command(command, name, section, fallback_to_default_section)

    def main(self, *args, **kwargs):
        _open_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx):
        try:
            with interruptible():
                return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            click.echo("stopped", err=True)
            sys.exit(128 + signal.Signals[name_of(error)])
        except click.UsageError as error:
            where = f" (`{error.ctx.command_path} -h` helps)" if error.ctx else ""
            click.echo(f"error: {error.format_message().rstrip('.')}{where}", err=True)
            sys.exit(UserError.exit_code)
        except (UserError, OSError, ValueError) as error:
            said = in_one_line(error)
            if said is None:
                raise
            if ctx.meta.get(WANTS_TRACEBACK):
                traceback.print_exception(error)
            click.echo(f"error: {said}", err=True)
            sys.exit(getattr(error, "exit_code", UserError.exit_code))


def _open_streams() -> None:
    """Have something to write to where a caller closed it, and a character for what the terminal's encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say_version(ctx, option, wanted):
    if wanted:
        click.echo(version())
        ctx.exit()


VERSION = {"is_flag": True, "is_eager": True, "expose_value": False, "help": "Show version and commit."}
VERSION |= {"callback": _say_version}


@cloup.group(cls=FrontDoor, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", **DEBUG)
@click.option("--version", **VERSION)
def main():
    """The NanoGPT speedrun, re-runnable: records, replays, verdicts and charts."""


for room in (history, replay, judge, draw, contribute):
    main.add_section(room.SECTION)


if __name__ == "__main__":
    main()
