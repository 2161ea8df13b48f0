"""Logs that are cut, spliced, mixed, damaged or no logs at all: a Run that says so, or one clear line."""

import bz2
import gzip
import lzma
import math
import zipfile

import pytest

from timing.log import LogError, read_log


def test_every_cut_of_a_log_takes_no_partial_number(read, pieces):
    """Whatever the byte at which a log ends, each figure is one that the whole log has on that line."""
    lines = pieces.metrics(3, 2) + "step:3/3 val_loss:3.2781 train_time:140.693s step_avg:60.38ms beta:0.5\n"
    whole = pieces.log(environment="Running PyTorch 2.9.0 compiled for CUDA 12.6\n", metrics=lines)
    reference = read(whole)
    figures = _figures(reference)
    for size in range(len(whole) - len(lines), len(whole)):
        run = read(whole[:size])
        assert _figures(run) <= figures, whole[size - 30 : size]
    assert not read(whole[: len(whole) - len(lines)]).complete


def _figures(run):
    found = set()
    for kind in ("val", "train"):
        for name in ("step", "loss", "time_ms", "step_avg_ms"):
            pairs = zip(getattr(run, f"{kind}_line").tolist(), getattr(run, f"{kind}_{name}").tolist(), strict=True)
            found |= {(kind, name, *pair) for pair in pairs if not math.isnan(pair[1])}
    return found


def test_a_loss_that_ends_the_file_counts_if_it_has_the_usual_decimals(read, said):
    text = "s:0 tel:10.968871\ns:0 trl:10.9\ns:1 trl:10.8\ns:2 tel:10.512345"
    assert read(text).final_val_loss == 10.512345
    for cut in range(1, 7):
        run = read(text[:-cut])
        assert run.final_val_loss == 10.968871 and not run.complete
        assert said(run, "its loss is not taken") == 4


def test_a_complete_log_without_a_last_newline_is_complete(read, pieces, said):
    run = read(pieces.log().rstrip("\n"))
    assert run.complete and run.final_step_avg_ms == 60
    assert said(run, "no newline") == run.lines


def test_a_log_cut_between_lines_is_not_complete(read, pieces, said):
    run = read(pieces.log(metrics="".join(pieces.metrics().splitlines(keepends=True)[:8])))
    assert not run.complete
    assert said(run, "the log ends at step 6 of 10") == run.lines


def test_an_environment_without_metrics_says_so(read, pieces, said):
    run = read(pieces.log(metrics=""))
    assert (run.steps, run.complete, run.final_val_loss) == (0, False, None)
    assert said(run, "no metric line") is not None


def test_a_splice_of_two_whole_logs(read, pieces, said):
    first = pieces.log()
    run = read(first + pieces.log(metrics=pieces.metrics(loss=5)))
    at = first.count("\n")
    assert run.restart_line.tolist() == [at + pieces.log(metrics="").count("\n") + 1]
    assert said(run, "2 runs one after another") == run.restart_line[0]
    assert said(run, "another log may be spliced in") == run.spliced_line > at
    assert read(first).spliced_line is None


def test_a_splice_in_the_middle_of_a_run(read, pieces, said):
    lines = pieces.metrics(40).splitlines(keepends=True)
    back = read(pieces.log(metrics="".join(lines[:30] + lines[20:])))
    assert said(back, "a resumed run, or parts of two logs")
    ahead = read(pieces.log(metrics="".join(lines[:30] + lines[34:])))
    assert said(ahead, "steps are missing")


def test_training_lines_every_few_steps_are_no_gaps(read, pieces):
    lines = pieces.metrics(60, 10).splitlines(keepends=True)
    run = read(pieces.log(metrics="".join(line for line in lines if "0/" in line)))
    assert len(run.train_step) == 6 and run.notes == ()


@pytest.mark.parametrize("lag", [0, 3])
def test_mixed_lines_of_two_runs(read, pieces, said, lag):
    one, two = (pieces.metrics(30, loss=loss).splitlines(keepends=True) for loss in (4, 5))
    mixed = one[:lag] + [line for pair in zip(one[lag:], two, strict=False) for line in pair]
    run = read(pieces.log(metrics="".join(mixed)))
    assert said(run, "lines of several runs are mixed")
    assert not len(run.restart_line)


def test_glued_lines_count_for_nothing_and_are_named(read, pieces, said):
    glued = "step:4/10 train_time:240msstep:4/10 train_time:241ms step_avg:60.00ms\n"
    glued += "step:4/10 train_time:240ms step_avg:60.00ms step:4/10 train_time:241ms step_avg:60.25ms\n"
    glued += "warming up ...step:5/10 val_loss:3.9000 train_time:300ms step_avg:60.00ms\n"
    run = read(pieces.log(metrics=glued + pieces.metrics()))
    assert 241 not in run.train_time_ms and len(run.val_step) == 3
    assert said(run, "train_time stands twice") == run.lines - 15
    assert said(run, "behind other text") == run.lines - 13


def test_keys_that_nothing_parts_are_no_metrics(read, pieces, said):
    for line in ("val_loss:3.25,train_time:7ms step_avg:1.0ms", "val_loss:3.25xtrain_time:7ms step_avg:1.0ms"):
        run = read(pieces.log(metrics=f"step:1/2 {line}\n" + pieces.metrics()))
        assert len(run.val_step) == 3
        assert said(run, "the value of val_loss cannot be read") == run.lines - 13


def test_windows_line_ends_change_no_figure(read, pieces, said):
    text = pieces.log(metrics=pieces.metrics() + "s")
    plain, windows = read(text), read(text.replace("\n", "\r\n"))
    assert _figures(plain) == _figures(windows)
    for name in ("torch", "python", "triton", "driver", "gpu", "gpus", "date", "complete", "source_line", "env_line"):
        assert getattr(plain, name) == getattr(windows, name), name
    assert windows.source == plain.source.replace("\n", "\r\n")
    assert said(windows, "Windows line ends") == 1


def test_losses_that_are_not_finite_are_kept_and_named(read, pieces, said):
    lines = "step:1/2 train_loss:inf train_time:60ms step_avg:60.00ms\n"
    lines += "step:2/2 val_loss:nan train_time:120ms step_avg:60.00ms\n"
    run = read(pieces.log(metrics=lines))
    assert math.isnan(run.final_val_loss) and math.isinf(run.train_loss[0])
    assert said(run, "nan or infinite") == run.lines - 1


def test_a_plan_that_changes_is_named_and_the_last_one_holds(read, pieces, said):
    lines = pieces.metrics(10) + "step:11/12 train_time:660ms step_avg:60.00ms\n"
    lines += "step:12/12 val_loss:3.8800 train_time:720ms step_avg:60.00ms\n"
    run = read(pieces.log(metrics=lines))
    assert (run.planned_steps, run.complete) == (12, True)
    assert said(run, "changes from 10 to 12") == run.lines - 1


def test_two_dialects_in_one_log_are_named(read, pieces, said):
    assert said(read(pieces.metrics() + "s:11 tel:3.2\n"), "the dialect changes") == 14


def test_unreadable_values_are_named_and_only_so_many_times(read, pieces, said):
    run = read(pieces.log(metrics="step:1/2 train_time:7e9x step_avg:1ms\nstep:1/2 val_loss:3.x\n" + pieces.metrics()))
    assert said(run, "the value of train_time cannot be read") == run.lines - 14
    assert len(run.val_step) == 3
    many = read(pieces.log(metrics="step:1/2 train_time:7\n" * 500 + pieces.metrics()))
    assert said(many, "and 480 more of this kind")
    assert len(many.notes) < 30


def test_a_byte_order_mark_is_read_over(read, pieces, said):
    run = read(b"\xef\xbb\xbf" + pieces.log().encode())
    assert run.source == pieces.source and run.complete
    assert said(run, "byte order mark") == 1
    assert read(b"\xef\xbb\xbf" + pieces.metrics().encode()).val_step[0] == 0


def test_nul_bytes_and_long_lines_are_named(read, pieces, said):
    run = read(pieces.metrics() + "\0\0\n" + "x" * 3_000_000 + "\n" + "y" * 100_000)
    assert run.complete
    assert said(run, "NUL") == 14
    assert said(run, "over 64 KiB") == 15
    assert run.lines == 16
    assert not read("z" * 3_000_000 + "\n" + pieces.metrics()).val_line[0] - 2


def test_a_source_that_is_not_utf8_is_read_and_named(read, pieces, said):
    run = read(pieces.log().encode().replace(b"import torch", b"import torch  # caf\xe9"))
    assert "caf\ufffd" in run.source
    assert said(run, "not UTF-8") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello\nworld\n", "is not a training log"),
        (b"\0" * 1000, "is not a training log"),
        (bytes(range(256)) * 40, "is not a training log"),
        (gzip.compress(b"step:1/2", mtime=0), "gzip"),
        (lzma.compress(b"step:1/2"), "xz"),
        (bz2.compress(b"step:1/2"), "bzip2"),
        (b"\x28\xb5\x2f\xfdxxxx", "zstandard"),
        (b"%PDF-1.7\n", "PDF"),
        ("step:1/2 val_loss:3.0".encode("utf-16"), "UTF-16"),
        ("step:1/2 val_loss:3.0".encode("utf-16-be"), "UTF-16"),
        ("step:1/2 val_loss:3.0".encode("utf-32"), "UTF-32"),
        (b'print(f"step:{step}/{n} val_loss:{x}")\nimport torch\n', "is not a training log"),
    ],
)
def test_what_is_no_log_gets_one_clear_line(read, content, words):
    with pytest.raises(LogError, match=words) as raised:
        read(content)
    assert "\n" not in str(raised.value) and "log.txt" in str(raised.value)


def test_a_zip_archive_is_called_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.txt", "w") as archive:
        archive.writestr("log.txt", "step:1/2")
    with pytest.raises(LogError, match="ZIP"):
        read_log(tmp_path / "a.txt")


def test_a_hostile_name_is_harmless_in_the_message(tmp_path):
    with pytest.raises(LogError) as raised:
        read_log(tmp_path / "\x1b[2Jx\u202ey\n")
    assert "\x1b" not in str(raised.value) and "\u202e" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_second_run_that_is_cut_leaves_the_log_incomplete(read, pieces):
    cut = "".join(pieces.metrics().splitlines(keepends=True)[1:4])
    assert not read(pieces.log(metrics=pieces.metrics() + cut)).complete
