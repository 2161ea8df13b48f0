"""The audit passes on the archive, and finds each thing that could be wrong with a record."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.archive.shown import Shown, with_shown
from harness.audit.audit import audit, show
from harness.cli import main

RECORDS = Path(__file__).parents[3] / "records"
TABLES = ("leaderboard.csv", "runs.csv", "curves.csv")


@pytest.fixture
def archive(tmp_path):
    """A copy of record 40 and the tables, without logs and what they show, frozen as it stands."""
    source = next(RECORDS.glob("2025-10-04-*"))
    for name in TABLES:
        shutil.copy(RECORDS / name, tmp_path / name)
    folder = tmp_path / source.name
    folder.mkdir()
    for name in ("train.py", "record.toml"):
        shutil.copy(source / name, folder / name)
    facts = folder / "record.toml"
    facts.write_text(with_shown(facts.read_text(), Shown()))
    freeze(folder)
    return tmp_path


def folder_of(archive):
    return next(archive.glob("2025-10-04-*"))


def freeze(folder):
    digest = hashlib.sha256((folder / "train.py").read_bytes()).hexdigest()
    edit(folder / "record.toml", r'sha256 = ".*"', f'sha256 = "{digest}"')


def edit(path, pattern, replacement):
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.MULTILINE)
    assert count, f"{pattern} is not in {path.name}"
    path.write_text(text)


def failing(archive):
    return {finding.rule for finding in audit(archive).failures}


def test_the_archive_itself_passes():
    assert [str(finding) for finding in audit().failures] == []


def test_a_good_copy_passes(archive):
    assert failing(archive) == set()
    assert {finding.rule for finding in audit(archive).findings if finding.status == "pass"} >= {
        "hash",
        "listed",
        "curve",
    }


def test_frozen_script_that_changed(archive):
    script = folder_of(archive) / "train.py"
    script.write_text(script.read_text() + "# one more comment\n")
    assert failing(archive) == {"hash"}


@pytest.mark.parametrize(
    ("pattern", "replacement", "rule"),
    [
        (r'\A"""', 'r = 0\n"""', "contract"),
        (r"^# Optimizers$", "# Optimisers", "contract"),
        (r"^    telemetry_every: int.*$", "", "contract"),
        (r"^    val_tokens: int = .*$", "    val_tokens: int = 1_048_576", "contract"),
        (r"^    num_iterations: int = .*$", "    num_iterations: int = 2000", "contract"),
        (r"^import math$", "import math\nimport scipy", "imports"),
        (r"^import math$", "import math\nfrom . import helper", "imports"),
        (r"^torch._dynamo.config.recompile_limit = 64", "torch._inductor.config.max_autotune = True", "compiler"),
        (r"dynamic=False, fullgraph=True\)", "dynamic=False, mode='max-autotune')", "compiler"),
        (r"^import math$", "import math\nexec('')", "compiler"),
    ],
)
def test_script_that_breaks_its_contract(archive, pattern, replacement, rule):
    folder = folder_of(archive)
    edit(folder / "train.py", pattern, replacement)
    freeze(folder)
    assert rule in failing(archive)


@pytest.mark.parametrize(
    ("pattern", "replacement", "rule"),
    [
        (r"^minutes = .*$", "minutes = 2.3", "listed"),
        (r"^date = .*$", "date = 2025-10-05", "listed"),
        (r"^tokens_per_step = .*$", "tokens_per_step = 262145", "listed"),
        (r"^step_avg_ms = .*$", "step_avg_ms = 59.0", "listed"),
        (r"^val_loss = .*$", "val_loss = 3.2770", "listed"),
        (r"^logged_minutes = .*$", "logged_minutes = 2.358", "listed"),
        (r"^logged_minutes = .*$", r"\g<0>\nlogged_steps = 2331", "listed"),
        (r"^edition = .*$", 'edition = "2025-01-01"', "listed"),
        (r"^logged_minutes = .*\n", "", "ledger"),
        (r"\[2330, 3\.\d+\]", "[2330, 3.2700]", "curve"),
    ],
)
def test_facts_that_disagree_with_the_tables(archive, pattern, replacement, rule):
    edit(folder_of(archive) / "record.toml", pattern, replacement)
    assert failing(archive) == {rule}


def test_a_script_of_another_state_than_the_linked_log(archive):
    """Its steps are the listed time's; the log's are told beside them."""
    folder = folder_of(archive)
    edit(folder / "record.toml", r"^steps = 2330$", "steps = 2000\nlogged_steps = 2330")
    edit(folder / "train.py", r"num_iterations: int = 2330", "num_iterations: int = 2000")
    freeze(folder)
    assert failing(archive) == set()


def committed(archive, forge, change=lambda folder: None, source=None):
    script = (folder_of(archive) / "train.py").read_text()
    folder = forge.run_folder(f"{folder_of(archive).name}/logs/one", source=source or script)
    change(folder)
    return next(finding for finding in audit(archive).findings if finding.rule == "logs")


def test_committed_run_of_the_frozen_script(archive, forge):
    found = committed(archive, forge)
    assert (found.status, "official, 600 steps" in found.text) == ("pass", True)


def test_committed_run_of_other_code(archive, forge):
    found = committed(archive, forge, source=(folder_of(archive) / "train.py").read_text() + "x = 1\n")
    assert (found.status, "other code" in found.text) == ("fail", True)


def test_committed_run_of_the_script_frozen_before(archive, forge):
    """Kept with its reason, if `record.toml` names that script; the audit says what has changed since."""
    source = (folder_of(archive) / "train.py").read_text() + "x = 1\n"
    digest = hashlib.sha256(source.encode()).hexdigest()
    edit(folder_of(archive) / "record.toml", r"^earlier = \[.*\n(    .*\n)*\]\n", "")
    edit(folder_of(archive) / "record.toml", r"\Z", f'earlier = [["{digest}", "x is gone"]]\n')
    found = committed(archive, forge, source=source)
    assert (found.status, "frozen before" in found.text, "x is gone" in found.text) == ("note", True, True)


def test_committed_run_of_another_wording(archive, forge):
    found = committed(archive, forge, source=(folder_of(archive) / "train.py").read_text() + "# x\n")
    assert (found.status, "other comments" in found.text) == ("note", True)


def test_committed_run_without_a_label_or_witness(archive, forge):
    assert committed(archive, forge, lambda folder: (folder / "run.json").unlink()).status == "fail"


def test_committed_run_with_a_disturbed_witness(archive, forge):
    def slow(folder):
        facts = json.loads((folder / "run.json").read_text())
        facts["witness"]["clock_s"] = [1.05 * second for second in facts["witness"]["clock_s"]]
        (folder / "run.json").write_text(json.dumps(facts))

    assert committed(archive, forge, slow).status == "fail"


def test_committed_run_that_stopped(archive, forge):
    def cut(folder):
        lines = (folder / "log.txt").read_text().splitlines()
        (folder / "log.txt").write_text("\n".join(lines[:-20]) + "\n")

    assert committed(archive, forge, cut).status == "fail"


def test_command_counts_and_exits(archive, capsys):
    assert show(every=True, root=archive) == 0
    assert "0 fail" in capsys.readouterr().out
    edit(folder_of(archive) / "record.toml", r"^minutes = .*$", "minutes = 2.3")
    assert show(every=False, root=archive) == 1
    assert "FAIL" in capsys.readouterr().out


def test_command_is_at_the_front_door():
    assert "public tables" in CliRunner().invoke(main, ["audit", "--help"]).output
