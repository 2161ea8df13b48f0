"""One record on one screen: every known fact, the claim, the settings, a curve that is the curve."""

import io
import json
import math
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.archive.find import ROOT, ancestor, discover
from harness.archive.record import load
from harness.cli import main
from harness.errors import UserError
from harness.history.plot import BLANK, plot
from harness.history.show import facts, show, times_of
from timing.ledger import Ledger

SCRIPT = '''"""Record 40 · a title

Claim      2.358 minutes.
New        Backout.
"""

class Settings:
    steps: int = {steps}
    layers: tuple = ((1, 2), (3, 4))
'''


@pytest.fixture
def records(archive, monkeypatch):
    """The invented archive with scripts in 39 and 40; 40 descends from 39, 39 from a record that is missing. The ledger
    is left empty, which saves a second a record."""
    monkeypatch.setattr("harness.history.show.times_of", lambda record, *_: Ledger(record.number))
    for name, number, parent in (("custom-batching", "39", "38"), ("backout", "40", "39")):
        [folder] = archive.glob(f"*{name}")
        (folder / "train.py").write_text(SCRIPT.format(steps=number))
        facts = (folder / "record.toml").read_text().replace('parent = ""', f'parent = "{parent}"')
        facts = facts.replace(
            "curve = [[0, 10.8], [10, 4]]", "curve = [[0, 10.8], [2, 5], [4, 4], [6, 3.5], [10, 3.27]]"
        )
        (folder / "record.toml").write_text(facts)
    return archive


def shown(name, root, width=110):
    out = io.StringIO()
    show(name, Console(file=out, width=width, highlight=False, markup=False, emoji=False), root / "runs", root)
    return out.getvalue()


def test_facts_claim_settings_and_curve_are_shown(records):
    text = shown("40", records)
    assert "record 40 · 2025-10-04 · backout" in text
    assert "2.358 minutes, 10 steps, 262,144 tokens a step, 2.6M in all" in text
    assert "Claim      2.358 minutes." in text and "New        Backout." in text
    assert "settings that differ from record 39\nsteps  39 → 40" in text and "layers" not in text
    assert "which began at 10.80" in text and "  5.00 │" in text and "  3.27 │" in text
    assert "a draft: not frozen" in text and "None" not in text


def test_a_date_is_explained(records):
    facts = next(records.glob("*backout")) / "record.toml"
    facts.write_text(facts.read_text().replace('sha256 = ""', f'sha256 = "{"0" * 64}"'))
    assert "2025-12-31 is record 40, set on 2025-10-04" in shown("2025-12-31", records)


def test_a_missing_parent_is_replaced_by_the_nearest_earlier_record(records):
    [folder] = records.glob("*custom-batching")
    assert ancestor(load(folder), discover(records)).number == "22"
    assert ancestor(load(next(records.glob("*llmc-baseline"))), discover(records)) is None
    (next(records.glob("*bucketed*")) / "train.py").write_text(SCRIPT.format(steps=22))
    assert "from record 22 (record 38, its parent, is not in the archive)\nsteps  22 → 39" in shown("39", records)


def test_unknown_figures_are_left_out(records):
    record = load(next(records.glob("*latest-torch")))
    rows = dict(facts(record, ""))
    assert (
        "loss" not in rows
        and "note" not in rows
        and rows["needs"] == ("8 train shards, 45 GiB a GPU, compute capability 9.0")
    )


def test_a_frozen_script_that_changed_is_called_so(records):
    folder = next(records.glob("*backout"))
    text = (folder / "record.toml").read_text()
    (folder / "record.toml").write_text(text.replace('sha256 = ""', f'sha256 = "{load(folder).script_sha256()}"'))
    assert "frozen as" in shown("40", records) and "CHANGED" not in shown("40", records)
    (folder / "train.py").write_text(SCRIPT.format(steps=41))
    assert "CHANGED since it was frozen" in shown("40", records)


def test_hostile_text_stays_text(records):
    folder = next(records.glob("*backout"))
    facts = (folder / "record.toml").read_text()
    (folder / "record.toml").write_text(facts.replace('"@someone"', '"[red]x[/red]"'))
    (folder / "train.py").write_text(SCRIPT.format(steps=1).replace("minutes.", "minutes. \x1b[2J\u202e"))
    output = shown("40", records)
    assert "\x1b" not in output and "\u202e" not in output and "[red]x[/red]" in output


def test_a_script_that_is_no_python_is_still_shown(records):
    (next(records.glob("*backout")) / "train.py").write_text("(")
    assert "its settings cannot be compared" in shown("40", records)


def test_the_command_on_the_archive_itself():
    told = CliRunner().invoke(main, ["show", "40"])
    assert told.exit_code == 0 and "2.358 minutes" in told.output and "⠑" in told.output
    unknown = CliRunner().invoke(main, ["show", "no-such"])
    assert unknown.exit_code == 2 and unknown.output.startswith("error: ")


def test_long_lines_are_broken_at_words(records):
    folder = next(records.glob("*backout"))
    words = "New        " + "some words that go on " * 6
    (folder / "train.py").write_text(SCRIPT.format(steps=1).replace("New        Backout.", words))
    lines = shown("40", records, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    at = next(index for index, line in enumerate(lines) if line.startswith("New        some"))
    assert lines[at + 1].startswith(" " * 11) and lines[at + 1][11] != " "


def test_json_tells_all():
    told = json.loads(CliRunner().invoke(main, ["show", "40", "--json"]).stdout)
    assert told["number"] == "40" and told["times"][0]["kind"] == "listed" and told["script"].endswith("train.py")
    missing = json.loads(CliRunner().invoke(main, ["show", "41", "--json"]).stdout)
    assert missing["script"] is None and missing["listed"]["minutes"] == 2.345


def test_asking_for_a_record_imports_no_heavy_library():
    """Each of them takes longer than all else together: pandas 0.4 s, scipy.stats 0.7 s, torch 1.4 s."""
    program = (
        "import sys; from harness.cli import main; main(['show', '40'], standalone_mode=False); print(sys.modules)"
    )
    for command in (program, "import sys, harness.referee.verify, harness.replay.replay; print(sys.modules)"):
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT.parent)
        assert done.returncode == 0, done.stderr
        loaded = done.stdout.splitlines()[-1]
        assert not [name for name in ("pandas", "scipy.stats", "torch", "matplotlib") if f"'{name}'" in loaded]


def test_unreadable_script(records):
    (next(records.glob("*backout")) / "train.py").unlink()
    with pytest.raises(UserError, match="No such file"):
        shown("40", records)


# --- times


@pytest.fixture
def timed(records, monkeypatch):
    """The same archive with the public tables, and with ledgers."""
    monkeypatch.setattr("harness.history.show.times_of", times_of)
    for table in ROOT.glob("*.csv"):
        shutil.copy(table, records)
    return records


def add_run(root, fidelity):
    """A run of record 40 on one GPU: 10 steps of a second each by its log, 1% longer by the launcher's clock."""
    folder = root / "runs" / "2025-10-04-backout" / f"run-{fidelity}"
    folder.mkdir(parents=True)
    lines = [f"step:{step}/10 train_time:{1000 * step}ms step_avg:1000.00ms" for step in range(1, 11)]
    head = ["print()", "=" * 100, "Running PyTorch 2.13.0 compiled for CUDA 12.8", "=" * 100]
    last = "step:10/10 val_loss:3.2700 train_time:10000ms step_avg:1000.00ms"
    (folder / "log.txt").write_text("\n".join([*head, *lines, last]) + "\n")
    clock = {"step": list(range(1, 11)), "kind": ["train"] * 10, "log_ms": [1000 * step for step in range(1, 11)]}
    clock["clock_s"] = [50 + 1.01 * step for step in range(1, 11)]
    facts = {"schema": 1, "record": "40", "slug": "2025-10-04-backout", "fidelity": fidelity, "gpus": 1, "nnodes": 1}
    facts |= {"run_id": folder.name, "machine": {"gpu": "NVIDIA H200", "gpus": 1}, "outcome": "finished", "exit": 0}
    (folder / "run.json").write_text(json.dumps(facts | {"witness": clock, "started": "2026-01-01T00:00:00Z"}))


def test_times_are_told_by_kind_with_their_difference(timed):
    lines = shown("40", timed).splitlines()
    assert any(line.startswith("listed       2.358 ") for line in lines)
    [logged] = [line for line in lines if line.startswith("logged")]
    assert "2.345 ± 0.001" in logged and "n = 5" in logged and "H100" in logged
    assert "differs: listed 2.358 min, logged 2.345 min (-0.55%)" in lines


def test_own_runs_are_witnessed_and_projected_smoke_runs_are_not(timed):
    add_run(timed, "stand-in")
    add_run(timed, "smoke")
    text = shown("40", timed)
    assert "witnessed    0.168" in text and "NVIDIA H200" in text and "stand-in" in text and "smoke" not in text
    assert "projected    0.021" in text


def test_retimings_of_a_record(timed):
    (next(timed.glob("*reduced-batch-size")) / "train.py").write_text(SCRIPT.format(steps=21))
    text = shown("21", timed)
    assert text.count("re-timed") == 3 and "3.071" in text and "facebookresearch/llm-speedrunner" in text


def test_a_lone_script_has_no_times(timed, tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT.format(steps=1))
    assert "times in minutes" not in shown(str(tmp_path / "mine.py"), timed)


# --- the plot


def dots(lines):
    """(column, row) of every dot on a canvas, row 0 on top."""
    found = set()
    for row, line in enumerate(lines):
        for column, character in enumerate(line[8:]):
            bits = ord(character) - BLANK
            for bit, (x, y) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]):
                if bits >> bit & 1:
                    found.add((2 * column + x, 4 * row + y))
    return found


def test_a_straight_line_is_straight():
    lines = plot([(0, 7), (7, 0)], width=4, height=2)
    assert dots(lines[:2]) == {(x, x) for x in range(8)}
    assert lines[0].startswith("  7.00 │") and lines[1].startswith("  0.00 │") and lines[3].split() == ["0", "7"]


def test_the_target_is_dotted_and_in_range():
    lines = plot([(0, 7), (7, 4)], width=4, height=2, line=0.0)
    assert {(0, 7), (4, 7)} <= dots(lines[:2]) and lines[1].startswith("  0.00")


def test_a_steep_curve_has_no_gaps():
    rows = {y for _, y in dots(plot([(0, 100), (1, 0), (100, 0)], width=10, height=5)[:5])}
    assert rows == set(range(20))


@pytest.mark.parametrize("points", [[], [(0, 1)], [(0, math.nan), (1, 2)]])
def test_too_few_points_draw_nothing(points):
    assert plot(points) == []


def test_a_flat_curve_is_drawn():
    assert dots(plot([(0, 3), (9, 3)], width=3, height=2)[:2]) == {(x, 0) for x in range(6)}
