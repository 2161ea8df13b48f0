"""Submissions: a draft begins as a valid copy, and only what passes the contract tests is frozen."""

import datetime
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from harness.archive import submit
from harness.archive.record import load
from harness.archive.shown import Shown, with_shown
from harness.cli import main
from harness.errors import RunFailed, UserError
from harness.replay.signals import interruptible

DAY = datetime.date(2026, 1, 2)

CONTRACT = """\
import hashlib, os, tomllib
from pathlib import Path

def test_script():
    folder = Path(os.environ["CONTRACT_RECORD"])
    facts = tomllib.loads((folder / "record.toml").read_text())
    assert folder.name == "2026-01-02-sparse-gate"
    assert facts["frozen"]["sha256"] == hashlib.sha256((folder / "train.py").read_bytes()).hexdigest()
    assert "broken" not in (folder / "train.py").read_text()
"""


@pytest.fixture
def parent(archive):
    """Record 40 of the invented archive, as a folder's name."""
    [folder] = archive.glob("*backout")
    (folder / "train.py").write_text("print('a script')\n")
    return f"{folder}/"


@pytest.fixture
def draft(parent, tmp_path):
    return submit.new("sparse-gate", parent, tmp_path / "drafts", DAY)


@pytest.fixture
def contract(tmp_path, monkeypatch):
    """A contract of one test that wants the hash in place and no "broken" in the script."""
    path = tmp_path / "checkout" / "tests" / "records" / "test_contract.py"
    path.parent.mkdir(parents=True)
    path.write_text(CONTRACT)
    monkeypatch.setattr(submit, "CONTRACT", path)
    return path


def test_a_draft_is_a_copy_with_empty_facts(draft, parent):
    record, origin = load(draft), load(parent.rstrip("/"))
    assert draft.name == "2026-01-02-sparse-gate"
    assert record.script.read_bytes() == origin.script.read_bytes()
    assert (record.parent, record.date, record.title) == ("40", DAY, "Sparse gate")
    assert record.listed.minutes is None and record.credit == () and record.curve == () and record.sha256 == ""
    assert (record.smoke, record.smoke_margin, record.shards) == (origin.smoke, origin.smoke_margin, origin.shards)
    assert sorted(path.name for path in draft.iterdir()) == ["record.toml", "train.py"]
    assert [path.name for path in draft.parent.iterdir()] == [draft.name]


def test_a_draft_of_a_lone_script(tmp_path):
    (tmp_path / "mine.py").write_text("pass\n")
    record = load(submit.new("mine", str(tmp_path / "mine.py"), tmp_path, DAY))
    assert record.parent == "" and record.script.read_text() == "pass\n"


@pytest.mark.parametrize("slug", ["", "../x", "a b", "a--b", "-a", "a/b", "ä"])
def test_names_that_cannot_be_a_folder(slug, parent, tmp_path):
    with pytest.raises(UserError, match="cannot name a folder"):
        submit.new(slug, parent, tmp_path / "drafts", DAY)
    assert not (tmp_path / "drafts").exists()


def test_nothing_is_overwritten(draft, parent, tmp_path):
    (draft / "train.py").write_text("work of weeks")
    with pytest.raises(UserError, match="is there already"):
        submit.new("sparse-gate", parent, tmp_path / "drafts", DAY)
    assert (draft / "train.py").read_text() == "work of weeks"


def test_a_parent_without_a_script_or_a_place_that_is_none(parent, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        submit.new("a", parent, tmp_path / "file" / "drafts", DAY)
    load(parent.rstrip("/")).script.unlink()
    with pytest.raises(UserError, match="needs its train script"):
        submit.new("a", parent, tmp_path / "drafts", DAY)


def test_freezing_writes_the_hash_and_what_shows_it_and_nothing_else(draft, contract):
    before = (draft / "record.toml").read_text()
    said = submit.freeze(draft)
    digest = hashlib.sha256((draft / "train.py").read_bytes()).hexdigest()
    assert load(draft).sha256 == digest and digest in said
    assert "no GPU has run this script yet" in said
    expected = before.replace('sha256 = ""', f'sha256 = "{digest}"')
    assert (draft / "record.toml").read_text() == with_shown(expected, Shown())
    assert "frozen already" in submit.freeze(draft)


def test_a_failing_contract_freezes_nothing(draft, contract, capfd):
    (draft / "train.py").write_text("broken\n")
    with pytest.raises(RunFailed, match="do not pass"):
        submit.freeze(draft)
    assert load(draft).sha256 == "" and "1 failed" in capfd.readouterr().out


def test_interrupted_contract_tests_leave_nothing_running(tmp_path):
    """Neither what hears that it is to end nor its child, which does not."""
    child = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    tests = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True, stdout=subprocess.PIPE)
    assert tests.stdout.readline() == b"here\n"
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
    began = time.monotonic()
    with interruptible(), pytest.raises(KeyboardInterrupt):
        submit._ended(tests)
    assert tests.poll() is not None and tests.stdout.read() == b""
    assert time.monotonic() - began < 30  # nobody holds its other end any more


def test_a_frozen_script_that_changed_is_frozen_again_only_when_asked(draft, contract):
    submit.freeze(draft)
    (draft / "train.py").write_text("print('another')\n")
    with pytest.raises(UserError, match="--again"):
        submit.freeze(draft)
    facts = draft / "record.toml"
    facts.write_text(with_shown(facts.read_text(), Shown(reason="it waits for a GPU")))
    submit.freeze(draft, again=True)
    assert load(draft).sha256 == hashlib.sha256(b"print('another')\n").hexdigest()
    assert load(draft).shown.reason == "it waits for a GPU"


def test_a_script_that_changes_under_test_is_not_frozen(draft, monkeypatch):
    monkeypatch.setattr(submit, "_run_contract", lambda _: (draft / "train.py").write_text("changed\n"))
    with pytest.raises(UserError, match="changed while it was tested"):
        submit.freeze(draft)
    assert load(draft).sha256 == ""


def test_without_contract_tests_nothing_is_frozen(draft, contract):
    contract.write_text("")
    with pytest.raises(RunFailed, match="no contract test"):
        submit.freeze(draft)
    contract.unlink()
    with pytest.raises(UserError, match="checkout of the repository"):
        submit.freeze(draft)


def test_facts_without_a_place_for_the_hash(draft, contract):
    text = (draft / "record.toml").read_text()
    (draft / "record.toml").write_text(text[: text.index("[frozen]")] + 'frozen = {sha256 = ""}\n')
    with pytest.raises(UserError):
        submit.freeze(draft)


CLAIMED = '"""A record.\n\nNew        Something.\n"""\n\nprint(1)\n'


@pytest.mark.parametrize(
    "script, words",
    [
        (CLAIMED, ["docstring is still record 40's", "the code is still record 40's", "credit is empty"]),
        (CLAIMED + "print(2)\n", ["docstring is still record 40's"]),
        (CLAIMED.replace("Something", "A gate"), ["the code is still record 40's"]),
        ("(", ["is no Python"]),
    ],
)
def test_what_needs_no_test_is_said_first(parent, tmp_path, archive, contract, monkeypatch, script, words):
    monkeypatch.setattr("harness.archive.find.ROOT", archive)
    monkeypatch.setattr(submit, "_run_contract", lambda folder: pytest.fail("the tests were run"))
    load(parent.rstrip("/")).script.write_text(CLAIMED)
    draft = submit.new("sparse-gate", parent, tmp_path / "drafts", DAY)
    (draft / "train.py").write_text(script)
    result = CliRunner().invoke(main, ["freeze", str(draft)])
    assert result.exit_code == 2 and all(word in result.stderr for word in words)
    assert load(draft).sha256 == ""


def test_the_commands(parent, tmp_path, contract):
    made = CliRunner().invoke(main, ["new", "idea", "--from", parent, "--into", str(tmp_path / "drafts")])
    assert made.exit_code == 0 and "idea" in made.output and "harness replay" in made.output
    assert "train.py: your change, and the opening docstring" in made.output and "record.toml: title" in made.output
    [folder] = (tmp_path / "drafts").iterdir()
    refused = CliRunner().invoke(main, ["freeze", str(folder)])
    assert refused.exit_code == 1 and "nothing was frozen" in refused.output
    missing = CliRunner().invoke(main, ["freeze", str(tmp_path / "nowhere")])
    assert missing.exit_code == 2 and missing.output.startswith("error: ")
