"""Hostile folders and hostile text: one line each, no hang, and nothing of a log comes out alive."""

import os
import re
import time

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.errors import UserError
from harness.referee.submission import collect
from harness.referee.verify import render_text, to_json, to_markdown, verify

ESCAPE = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>|[x](http://e.vil)`@someone #1\u202e"


def names(paths):
    return [entry.name.rpartition("/")[2] for entry in collect(paths)[0]]


def test_fifo_in_a_folder_is_not_opened(forge):
    folder = forge.submission()
    os.mkfifo(folder / "pipe.txt")
    began = time.monotonic()
    assert len(names([folder])) == 5
    assert time.monotonic() - began < 20
    assert any("pipe.txt: is not a regular file" in note for note in verify([folder]).notes)


def test_fifo_by_name_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "pipe.txt")])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1 and "not a regular file" in result.output


def test_loop_of_links_ends(forge):
    folder = forge.submission()
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    assert len(names([folder])) == 5


def test_suffix_of_a_log_may_be_in_capitals(forge):
    folder = forge.submission()
    (folder / "run4.txt").rename(folder / "RUN4.LOG")
    assert len(names([folder])) == 5


def test_link_to_a_log_is_that_log(forge, draft, script):
    folder = forge.submission()
    os.rename(folder / "run4.txt", folder.parent / "elsewhere")
    (folder / "run4.txt").symlink_to(folder.parent / "elsewhere")
    assert verify([folder], record=draft(script)).verdict == "holds"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(forge):
    folder = forge.submission()
    (folder / "run1.txt").chmod(0)
    with pytest.raises(UserError, match=r"run1.txt cannot be read: Permission denied"):
        verify([folder])


def test_unreadable_file_whoever_runs_this(forge, monkeypatch):
    folder = forge.submission()
    monkeypatch.setattr(os, "access", lambda path, mode: "run1" not in str(path))
    with pytest.raises(UserError, match=r"run1.txt cannot be read: Permission denied"):
        verify([folder])


@pytest.mark.parametrize("name", ["none.txt", "a" * 5000])
def test_no_such_path(tmp_path, name):
    result = CliRunner().invoke(main, ["verify", str(tmp_path / name)])
    assert result.exit_code == 2
    assert result.output.startswith("error: ") and result.output.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"hello\n", bytes(range(256)) * 50])
def test_file_that_is_no_log(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "x.txt")])
    assert result.exit_code in (1, 2, 3)
    assert "Traceback" not in result.output


def test_an_empty_path_is_not_the_current_folder(forge, monkeypatch):
    monkeypatch.chdir(forge.submission())
    with pytest.raises(UserError, match="path of a log is empty"):
        verify([""])


def test_folder_without_logs(tmp_path):
    with pytest.raises(UserError, match="no log to judge"):
        verify([tmp_path])


def test_other_files_in_a_folder_are_named(forge, draft, script):
    folder = forge.submission()
    (folder / "notes.txt").write_text("remember the milk\n")
    verdict = verify([folder], record=draft(script))
    assert verdict.verdict == "holds"
    assert "notes.txt" in verdict.notes[0]


def hostile(forge):
    changes = {
        "gpu": "H100" + ESCAPE.replace("|", "")[:20],
        "environment": [f"override x={ESCAPE}", f"seed={ESCAPE.split()[0]}"],
    }
    folder = forge.folder / f"logs{ESCAPE.replace('/', '_')}"
    forge.log(f"{folder.name}/run.txt", **changes)
    return verify([folder])


@pytest.mark.parametrize("render", [render_text, to_markdown, to_json])
def test_no_control_character_comes_out(forge, render):
    text = render(hostile(forge))
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "\x7f" not in text and "\u202e" not in text


def test_markdown_stays_text(forge):
    text = to_markdown(hostile(forge))
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(|(?<!\\)`", text)
    assert "@someone" not in text
    assert all(line.count("|") - line.count("\\|") in (0, 4, 5) for line in text.splitlines())


def test_error_about_a_hostile_name_is_one_clean_line(tmp_path):
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "a\x1b[2J\nb.txt")])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1 and "\x1b" not in result.output


PIECES = st.one_of(
    st.sampled_from(
        [
            "step:0/600 val_loss:10.8 train_time:0ms step_avg:nanms",
            "step:600/600 val_loss:3.27 train_time:36000ms step_avg:60.00ms",
            "step:600/600 val_loss:nan train_time:-5ms step_avg:infms",
            "step:9999999999999999/1 train_time:1e30s step_avg:0ms",
            "s:5 tel:3.1",
            "=" * 100,
            "-" * 40 + "\n# ../../evil.py\n" + "-" * 40,
            "import torch\nprint('val_loss')",
            "override val_tokens=1",
            "world_size=0",
            "| NVIDIA-SMI 550 |",
            "seed=1",
        ]
    ),
    st.text(max_size=40),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=30), st.lists(PIECES, max_size=10))
def test_any_pile_of_pieces_ends_in_a_verdict_or_one_line(tmp_path, first, second):
    folder = tmp_path / "pile"
    folder.mkdir(exist_ok=True)
    for name, pieces in (("a.txt", first), ("b.txt", second)):
        (folder / name).write_text("\n".join(pieces), encoding="utf-8", errors="replace")
    try:
        verdict = verify([folder])
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert verdict.verdict != "holds"
    for render in (render_text, to_json, to_markdown):
        assert render(verdict)
