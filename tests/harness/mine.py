"""The real command on somebody's own script, in a process."""

import os
import subprocess
import sys
from pathlib import Path

FAKE = Path(__file__).with_name("fake_train.py")


def replay_mine(folder: Path, *arguments: str) -> subprocess.Popen:
    """`harness replay mine.py --trust` with these arguments, started in a folder; the script is the fake one."""
    script = folder / "mine.py"
    if not script.exists():  # the other node's run may be reading it
        script.write_text(FAKE.read_text())
    command = [sys.executable, "-m", "harness.cli", "replay", "mine.py", "--trust", *arguments]
    env = {**os.environ, "PYTHONPATH": str(FAKE.parents[2])}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
