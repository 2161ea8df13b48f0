"""Record 01 against its sheet's figures."""

import math

import pytest
import torch


@pytest.fixture
def record(definitions_of):
    return definitions_of("01")


def test_learning_rate_hits_the_sheet_s_values(record):
    """Sheet 01: to the precision of the public log."""
    expected = {0: 6e-4 / 700, 699: 6e-4, 700: 6e-4, 5000: 5.263e-4, 10_130: 3.0e-4, 15_000: 8.25e-5}
    for step, rate in expected.items():
        assert record.learning_rate(step) == pytest.approx(rate, rel=1e-3)
    assert record.learning_rate(19_559) == pytest.approx(4.2e-12, rel=0.05)


def test_parameters_are_those_of_the_sheet(record):
    settings = record.Settings(padded_vocab_size=128, vocab_size=120)
    model = record.GPT(settings)
    assert sum(p.numel() for p in model.parameters()) + (50304 - 128) * 768 == 124_475_904
    assert model.blocks[3].attention.output.weight.std().item() == pytest.approx(0.02 / math.sqrt(24), rel=1e-2)
    assert model.blocks[3].attention.query_key_value.weight.std().item() == pytest.approx(0.02, rel=1e-2)
    assert model.embedding.weight[120:].abs().max() == 0
    assert all(block.mlp.up.bias.abs().max() == 0 for block in model.blocks)


def test_padding_is_left_out_of_the_softmax(record):
    """However large the padding's logits, the loss does not see them."""
    settings = record.Settings(
        padded_vocab_size=64, vocab_size=60, num_layers=1, model_dim=32, num_heads=2, mlp_dim=64, row_tokens=16
    )
    model = record.GPT(settings)
    tokens = torch.randint(0, 60, (2, 16))
    before = model(tokens, tokens)
    model.embedding.weight.data[60:] = 100.0
    assert torch.equal(model(tokens, tokens), before)


def test_attention_is_causal_within_a_row(record):
    """A later token changes no earlier output, nor anything in another row."""
    settings = record.Settings(num_layers=2, model_dim=32, num_heads=2, mlp_dim=64, row_tokens=16)
    model = record.GPT(settings)
    tokens = torch.randint(0, 50257, (2, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 50257
    before, after = model.hidden(tokens)[0], model.hidden(changed)[0]
    assert torch.equal(before[0, :10], after[0, :10]) and torch.equal(before[1], after[1])
    assert not torch.equal(before[0, 10:], after[0, 10:])
