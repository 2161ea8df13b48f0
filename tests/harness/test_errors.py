"""Every foreseen failure of any command ends in one line and its exit code; a fault of ours keeps its traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from harness.cli import FrontDoor, main
from harness.errors import RunFailed, UserError, warn
from timing.log import LogError


def open_door(error, *arguments):
    @click.group(cls=FrontDoor)
    def door():
        pass

    @door.command()
    def work():
        raise error

    return CliRunner().invoke(door, [*arguments, "work"] if arguments != ("after",) else ["work", "--debug"])


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UserError("no such record"), 2, "error: no such record\n"),
        (RunFailed("rank 1 crashed"), 1, "error: rank 1 crashed\n"),
        (LogError("a.log: is empty"), 2, "error: a.log: is empty\n"),
        (PermissionError(13, "Permission denied", "runs"), 2, "error: runs: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (OSError(18, "Cross-device link", "a", None, "b"), 2, "error: b: Cross-device link\n"),
        (
            OSError(36, "File name too long", "\x1b[31m" + "a" * 5000),
            2,
            f"error: [31m{'a' * 295}…: File name too long\n",
        ),
    ],
)
def test_one_line_and_the_exit_code(error, code, line):
    result = open_door(error)
    assert (result.exit_code, result.output) == (code, line)


@pytest.mark.parametrize("error", [ValueError("invalid literal"), OSError("odd"), KeyError("key")])
def test_a_fault_of_ours_keeps_its_traceback(error):
    assert open_door(error).exception is error


def test_debug_after_the_command_shows_the_traceback_and_keeps_the_exit_code():
    result = open_door(RunFailed("rank 1 crashed"), "after")
    assert result.exit_code == 1 and "Traceback" in result.output and result.output.endswith("error: rank 1 crashed\n")


def test_debug_before_the_command_too():
    result = CliRunner().invoke(main, ["--debug", "show", "xyzzy"])
    assert result.exit_code == 2 and "Traceback" in result.output and "error: no record" in result.output


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_order(sign):
    """As Ctrl-C does: with what it has begun put away."""
    put_away = []

    @click.group(cls=FrontDoor)
    def door():
        pass

    @door.command()
    def work():
        try:
            os.kill(os.getpid(), sign)
            time.sleep(10)
        finally:
            put_away.append(True)

    result = CliRunner().invoke(door, ["work"])
    assert (result.exit_code, result.output, put_away) == (128 + sign, "stopped\n", [True])


@pytest.mark.parametrize("how", ["sys.stdout = None", "sys.stdout.reconfigure(encoding='latin-1', errors='strict')"])
def test_a_stdout_that_is_closed_or_lacks_characters(how):
    code = f"import sys; {how}; from harness.cli import main; main(['diff', '12', '13'])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130(error):
    result = open_door(error)
    assert (result.exit_code, result.output.strip()) == (130, "stopped")


@pytest.mark.parametrize("arguments", [["-h"], ["replay", "-h"], ["show", "-h"]])
def test_short_help(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "--debug" in result.output


def test_a_warning_is_said_once(capsys):
    warn("a record is broken")
    warn("a record is broken")
    assert capsys.readouterr().err == "warning: a record is broken\n"
