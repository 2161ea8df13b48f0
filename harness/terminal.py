"""What a terminal asks for: long lines broken at blanks, and a run that goes on when nobody reads any more."""

import os
import re
import shutil
import sys
import textwrap

from rich.console import Console

NARROWEST = 40
_DRESSED = re.compile(r"((?:\x1b\[[\d;]*m)+)([^\x1b]*)(\x1b\[0m)")


class Undeterred(Console):
    """A console for what goes on when nobody reads any more (`| head`): it falls silent, and nothing else ends."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (sys.stderr if self.stderr else sys.stdout).fileno())
        os.close(nowhere)


def fitted(text: str, hang: int) -> str:
    """`text` as it is when stdout is no terminal; else its lines broken at blanks where the terminal ends.

    Continued lines stand `hang` characters in. A line may begin with one coloured stretch, as `click.style` makes it.
    """
    if not sys.stdout.isatty():
        return text
    width = max(NARROWEST, hang + 20, shutil.get_terminal_size().columns)
    return "\n".join(part for line in text.split("\n") for part in broken(line, width, hang))


def say(console: Console, line: str, hang: int) -> None:
    """Print a line; on a terminal broken at blanks, what follows `hang` characters in."""
    parts = broken(line, max(console.width, hang + 20), hang) if console.is_terminal else [line]
    for part in parts:
        console.print(part, soft_wrap=True)


def broken(line: str, width: int, hang: int) -> list[str]:
    """One line as several of at most `width` characters, colours not counted."""
    dressed = _DRESSED.match(line)
    plain = line if dressed is None else dressed[2] + line[dressed.end() :]
    if len(plain) <= width:
        return [line]
    setting = {"subsequent_indent": " " * hang, "break_on_hyphens": False, "break_long_words": False}
    parts = textwrap.wrap(plain, width, **setting) or [""]
    if dressed is None:
        return parts
    if dressed.end() == len(line):
        return [f"{dressed[1]}{part}{dressed[3]}" for part in parts]
    return [dressed[0] + parts[0][len(dressed[2]) :], *parts[1:]]
