"""Logs read for a verdict: from files, with a bar for those who wait in front of a terminal, or from standard input."""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from harness.errors import UserError
from timing.log import LogError, Run, printable, read_log, read_logs

STDIN = "-"
WORTH_A_BAR = 50_000_000  # bytes that take half a second


def read_files(files: list[Path]) -> list[Run | LogError]:
    """What `timing.log.read_logs` gives; with a bar on standard error where that is a terminal and the wait is long."""
    console = Console(stderr=True)
    long = console.is_terminal and sum(file.stat().st_size for file in files) >= WORTH_A_BAR
    columns = TextColumn("reading logs"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not long) as bar:
        task = bar.add_task("", total=len(files))
        return read_logs(files, done=lambda: bar.advance(task))


def read_stdin() -> Run:
    """The log on standard input, by way of a temporary file. Raises UserError if it is none."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        try:
            return replace(read_log(file.name), path=STDIN)
        except LogError as error:
            said = str(error).replace(file.name, "standard input")
            raise UserError(printable(said, 400)) from None
