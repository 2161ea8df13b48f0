"""Record 40's fast paths against their plain definitions, on the CPU at toy size and on a GPU at real size."""

import math

import numpy as np
import pytest
import torch
from references import distance_from_adam, relative_error


@pytest.fixture
def record(definitions_of):
    return definitions_of("40")


def with_singular_values(rows, columns, low, device, batch=2):
    """Random matrices whose singular values run from `low` to 1 evenly in their logarithms."""
    generator = torch.Generator().manual_seed(rows + columns)
    u = torch.linalg.qr(torch.randn(batch, rows, rows, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(batch, columns, rows, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.logspace(math.log10(low), 0, rows, dtype=torch.float64)
    return ((u * spectrum) @ v.mT).float().to(device), u @ v.mT


@pytest.mark.parametrize("columns", ["square", "wide"])
def test_polar_express_nears_the_polar_factor_of_an_svd(record, device, columns):
    rows = 768 if device.type == "cuda" else 48
    matrices, polar = with_singular_values(rows, rows if columns == "square" else 4 * rows, 0.05, device)
    result = record.polar_express(matrices).cpu()
    singular_values = torch.linalg.svdvals(result.double())
    assert singular_values.min() > 0.83 and singular_values.max() < 1.17
    assert relative_error(result, polar) < 0.15


def test_polar_express_maps_single_values_as_the_sheet_says(record):
    """Check values of sheet 40: one singular value through the five polynomials."""
    expected = {0.0001: 0.0988, 0.001: 0.8589, 0.01: 1.0271, 0.1: 1.0592, 0.5: 0.9106, 0.9: 0.8749}
    for start, end in expected.items():
        x = start
        for a, b, c in record.POLAR_EXPRESS:
            x = a * x + b * x**3 + c * x**5
        assert x == pytest.approx(end, abs=2e-4)


def test_polar_express_keeps_zero(record, device):
    assert record.polar_express(torch.zeros(1, 16, 32, device=device)).abs().max() == 0


@pytest.mark.parametrize("size, depth", [(768, 768), (768, 3072), (100, 72), (12, 12), (1, 12)])
def test_symmetric_matmul_is_x_xt(record, device, size, depth):
    x = torch.randn(3, size, depth, device=device).bfloat16()
    out = torch.full((3, size, size), float("nan"), device=device, dtype=torch.bfloat16)
    record.symmetric_matmul(x, out=out)
    assert relative_error(out, x.double() @ x.double().mT) < 4e-3
    assert torch.equal(out, out.mT)


def test_symmetric_matmul_adds_the_matrix_itself(record, device):
    half = torch.randn(2, 130, 130, device=device)
    x = ((half + half.mT) / 16).bfloat16()
    out = torch.full_like(x, float("nan"))
    record.symmetric_matmul(x, out=out, alpha=0.5, beta=-2.0)
    assert relative_error(out, 0.5 * x.double() @ x.double().mT - 2.0 * x.double()) < 4e-3


def head_inputs(device):
    """Normed activations, head weights and targets; real size on a GPU."""
    tokens, dim, vocabulary = (4096, 768, 50304) if device.type == "cuda" else (64, 64, 160)
    x = torch.nn.functional.rms_norm(torch.randn(tokens, dim, device=device), (dim,)).bfloat16().requires_grad_()
    weight = (torch.randn(vocabulary, dim, device=device) * 0.1).bfloat16().requires_grad_()
    return x, weight, torch.randint(0, vocabulary, (tokens,), device=device)


def test_fp8_head_loss_is_the_loss_of_the_casts(record, device):
    """Loss and both gradients against the same casts, multiplied and differentiated in plain PyTorch; a weight beyond
    fp8's range, which ends at 0.875, is clipped."""
    x, weight, targets = head_inputs(device)
    with torch.no_grad():
        weight[7, 3] = 1.5
    loss = record.fast(lambda *inputs: record.FP8HeadLoss.apply(*inputs, 30.0, 7.5))(x, weight, targets)
    (0.5 * loss).backward()

    def cast(tensor, scale, dtype):
        return (tensor.detach().float() / scale).to(dtype).float() * scale

    x8 = cast(x, math.sqrt(x.size(1)) / 448, torch.float8_e4m3fn)
    weight8 = cast(weight.clamp(max=0.875), 2.0**-9, torch.float8_e4m3fn)
    z = (x8 @ weight8.T).bfloat16().float().requires_grad_()
    expected = torch.nn.functional.cross_entropy(30 * torch.sigmoid(z / 7.5), targets, reduction="sum")
    expected.backward()
    gradient8 = cast(z.grad, 1 / 448, torch.float8_e5m2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert relative_error(x.grad, 0.5 * gradient8 @ weight8) < 1e-2
    assert relative_error(weight.grad, 0.5 * gradient8.T @ x8) < 1e-2


def test_fp8_head_loss_is_near_the_unrounded_loss(record, device):
    x, weight, targets = head_inputs(device)
    loss = record.FP8HeadLoss.apply(x, weight, targets, 30.0, 7.5)
    logits = 30 * torch.sigmoid(x.float() @ weight.float().T / 7.5)
    exact = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert 0 < abs(loss.item() / exact.item() - 1) < 2e-3
    loss.backward()
    (exact_gradient,) = torch.autograd.grad(exact, weight)
    assert 1e-2 < relative_error(weight.grad, exact_gradient) < 0.1  # two bits of mantissa, and no more lost than that


def attention_by_hand(query, key, value, ends, window, scale):
    """The mask rule spelled out, in double precision, one head and one query at a time."""
    query, key, value = (x.detach().cpu().double() for x in (query, key, value))
    out = torch.zeros_like(query)
    document = np.searchsorted(ends, np.arange(len(query)), side="right")
    for t in range(len(query)):
        seen = [s for s in range(max(0, t - window), t + 1) if document[s] == document[t]]
        weights = torch.softmax(torch.einsum("hd,shd->hs", query[t], key[seen]) * scale, dim=-1)
        out[t] = torch.einsum("hs,shd->hd", weights, value[seen])
    return out


def test_attention_sees_its_window_of_its_document(record, device):
    ends = [0, 5, 60, 61, 200, 256, 256, 256]
    query, key, value = (torch.randn(256, 2, 64, device=device).bfloat16() for _ in range(3))
    document_ends = torch.tensor(ends, dtype=torch.int32, device=device)
    result = record.attend(query, key, value, document_ends, longest=256, window=48, scale=0.1)
    assert relative_error(result.cpu(), attention_by_hand(query, key, value, ends, 48, 0.1)) < 8e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_attention_gradients_match_the_dense_mask(record):
    lengths = [64, 1400, 300, 2048, 236]
    ends = torch.tensor([0, *np.cumsum(lengths), sum(lengths)], dtype=torch.int32)
    inputs = [torch.randn(sum(lengths), 6, 128).bfloat16() for _ in range(3)]
    gradient = torch.randn(sum(lengths), 6, 128).bfloat16()
    results = {}
    for name in ("cuda", "cpu"):
        leaves = [x.to(name).requires_grad_() for x in inputs]
        out = record.attend(*leaves, ends.to(name), longest=2048, window=384, scale=0.1)
        out.backward(gradient.to(name))
        results[name] = [out, *(leaf.grad for leaf in leaves)]
    for fast, reference in zip(results["cuda"], results["cpu"]):
        assert relative_error(fast.cpu(), reference) < 1e-2


def test_adam_is_adam(record, device, one_rank):
    assert distance_from_adam(record, device, 0.65) < 2e-2


def test_muon_moves_each_matrix_along_its_polar_factor(record, one_rank):
    """One step from rest: the update is the polar factor of the gradient, four square matrices in a packed one."""
    dim = 16
    packed, plain = torch.nn.Parameter(torch.zeros(dim, 4 * dim)), torch.nn.Parameter(torch.zeros(dim, 4 * dim))
    packed.matrices = 4
    muon = record.Muon([[packed, plain]], learning_rate=0.5, gradient_scale=1.0)
    gradients, _ = with_singular_values(dim, 4 * dim, 0.1, "cpu", batch=2)
    packed.grad, plain.grad = gradients[0].clone(), gradients[1].clone()
    muon.step(multiplier=0.1, momentum=0.9)
    expected = record.polar_express(gradients[1:])[0].float()
    assert relative_error(plain, -0.05 * expected) < 8e-2
    squares = record.polar_express(gradients[0].view(4, dim, dim)).float().view(dim, 4 * dim)
    assert relative_error(packed, -0.05 * squares) < 8e-2


def test_muon_remembers_and_looks_ahead(record, one_rank):
    """Sheet 40, 4.8, spelled out over two steps with different gradients: momentum, then Nesterov."""
    matrix, rate, momentum = torch.nn.Parameter(torch.zeros(16, 64)), 0.05, 0.8
    muon = record.Muon([[matrix]], learning_rate=rate, gradient_scale=0.5)
    buffer, expected = torch.zeros(16, 64), torch.zeros(16, 64)
    for gradient in with_singular_values(16, 64, 0.3, "cpu", batch=2)[0]:
        matrix.grad = 2 * gradient
        muon.step(multiplier=1.0, momentum=momentum)
        buffer = momentum * buffer + (1 - momentum) * gradient
        direction = (1 - momentum) * gradient + momentum * buffer
        expected -= rate * record.polar_express(direction[None])[0].float()
    assert relative_error(muon.buffers[0][0], buffer) < 1e-5
    assert relative_error(matrix, expected) < 8e-2


def test_schedules_hit_the_sheet_s_values(record):
    """Sheet 40, 3.4: learning rate, momentum and windows at the steps it names."""
    assert record.learning_rate_multiplier(1259) == 1.0 > record.learning_rate_multiplier(1260)
    assert record.learning_rate_multiplier(2289) == pytest.approx(0.100873, abs=1e-6)
    assert record.learning_rate_multiplier(2329) == pytest.approx(0.1002, abs=1e-6)
    momenta = {0: 0.85, 150: 0.90, 299: 0.949667, 2280: 0.949667, 2281: 0.948, 2329: 0.852}
    for step, momentum in momenta.items():
        assert record.muon_momentum(step) == pytest.approx(momentum, abs=1e-6)
    assert [record.window_blocks(step) for step in (0, 763, 764, 1527, 1528, 2329)] == [3, 3, 7, 7, 11, 11]


def test_yarn_rescales_as_the_sheet_says(record):
    """Sheet 40, 4.5: factors after 3 -> 7, the lowest frequency and the softmax scale after 3 -> 7 -> 11 -> 13."""
    rotary = record.Rotary(128, 64, base=1024, attention_scale=0.1, window_block=128)
    first = rotary.frequencies.clone()
    rotary.extend(3, 7)
    factors = (rotary.frequencies / first)[:32].tolist()
    assert factors[:7] == pytest.approx([1, 1, 1, 0.9862, 0.8707, 0.7785, 0.7047], abs=1e-4)
    assert factors[19:] == pytest.approx([3 / 7] * 13, abs=1e-4)
    rotary.extend(7, 11)
    assert rotary.attention_scale == pytest.approx(0.127518, abs=1e-6)
    rotary.extend(11, 13)
    assert rotary.frequencies[31].item() == pytest.approx(2.254e-4, rel=1e-3)
    rotary.reset()
    assert torch.equal(rotary.frequencies, first) and rotary.attention_scale == 0.1


def test_parameters_are_those_of_the_sheet(record):
    settings = record.Settings(vocab_size=128, row_tokens=128, val_row_tokens=128)
    count = sum(p.numel() for p in record.GPT(settings).parameters())
    assert count + 5 * (50304 - 128) * 768 == 268_665_628


def test_rows_are_packed_from_whole_documents(record):
    record.settings = record.Settings(rows_per_step=2, row_tokens=10, document_tokens=6)
    bounds = np.array([0, 4, 20, 23, 30, 31, 40, 60])
    rows, document = record.pack_rows(bounds, 0)
    assert rows == [[(0, 4), (4, 10), (20, 21)], [(23, 29), (30, 31), (31, 35)]]
    assert document == 6
    with pytest.raises(IndexError):
        record.pack_rows(bounds, 6)
