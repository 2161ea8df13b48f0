"""Memory that nobody has written must not be read: the custom kernels on memory full of NaN.

A kernel that leaves out a tile, or multiplies garbage by zero, works as long as the allocator hands out clean pages.
The scripts' own steps run on poisoned memory in `test_contract.py`; here are the kernels, with the sizes and values
that a small run does not have: zero and tiny matrices, and sizes that no tile divides.
"""

import pytest
import smoke
import torch
from fp8_head import head_loss

SIZES = [(1, 12), (12, 12), (100, 72), (130, 130), (200, 456)]


@pytest.fixture
def record(folder, definitions_in):
    torch.manual_seed(0)
    return definitions_in(folder)


@pytest.fixture
def poison():
    """Memory is handed out full of NaN."""
    smoke.poison_memory()
    assert torch.empty(3).isnan().all() and torch.ones(1).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.defines("(Nor)?Muon")
@pytest.mark.parametrize("scale", [0, 1e-30, 1e-8, 1.0])
def test_muon_s_iteration(record, device, scale, poison):
    """Finite for any gradient, zero for none, and the same as on clean memory."""
    iteration = getattr(record, "polar_express", None) or record.newton_schulz
    matrices = scale * torch.randn(3, 24, 40, device=device)
    result = iteration(matrices.clone())
    assert result.isfinite().all() and bool(result.any()) == (scale > 0)
    torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(result, iteration(matrices))


@pytest.mark.defines("symmetric_matmul")
@pytest.mark.parametrize("size, depth", SIZES)
@pytest.mark.parametrize("scale", [0, 1e-25, 1.0])
def test_symmetric_matmul(record, scale, size, depth):
    check_symmetric_matmul(record, scale, size, depth, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.defines("symmetric_matmul")
@pytest.mark.parametrize("scale", [0, 1e-25, 1.0])
def test_every_tile_of_the_autotuner(record, scale, monkeypatch):
    """Each configuration, not only the one that happens to be fastest here."""
    for tile in record.TILES:
        monkeypatch.setattr(record.symmetric_matmul_kernel, "configs", [tile])
        record.symmetric_matmul_kernel.cache.clear()
        for size, depth in SIZES:
            check_symmetric_matmul(record, scale, size, depth, "cuda")


def check_symmetric_matmul(record, scale, size, depth, device):
    """alpha * x @ x.T, and for square ones + beta * x, against plain matrices."""
    x = (scale * torch.randn(3, size, depth, device=device)).bfloat16()
    square = (scale * torch.randn(3, size, size, device=device)).bfloat16()
    square = square + square.mT
    for a, alpha, beta in ((x, 1.0, 0.0), (square, -0.5, 2.0)):
        out = torch.full((3, size, size), torch.nan, device=device, dtype=torch.bfloat16)
        record.symmetric_matmul(a, out=out, alpha=alpha, beta=beta)
        expected = alpha * a.double() @ a.double().mT + (beta * a.double() if beta else 0)
        assert (out.double() - expected).norm() <= 4e-3 * expected.norm() + 1e-30
        assert torch.equal(out, out.mT)


@pytest.mark.defines("FP8HeadLoss")
@pytest.mark.parametrize("scale", [0, 1e-25, 0.2])
@pytest.mark.parametrize("tokens", [1, 37])
def test_fp8_head(record, scale, tokens, poison):
    """Loss and gradients are finite, and the same as on clean memory; zero is the head's first value."""
    x = torch.nn.functional.rms_norm(torch.randn(tokens, 48), (48,)).bfloat16()
    weight, targets = (scale * torch.randn(130, 48)).bfloat16(), torch.randint(0, 130, (tokens,))
    results = []
    for poisoned in (True, False):
        torch.use_deterministic_algorithms(poisoned, warn_only=True)
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss = head_loss(record, *leaves, targets)
        loss.backward()
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for poisoned, clean in zip(*results):
        assert poisoned.isfinite().all() and torch.equal(poisoned, clean)
