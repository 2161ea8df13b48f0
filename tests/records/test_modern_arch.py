"""Record 05's parts against their definitions: Newton-Schulz, Muon, rotary positions, norms, init and schedule."""

import math

import pytest
import torch


@pytest.fixture
def record(definitions_of):
    return definitions_of("05")


@pytest.mark.parametrize("rows, columns", [(64, 64), (256, 64), (64, 256)])
def test_newton_schulz_nears_the_polar_factor_of_an_svd(record, device, rows, columns):
    generator = torch.Generator().manual_seed(rows + columns)
    size = min(rows, columns)
    u = torch.linalg.qr(torch.randn(3, rows, size, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(3, columns, size, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.logspace(-1, 0, size, dtype=torch.float64)
    matrices = (u * spectrum) @ v.mT
    result = record.newton_schulz(matrices.float().to(device)).cpu().double()
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6 and values.max() < 1.25
    polar = u @ v.mT
    cosine = (result * polar).sum() / (result.norm() * polar.norm())
    assert cosine > 0.98


def test_newton_schulz_keeps_zero(record, device):
    """Zero-initialised projections leave the other matrices without a gradient in the first step."""
    assert record.newton_schulz(torch.zeros(2, 16, 32, device=device)).abs().max() == 0


def test_newton_schulz_is_the_quintic_five_times(record):
    """One singular value through the polynomial, by hand."""
    x = 0.3
    matrix = torch.zeros(1, 2, 2)
    matrix[0, 0, 0], matrix[0, 1, 1] = x, math.sqrt(1 - x**2)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    assert record.newton_schulz(matrix)[0, 0, 0].item() == pytest.approx(x, abs=0.03)


def test_muon_follows_its_definition(record):
    """Two steps, two shapes, against the sheet's rule for one matrix at a time."""
    torch.manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in ((16, 16), (64, 16), (16, 16), (16, 64))]
    expected = [matrix.detach().clone() for matrix in matrices]
    momenta = [torch.zeros_like(matrix) for matrix in matrices]
    muon = record.Muon(matrices, learning_rate=0.01, momentum=0.95)
    for multiplier in (1.0, 0.5):
        for i, matrix in enumerate(matrices):
            matrix.grad = torch.randn_like(matrix)
            momenta[i] = 0.95 * momenta[i] + matrix.grad
            update = record.newton_schulz((matrix.grad + 0.95 * momenta[i])[None])[0].float()
            expected[i] -= 0.01 * multiplier * math.sqrt(max(matrix.shape)) * update
        muon.step(multiplier)
    for matrix, value in zip(matrices, expected):
        torch.testing.assert_close(matrix.detach(), value, rtol=0, atol=5e-4)


def test_rotary_is_multiplication_by_a_complex_number(record):
    rotary = record.Rotary(head_dim=16, length=32, base=10_000)
    x = torch.randn(2, 32, 3, 16)
    turn = torch.exp(-1j * torch.arange(32)[:, None] * 10_000.0 ** (-2 * torch.arange(8) / 16))
    expected = torch.complex(x[..., :8], x[..., 8:]) * turn[:, None]
    torch.testing.assert_close(rotary(x), torch.cat([expected.real, expected.imag], -1), rtol=0, atol=2e-2)


def test_norm_s_epsilon_is_the_input_dtype_s(record):
    """Sheet 05, pitfalls: 2^-7 for bf16, 2^-23 for fp32, as in the PyTorch of the record."""
    for dtype, eps in ((torch.bfloat16, 2.0**-7), (torch.float32, 2.0**-23)):
        x = torch.full((4,), 0.1, dtype=dtype)
        result = record.rms_norm(x)
        assert result.dtype == dtype
        assert result[0].item() == pytest.approx(x[0].item() / math.sqrt(x[0].item() ** 2 + eps), rel=4e-3)


def test_the_first_loss_is_that_of_a_tied_head(record):
    """Sheet 05: every block starts as nothing, so an input token e answers itself with the logit sqrt(dim)·‖e‖, which
    is 16 at full width; the other tokens' logits have a variance of 1/3."""
    torch.manual_seed(0)
    settings = record.Settings(vocab_size=2048, num_layers=2, num_heads=2, mlp_dim=64, row_tokens=64)
    model = record.GPT(settings)
    tokens = torch.randperm(2048)[:128].view(2, 64)
    with torch.no_grad():
        loss = model(tokens, tokens.roll(1, 0)).item()
    own = math.sqrt(768 / 3)
    assert loss == pytest.approx(math.log(math.exp(own) + 2047 * math.exp(1 / 6)), abs=0.15)


def test_parameters_are_those_of_the_sheet(record):
    model = record.GPT(record.Settings(vocab_size=128))
    assert sum(p.numel() for p in model.parameters()) + (50304 - 128) * 768 == 123_568_128
    assert len(record.Muon(list(model.blocks.parameters()), 1.0, 0.9).groups[0]) == 48


def test_the_learning_rate_hits_the_sheet_s_values(record):
    assert [record.learning_rate_multiplier(step) for step in (0, 3649, 3650)] == [1.0, 1.0, 1.0]
    assert record.learning_rate_multiplier(3651) == pytest.approx(1449 / 1450)
    assert record.learning_rate_multiplier(5099) == pytest.approx(1 / 1450)
