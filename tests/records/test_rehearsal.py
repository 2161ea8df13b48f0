"""Whole scripts, at the record's size and as rank 0 of 8, on tensors without values: what `test_tracing.py` cannot see,
since a tensor on the CPU never takes the way of one on CUDA, is traced here: kernels, attention, products of 8 bits.
That a kernel takes what it is launched with is for `test_compiled.py` to say.

It takes a minute or two a record: REHEARSAL=1 asks for it, before a script goes to a GPU.
"""

import base64
import os

import compiling
import kernels
import numpy as np
import pytest
import rehearsing

from harness.archive.settings import read_settings
from harness.tokens.shards import write_shard

pytestmark = pytest.mark.skipif(not os.environ.get("REHEARSAL"), reason="dear: asked for by REHEARSAL=1")


@pytest.fixture(scope="module")
def long_documents(tmp_path_factory):
    """Shards in which a step of any record finds enough documents, and as many tokens' names as GPT-2 has."""
    folder, generator = tmp_path_factory.mktemp("long"), np.random.default_rng(0)
    for name, size in (("val_000000", 11_000_000), ("train_000001", 12_000_000), ("train_000002", 12_000_000)):
        tokens = generator.integers(0, 50256, size).astype(np.uint16)
        tokens[::600] = 50256
        write_shard(folder / f"fineweb_{name}.bin", tokens)
    names = (f"{base64.b64encode(str(token).encode()).decode()} {token}\n" for token in range(50256))
    (folder / "gpt2.tiktoken").write_text("".join(names))
    return folder


@pytest.mark.timeout(600)
def test_the_script_runs_on_tensors_without_values(folder, long_documents, triton, tmp_path):
    """Warmup, three steps, validation and telemetry."""
    rehearsed(folder / "train.py", long_documents, tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.defines("flash4_attend")
def test_so_it_does_with_flashattention_4(folder, long_documents, triton, tmp_path):
    """As if its package were here: its operators have shapes without it."""
    text = (folder / "train.py").read_text(encoding="utf-8")
    script = tmp_path / "train.py"
    script.write_text(text.replace("\nflash4 = None", "\nflash4 = True"), encoding="utf-8")
    assert script.read_text(encoding="utf-8") != text
    rehearsed(script, long_documents, tmp_path)


def rehearsed(script, data, tmp_path):
    log = tmp_path / "log.txt"
    settings = {"data_dir": data, "log_file": log, "val_loss_every": 2, "telemetry_every": 2}
    if "warmup_iterations" in read_settings(script):
        settings["warmup_iterations"] = 3  # one for each window
    arguments = [str(text) for name, value in settings.items() for text in (f"--{name}", value)]
    with kernels.process(compiling.begin, tmp_path / "triton") as call:
        captured = call(rehearsing.rehearse, script, 8, 3, arguments)
    assert captured["unique_graphs"] >= 2  # of training and of validation
    assert "step:2/" in log.read_text() and "telemetry step:2" in log.read_text()
