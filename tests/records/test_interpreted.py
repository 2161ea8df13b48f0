"""Every Triton kernel of the archive on the CPU, in Triton's interpreter, against its plain definition. One record
stands for all that have the same kernels, launched alike.

Sizes are small, and no tile divides them; rows that are turned are a multiple of four. Memory is handed out full of
NaN, and an address outside the kernel's tensors is an error. `test_eight_bits.py` and `test_poison.py` ask the same on
a GPU, at the records' sizes.
"""

import kernels
import pytest
import torch


@pytest.fixture
def record(folder, definitions_in):
    torch.manual_seed(0)
    return definitions_in(folder)


def bits(tensor):
    return tensor.view(torch.uint8)


@pytest.mark.defines("quantised")
@pytest.mark.same_kernels("quantised")
@pytest.mark.parametrize("shape", [(100, 77), (64, 130), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_quantised(record, folder, interpreted, shape, dtype):
    """Bit for bit, in both directions: beyond the range, and what is not a number."""
    x = 5 * torch.randn(shape, dtype=dtype)
    x[-1, -1] = float("nan")
    x[0, : shape[1] // 2] *= 1000
    results = interpreted(kernels.launch, folder, "quantised", x, 24 / 448)
    for result, expected in zip(results, record.quantised(x, 24 / 448), strict=True):
        assert torch.equal(bits(result), bits(expected))


@pytest.mark.defines("capped_cross_entropy")
@pytest.mark.same_kernels("capped_cross_entropy")
@pytest.mark.parametrize("tokens, vocabulary", [(3, 12), (5, 4096), (7, 4099), (3, 9000)])
def test_capped_cross_entropy(record, folder, interpreted, tokens, vocabulary):
    asked = loss_inputs(record, tokens, vocabulary)
    arguments = kernels.arguments(record.capped_cross_entropy, asked)
    results = interpreted(kernels.launch, folder, "capped_cross_entropy", *arguments)
    for result, expected in zip(results, record.capped_cross_entropy(*arguments), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.defines("capped_cross_entropy_gradient")
@pytest.mark.same_kernels("capped_cross_entropy_gradient")
@pytest.mark.parametrize("tokens, vocabulary", [(4, 12), (72, 100), (132, 1000)])
def test_capped_cross_entropy_gradient(record, folder, interpreted, tokens, vocabulary):
    """In both directions. `exp` may differ in its last bit, and few values stand on the border between two of 8."""
    asked = loss_inputs(record, tokens, vocabulary)
    _, asked["log_sums"] = record.capped_cross_entropy(*kernels.arguments(record.capped_cross_entropy, asked))
    arguments = kernels.arguments(record.capped_cross_entropy_gradient, asked)
    rows, columns = interpreted(kernels.launch, folder, "capped_cross_entropy_gradient", *arguments)
    expected, _ = record.capped_cross_entropy_gradient(*arguments)
    assert torch.equal(bits(rows), bits(columns).T)
    assert (bits(rows) != bits(expected)).float().mean() <= 1e-4


def loss_inputs(record, tokens, vocabulary):
    """What the losses of the records ask for, by name. The last class is some token's target, and some token's
    likeliest."""
    z, targets = (8 * torch.randn(tokens, vocabulary)).bfloat16(), torch.randint(0, vocabulary, (tokens,))
    z[0, -1], targets[-1], weights = 40, vocabulary - 1, torch.tensor([1.0, 0.5, 0.25])
    asked = {"z": z, "targets": targets, "cap": 30.0, "width": 7.5, "shift": 5.0, "target_weights": weights}
    if hasattr(record, "wanted_classes"):
        wanted = record.wanted_classes(targets, torch.randint(-1, vocabulary, (tokens,)), weights)
        asked |= zip(("classes", "shares", "totals"), wanted)
    return asked


@pytest.mark.defines("symmetric_matmul")
@pytest.mark.same_kernels("symmetric_matmul")
@pytest.mark.parametrize("batch, size, depth", [(2, 128, 128), (2, 130, 130), (3, 200, 456), (1, 1030, 8)])
def test_symmetric_matmul(record, folder, interpreted, batch, size, depth):
    """Every configuration of the autotuner, from one tile to more than a band of them."""
    x = torch.randn(batch, size, depth).bfloat16()
    cases = [(x, 1.0, 0.0)]
    if size == depth:
        cases.append((x + x.mT, -0.5, 2.0))
    for a, alpha, beta in cases:
        out = torch.full((batch, size, size), torch.nan, dtype=torch.bfloat16)
        expected = alpha * a.double() @ a.double().mT + beta * (a.double() if beta else 0)
        results = interpreted(kernels.launch_every_tile, folder, "symmetric_matmul", a, out, alpha, beta)
        assert len(results) == len(record.TILES)
        for result in results:
            assert (result.double() - expected).norm() <= 4e-3 * expected.norm()
            assert torch.equal(result, result.mT)


@pytest.mark.defines("add_rows")
@pytest.mark.same_kernels("add_rows")
@pytest.mark.parametrize("count, columns", [(1, 1), (50, 77), (300, 128)])
def test_add_rows(record, folder, interpreted, count, columns):
    """Most rows are added to several times, the last one never."""
    sums, rows = torch.randn(20, columns), torch.randint(0, 19, (count,))
    gradients = torch.randn(count, columns).bfloat16()
    result, *_ = interpreted(kernels.launch, folder, "add_rows", sums.clone(), rows, gradients)
    record.add_rows(sums, rows, gradients)
    torch.testing.assert_close(result, sums)
