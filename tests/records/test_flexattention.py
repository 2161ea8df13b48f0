"""Record 12's mask, attention and distributed Muon against their definitions, and its schedules against the sheet."""

import math

import pytest
import torch
from references import relative_error

DOCUMENT_START = 50256


@pytest.fixture
def record(definitions_of):
    return definitions_of("12")


def documents_with_starts(length, starts, device="cpu"):
    tokens = torch.zeros(length, dtype=torch.int64, device=device)
    tokens[starts] = DOCUMENT_START
    return (tokens == DOCUMENT_START).cumsum(0)


def test_the_rule_is_causal_within_the_window_of_a_document(record):
    """Ten tokens, documents 0..3 and 4..9, window 3, written out by hand. A separator opens its document."""
    seen = [[0], [0, 1], [0, 1, 2], [1, 2, 3], [4], [4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8], [7, 8, 9]]
    mask = record.dense_mask(documents_with_starts(10, [4]), window=3)
    assert [row.nonzero().flatten().tolist() for row in mask] == seen


@pytest.mark.parametrize("window", [1, 100, 129, 130, 255, 256, 1024])
def test_tiles_are_those_of_the_dense_mask(record, window):
    """Full tiles are those without a forbidden pair, partial ones have both kinds; borders lie on and beside tiles."""
    documents = documents_with_starts(1280, [5, 128, 383, 640, 641, 1000])
    dense = record.dense_mask(documents, window).view(10, 128, 10, 128).transpose(1, 2).flatten(2)
    blocks = record.block_mask(documents, window)

    def tiles(count, indices):
        chosen = torch.zeros(10, 10, dtype=torch.bool)
        for row in range(10):
            chosen[row, indices[0, 0, row, : count[0, 0, row]].long()] = True
        return chosen

    assert torch.equal(tiles(blocks.kv_num_blocks, blocks.kv_indices), dense.any(-1) & ~dense.all(-1))
    assert torch.equal(tiles(blocks.full_kv_num_blocks, blocks.full_kv_indices), dense.all(-1))


def test_dense_attention_is_a_softmax_over_what_is_seen(record):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 64, 2, 16, dtype=torch.float64).unbind()
    mask = record.dense_mask(documents_with_starts(64, [7, 30]), window=12)
    result = record.attend(query, key, value, mask)
    for t in range(64):
        seen = [s for s in range(max(0, t - 11), t + 1) if (s >= 7) == (t >= 7) and (s >= 30) == (t >= 30)]
        weights = torch.softmax(torch.einsum("hd,shd->hs", query[t], key[seen]) / math.sqrt(16), dim=-1)
        torch.testing.assert_close(result[t], torch.einsum("hs,shd->hd", weights, value[seen]))


def test_flex_attention_is_the_dense_one(record, device):
    """Forward, and on a GPU (FlexAttention has no backward on the CPU) all gradients."""
    documents = documents_with_starts(1280, [5, 128, 383, 640, 641, 1000], device)
    inputs = torch.randn(3, 1280, 2, 64, device=device).bfloat16()
    gradient = torch.randn(1280, 2, 64, device=device).bfloat16()
    outputs = []
    for mask in (record.block_mask(documents, 300), record.dense_mask(documents, 300)):
        leaves = [x.clone().requires_grad_(device.type == "cuda") for x in inputs.unbind()]
        out = record.attend(*leaves, mask)
        outputs.append([out])
        if device.type == "cuda":
            out.backward(gradient)
            outputs[-1] += [leaf.grad for leaf in leaves]
    for flex, dense in zip(*outputs):
        assert relative_error(flex, dense) < 1e-2


def test_muon_spread_over_ranks_is_muon(record, one_rank, monkeypatch):
    """Against the sheet's rule for one matrix at a time: on one rank, then the parts of two ranks added up."""
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((16, 16), (64, 16), (16, 64), (16, 16), (16, 16))]
    gradients = [torch.randn_like(matrix) for matrix in start]
    expected = []
    for matrix, gradient in zip(start, gradients):
        update = record.newton_schulz(1.9 * gradient[None])[0].float()  # gradient + 0.9 * momentum, from rest
        expected.append(-0.02 * math.sqrt(max(1, matrix.size(0) / matrix.size(1))) * update)

    def moves(rank, world_size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)
        matrices = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        for matrix, gradient in zip(matrices, gradients):
            matrix.grad = gradient.clone()
        record.Muon(matrices, learning_rate=0.04).step(multiplier=0.5, momentum=0.9)
        return [(matrix - before).detach() for matrix, before in zip(matrices, start)]

    alone, first, second = moves(0, 1), moves(0, 2), moves(1, 2)
    for i, move in enumerate(expected):
        assert relative_error(alone[i], move) < 2e-2
        assert relative_error(first[i] + second[i], move) < 2e-2
        assert (second if i % 2 == 0 else first)[i].abs().max() == 0


def test_the_first_loss_is_that_of_a_zero_head(record):
    settings = record.Settings(vocab_size=512, num_layers=2, model_dim=64, num_heads=2, mlp_dim=64, row_tokens=64)
    tokens = torch.randint(0, 512, (65,))
    loss = record.GPT(settings)(tokens[:-1], tokens[1:])
    assert loss.item() == pytest.approx(math.log(512), abs=1e-4)


def test_parameters_are_those_of_the_sheet(record):
    model = record.GPT(record.Settings(vocab_size=128, row_tokens=128))
    assert sum(p.numel() for p in model.parameters()) + 2 * (50304 - 128) * 768 == 162_201_642
    assert sum(p.numel() for p in model.parameters() if p.ndim < 2) == 42
    assert {p.dtype for p in model.parameters() if p.ndim < 2} == {model.embedding.weight.dtype} == {torch.bfloat16}
    weight = model.blocks[0].mlp.up.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, weight.bfloat16().float())


def test_schedules_hit_the_sheet_s_values(record):
    assert [record.learning_rate_multiplier(step) for step in (0, 1312, 1313)] == [1.0, 1.0, 1.0]
    assert record.learning_rate_multiplier(1874) == pytest.approx(1 / 562)
    for step, momentum in {0: 0.85, 250: 0.90, 500: 0.95, 1874: 0.95}.items():
        assert record.muon_momentum(step) == pytest.approx(momentum)
