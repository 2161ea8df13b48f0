"""The record contract, for every record of the archive: what its text must be, and how it must run.

`harness freeze` runs this file on one folder, named by the environment variable CONTRACT_RECORD.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.archive.find import load
from harness.archive.settings import read_settings
from harness.audit.script import audit_compiler, audit_contract, audit_hash, audit_imports
from harness.tokens import synthetic
from timing.log import Run, read_log

METRIC = re.compile(r"step:\d+/\d+ (val_loss:\d+\.\d{4} )?train_time:\d+ms step_avg:(\d+\.\d{2}|nan)ms")
ENVIRONMENT = ("Running Python ", "Running PyTorch ", "Running Triton version ", "world_size=", "seed=", "manifest=")
RULER = "=" * 100


@dataclass(frozen=True)
class Replay:
    """One smoke run of a script, as it left things behind."""

    ranks: int
    log: str
    stdout: str
    run: Run


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The synthetic shards, and their manifest."""
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, synthetic.ensure_synthetic(folder)


def start(script: Path, ranks: int, data_dir: Path, log_file: Path, settings: dict) -> subprocess.Popen:
    """Launch a smoke run as the contract says, one thread to a rank."""
    settings = {"data_dir": data_dir, "log_file": log_file, "seed": 1, **settings}
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    # Without these, glibc gives every big tensor back to the system and faults it in again.
    environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", str(script)]
    return subprocess.Popen(
        command + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def replays(record, data_dir: Path, folder: Path) -> dict[int, Replay]:
    """Smoke runs at 1 and at 2 ranks, side by side; the first with telemetry."""
    jobs = {}
    for ranks in (1, 2):
        settings = record.smoke | ({"telemetry_every": 10} if ranks == 1 else {})
        jobs[ranks] = start(record.script, ranks, data_dir, folder / f"{ranks}.txt", settings)
    results = {}
    try:
        for ranks, job in jobs.items():
            stdout, stderr = job.communicate(timeout=540)
            assert job.returncode == 0, f"{ranks} ranks, exit {job.returncode}: {stderr[:3000]} ... {stderr[-2000:]}"
            log = folder / f"{ranks}.txt"
            results[ranks] = Replay(ranks, log.read_text(encoding="utf-8"), stdout, read_log(log))
    finally:
        for job in jobs.values():
            job.kill()
    return results


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


@pytest.mark.timeout(600)
def test_it_runs_by_the_contract(folder, corpus, tmp_path):
    """At 1 and 2 ranks on the CPU: it learns, logs to the letter, and the two runs agree."""
    data_dir, manifest = corpus
    record = load(folder)
    both = replays(record, data_dir, tmp_path)
    for replay in both.values():
        log_holds_source_and_environment(record, replay, manifest)
        metric_lines_are_to_the_letter(record, replay)
        loss_falls_and_stays_above_the_floor(record, replay, manifest)
    curves_agree(both[1].run, both[2].run)
    telemetry_is_complete(both[1])
    assert "telemetry" not in both[2].log.split(RULER)[-1]


@pytest.mark.timeout(300)
def test_fp8_gives_way_once_it_clips_the_head(folder, corpus, tmp_path):
    """A learning rate that drives the head's weights out of fp8's range: the run says so, goes on in bf16 and ends."""
    record = load(folder)
    if "fp8" not in read_settings(record.script):
        pytest.skip("no fp8 in this record")
    settings = record.smoke | {"num_iterations": 12, "adam_learning_rate": 1.0}
    job = start(record.script, 1, corpus[0], tmp_path / "log.txt", settings)
    stdout, stderr = job.communicate(timeout=240)
    assert job.returncode == 0, stderr[-2000:]
    (fallback,) = [line for line in stdout.splitlines() if line.startswith("fallback ")]
    assert re.fullmatch(r"fallback step:10 fp8 -> bf16: \d+\.\d+% of the head's weights are beyond \d+\.\d+", fallback)
    run = read_log(tmp_path / "log.txt")
    assert run.complete and np.isfinite(run.final_val_loss)


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
    body = replay.log.split(RULER)[-1].strip().splitlines()
    metrics = [line for line in body if line.startswith("step:")]
    assert all(METRIC.fullmatch(line) for line in metrics), metrics
    assert [line for line in replay.stdout.splitlines() if line.startswith("step:")] == metrics
    assert re.fullmatch(r"peak memory allocated: \d+ MiB reserved: \d+ MiB", body[-1])
    steps, every = record.smoke["num_iterations"], record.smoke["val_loss_every"]
    assert replay.run.complete and replay.run.train_step.tolist() == list(range(1, steps + 1))
    assert replay.run.val_step.tolist() == sorted({*range(0, steps, every), steps})


def loss_falls_and_stays_above_the_floor(record, replay, manifest):
    first, last = replay.run.val_loss[0], replay.run.val_loss[-1]
    assert first - last >= record.smoke_margin
    assert last > manifest.entropy_nats


def curves_agree(one: Run, two: Run):
    """The same losses at any number of ranks, to the noise of floating point."""
    np.testing.assert_allclose(one.val_loss, two.val_loss, rtol=1e-3)


def telemetry_is_complete(replay):
    lines = [line for line in replay.log.splitlines() if line.startswith("telemetry step:")]
    assert [int(line.split()[1].removeprefix("step:")) for line in lines] == [0, 10]
    for line in lines:
        figures = dict(part.split(":", 1) for part in line.split()[1:])
        rms = json.loads(figures["activation_rms"])
        assert len(rms) >= 4 and all(value > 0 for value in rms)
        assert float(figures["grad_norm"]) > 0 and float(figures["weight_norm"]) > 0


def test_eight_is_shared_by_1_2_4_or_8(folder):
    """A number of ranks that cannot share a step is refused in one line, before anything starts."""
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, str(load(folder).script)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: 3 ranks cannot share 8 ")


def test_settings_are_the_published_ones(folder):
    """The defaults are the record's: its steps, and where it says so its tokens per step."""
    record = load(folder)
    settings = read_settings(record.script)
    if record.listed.steps:
        assert settings["num_iterations"].default == record.listed.steps
    assert settings["val_tokens"].default == 10_485_760
