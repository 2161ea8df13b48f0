"""`harness import`: someone else's logs as records, rebuilt byte for byte, inside the folder, without running them."""

import hashlib

import pytest
from click.testing import CliRunner

from harness.archive.find import discover
from harness.archive.record import load
from harness.cli import main
from harness.errors import UserError
from harness.importing.imports import import_logs
from timing.log import read_log

BANNER = "=" * 100 + "\n"
RULE = "-" * 40
SCRIPT = 'import kernels\n\nprint0(f"step:{step}/{steps} val_loss:{loss:.4f}")\n'
BOMB = "from pathlib import Path\nPath('executed').write_text('x')\nprint('val_loss')\n"


def log(loss=3.28, script=SCRIPT, helpers=(), steps=4, date="Sat Oct  4 06:07:53 2025\n"):
    """A small log; `helpers` are (name, text)."""
    source = script + "".join(f"\n\n{RULE}\n# {name}\n{RULE}\n\n{text}" for name, text in helpers)
    metrics = f"step:0/{steps} val_loss:10.8000 train_time:0ms step_avg:0.02ms\n"
    metrics += f"step:{steps}/{steps} val_loss:{loss:.4f} train_time:{600 * steps}ms step_avg:600.00ms\n"
    return f"{source}{BANNER}Running PyTorch 2.9.0 compiled for CUDA 12.6\n{date}{BANNER}{metrics}"


@pytest.fixture
def theirs(tmp_path):
    """A folder for the other archive's logs."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    return folder


@pytest.fixture
def bring(tmp_path, theirs):
    """Import `theirs` and return (folders, what was said)."""

    def run():
        said = []
        folders = import_logs(theirs, tmp_path / "imported", said.append)
        return folders, "\n".join(said)

    return run


def test_logs_of_one_source_become_one_record_that_the_archive_loads(theirs, bring):
    helpers = [("kernels.py", "x = 1\n"), ("ops/deep.py", "y = 2\n")]
    for number, loss in enumerate((3.27, 3.28, 3.29)):
        (theirs / f"run{number}.txt").write_text(log(loss, helpers=helpers))
    (theirs / "copy.txt").write_text(log(3.27, helpers=helpers))
    (folder,), said = bring()
    record = load(folder)
    assert "same content" in said and "proven byte for byte" in said
    assert (record.number, str(record.date), record.kind, record.edition) == ("0", "2025-10-04", "ml", "2025-02-01")
    assert (folder / "train.py").read_text() == SCRIPT
    assert (folder / "kernels.py").read_text() == "x = 1\n" and (folder / "ops/deep.py").read_text() == "y = 2\n"
    assert record.sha256 == record.script_sha256() == hashlib.sha256(SCRIPT.encode()).hexdigest()
    assert (record.listed.runs, record.listed.steps, record.listed.val_loss) == (3, 4, 3.28)
    assert (record.listed.val_loss_std, record.listed.logged_minutes) == (0.01, 0.04)
    assert record.curve == ((0, 10.8), (4, 3.27))
    assert sorted(read_log(path).final_val_loss for path in record.logs.iterdir()) == [3.27, 3.28, 3.29]


def test_overrides_of_smaller_runs_become_the_smoke_table(theirs, bring):
    """... and their logs are never averaged with those of the record's settings."""
    overrides = 'override model_dim=64\noverride fp8=false\noverride spans=(1, 2)\noverride gpus=7\noverride a.b="x"\n'
    small = log(3.9).replace("Running PyTorch", overrides + "override seed=3\nRunning PyTorch")
    (theirs / "small.txt").write_text(small)
    (theirs / "smaller.txt").write_text(small.replace("3.9000", "3.8000"))
    (theirs / "full.txt").write_text(log(3.28))
    record = load(bring()[0][0])
    assert record.smoke == {"model_dim": 64, "fp8": False, "spans": "(1, 2)", "a.b": '"x"'} and record.smoke_gpus == 2
    assert (record.listed.runs, record.listed.val_loss) == (2, 3.85)
    assert "no record run" in record.listed.note
    (theirs / "fuller.txt").write_text(log(3.27))
    record = load(bring()[0][0])
    assert (record.smoke, record.listed.val_loss, record.listed.runs) == ({}, 3.275, 2)


def test_other_sources_become_other_records(theirs, bring, tmp_path):
    (theirs / "a.txt").write_text(log())
    (theirs / "b.txt").write_text(log(script=SCRIPT + "# other\n", date="Sun Oct  5 06:07:53 2025\n"))
    folders, _ = bring()
    assert {load(folder).label for folder in folders} == {folder.name for folder in folders}
    assert [record.number for record in discover(tmp_path / "imported")] == ["0", "0"]


def test_a_second_import_adds_only_what_is_new(theirs, bring):
    (theirs / "a.txt").write_text(log(3.27))
    (folder,), _ = bring()
    before = sorted(folder.rglob("*"))
    assert "nothing new" in bring()[1]
    assert sorted(folder.rglob("*")) == before
    (theirs / "b.txt").write_text(log(3.29))
    assert "added" in bring()[1]
    assert (load(folder).listed.runs, load(folder).listed.val_loss) == (2, 3.28)
    assert len(list((folder / "logs").iterdir())) == 2


def test_every_source_is_rebuilt_to_the_byte(theirs, bring):
    scripts = [
        b"import torch\r\nprint('val_loss')\r\n",
        b"import torch  # caf\xe9\nprint('val_loss')\n",
        b'import torch\n"""\n' + BANNER.encode() + b'"""\nprint("val_loss")\n\n',
    ]
    for number, script in enumerate(scripts):
        printed = script if number == 0 else script + b"\n"
        text = log(script="SCRIPT").encode().replace(b"SCRIPT", printed)
        (theirs / f"{number}.txt").write_bytes(text)
    folders, _ = bring()
    assert {(folder / "train.py").read_bytes() for folder in folders} == set(scripts)


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped.py",
        "/tmp/escaped.py",
        "a/../../escaped.py",
        "C:\\escaped.py",
        "..\\escaped.py",
        "train.py",
        "TRAIN.py",
        "record.toml/x.py",
        "logs/x.py",
        "con.py",
        "NUL.py",
        ".hidden.py",
        "a/.git/hooks.py",
        "~/x.py",
        "$HOME/x.py",
        "x" * 290 + ".py",
        "a/" * 40 + "x.py",
        "\x1b[2J.py",
        "\u202egnp.py",
        "-rf.py",
        "a b.py",
        "a//b.py",
    ],
)
def test_a_helper_with_a_hostile_name_stays_inside(theirs, bring, tmp_path, name):
    (theirs / "a.txt").write_text(log(helpers=[(name, "x = 1\n"), ("module_1.py", "y = 2\n")]))
    before = {path for path in tmp_path.rglob("*") if "imported" not in str(path)}
    (folder,), said = bring()
    assert {path for path in tmp_path.rglob("*") if "imported" not in str(path)} == before
    modules = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    assert modules == ["module_1.py", "module_2.py", "train.py"]
    assert (folder / "train.py").read_text() == SCRIPT
    assert "renamed" in said and "\x1b" not in said and "\u202e" not in said


def test_two_helpers_of_one_name_and_a_file_that_is_a_folder_too(theirs, bring):
    helpers = [("k.py", "1\n"), ("K.py", "2\n"), ("k.py/x.py", "3\n"), ("a/b.py", "4\n")]
    (theirs / "a.txt").write_text(log(helpers=helpers))
    (folder,), said = bring()
    contents = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}
    assert contents == {"train.py": SCRIPT, "k.py": "1\n", "module_1.py": "2\n", "module_2.py": "3\n", "a/b.py": "4\n"}
    assert said.count("renamed") == 2


def test_nothing_is_run(theirs, bring, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (theirs / "a.txt").write_text(log(script=BOMB, helpers=[("kernels.py", BOMB)]))
    bring()
    assert not list(tmp_path.rglob("executed"))


def test_what_a_source_is_not_is_said(theirs, bring):
    (theirs / "a.txt").write_text(log(script="import torch\nthis is not python 'val_loss'\n"))
    (theirs / "b.txt").write_text(log(script="import torch\nprint('left out')\n"))
    (theirs / "c.txt").write_text(log(script="import torch\nprint('left out')\n", steps=8))
    (theirs / "d.txt").write_text(log(script=""))
    (theirs / "e.txt").write_text("no log")
    folders, said = bring()
    assert len(folders) == 3
    assert "will not run: not Python" in said
    assert said.count("is left out of the logs") == 2
    assert "d.txt: no source stands in it" in said and "e.txt: is not a training log" in said


def test_a_script_that_nests_to_kill_the_parser_is_only_text(theirs, bring):
    (theirs / "a.txt").write_text(log(script="import torch\nx = " + "(" * 50_000 + "\n"))
    assert "will not run" in bring()[1]


def test_texts_from_a_log_cannot_break_the_facts(theirs, bring):
    hostile = 'Running PyTorch 2.9.0"\\x[listed]\x00\x1b]0;\x7f<b> compiled for CUDA 12\n'
    (theirs / 'a"[x]\\.txt').write_text(log().replace("Running PyTorch 2.9.0 compiled for CUDA 12.6\n", hostile))
    (folder,), _ = bring()
    assert load(folder).listed.torch == '2.9.0"\\x[listed]]0;<b>'


def test_a_link_in_the_way_is_not_followed(theirs, bring, tmp_path):
    (theirs / "a.txt").write_text(log())
    (folder,), _ = bring()
    name, outside = folder.name, tmp_path / "outside"
    folder.rename(outside)
    (tmp_path / "imported" / name).symlink_to(outside)
    (theirs / "b.txt").write_text(log(3.1))
    count = len(list((outside / "logs").iterdir()))
    with pytest.raises(UserError, match="move it"):
        bring()
    assert len(list((outside / "logs").iterdir())) == count


def test_a_broken_import_leaves_nothing_behind(theirs, bring, tmp_path, monkeypatch):
    (theirs / "a.txt").write_text(log())
    monkeypatch.setattr("harness.importing.imports.record_toml", lambda *facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bring()
    assert list((tmp_path / "imported").iterdir()) == []


def test_a_log_that_changes_meanwhile_is_refused(theirs, bring, monkeypatch):
    from harness.importing import imports as importing

    (theirs / "a.txt").write_text(log())
    monkeypatch.setattr(
        importing, "read_modules", lambda path: read_modules_of(log(script=SCRIPT + "# later\n"), theirs)
    )
    with pytest.raises(UserError, match="did the log change"):
        bring()


def read_modules_of(text, folder):
    from timing.parts import read_modules

    (folder / "later").write_text(text)
    return read_modules(folder / "later")


def test_the_command_says_what_it_made_and_fails_in_one_line(theirs, tmp_path):
    (theirs / "a.txt").write_text(log())
    into = tmp_path / "mine"
    done = CliRunner().invoke(main, ["import", str(theirs), "--into", str(into)])
    assert done.exit_code == 0 and f"imported: {into}" in done.output
    for wrong in (tmp_path / "absent", tmp_path / "mine" / "x"):
        failed = CliRunner().invoke(main, ["import", str(wrong), "--into", str(into)])
        assert failed.exit_code == 2 and failed.output.count("\n") == 1
    blocked = CliRunner().invoke(main, ["import", str(theirs), "--into", str(theirs / "a.txt")])
    assert blocked.exit_code == 2 and "a.txt" in blocked.output
