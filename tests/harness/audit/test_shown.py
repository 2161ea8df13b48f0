"""What `[shown]` says of a frozen script: written by `freeze` from the runs in `logs/`, doubted by the audit."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from harness.archive.record import load
from harness.archive.shown import NOT_YET, Shown, proof, with_shown
from harness.audit.shown import audit_shown
from harness.errors import UserError

RECORD = next((Path(__file__).parents[3] / "records").glob("2025-10-04-*"))


@pytest.fixture
def folder(tmp_path):
    """Record 40 without runs, frozen as it stands."""
    folder = tmp_path / RECORD.name
    folder.mkdir()
    shutil.copy(RECORD / "train.py", folder)
    facts = (RECORD / "record.toml").read_text()
    (folder / "record.toml").write_text(facts.replace(load(RECORD).sha256, digest(folder)))
    return folder


def digest(folder):
    return hashlib.sha256((folder / "train.py").read_bytes()).hexdigest()


def add_run(folder, name, steps=100, **changes):
    """A run folder with the facts that count here."""
    facts = {"script_sha256": digest(folder), "outcome": "finished", "fidelity": "shortened", "gpus": 2}
    facts |= {"machine": {"gpu": "NVIDIA H200"}, "witness": {"step": [0, steps]}} | changes
    (folder / "logs" / name).mkdir(parents=True)
    (folder / "logs" / name / "run.json").write_text(json.dumps(facts))


def write(folder, shown):
    path = folder / "record.toml"
    path.write_text(with_shown(path.read_text(), shown))
    return audit_shown(load(folder))


def test_a_real_run_of_the_hash_is_the_proof(folder):
    assert proof(folder / "logs", folder / "train.py") == Shown() and Shown().reason == NOT_YET
    add_run(folder, "a", 100)
    add_run(folder, "b", 2330)
    add_run(folder, "c", 9999, fidelity="smoke")
    add_run(folder, "d", 9999, script_sha256="0" * 64)
    add_run(folder, "e", 9999, outcome="crashed")
    add_run(folder, "f", 9999, machine={"gpu": None})
    shown = proof(folder / "logs", folder / "train.py")
    assert shown == Shown("b", "2x NVIDIA H200", 2330, "") and shown.text == "2,330 steps on 2x NVIDIA H200"
    assert write(folder, shown).status == "pass"


def test_of_several_runs_the_one_that_shows_most_is_the_proof(folder):
    """A whole one before a shortened one; then one that had its cards to itself; then the newest."""

    def chosen():
        return proof(folder / "logs", folder / "train.py").run

    add_run(folder, "c", 500)
    add_run(folder, "d", 60)
    assert chosen() == "d"
    add_run(folder, "a", 24)
    add_run(folder, "b", 24)
    (folder.parent / "shown.csv").write_text("number,run,median_ms\n40,a,440\n40,b,441\n40,c,\n40,d,\n")
    assert chosen() == "b"
    add_run(folder, "0", 2330, fidelity="stand-in")
    assert chosen() == "0"


@pytest.mark.parametrize(
    "change, shown",
    [
        (("the optimizer", "its optimizer"), True),
        (("rate = 0.5", "rate = 0.25"), False),
        (("# not timed", "# untimed"), True),
        (("a = 1", "b = 1"), False),
    ],
)
def test_mended_words_need_no_other_run(folder, change, shown):
    """What ran is in the log: a script whose comments and docstrings alone differ from it is shown by it."""
    script = folder / "train.py"
    ran = '"""Trains with the optimizer."""\n\nrate = 0.5  # not timed\na = 1\n'
    script.write_text(ran)
    add_run(folder, "a", 100)
    log = f"{ran}\n{'=' * 100}\nRunning Python 3.12\n{'=' * 100}\nstep:0/100 val_loss:10.8258 train_time:0ms\n"
    (folder / "logs" / "a" / "log.txt").write_text(log)
    script.write_text(ran.replace(*change))
    assert ran != script.read_text() and (proof(folder / "logs", script) != Shown()) == shown
    (folder / "logs" / "a" / "log.txt").write_text(log.replace("rate = 0.5", "rate = 0.25"))
    assert proof(folder / "logs", script) == Shown()  # its log holds another script than it says it ran


def test_a_table_takes_the_place_of_the_one_before(folder):
    add_run(folder, "a", 100)
    assert write(folder, Shown(reason="no lease left")).status == "note"
    write(folder, proof(folder / "logs", folder / "train.py"))
    text = (folder / "record.toml").read_text()
    assert text.count("[shown]") == 1 and "no lease left" not in text
    assert load(folder).shown.run == "a" and load(folder).sha256 == digest(folder)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"script_sha256": "0" * 64}, "it ran 000000000000"),
        ({"fidelity": "smoke"}, "not real size"),
        ({"outcome": "crashed"}, "it is crashed"),
        ({"gpus": 1}, "it ran on 1x NVIDIA H200"),
        ({"witness": {"step": [0, 99]}}, "it trained 99 steps, not 100"),
    ],
)
def test_a_proof_that_is_none_fails(folder, changes, said):
    add_run(folder, "a", 100, **changes)
    finding = write(folder, Shown("a", "2x NVIDIA H200", 100, ""))
    assert finding.status == "fail" and said in finding.text


def test_a_frozen_script_must_say_what_shows_it(folder):
    path = folder / "record.toml"
    empty = f'[shown]\nrun = "none"\nreason = "{NOT_YET}"\n'
    path.write_text(with_shown(path.read_text(), Shown()).replace(empty, ""))
    assert audit_shown(load(folder)).status == "fail"
    assert write(folder, Shown("gone", "2x NVIDIA H200", 100, "")).status == "fail"


@pytest.mark.parametrize("table", ['run = "none"', 'run = "a"', 'run = "../a"\nmachine = "x"\nsteps = 1', "steps = 3"])
def test_half_a_table_is_refused(folder, table):
    path = folder / "record.toml"
    path.write_text(with_shown(path.read_text(), Shown()).replace(f'run = "none"\nreason = "{NOT_YET}"', table))
    with pytest.raises(UserError, match=r"shown\."):
        load(folder)
