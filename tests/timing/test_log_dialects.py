"""Every dialect and layout of training log, from miniature logs of our own."""

import hashlib
import math

import pytest

from timing.log import read_log


def test_a_usual_log_gives_every_column_its_figures_and_lines(read, pieces):
    run = read(pieces.log(metrics=pieces.metrics(steps=3, every=2)))
    start = run.lines - 6 + 1
    assert (run.dialect, run.planned_steps, run.steps, run.complete) == ("step", 3, 3, True)
    assert run.val_step.tolist() == [0, 2, 3]
    assert run.val_loss.tolist() == [4.0, 3.98, 3.97]
    assert run.val_time_ms.tolist() == [0, 120, 180]
    assert run.val_line.tolist() == [start, start + 3, start + 5]
    assert run.train_step.tolist() == [1, 2, 3]
    assert run.train_step_avg_ms.tolist() == [60, 60, 60]
    assert run.train_line.tolist() == [start + 1, start + 2, start + 4]
    assert (run.final_val_loss, run.final_train_time_ms, run.final_step_avg_ms) == (3.97, 180, 60)
    assert run.notes == ()


def test_every_column_has_the_promised_type(read, pieces):
    run = read(pieces.log())
    for kind in ("val", "train"):
        assert getattr(run, f"{kind}_step").dtype == getattr(run, f"{kind}_line").dtype == "int64"
        for name in ("loss", "time_ms", "step_avg_ms"):
            assert getattr(run, f"{kind}_{name}").dtype == "float64"


def test_the_oldest_step_dialect_has_training_losses_and_an_untimed_start(read, pieces, said):
    lines = "step:0/3 val_loss:10.9512 train_time:248ms step_avg:nanms\n"
    lines += "step:1/3 train_loss:10.9474 train_time:29841ms step_avg:nanms\n"
    lines += "step:2/3 train_loss:9.1 train_time:61ms step_avg:30.50ms\n"
    lines += "step:3/3 val_loss:8.7 train_time:95ms step_avg:31.67ms\n"
    run = read(pieces.banner + pieces.log(metrics=lines))
    assert run.source_line == 2
    assert run.train_loss.tolist() == [10.9474, 9.1]
    assert math.isnan(run.val_step_avg_ms[0]) and math.isnan(run.train_step_avg_ms[0])
    assert (run.final_train_time_ms, run.final_step_avg_ms) == (95, 31.67)
    assert not said(run, "nan")


def test_llmc_lines_have_no_times_and_no_plan(read):
    text = "s:0 tel:10.968871\ns:0 trl:10.965596\ns:1 trl:10.81 lr:0.0002 norm:1.2\ns:1 eval:0.25\ns:2 tel:10.5\n"
    run = read(text)
    assert (run.dialect, run.planned_steps, run.source, run.complete) == ("llmc", None, None, True)
    assert run.val_loss.tolist() == [10.968871, 10.5]
    assert run.train_loss.tolist() == [10.965596, 10.81]
    assert run.final_train_time_ms is None and run.final_step_avg_ms is None


def test_an_llmc_log_that_stops_between_validations_is_not_complete(read, said):
    run = read("s:0 tel:10.9\ns:0 trl:10.9\ns:1 trl:10.8\n")
    assert not run.complete
    assert said(run, "without a validation after it") == 3


@pytest.mark.parametrize(
    ("time", "milliseconds"),
    [("492.485s", 492485), ("0.001s", 1), ("1126.975s", 1126975), ("96s", 96000), ("7551ms", 7551), ("75.25ms", 75.25)],
)
def test_times_in_seconds_are_exact_milliseconds(read, pieces, time, milliseconds):
    run = read(pieces.log(metrics=f"step:5/5 val_loss:3.27839 train_time:{time} step_avg:147.03ms\n"))
    assert run.final_train_time_ms == milliseconds


@pytest.mark.parametrize(
    "line",
    [
        "step:5/5 val_loss:3.27839 train_time:492.485s step_avg:147.03ms ema_beta:0.3 ref:-0.075",
        "step:5/5 val_loss:3.27839 ema_loss:3.3 train_time:492.485s step_avg:147.03ms",
        "step:5/5 train_time:492.485s step_avg:147.03ms val_loss:3.27839",
        "step:5/5 lr:1e-05 val_loss:3.27839 train_time:492485ms step_avg:1.4703e+02ms",
        "step:5/5 train_loss:3.1 val_loss:3.27839 train_time:492485ms step_avg:147.03ms",
        "step:5/5 val_loss:3.27839 train_time:492485ms step_avg:147.03ms ema_val_loss:9.9",
        "step:5/5  val_loss:3.27839 train_time:492485ms step_avg:147.03ms \t",
    ],
)
def test_further_pairs_and_other_orders_change_nothing(read, pieces, line):
    run = read(pieces.log(metrics=line + "\n"))
    assert (run.final_val_loss, run.final_train_time_ms, run.final_step_avg_ms) == (3.27839, 492485, 147.03)
    assert run.notes == ()


def test_three_blocks_and_free_text_between_metrics(read, pieces):
    loader = "Training DataLoader: total number of tokens: 300 across 3 files\n" + pieces.banner
    table = "lm_head.weight: torch.Size([768, 50304]) torch.float32 0.0 0.1\nstep: see below\nsteps:1/2\n\n"
    half = pieces.metrics().splitlines(keepends=True)
    run = read(pieces.log(metrics=loader + table + half[0] + "/tmp/torchinductor_root/xy/c7.py\n" + "".join(half[1:])))
    assert (run.steps, len(run.val_step), len(run.train_step), run.complete, run.notes) == (10, 3, 10, True, ())


def test_helper_modules_are_split_off_the_source(read, pieces):
    rule = "-" * 40
    helper, deeper = "import triton\n", "x = 1\n"
    source = f"{pieces.source}\n\n{rule}\n# triton_kernels.py\n{rule}\n\n{helper}"
    source += f"\n\n{rule}\n# ops/deep.py\n{rule}\n\n{deeper}"
    run = read(pieces.log(source=source))
    assert run.source == pieces.source
    assert run.helpers == (("triton_kernels.py", helper), ("ops/deep.py", deeper))
    assert run.source_sha256 == hashlib.sha256(source.encode()).hexdigest()


def test_the_source_of_a_script_alone_is_byte_for_byte_its_own(read, pieces):
    for printed in (pieces.source, pieces.source + "\n"):
        run = read(pieces.log(source=printed))
        assert run.source == pieces.source
        assert run.source_sha256 == hashlib.sha256(pieces.source.encode()).hexdigest()


def test_a_docstring_with_a_whole_log_in_it_does_not_end_the_source(read, pieces):
    for quotes in ('"""', "'''"):
        source = f'import torch\nx = "{quotes[0] if quotes[0] != chr(34) else chr(39)}"  # it isn\'t\n'
        source += f"{quotes}What a log looks like, \\{quotes}:\n"
        source += f"{pieces.banner}{pieces.environment(gpus=2, torch='1.0')}{pieces.banner}{pieces.metrics(99, loss=9)}"
        source += f"{quotes}\nprint('go')\n"
        run = read(pieces.log(source=source))
        assert run.source == source
        assert (run.torch, run.gpus, run.planned_steps) == ("2.9.0.dev20250713+cu126", 8, 10)
        assert (run.val_step[0], len(run.train_step), run.notes) == (0, 10, ())


def test_a_source_whose_quotes_do_not_close_ends_where_an_environment_follows(read, pieces, said):
    source = f'import torch\n"""cut off\n{pieces.banner}not an environment\n'
    run = read(pieces.log(source=source))
    assert run.source == source
    assert run.torch and run.complete
    assert said(run, "quotes of the source do not pair")


def test_metrics_in_the_source_alone_leave_no_trace(read, pieces):
    shown = "".join(line + line for line in pieces.metrics().splitlines(keepends=True))
    run = read(
        pieces.log(source=f'"""\n{shown}"""\nimport torch\n', metrics="step:1/1 train_time:9ms step_avg:9.00ms\n")
    )
    assert (run.steps, run.planned_steps, len(run.val_step)) == (1, 1, 0)
    assert [note.text for note in run.notes] == ["no validation in this log"]


@pytest.mark.parametrize("later", ["", 'text """ in the loader\'s words\n' + "=" * 100 + "\n"])
@pytest.mark.parametrize("source", ['import torch\n"""cut off\n', 'the end of a docstring\n"""\nimport torch\n'])
def test_a_source_that_lost_a_quote_ends_where_it_ends(read, pieces, said, source, later):
    run = read(pieces.log(source=source, metrics=later + pieces.metrics()))
    assert run.source == source
    assert run.torch and run.gpus == 8 and run.complete
    assert said(run, "quotes of the source do not pair")


@pytest.mark.parametrize(
    "lead", ["", "Compiling model and warming up kernels\n", "from here on\nwith care\n", "=" * 100 + "\n"]
)
def test_a_log_without_a_source(read, pieces, said, lead):
    run = read(lead + pieces.environment(gpus=4) + pieces.banner + pieces.metrics())
    assert (run.source, run.source_line, run.helpers, run.source_sha256) == (None, None, (), None)
    assert (run.gpus, run.steps, run.complete) == (4, 10, True)
    assert said(run, "no source") is not None


def test_metrics_alone_are_a_log(read, pieces):
    run = read(pieces.metrics())
    assert (run.steps, run.complete, run.torch, run.gpus) == (10, True, None, None)


def test_steps_need_not_start_at_zero(read, pieces):
    run = read(pieces.log(metrics=pieces.metrics(start=4)))
    assert (run.train_step[0], run.complete, run.notes) == (5, True, ())


def test_a_log_of_our_own_scripts(read, pieces, said):
    environment = (
        "Running Python 3.11.7 (main, Dec  8 2023) [GCC 12.2.0]\n"
        "Running PyTorch 2.13.0+cpu compiled for CUDA None\nRunning Triton version none\n"
        "world_size=2 accumulation=4\nseed=1337\nmanifest=0a1b2c\noverride model_dim=64\noverride name=a = b\n"
        "nvidia-smi: not available\n"
    )
    lines = pieces.metrics(2, 2) + "telemetry step:2 grad_norm:1.5 activation_rms:[1.0, 2.0]\n"
    lines += "fallback step:2 fp8 -> bf16: overflow\npeak memory allocated: 29226 MiB reserved: 44076 MiB\n"
    run = read(pieces.log(environment=environment, metrics=lines))
    assert (run.python, run.torch, run.cuda, run.triton) == ("3.11.7", "2.13.0+cpu", None, None)
    assert (run.world_size, run.seed, run.manifest) == (2, "1337", "0a1b2c")
    assert run.overrides == {"model_dim": "64", "name": "a = b"}
    assert (run.gpu, run.gpus, run.peak_memory_mib) == (None, None, 29226)
    first = run.source.count("\n") + 2
    assert run.env_line["torch"] == first + 1 and run.env_line["override model_dim"] == first + 6
    assert run.env_line["peak_memory_mib"] == run.lines
    assert run.telemetry_line.tolist() == [run.lines - 2]
    assert [(note.line, note.text) for note in run.fallbacks] == [
        (run.lines - 1, "fallback step:2 fp8 -> bf16: overflow")
    ]


def test_a_seed_and_a_manifest_of_none_are_none(read, pieces):
    run = read(pieces.log(environment="Running PyTorch 2.13.0 compiled for CUDA None\nseed=none\nmanifest=none\n"))
    assert run.seed is None and run.manifest is None


def test_several_runs_one_after_another_are_told_apart(read, pieces, said):
    run = read(pieces.log(metrics=pieces.metrics(loss=4) + pieces.metrics(loss=5) + pieces.metrics(loss=6)))
    first = run.lines - 3 * 13 + 1
    assert run.restart_line.tolist() == [first + 13, first + 26]
    assert said(run, "3 runs one after another") == first + 13
    assert [trial.final_val_loss for trial in run.trials()] == [3.9, 4.9, 5.9]
    assert all(trial.complete and len(trial.train_step) == 10 for trial in run.trials())


def test_an_ordinary_log_is_its_only_trial(read, pieces):
    run = read(pieces.log())
    assert run.trials() == (run,)


def test_the_run_id_is_the_logged_one_or_the_files_name(read, pieces):
    name = "f1b9e1a0-9f43-4a3b-8a53-0c5d2a1fbb0e"
    assert read(pieces.log(), f"{name}.txt").run_id == name
    assert read(pieces.log(), "notes.txt").run_id is None
    logged = pieces.log(environment="run_id=abc\n" + pieces.environment())
    assert read(logged, f"{name}.txt").run_id == "abc"


def test_the_digest_and_sizes_are_the_files(tmp_path, pieces):
    path = tmp_path / "x.log"
    path.write_text(pieces.log())
    run = read_log(path)
    content = path.read_bytes()
    assert (run.path, run.bytes, run.lines) == (str(path), len(content), content.count(b"\n"))
    assert run.digest == hashlib.sha256(content).hexdigest()


def test_a_stop_short_of_the_plan_is_complete_if_it_was_announced(read, pieces, said):
    lines = "step:5/10 val_loss:3.9000 train_time:300ms step_avg:60.00ms\n"
    announced = read(pieces.log(metrics="Using run_stop_step=5 train_steps=10\n" + lines))
    assert announced.complete and announced.stop_step == 5
    assert said(announced, "stops at step 5 of 10, as announced") == announced.lines
    for metrics in (lines, "Using run_stop_step=6 train_steps=10\n" + lines, lines + "Using run_stop_step=5\n"):
        assert not read(pieces.log(metrics=metrics)).complete
