"""Record 24's parts against their definitions and its sheet's figures."""

import math

import pytest
import torch


@pytest.fixture
def record(definitions_of):
    return definitions_of("24")


def documents(length, starts, device="cpu"):
    """Document numbers of a row in which documents start at these positions."""
    separators = torch.zeros(length, dtype=torch.bool, device=device)
    separators[starts] = True
    return separators.cumsum(0, dtype=torch.int32)


@pytest.mark.parametrize("shape", [(48, 48), (96, 24), (24, 96), (3, 32, 32)])
def test_newton_schulz_nears_the_polar_factor_of_an_svd(record, shape):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    matrices = u * s.clamp(min=0.1 * s.max()).unsqueeze(-2) @ v  # no singular value too small to be lifted
    singular_values = torch.linalg.svdvals(record.newton_schulz(matrices).float())
    assert singular_values.min() > 0.6 and singular_values.max() < 1.25
    assert (
        torch.nn.functional.cosine_similarity(record.newton_schulz(matrices).float().flatten(), (u @ v).flatten(), 0)
        > 0.97
    )
    assert record.newton_schulz(torch.zeros(shape)).abs().max() == 0


def test_dense_mask_by_hand(record):
    """Blocks of 2, window of 2 blocks, documents 0..4 and 5..7."""
    mask = record.dense_mask(documents(8, [5]), torch.tensor(2), block=2)
    seen = [[key for key in range(8) if mask[query, key]] for query in range(8)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [2, 3, 4], [5], [5, 6], [5, 6, 7]]


@pytest.mark.parametrize("window", [1, 2, 5, 100])
def test_block_mask_lists_the_blocks_of_the_dense_mask(record, window):
    document = documents(320, [3, 32, 100, 160, 161, 250])
    dense = record.dense_mask(document, torch.tensor(window), 16).view(20, 16, 20, 16).transpose(1, 2).flatten(2)
    mask = record.block_mask(document, torch.tensor(window), 16)
    for counts, lists, expected in (
        (mask.full_kv_num_blocks, mask.full_kv_indices, dense.all(-1)),
        (mask.kv_num_blocks, mask.kv_indices, dense.any(-1) & ~dense.all(-1)),
    ):
        for row in range(20):
            listed = set(lists[0, 0, row, : counts[0, 0, row]].tolist())
            assert listed == set(expected[row].nonzero().flatten().tolist())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_flex_attention_is_the_dense_one(record):
    document = documents(1024, [3, 300, 512, 900], "cuda")
    inputs = [torch.randn(1024, 6, 128, device="cuda").bfloat16() for _ in range(3)]
    flex_mask = record.block_mask(document, torch.tensor(3, device="cuda"), 128)
    dense_mask = record.dense_mask(document.cpu(), torch.tensor(3), 128).cuda()
    results = []
    for mask in (flex_mask, dense_mask):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = record.fast(record.attend)(*leaves, mask, 0.12)
        out.sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for flex, dense in zip(*results):
        assert (flex - dense).norm() < 1e-2 * dense.norm()


def test_bucket_sets_off_with_the_last_gradient_of_a_step(record, one_rank):
    """Two backward passes make a step; the gradient that arrives is their sum, and the parameter's own is cleared."""
    parameter = torch.nn.Parameter(torch.zeros(4, 2))
    bucket = record.Bucket([parameter], whole=False, passes=2)
    parameter.sum().backward()
    assert bucket.missing == 1 and parameter.grad is not None
    (3 * parameter).sum().backward()
    assert parameter.grad is None
    assert torch.equal(bucket.receive(), torch.full((4, 2), 4.0))
    assert bucket.missing == 2


def test_muon_scales_tall_matrices_up(record, one_rank):
    """One step from rest along the polar factor; a matrix taller than wide moves sqrt(rows/columns) times as far."""
    tall, batch = torch.nn.Parameter(torch.zeros(32, 8)), torch.nn.Parameter(torch.zeros(3, 8, 8))
    muon = record.Muon([tall, batch], learning_rate=0.5, gradient_scale=1.0, passes=1)
    gradients = [torch.randn(32, 8), torch.randn(3, 8, 8)]
    ((tall * gradients[0]).sum() + (batch * gradients[1]).sum()).backward()
    muon.step(multiplier=0.1, momentum=0.9)
    for parameter, gradient, factor in zip((tall, batch), gradients, (2, 1)):
        expected = -0.05 * factor * record.newton_schulz(gradient).float()
        assert (parameter - expected).norm() < 0.08 * expected.norm()


def test_muon_remembers_and_looks_ahead(record, one_rank):
    """Momentum, then Nesterov, spelled out over two steps with different gradients."""
    torch.manual_seed(0)
    matrix, rate, momentum = torch.nn.Parameter(torch.zeros(16, 64)), 0.05, 0.8
    muon = record.Muon([matrix], learning_rate=rate, gradient_scale=0.5, passes=1)
    buffer, expected = torch.zeros(16, 64), torch.zeros(16, 64)
    for gradient in torch.randn(2, 16, 64):
        (matrix * 2 * gradient).sum().backward()
        muon.step(multiplier=1.0, momentum=momentum)
        buffer = momentum * buffer + (1 - momentum) * gradient
        direction = (1 - momentum) * gradient + momentum * buffer
        expected -= rate * record.newton_schulz(direction).float()
    assert (muon.buffers[0][0] - buffer).norm() < 1e-5 * buffer.norm()
    assert (matrix - expected).norm() < 0.05 * expected.norm()


def test_schedules_hit_the_sheet_s_values(record):
    """Sheets 21 and 24: the steps at which the window grows, the learning rate's end, the momentum's rise."""
    grows = [step for step in range(1, 1771) if record.window_blocks(step) > record.window_blocks(step - 1)]
    assert grows == [132, 263, 394, 525, 656, 787, 918, 1049, 1181, 1312, 1443, 1574, 1705]
    assert [record.window_blocks(step) for step in (0, 131, 132, 1770)] == [1, 1, 2, 14]
    assert record.learning_rate_multiplier(1062) == 1.0 > record.learning_rate_multiplier(1063)
    assert record.learning_rate_multiplier(1769) == pytest.approx(0.1013, abs=5e-5)
    assert [record.muon_momentum(step) for step in (0, 150, 300, 1769)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


def test_parameters_are_those_of_the_sheet(record):
    settings = record.Settings(vocab_size=128, row_tokens=128, val_row_tokens=128)
    model = record.GPT(settings)
    assert sum(p.numel() for p in model.parameters()) + 5 * (50304 - 128) * 768 == 275_742_784
    assert model.scalars.numel() == 64
    bound = model.blocks[0].mlp.up.abs().max().item()
    assert bound == pytest.approx(1 / 32, rel=1e-3) and math.isclose(
        model.blocks[0].mlp.up.std().item(), 0.5 / math.sqrt(768), rel_tol=1e-2
    )
