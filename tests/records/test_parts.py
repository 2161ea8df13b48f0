"""The parts that many records share, each against its definition, in every record that has it."""

import math

import pytest
import torch
import torch.nn.functional as F
from fp8_head import head_loss, softcap


@pytest.fixture
def record(folder, definitions_in):
    torch.manual_seed(0)
    return definitions_in(folder)


def orthogonaliser(record):
    return getattr(record, "polar_express", None) or record.newton_schulz


@pytest.mark.defines("(Nor)?Muon")
@pytest.mark.parametrize("columns", [32, 128])
def test_muon_s_iteration_nears_the_polar_factor_of_an_svd(record, device, columns):
    """Singular values from 0.1 to 1 end near 1, singular vectors stay; zero stays zero, as in every first step."""
    u, _, v = torch.linalg.svd(torch.randn(2, 32, columns, dtype=torch.float64), full_matrices=False)
    matrices = u * torch.logspace(-1, 0, 32, dtype=torch.float64) @ v
    result = orthogonaliser(record)(matrices.float().to(device)).cpu().double()
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6 and values.max() < 1.25
    assert F.cosine_similarity(result.flatten(1), (u @ v).flatten(1)).min() > 0.97
    assert not orthogonaliser(record)(torch.zeros(1, 32, columns, device=device)).any()


def rotated(record, vector, tokens):
    """The same vector at every position of a row, after rotary."""
    options = {"head_dim": vector.numel(), "length": tokens, "base": 1024, "attention_scale": 0.1, "window_block": 8}
    names = record.Rotary.__init__.__code__.co_varnames
    rotary = record.Rotary(**{name: value for name, value in options.items() if name in names})
    x = vector.expand(tokens, 1, -1)
    if "paired" in record.Rotary.forward.__code__.co_varnames:
        return rotary(x, False)[:, 0]
    return rotary(x[None])[0, :, 0] if "batch_rows" in record.Settings.__dataclass_fields__ else rotary(x)[:, 0]


@pytest.mark.defines("Rotary")
def test_rotary_tells_distances(record):
    """What a query and a key make of each other depends on how far apart they are, and on nothing else: length and
    direction of the vectors come back."""
    query, key = torch.randn(2, 32)
    queries, keys = (rotated(record, vector, 64).double() for vector in (query, key))
    scores = queries @ keys.T
    for distance in (0, 1, 30):
        along = scores.diagonal(-distance)
        assert (along - along[0]).abs().max() < 0.02 * query.norm() * key.norm()
    assert scores[0, 0].item() == pytest.approx((query @ key).item(), abs=0.05)
    assert (scores.diagonal(-1)[0] - scores[0, 0]).abs() > 0.05


@pytest.mark.defines("block_mask", "dense_mask")
@pytest.mark.parametrize("window", [1, 2, 5, 100, 130, 10_000])
def test_block_mask_is_the_dense_mask(record, window):
    """What FlexAttention lets through, full tiles whole and partial ones by the rule, is what the CPU's mask does."""
    takes_block = "block" in record.block_mask.__code__.co_varnames[: record.block_mask.__code__.co_argcount]
    tile = 16 if takes_block else 128
    tokens = 10 * tile
    document = torch.zeros(tokens, dtype=torch.int64)
    document[torch.tensor([5, 128, 130, tokens - 2]) % tokens] = 1
    document = document.cumsum(0)
    if "Tensor" in str(record.block_mask.__annotations__["window"]):
        window, document = torch.tensor(window, dtype=torch.int32), document.int()
    options = (tile,) if takes_block else ()
    mask = record.block_mask(document, window, *options)
    size = mask.BLOCK_SIZE[0]

    def tiles(counts, indices):
        chosen = torch.zeros(tokens // size, tokens // size, dtype=torch.bool)
        for row, count in enumerate(counts[0, 0].tolist()):
            chosen[row, indices[0, 0, row, :count].long()] = True
        return chosen.repeat_interleave(size, 0).repeat_interleave(size, 1)

    position = torch.arange(tokens)
    ruled = mask.mask_mod(0, 0, position[:, None], position[None, :])
    partial = tiles(mask.kv_num_blocks, mask.kv_indices)
    full = tiles(mask.full_kv_num_blocks, mask.full_kv_indices)
    assert not (partial & full).any()
    assert torch.equal(full | partial & ruled, record.dense_mask(document, window, *options))


@pytest.mark.defines("FP8HeadLoss")
@pytest.mark.parametrize("tokens", [1, 96])
def test_fp8_head_nears_the_exact_one(record, tokens):
    """Loss and both gradients against fp32's, the loss being the mean over the tokens or their sum."""
    x = F.rms_norm(torch.randn(tokens, 64), (64,)).bfloat16()
    weight, targets = (0.2 * torch.randn(160, 64)).bfloat16(), torch.randint(0, 160, (tokens,))
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = head_loss(record, *leaves, targets)
    (loss / 4).backward()
    exact = [x.float().requires_grad_(), weight.float().requires_grad_()]
    cap, shift, width = softcap(record)
    mean = F.cross_entropy(cap * torch.sigmoid((exact[0] @ exact[1].T + shift) / width), targets)
    factor = round((loss / mean).item())
    assert factor in (1, tokens) and loss.item() == pytest.approx(factor * mean.item(), rel=1e-2)
    (factor * mean / 4).backward()
    for leaf, expected in zip(leaves, exact):
        error = (leaf.grad.float() - expected.grad).norm() / expected.grad.norm()
        assert error < 0.1 and not math.isnan(error)  # e5m2 has two bits of mantissa
