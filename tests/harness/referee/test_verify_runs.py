"""Run folders of our own launcher: its witness, its manifest, its copies of the output."""

import json
import shutil

import pytest

from harness.referee.verify import verify


def test_witness_and_manifest_of_a_run_folder(forge, status):
    found = status(verify([forge.run_folder()]))
    assert found["witness"] == found["data"] == "pass"


def test_launchers_copies_of_the_output_are_no_further_runs(forge):
    folder = forge.run_folder()
    (folder / "ranks").mkdir()
    shutil.copy(folder / "stdout.txt", folder / "ranks" / "stdout.log")
    assert len(verify([folder]).judged.runs) == 1


def test_witness_that_saw_a_slower_clock(forge, status, evidence):
    verdict = verify([forge.run_folder(fast=1.02)])
    assert status(verdict, "witness") == "fail"
    assert "at least 1.8%" in evidence(verdict, "witness")


def test_validation_is_not_held_against_the_clock(forge, status):
    assert status(verify([forge.run_folder(every=20)]), "witness") == "pass"


@pytest.mark.parametrize(
    ("old", "new"),
    [("val_loss:3.2780", "val_loss:3.2710"), ("step:600/600 train_time:359", "step:600/600 train_time:349")],
)
def test_log_edited_after_the_launcher_saw_it(forge, status, old, new):
    folder = forge.run_folder()
    text = (folder / "log.txt").read_text()
    assert old in text
    (folder / "log.txt").write_text(text.replace(old, new))
    assert status(verify([folder]), "witness") == "fail"


def test_damaged_run_json_is_unknown(forge, status):
    folder = forge.run_folder()
    (folder / "run.json").write_text("{")
    assert status(verify([folder]), "witness") == "unknown"
    whole = {"step": [1], "kind": ["train"], "log_ms": [1.0], "clock_s": [0]}
    for damage in ({"log_ms": ["x"]}, {"step": 5, "kind": [], "log_ms": [], "clock_s": []}, {"step": [[1]]}):
        (folder / "run.json").write_text(json.dumps({"witness": whole | damage}))
        assert status(verify([folder]), "witness") == "unknown"


def test_another_corpus_fails(forge, status):
    assert status(verify([forge.run_folder(manifest=("books", "a" * 64))]), "data") == "fail"


def test_manifest_that_nobody_describes_is_unknown(forge, status):
    assert status(verify([forge.log(environment=["manifest=" + "c" * 64])]), "data") == "unknown"
