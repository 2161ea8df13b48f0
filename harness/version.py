"""Which version this is: the release, and the commit that it was made from."""

import importlib.metadata
import os
import subprocess
from functools import cache
from pathlib import Path

NAME = "speedrun-archive"
# An image holds no repository: its build writes the commit here.
VARIABLE = "SPEEDRUN_COMMIT"
STAMP = Path(__file__).with_name("commit.txt")  # written when a wheel is built


def release() -> str:
    """The version by the packaging, `unknown` where it was never installed."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def commit() -> str:
    """The commit, 12 digits, with `+changes` if the clone has some that are not committed; "" if nobody knows.

    A clone asks git; an installation has it stamped in; an image is told by its environment.
    """
    house = Path(__file__).resolve().parents[1]
    if (house / ".git").exists():
        command = ["git", "-C", str(house), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""
    if STAMP.is_file():
        return STAMP.read_text().strip()
    return os.environ.get(VARIABLE, "")


def version() -> str:
    """`0.1.0 (8bd5247a1b2c)`."""
    known = commit()
    return f"{release()} ({known})" if known else release()


def packages() -> dict[str, str]:
    """Name and version of every distribution that this Python has."""
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(filter(None, found), key=str.lower)}
