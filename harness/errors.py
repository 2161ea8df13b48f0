"""The ways in which a command ends badly, each with one line for the person who typed it."""

import click

from timing.text import printable

_warned: set[str] = set()


class UserError(Exception):
    """Something the user can put right: a wrong name, a bad file, a missing shard. Exit code 2."""

    exit_code = 2


class RunFailed(UserError):
    """A run was started and did not end well: a crash, a stall, a loss that does not hold. Exit code 1."""

    exit_code = 1


def warn(text: str) -> None:
    """Say on stderr, once in a process, what does not keep a command from going on."""
    if text not in _warned:
        _warned.add(text)
        click.echo(f"warning: {text}", err=True)


def in_one_line(error: Exception) -> str | None:
    """What to tell the user of an error; None if it is a fault of ours, of which the traceback tells more.

    Foreseen are a UserError, the errors that timing and reports define for what they refuse, and what the operating
    system refuses: a file without permission, a full disk, a name that is too long. A closed pipe is left to click.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BrokenPipeError):
        name = error.filename if error.filename2 is None else error.filename2
        return error.strerror if name is None else f"{printable(str(name), 300)}: {error.strerror}"
    if isinstance(error, ValueError) and type(error).__module__.startswith(("timing.", "reports.")):
        return printable(str(error), 400)
    return None
