"""What pyproject.toml cannot say: the records go in as package data of `speedrun_records`, and the commit is stamped.

All else about the packaging is in pyproject.toml.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
RECORDS = [str(path.relative_to(HERE / "records")) for path in sorted((HERE / "records").rglob("*")) if path.is_file()]


class Stamped(build_py):
    """Writes the commit into the built package, not into the clone."""

    def run(self):
        shutil.rmtree(self.build_lib, ignore_errors=True)  # else a record that was renamed would go in twice
        super().run()
        if self.editable_mode:
            return
        git = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"]
        try:
            commit = subprocess.run(git, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            commit = os.environ.get("SPEEDRUN_COMMIT", "")
        if commit:
            Path(self.build_lib, "harness", "commit.txt").write_text(commit + "\n")


setup(
    cmdclass={"build_py": Stamped},
    packages=[*find_packages(include=["harness*", "timing", "reports"]), "speedrun_records"],
    package_dir={"speedrun_records": "records"},
    package_data={"reports": ["templates/*"], "speedrun_records": [f for f in RECORDS if "__pycache__" not in f]},
)
