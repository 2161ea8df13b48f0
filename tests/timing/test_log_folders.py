"""Which files are read as logs, and that many are read as one is."""

import os

import numpy as np
import pytest

from timing.log import LogError, read_log, read_logs


def test_what_is_no_readable_file_gets_one_clear_line(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, words in [
        (tmp_path / "absent", "No such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("a\0b", "null byte"),
    ]:
        with pytest.raises(LogError, match=words):
            read_log(path)


def test_a_folder_is_read_in_order_and_with_its_errors(tmp_path, pieces):
    for name in ("b.txt", "a.log", "sub/c.TXT", "notes.md", ".hidden.txt", "run/log.txt", "run/stdout.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(pieces.log())
    (tmp_path / "bad.txt").write_text("nothing")
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    read = read_logs([tmp_path])
    names = [entry.path[len(str(tmp_path)) + 1 :] for entry in read if not isinstance(entry, LogError)]
    assert names == ["a.log", "b.txt", "run/log.txt", "sub/c.TXT"]
    errors = [str(entry) for entry in read if isinstance(entry, LogError)]
    for name, words in [("bad.txt", "not a training log"), ("link.txt", "is a link"), ("pipe.txt", "not a regular")]:
        assert [name in text and words in text for text in errors].count(True) == 1
    assert len(errors) == 3
    assert [type(entry) for entry in read_logs([tmp_path / "b.txt", tmp_path / "bad.txt"], workers=1)][1] is LogError


def test_several_processes_read_the_same(tmp_path, pieces, monkeypatch):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(pieces.log(metrics=pieces.metrics(loss=number)))
    (tmp_path / "3.txt").write_text("nothing")
    alone = read_logs([tmp_path])
    monkeypatch.setattr("timing.log.WORTH_PROCESSES", 0)
    for one, other in zip(alone, read_logs([tmp_path], workers=2), strict=True):
        assert type(one) is type(other)
        if isinstance(one, LogError):
            assert str(one) == str(other)
        else:
            assert (one.digest, one.notes) == (other.digest, other.notes) and repr(columns(one)) == repr(columns(other))


def columns(run):
    return {name: value.tolist() for name, value in vars(run).items() if isinstance(value, np.ndarray)}


def test_an_empty_folder_says_so(tmp_path):
    (error,) = read_logs([tmp_path])
    assert "holds no log" in str(error)
