"""Every foreseen failure of any command ends in one line and its exit code; a fault of ours keeps its traceback."""

import click
import pytest
from click.testing import CliRunner

from harness.cli import FrontDoor
from harness.errors import RunFailed, UserError
from timing.log import LogError


def open_door(error, *options):
    @click.group(cls=FrontDoor)
    @click.option("--debug", is_flag=True)
    def door(debug):
        pass

    @door.command()
    def work():
        raise error

    return CliRunner().invoke(door, [*options, "work"])


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


def test_debug_shows_the_traceback():
    error = UserError("no such record")
    assert open_door(error, "--debug").exception is error
