"""A release: the version names its commit, an installation finds its records, the changelog keeps its form."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import version
from harness.archive.find import discover
from harness.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A copy of what is committed or new here, installed as `pipx install .` does, but for the dependencies."""
    clone, place = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("installed")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    env = {**os.environ, "SPEEDRUN_COMMIT": "0123456789ab"}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(place), str(clone)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def harness(installed, tmp_path):
    """Calls the installed harness from an empty folder: (exit code, output)."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    env.pop("SPEEDRUN_COMMIT", None)

    def call(*arguments):
        command = [sys.executable, "-P", "-m", "harness.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return call


def test_an_installation_finds_its_records(harness, installed):
    code, said = harness("list", "--json")
    assert code == 0, said
    assert [row["slug"] for row in json.loads(said)] == [record.slug for record in discover()]
    assert harness("show", "40")[0] == 0 and harness("leaderboard", "--csv")[0] == 0
    frozen = next(record for record in discover() if record.number == "40")
    assert (installed / "speedrun_records" / frozen.slug / "train.py").read_bytes() == frozen.script.read_bytes()
    assert not (installed / "speedrun_records" / "__init__.py").exists()


def test_an_installation_names_its_commit(harness):
    assert harness("--version") == (0, f"{version.release()} (0123456789ab)\n")


def test_an_installation_writes_nothing_into_itself(harness, installed, tmp_path):
    before = {path for path in installed.rglob("*") if "__pycache__" not in path.parts}
    assert harness("new", "sparse-gate", "--from", "40")[0] == 0
    assert [path.name[-11:] for path in (tmp_path / "drafts").iterdir()] == ["sparse-gate"]
    assert harness("chart", "progress")[0] == 0 and (tmp_path / "reports" / "out").is_dir()
    assert {path for path in installed.rglob("*") if "__pycache__" not in path.parts} == before


def test_the_version_names_the_commit(monkeypatch, tmp_path):
    said = CliRunner().invoke(main, ["--version"]).output.strip()
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
        assert re.search(r"\(([0-9a-f]+)(\+changes)?\)$", said)[1] == head[:12]
    monkeypatch.setattr(version, "__file__", str(tmp_path / "harness" / "version.py"))
    for known, words in (("fedcba", "(fedcba)"), ("", version.release())):
        version.commit.cache_clear()
        monkeypatch.setenv("SPEEDRUN_COMMIT", known)
        assert version.version().endswith(words)
    version.commit.cache_clear()


def test_the_version_of_everything_is_in_a_run(fake_machine):
    assert CliRunner().invoke(main, ["replay", "40"]).exit_code == 0
    (path,) = Path("runs").glob("*/*/run.json")
    facts = json.loads(path.read_text())
    assert {"harness", "commit", "python", "torch", "cuda", "triton"} <= set(facts["versions"])
    assert {"torch", "numpy", "click"} <= set(facts["packages"])


def test_the_changelog_keeps_its_form():
    """https://keepachangelog.com/en/1.1.0: newest first, each release with its date, changes under six headings."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "keepachangelog.com" in text
    releases = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", text, re.MULTILINE)
    assert releases[0] == ("Unreleased", "") and all(date for _, date in releases[1:])
    assert len(releases) == len(re.findall("^## ", text, re.MULTILINE))
    assert releases[1][0] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert headings and headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
