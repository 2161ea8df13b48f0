"""The record contract, for every record of the archive: what its text must be, and how it must run.

`harness freeze` runs this file on one folder, named by the environment variable CONTRACT_RECORD.
"""

import json
import re
from functools import partial

import numpy as np
import pytest
import smoke

from harness.archive.find import load
from harness.archive.settings import read_settings
from harness.audit.script import audit_compiler, audit_contract, audit_hash, audit_imports

METRIC = re.compile(r"step:\d+/\d+ (val_loss:\d+\.\d{4} )?train_time:\d+ms step_avg:(\d+\.\d{2}|nan)ms")
ENVIRONMENT = ("Running Python ", "Running PyTorch ", "Running Triton version ", "world_size=", "seed=", "manifest=")
RULER = "=" * 100


def test_the_text_keeps_the_contract(folder):
    """Docstring, sections, settings, imports, compiler flags and hash, by the audit's own rules."""
    record = load(folder)
    findings = [audit_hash(record), *audit_contract(record), audit_imports(record), audit_compiler(record)]
    assert not [finding.text for finding in findings if finding.status == "fail"]


def test_the_docstring_makes_the_claim(folder):
    """Number and date in the first line; then, under these names, what a reader looks for."""
    record = load(folder)
    text = record.script.read_text(encoding="utf-8").split('"""')[1]
    if record.sha256:
        assert text.startswith(f"Record {record.number} · {record.date} · ")
    for heading in ("Claim", "Hardware", "New", "Parent", "Credit", "Source", "Rules", "Run"):
        assert re.search(rf"^{heading}  ", text, re.M), heading


# What does not move in four steps: the first layer's mix of its values with themselves, and a gate whose strength is
# zero until Adam's first step, where Adam steps every other time.
IDLE = ("blocks.0.attention.value_mix", "smear_gate")


@pytest.mark.timeout(300)
def test_it_runs_by_the_contract(folder, corpus, tmp_path):
    """At 2 ranks on the CPU, with telemetry: it learns, and logs to the letter."""
    data_dir, manifest = corpus
    record = load(folder)
    every = record.smoke["num_iterations"] // 2
    with smoke.start(record, 2, data_dir, tmp_path, telemetry_every=every) as job:
        replay = smoke.finish(job)
    log_holds_source_and_environment(record, replay, manifest)
    metric_lines_are_to_the_letter(record, replay)
    loss_falls_and_stays_above_the_floor(record, replay, manifest)
    telemetry_is_complete(replay, every)


@pytest.mark.timeout(300)
def test_four_ranks_train_as_one(folder, corpus, tmp_path):
    """Four rows a step, on one rank and, with memory full of NaN, on four: all end with the same weights. So gradients
    are shared out and averaged and updates gathered as they should be, and nothing is read that nobody has written.

    Curves would hide much, since a step's length does not follow the gradient's; the weights do not. All is in fp32, so
    that little is left to rounding, and Adam's epsilon lies above the first gradients of mixes and value tables, which
    are rounding and nothing else. Four steps: Adam steps at least once in each record, Muon twice."""
    record = load(folder)
    settings = {"num_iterations": 4, "val_loss_every": 0, "adam_epsilon": 1e-4, **smoke.shortest_step(record, 4)}
    if "activation_headroom" in read_settings(record.script):
        settings["fp8"] = False  # scales that lag by a pass depend on which rank has which row
    ended = {}
    for ranks in (1, 4):
        place = tmp_path / str(ranks)
        before = partial(smoke.keep_weights, place, poisoned=ranks > 1)
        with smoke.start(record, ranks, corpus[0], place, before, **settings) as job:
            replay = smoke.finish(job)
        assert not [line for line in replay.body if line.startswith("telemetry")]
        ended[ranks] = [np.load(place / f"{rank}-last.npz") for rank in range(ranks)]
    weights_agree(np.load(tmp_path / "1" / "0-first.npz"), *ended[1], ended[4])


@pytest.mark.timeout(300)
def test_a_nan_ends_the_run(folder, corpus, tmp_path):
    """Gradients that are NaN on one rank of two, in one step: the next step's loss ends the run on both, in one line.
    Nothing hangs, and a record with fp8 does not mistake NaN for large weights."""
    record = load(folder)
    settings = {"num_iterations": 6, "val_loss_every": 0, "telemetry_every": 1} | smoke.shortest_step(record)
    with smoke.start(record, 2, corpus[0], tmp_path, smoke.spoil_the_gradients, **settings) as job:
        first, second = job.wait()
    assert (first.code, second.code) == (1, 1), second.stderr[-3000:]
    stopped = r"at step ([23]): training loss nan, [1-9]\d* weights are not finite, \S+ among them"
    match = re.fullmatch(f"error: stopped {stopped}\n", first.stderr)
    assert match, first.stderr[-3000:]
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert log.splitlines()[-1] == f"stopped step:{match[1]}" + first.stderr.strip().partition(f"step {match[1]}:")[2]
    assert "fallback" not in first.stdout


@pytest.mark.timeout(300)
def test_fp8_gives_way_once_it_clips_the_head(folder, corpus, tmp_path):
    """A learning rate that drives the head's weights out of fp8's range: the run says so at the next validation, goes
    on in bf16 and ends."""
    record = load(folder)
    known = read_settings(record.script)
    if "fp8" not in known:
        pytest.skip("no fp8 in this record")
    rate = {"head_learning_rate": 30.0} if "head_learning_rate" in known else {"adam_learning_rate": 1.0}
    settings = {"num_iterations": 3, "val_loss_every": 2} | rate | smoke.shortest_step(record)
    with smoke.start(record, 1, corpus[0], tmp_path, **settings) as job:
        replay = smoke.finish(job)
    (fallback,) = [line for line in replay.stdout.splitlines() if line.startswith("fallback ")]
    said = r"fallback step:2 fp8 -> bf16: \d+\.\d+% of the head's weights are beyond \d+\.\d+"
    assert re.fullmatch(said, fallback)
    assert replay.run.complete and np.isfinite(replay.run.final_val_loss)


def log_holds_source_and_environment(record, replay, manifest):
    source = record.script.read_text(encoding="utf-8")
    assert replay.log.startswith(f"{source}\n{RULER}\nRunning Python ")
    environment = replay.log[len(source) :].split(RULER)[1].strip().splitlines()
    facts = [line for line in environment if line.startswith(ENVIRONMENT)]
    assert [next(start for start in ENVIRONMENT if line.startswith(start)) for line in facts] == list(ENVIRONMENT)
    assert f"world_size={replay.ranks} accumulation={8 // replay.ranks}" in environment
    assert "seed=1" in environment
    assert f"manifest={manifest.digest}" in environment
    logged = {line.removeprefix("override ") for line in environment if line.startswith("override ")}
    assert logged == {f"{name}={value}" for name, value in record.smoke.items()}


def metric_lines_are_to_the_letter(record, replay):
    metrics = [line for line in replay.body if line.startswith("step:")]
    assert all(METRIC.fullmatch(line) for line in metrics), metrics
    assert [line for line in replay.stdout.splitlines() if line.startswith("step:")] == metrics
    assert re.fullmatch(r"peak memory allocated: \d+ MiB reserved: \d+ MiB", replay.body[-1])
    steps, every = record.smoke["num_iterations"], record.smoke["val_loss_every"]
    assert replay.run.complete and replay.run.train_step.tolist() == list(range(1, steps + 1))
    assert replay.run.val_step.tolist() == sorted({*range(0, steps, every), steps})


def loss_falls_and_stays_above_the_floor(record, replay, manifest):
    first, last = replay.run.val_loss[0], replay.run.val_loss[-1]
    assert first - last >= record.smoke_margin
    assert last > manifest.entropy_nats


def weights_agree(first, alone, together: list):
    """Weights by name, before the first step and after the last, on one rank and on each of several. All have moved."""
    for name in first:
        assert all(np.array_equal(together[0][name], other[name]) for other in together), f"{name} differs by rank"
        step = np.linalg.norm(alone[name] - first[name])
        apart = np.linalg.norm(together[0][name] - alone[name])
        assert apart <= 0.002 * step, f"{name} moved by {step:.3g}, on several ranks to {apart:.3g} from there"
        assert step > 0 or name in IDLE, f"{name} has not moved"


def telemetry_is_complete(replay, every):
    lines = [line for line in replay.body if line.startswith("telemetry step:")]
    steps = [int(line.split()[1].removeprefix("step:")) for line in lines]
    assert steps == list(range(0, replay.run.train_step[-1], every))
    for line in lines:
        figures = dict(part.split(":", 1) for part in line.split()[1:])
        rms = json.loads(figures["activation_rms"])
        assert len(rms) >= 4 and all(value > 0 for value in rms)
        assert float(figures["grad_norm"]) > 0 and float(figures["weight_norm"]) > 0


def test_eight_is_shared_by_1_2_4_or_8(folder, tmp_path):
    """A number of ranks that cannot share a step is refused in one line, before anything starts."""
    with smoke.start(load(folder), 3, tmp_path, tmp_path) as job:
        for rank in job.wait():
            assert rank.code == 2 and re.fullmatch(r"error: 3 ranks cannot share 8 .*\n", rank.stderr)
    assert not (tmp_path / "log.txt").exists()


def test_settings_are_the_published_ones(folder):
    """The defaults are the record's: its steps, and where it says so its tokens per step."""
    record = load(folder)
    settings = read_settings(record.script)
    if record.listed.steps:
        assert settings["num_iterations"].default == record.listed.steps
    assert settings["val_tokens"].default == 10_485_760
