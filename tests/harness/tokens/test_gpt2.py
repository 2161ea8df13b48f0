"""GPT-2's tokens: made of what the Hub has, right to the byte, or one clear line and no file."""

import base64
import dataclasses
import errno
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness.archive.find import resolve
from harness.cli import main
from harness.errors import UserError
from harness.machine import this_machine
from harness.replay.fidelity import LABELS
from harness.replay.plan import Options, make_plan
from harness.replay.rehearsal import names_needed
from harness.replay.tokens import prepare, reads_gpt2_tokens
from harness.tokens import gpt2
from harness.tokens import prepare as data
from harness.tokens.shards import write_shard

SPEC = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hub_server)

# Three of GPT-2's own spellings: " the", a line break, and the two bytes of "é"; and the one that stands for nothing
VOCABULARY = {"Ġthe": 1, "Ċ": 0, "Ã©": 2, "<|endoftext|>": 3}
LINES = b"Cg== 0\nIHRoZQ== 1\nw6k= 2\n"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(gpt2, "SHA256", hashlib.sha256(LINES).hexdigest())
    with hub_server.serving({"vocab.json": json.dumps(VOCABULARY).encode()}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield running


def test_spellings_become_bytes(server, tmp_path):
    path = gpt2.ensure_gpt2_tokens(tmp_path)
    assert path == tmp_path / "gpt2.tiktoken" and path.read_bytes() == LINES
    assert [base64.b64decode(line.split()[0]) for line in LINES.splitlines()] == [b"\n", b" the", "é".encode()]
    assert not [token for *_, token in server.requests if token]
    asked = len(server.requests)
    gpt2.ensure_gpt2_tokens(tmp_path)
    assert len(server.requests) == asked, "what is there is not fetched again"


def test_a_data_folder_gets_them_for_a_machine_without_a_network(server, tmp_path):
    said = CliRunner().invoke(main, ["data", "--synthetic", "--gpt2-tokens", "--data-dir", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert (tmp_path / gpt2.GPT2_TOKENS).read_bytes() == LINES


def test_every_byte_has_a_letter_of_its_own():
    assert sorted(gpt2.letters().values()) == list(range(256))


@pytest.mark.parametrize("sent", [b"{", b"[]", b'{"\\u4e00": 0}', b'{"a": 0}'])
def test_another_vocabulary_is_refused(server, tmp_path, sent):
    server.files["vocab.json"] = sent
    with pytest.raises(UserError, match=r"has another vocab\.json in openai-community/gpt2"):
        gpt2.ensure_gpt2_tokens(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status, said", [(404, "has no vocab.json"), (503, "answers 503")])
def test_a_hub_that_refuses_is_told(server, tmp_path, status, said):
    server.faults["vocab.json"] = [status]
    with pytest.raises(UserError, match=said):
        gpt2.ensure_gpt2_tokens(tmp_path)


def test_a_full_disk_is_told(server, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gpt2, "write_whole", full)
    with pytest.raises(UserError, match=r"gpt2\.tiktoken cannot be written: No space left on device"):
        gpt2.ensure_gpt2_tokens(tmp_path)


def test_a_file_that_is_not_gpt2s_is_left_alone(server, tmp_path):
    (tmp_path / gpt2.GPT2_TOKENS).write_bytes(LINES[:-1])
    with pytest.raises(UserError, match="does not hold GPT-2's tokens"):
        gpt2.ensure_gpt2_tokens(tmp_path)
    assert (tmp_path / gpt2.GPT2_TOKENS).read_bytes() == LINES[:-1]


def test_only_a_script_that_looks_into_them_takes_them(tmp_path):
    def plan(record, **options):
        return make_plan(resolve(record), Options(gpus=1, data_dir=tmp_path, **options), this_machine())

    assert not reads_gpt2_tokens(plan("40"))
    assert not reads_gpt2_tokens(plan("89")), "its smoke test does without"
    assert reads_gpt2_tokens(whole := plan("89", assignments=("prefix_loss=true",)))
    assert names_needed(whole) == "; gpt2.tiktoken to fetch, 1 MB"
    (tmp_path / gpt2.GPT2_TOKENS).touch()
    assert names_needed(whole) == ""


def test_a_replay_that_cannot_have_them_says_how_to_do_without(server, tmp_path):
    server.faults["vocab.json"] = [503]
    plan = make_plan(resolve("89"), Options(gpus=1, data_dir=tmp_path, smoke=True), this_machine())
    whole = dataclasses.replace(plan, label=LABELS["stand-in"], overrides={})
    describe(tmp_path)
    with pytest.raises(UserError, match=r"answers 503 for vocab.*; `--set prefix_loss=false` does without"):
        prepare(whole, repeat=True)
    server.faults["vocab.json"].clear()
    prepare(whole, repeat=True)
    assert (tmp_path / gpt2.GPT2_TOKENS).read_bytes() == LINES


def describe(folder):
    for name in ("val_000000", "train_000001"):
        write_shard(folder / f"fineweb_{name}.bin", np.arange(100))
    data.describe(folder, "books")
