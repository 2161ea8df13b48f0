"""A small archive of invented records, for tests of the harness."""

import hashlib
import sys
from pathlib import Path

import pytest

from harness.machine import Machine

FAKE = Path(__file__).parent / "fake_train.py"

FACTS = """\
number = "{number}"
date = {date}
title = "{title}"
techniques = ["{technique}"]
parent = ""
credit = ["@someone"]
source = "https://example.org"

[listed]
minutes = 2.358
steps = 10
tokens_per_step = 262144

[rules]
edition = "2025-02-01"
kind = "ml"

[needs]
shards = 8
gpu_memory_gib = 45
compute_capability = "9.0"

[reference]
curve = [[0, 10.8], [10, 4]]

[smoke]
margin = 0.1
gpus = 2
num_iterations = 4

[frozen]
sha256 = ""
"""


def add_record(root: Path, number: str, date: str, name: str, script: str = "") -> Path:
    """Write the record folder `root/<date>-<name>` and return it."""
    folder = root / f"{date}-{name}"
    folder.mkdir(parents=True)
    text = FACTS.format(number=number, date=date, title=name.replace("-", " "), technique=name)
    (folder / "record.toml").write_text(text)
    (folder / "train.py").write_text(script)
    return folder


@pytest.fixture
def archive(tmp_path) -> Path:
    """Records 01, 21, 21c and 22 (of one day), 39 and 40."""
    root = tmp_path / "records"
    add_record(root, "01", "2024-05-28", "llmc-baseline")
    add_record(root, "21", "2025-01-26", "reduced-batch-size")
    add_record(root, "22", "2025-05-24", "bucketed-all-reduce")
    add_record(root, "21c", "2025-05-24", "latest-torch")
    add_record(root, "39", "2025-09-30", "custom-batching")
    add_record(root, "40", "2025-10-04", "backout")
    return root


@pytest.fixture
def add(tmp_path):
    """Adds a record to the archive of this test: `add(number, date, name, script)` returns its folder."""
    return lambda *facts: add_record(tmp_path / "records", *facts)


@pytest.fixture
def fake_machine(monkeypatch, tmp_path, archive):
    """A CPU machine, the small archive with every record frozen, one process in place of torchrun, in `tmp_path`.

    It is alone on it: other tests, and other people, may have replays of their own running.
    """
    machine = Machine((), "2.13.0+cpu", None, None, "cpu", 2, 24.0, "Linux")
    monkeypatch.setattr("harness.archive.find.ROOT", archive)
    monkeypatch.setattr("harness.replay.replay.ROOT", archive)
    monkeypatch.setattr("harness.replay.replay.this_machine", lambda: machine)
    monkeypatch.setattr(
        "harness.replay.replay.torchrun_command", lambda script, args, *_: [sys.executable, str(script), *args]
    )
    monkeypatch.setattr("harness.replay.processes.other_jobs", lambda mark: set())
    monkeypatch.chdir(tmp_path)
    frozen = f'sha256 = "{hashlib.sha256(FAKE.read_bytes()).hexdigest()}"'
    for folder in archive.iterdir():
        (folder / "train.py").write_bytes(FAKE.read_bytes())
        facts = folder / "record.toml"
        facts.write_text(facts.read_text().replace('sha256 = ""', frozen))
    return machine
