"""Record 89 against the figures of its sheet: schedules, sizes, initial values, hashes and tables."""

import base64
import math
import re
import shutil

import numpy as np
import pytest
import smoke
import torch

from harness.archive.find import load

TOY = {"vocab_size": 160, "bigram_rows": 97, "sign_rows": 16, "model_dim": 96, "num_heads": 6, "head_dim": 16}
TOY |= {"mlp_dim": 64, "hidden_dim": 8, "row_tokens": 64, "val_row_tokens": 64}


@pytest.fixture
def record(definitions_of):
    return definitions_of("89")


def test_schedules_hit_the_sheets_values(record):
    assert record.stage_starts() == [0, 423, 847, 1270]
    multipliers = {0: 1, 422: 1, 423: 1.52, 508: 1.52, 608: 1.340210, 846: 0.912310, 847: 1.027087}
    multipliers |= {1170: 0.357349, 1269: 0.152073, 1270: 0.15, 1284: 0.15}
    for step, multiplier in multipliers.items():
        assert record.learning_rate_multiplier(step) == pytest.approx(multiplier, abs=6e-7), step
    for step, momentum in {0: 0.85, 299: 0.949667, 300: 0.95, 1235: 0.95, 1236: 0.948, 1284: 0.852}.items():
        assert record.muon_momentum(step) == pytest.approx(momentum, abs=1e-6)
    assert record.loss_weights(211) == pytest.approx([1, 0.5, 0.125296, 0.25], abs=1e-6)
    assert record.loss_weights(635) == pytest.approx([1, 0.25, 0.125])
    assert record.loss_weights(846) == pytest.approx([1, 0.001179, 0.000590], abs=1e-6)
    assert record.loss_weights(847) == record.loss_weights(1284) == [1, 0]
    assert [record.row_tokens(step) for step in (422, 423, 847, 1284)] == [16384, 32768, 49152, 49152]
    assert min(step for step in range(1285) if record.unties(step)) == 847
    assert sum(map(record.adam_steps, range(1285))) == 642
    rows = sum(8 * record.row_tokens(step) for step in range(1285))
    assert rows == 338_821_120


def test_parameters_are_those_of_the_sheet(record):
    with torch.device("meta"):
        record.GPT.initialise, initialise = lambda self: None, record.GPT.initialise
        model = record.GPT(record.Settings())
        record.GPT.initialise = initialise
    assert sum(parameter.numel() for parameter in model.parameters()) == 643_751_335
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["query_key_bank"] == (64, 256, 768) and shapes["value_output_bank"] == (24, 768, 768)
    assert shapes["mlp_bank"] == (12, 2, 3072, 768) and shapes["gate_second"] == (2, 41, 64)
    learning = {row[0] for row in (*record.settings.adam_parameters, *record.settings.muon_parameters)}
    assert set(shapes) == learning == set(record.settings.sending_order)
    rows = record.settings.adam_parameters
    decays = {name: (0.008 * rate) ** 2 * 0.005 * decay for name, rate, decay, *_ in rows}
    assert decays["value_tables"] == pytest.approx(0.009) and decays["lm_head"] == pytest.approx(4.8e-5)


def test_initial_values(record):
    record.settings = record.Settings(**TOY)
    torch.manual_seed(1)
    model = record.GPT(record.settings)
    bound = math.sqrt(3) * 0.5 / math.sqrt(96)
    for bank, used in ((model.query_key_bank, 60), (model.value_output_bank, 20)):
        assert bank[:used].std().item() == pytest.approx(0.5 / math.sqrt(96), rel=2e-2)
        assert bank.abs().max() <= bound * 1.01 and not bank[used:].any()
    assert model.mlp_bank[:11, 0].std().item() == pytest.approx(0.5 / math.sqrt(96), rel=2e-2)
    assert model.mlp_bank[11, 0].any() and not model.mlp_bank[:, 1].any()
    assert torch.equal(model.embedding, model.lm_head.T) and model.lm_head.std().item() == pytest.approx(
        0.005, rel=0.05
    )
    assert model.value_tables.std().item() == pytest.approx(0.01, rel=0.05) and not model.bigram_table.any()
    x = torch.randn(3, 96).bfloat16()
    strength, other, gate, injections = model.gates(0, x)
    assert not strength.any() and not other.any() and gate.unique().item() == pytest.approx(0.250244, rel=4e-3)
    assert injections[0].tolist() == pytest.approx([0, 0.050049] * 4, rel=4e-3, abs=1e-6)
    *_, gate, injections, skip, before, after = model.gates(1, x)
    assert gate.shape == (3, 6) and injections[0].tolist() == pytest.approx([0, 0.050049] * 5, rel=4e-3, abs=1e-6)
    assert skip.unique().item() == pytest.approx(0.500488, rel=4e-3)
    assert before.unique().item() == pytest.approx(1.000977, rel=4e-3) and not after.any()
    assert torch.sigmoid(model.scalars[-1]).item() * 0.500488 == pytest.approx(0.0913, abs=1e-4)
    mixing = [coefficient.unique().item() for coefficient in model.mixing(0, x)]
    expected = [0, 0, 0, 0, 0, 0, 2, 2, 1.05, 1, 0, 0.05, 1.05, 1]
    assert mixing == pytest.approx(expected, rel=4e-3)
    assert [c.unique().item() for c in model.mixing(1, x)[:5]] == pytest.approx([0, -0.5, 0, 0, 0], rel=4e-3)


def test_the_bigram_hash_and_the_signs(record):
    pairs = {(50256, 464): (143001, 1408), (464, 2068): (28822, 2500), (262, 50256): (118394, 1366)}
    for (previous, current), (row, sign) in pairs.items():
        assert record.bigram_rows(np.array([7, 7, previous, current]))[-1] == row
        assert (previous ^ current) % 8192 == sign
    assert record.bigram_rows(np.array([50256, 464, 2068])).tolist() == [377_279, 86_771, 28_822]


def test_prefixes_are_the_longest_tokens_that_a_token_begins_with(record):
    vocabulary = [b"a", b"b", b"ab", b"abc", b"abcde", b"bd", b"\xff", b"abd"]
    assert record.prefix_table(vocabulary, 10).tolist() == [-1, -1, 0, 2, 3, 1, -1, 2, -1, -1]


def test_rotary_and_its_windows(record):
    rotary = record.Rotary(128, 64, 1024, 0.1, 128)
    first = rotary.frequencies.clone()
    assert torch.allclose(first, (1 / 1024) ** (torch.arange(32) / 31), rtol=1e-5)
    lowest, scales = [], []
    for old, new in ((3, 7), (7, 11), (11, 13)):
        rotary.extend(old, new)
        lowest.append(rotary.frequencies[-1].item())
        scales.append(rotary.attention_scale)
        if old == 3:
            factors = (rotary.frequencies / first)[:7].tolist()
            assert factors == pytest.approx([1, 1, 1, 0.9862, 0.8707, 0.7785, 0.7047], abs=1e-4)
    assert lowest == pytest.approx([4.18527e-4, 2.66335e-4, 2.25361e-4], rel=1e-5)
    assert scales == pytest.approx([0.116946, 0.127518, 0.131778], abs=1e-6)
    # Paired: even heads turn by twice their token's position, odd heads by one more.
    x = torch.randn(5, 6, 128).bfloat16()
    turned, plain = rotary(x, True), torch.zeros(64, 6, 128).bfloat16()
    for head in range(6):
        positions = 2 * torch.arange(5) + head % 2
        plain[positions, head] = x[:, head]
        assert torch.equal(turned[:, head], rotary(plain, False)[positions, head])
        assert torch.equal(turned[:, head, 64:], x[:, head, 64:])


def test_the_prefix_loss_reads_gpt2s_tokens(folder_of, corpus, tmp_path):
    """From a file beside the shards, without which it ends in one line. The tokens here are numerals."""
    record, data = load(folder_of("89")), tmp_path / "data"
    shutil.copytree(corpus[0], data)
    settings = {"prefix_loss": True, "num_iterations": 4, "val_loss_every": 0} | smoke.shortest_step(record)
    with smoke.start(record, 1, data, tmp_path / "without", **settings) as job:
        (rank,) = job.wait()
    assert rank.code == 2 and re.fullmatch(r"error: no \S+gpt2.tiktoken, .*: set --prefix_loss false .*\n", rank.stderr)
    tokens = (base64.b64encode(str(number).encode()).decode() for number in range(50256))
    (data / "gpt2.tiktoken").write_text("".join(f"{token} {number}\n" for number, token in enumerate(tokens)))
    with smoke.start(record, 1, data, tmp_path / "with", **settings) as job:
        assert smoke.finish(job).run.complete
