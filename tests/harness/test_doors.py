"""The doors that are no Python: Makefile, Dockerfile and .ci/run agree with the project that they open."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def make(*arguments, folder=REPOSITORY):
    return subprocess.run(["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def bench(tmp_path):
    """A copy of the Makefile beside a stand-in for Python that notes what it is asked to do."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$@" >> asked\n[ "$2" = venv ] && mkdir -p .venv/bin && cp python .venv/bin/python\n'
        "[ ! -e broken ] || exit 1\n"
    )
    python.chmod(0o755)
    return tmp_path


@needs_make
def test_make_alone_lists_the_targets():
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^  make (\w+) +\S", make().stdout, re.MULTILINE)
    assert listed == targets and {"replay", "verify", "charts", "report", "test", "lint", "venv"} <= set(listed)


@needs_make
@pytest.mark.parametrize("target, words", [("replay", "make replay RECORD="), ("verify", "make verify LOG=")])
def test_a_missing_argument_is_named(bench, target, words):
    result = make(target, "PYTHON=./python", folder=bench)
    assert result.returncode != 0 and words in result.stderr


@needs_make
def test_the_environment_is_made_once_and_again_when_a_pin_changes(bench):
    said = make("venv", "PYTHON=./python", folder=bench).stdout
    assert "first use" in said and "on disk" in said and "is ready" in said
    asked = (bench / "asked").read_text()
    assert (
        "-m venv .venv" in asked and "-m pip install --disable-pip-version-check -c constraints.txt -e .[dev]" in asked
    )
    make("venv", "PYTHON=./python", folder=bench)
    assert (bench / "asked").read_text() == asked
    later = (bench / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(bench / "constraints.txt", (later, later))
    make("venv", "PYTHON=./python", folder=bench)
    assert (bench / "asked").read_text() == 2 * asked


@needs_make
def test_a_broken_installation_is_not_taken_for_a_finished_one(bench):
    (bench / "broken").touch()
    assert make("venv", "PYTHON=./python", folder=bench).returncode != 0
    assert not (bench / ".venv" / ".ready").exists()


def test_ci_runs_the_readmes_command():
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
    assert script.rstrip().endswith("\nmake test")
    assert "make test" in (REPOSITORY / "README.md").read_text()


def dockerfile():
    """The Dockerfile's instructions as (word, rest), continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_copies_what_exists_and_what_the_package_needs():
    copied = [name for word, rest in dockerfile() if word == "COPY" for name in rest.split()[:-1]]
    assert all((REPOSITORY / name).exists() for name in copied), copied
    packages = {"harness", "timing", "reports"}
    assert {*packages, "records", "pyproject.toml", "setup.py", "constraints.txt", PROJECT["readme"]} <= set(copied)
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(ignored)


def test_the_image_runs_the_harness_as_an_ordinary_user():
    words = dict(dockerfile())
    assert words["ENTRYPOINT"] == '["harness"]' and "harness" in PROJECT["scripts"]
    assert words["USER"] not in ("root", "0")
    order = [word for word, _ in dockerfile()]
    after = order[order.index("USER") :]
    assert order[0] == "FROM" and after.count("RUN") == 1  # the doctor, as that user
