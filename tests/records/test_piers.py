"""Records 50 and 61 against the check values of their sheets, and their fast paths against plain definitions."""

import numpy as np
import pytest
import torch


@pytest.fixture
def record(definitions_of, request):
    return definitions_of(getattr(request, "param", "61"))


def rounded(x):
    return x.detach().bfloat16().float()


@pytest.mark.parametrize(
    "number, values",
    [
        ("50", {0: 1, 683: 1, 684: 1.51, 922: 1.51, 923: 1.509375, 1366: 0.955379, 1367: 1.208550, 2050: 0.1}),
        ("61", {0: 1, 575: 1, 576: 1.52, 863: 1.519177, 1150: 1.046667, 1151: 1.184777, 1724: 0.101890, 1764: 0.1}),
    ],
)
def test_learning_rate_hits_the_sheets_values(number, values, definitions_of):
    record = definitions_of(number)
    for step, value in values.items():
        assert record.learning_rate_multiplier(step) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("number, starts", [("50", (0, 684, 1367, 2050)), ("61", (0, 575, 1150, 1725))])
def test_stages_start_where_the_sheet_says(number, starts, definitions_of):
    """Windows and rows change at these steps; so do both momenta at the ends of their rise and before their fall."""
    record = definitions_of(number)
    for start, window, row in zip(starts, (3, 7, 11, 13), (16384, 32768, 49152, 49152)):
        assert (record.window_blocks(start), record.row_tokens(start)) == (window, row)
        assert not start or record.stage(start - 1) == record.stage(start) - 1
    last = record.settings.num_iterations - 1
    assert record.stage(last + 1) == 3
    for step, momentum in {0: 0.85, 150: 0.9, 300: 0.95, last - 49: 0.95, last - 48: 0.948, last: 0.852}.items():
        assert record.muon_momentum(step) == pytest.approx(momentum)


def test_61_weighs_the_targets_and_unties_as_the_sheet_says(record):
    record.device = torch.device("cpu")
    expected = {0: (1, 0.5, 0.25), 431: (1, 0.5, 0.062609), 575: (1, 0.5), 1000: (1, 0.130435), 1764: (1,)}
    for step, weights in expected.items():
        assert record.target_weights(step).tolist() == pytest.approx(weights, abs=1e-6)
    assert record.untie_step() == 1151


@pytest.mark.parametrize("number, parameters", [("50", 268_665_612), ("61", 273_384_579 - 4)])
def test_parameters_are_as_many_as_the_sheet_says(number, parameters, definitions_of):
    """All of 50's; 61 has no padding of the scalars."""
    record = definitions_of(number)
    with torch.device("meta"):
        record.Rotary.reset = lambda self: None
        model = record.GPT(record.Settings())
    assert sum(weight.numel() for weight in model.parameters()) == parameters


@pytest.mark.parametrize("record, idle", [("50", 1.9964), ("61", 2.0)], indirect=["record"])
def test_adam_decays_where_the_update_agrees(record, idle, device):
    """Sheet 50: a step of 0.05 and a share of 0.0018. A weight without an update decays in 50 and not in 61."""
    parameter, gradient = torch.tensor([[2.0, -2.0, 2.0], [1.0, 1.0, 0.0]], device=device)
    rates = torch.tensor([0.0, 0.0, 0.05, 0.0018, 1.0], device=device)
    first, second = torch.zeros(2, 3, device=device)
    record.adam_update(parameter, gradient, first, second, rates, 1e-10)
    assert parameter.tolist() == pytest.approx([1.9464, -2.05, idle])


@pytest.mark.parametrize("record", ["50", "61"], indirect=True)
def test_rows_are_equalised_as_the_sheet_says(record, device):
    mean_squares = torch.zeros(1, 2, 1, device=device)
    for update, squares, result in (
        ([[0.5, -0.2, 0.1], [0.1, 0.4, -0.3]], (0.005, 0.00433333),
         [[0.483046, -0.193218, 0.096609], [0.103775, 0.415100, -0.311325]]),
        ([[0.3, 0.1, 0.2], [-0.2, 0.3, 0.4]], (0.00708333, 0.00895),
         [[0.323623, 0.107874, 0.215748], [-0.191935, 0.287903, 0.383871]]),
    ):  # fmt: skip
        equal = record.equalise_rows(torch.tensor([update], device=device), mean_squares, 0.95)
        assert mean_squares.flatten().tolist() == pytest.approx(squares, abs=1e-7)
        torch.testing.assert_close(equal.cpu(), torch.tensor([result]), atol=2e-6, rtol=0)
    assert not record.equalise_rows(torch.zeros(1, 2, 3, device=device), mean_squares, 0.95).any()


@pytest.mark.parametrize("record", ["50", "61"], indirect=True)
def test_a_tall_matrix_is_orthogonalised_like_its_transpose(record, device):
    tall = torch.randn(2, 640, 160, generator=torch.Generator().manual_seed(1)).to(device)
    u, _, v = torch.linalg.svd(tall, full_matrices=False)
    for result in (record.polar_express(tall), record.polar_express(tall.mT).mT):
        assert (result.float() - u @ v).norm() < 0.15 * (u @ v).norm()


def test_muon_decays_where_the_update_agrees(definitions_of, device):
    """Sheet 50, an MLP's down matrix; and in 61 the same arithmetic on weights in two halves, of which the upper is
    the weight truncated."""
    rates, factors = torch.tensor([0.023, 0.0276], device=device), torch.full((1, 1, 1), 4.0, device=device)
    values, updates = torch.tensor([[[0.1, -0.1]]], device=device), torch.full((1, 1, 2), 0.02, device=device)
    expected = pytest.approx([0.09790608, -0.10184], abs=1e-8)
    whole = values.clone()
    definitions_of("50").cautious_update(whole, updates, factors, rates)
    assert whole.flatten().tolist() == expected

    bits = values.view(torch.int32)
    high, low = (bits >> 16).to(torch.int16).view(torch.bfloat16), bits.to(torch.int16)
    definitions_of("61").cautious_update(high, low, updates, factors, rates)
    bits = (high.view(torch.int16).int() << 16) | (low.int() & 0xFFFF)
    assert bits.view(torch.float32).flatten().tolist() == expected


@pytest.mark.parametrize("record", ["50", "61"], indirect=True)
def test_keys_are_shifted_by_halves(record):
    key = torch.randn(5, 2, 8)
    shifted = record.shift_keys(key)
    for still in (slice(0, 2), slice(4, 6)):
        assert torch.equal(shifted[..., still], key[..., still])
    for moved in (slice(2, 4), slice(6, 8)):
        assert torch.equal(shifted[1:, :, moved], key[:-1, :, moved]) and torch.equal(shifted[0], key[0])


def test_61_turns_pairs_of_heads_by_their_positions(record):
    """Channel pairs (2i, 2i + 1) as complex numbers; even heads at twice the token's position, odd heads one further.
    After the first change of windows, the frequencies' factors of the sheet."""
    rotary = record.Rotary(128, 64, 1024, 0.1, 128)
    base = rotary.frequencies
    rotary.extend(3, 7)
    factors = (rotary.frequencies / base).tolist()
    assert factors[:7] == pytest.approx([1, 1, 1, 0.9862, 0.8707, 0.7785, 0.7047], abs=1e-4)
    assert factors[19:] == pytest.approx([3 / 7] * 13, abs=1e-4)
    rotary.extend(7, 11)
    rotary.extend(11, 13)
    assert rotary.frequencies[-1].item() == pytest.approx(2.254e-4, rel=1e-3)
    assert rotary.attention_scale == pytest.approx(0.131778, abs=1e-6)

    x = torch.randn(32, 6, 128)
    token = torch.arange(32)[:, None].expand(32, 6)
    for paired, position in ((False, token), (True, 2 * token + torch.arange(6) % 2)):
        turned = torch.view_as_complex(x[..., :64].unflatten(-1, (-1, 2)).contiguous())
        turned = turned * torch.polar(torch.ones(()), -position[..., None] * rotary.frequencies)
        expected = torch.cat([torch.view_as_real(turned).flatten(-2), x[..., 64:]], dim=-1)
        torch.testing.assert_close(rotary(x, paired), expected, atol=0.03, rtol=0)


def test_61_lets_paired_heads_see_each_other(record):
    """Of the output of a paired layer, against the rule spelled out: slots 2t and 2t + 1 hold heads j and j + 3."""
    torch.manual_seed(2)
    settings = record.Settings(model_dim=48, num_heads=6, head_dim=8)
    attention, rotary = record.Attention(settings, 0), record.Rotary(8, 96, 1024, 0.1, 16)
    assert attention.paired and not attention.shifted
    x, qkvo = torch.randn(12, 48).bfloat16(), (torch.randn(192, 48) / 7).bfloat16()
    gate, ends, window = torch.zeros(6, 12).bfloat16(), torch.tensor([0, 5, 12], dtype=torch.int32), 5
    out = attention(x, qkvo.view(4, 48, 48), gate, torch.ones(2), None, None, rotary, ends, 7, window)

    query, key, value = (x.float() @ qkvo[:144].float().T).view(12, 18, 8).chunk(3, dim=1)
    query, key = rotary(record.rms_norm(query), True), rotary(record.rms_norm(key), True)
    y = torch.zeros(12, 6, 8)
    for t in range(12):
        for head in range(6):
            slots = [s for s in range(24) if 0 <= 2 * t + head // 3 - s <= window and (s // 2 < 5) == (t < 5)]
            keys, values = (torch.stack([z[s // 2, head % 3 + 3 * (s % 2)] for s in slots]) for z in (key, value))
            y[t, head] = 0.5 * torch.softmax(0.1 * keys @ query[t, head], dim=0) @ values
    torch.testing.assert_close(out.float(), y.flatten(1) @ qkvo[144:].float().T, atol=0.03, rtol=0.03)


def test_61_squared_relu_has_its_gradients(record, device):
    torch.manual_seed(3)
    shapes = ((200, 48), (160, 48), (160, 48))  # no multiples of a kernel's tiles
    x, up, down = (torch.randn(*shape, device=device).bfloat16().requires_grad_() for shape in shapes)
    out, gradient = record.SquaredReLUMLP.apply(x, up, down), torch.randn(200, 48, device=device).bfloat16()
    results = [out, *torch.autograd.grad(out, (x, up, down), gradient)]
    plain = [t.detach().float().requires_grad_() for t in (x, up, down)]
    expected = torch.relu(plain[0] @ plain[1].T).square() @ plain[2]
    for result, reference in zip(results, [expected, *torch.autograd.grad(expected, plain, gradient.float())]):
        assert (result.float() - reference).norm() < 0.01 * reference.norm()


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.4), (1.0, 0.5, 0.1)])
def test_61_predicts_several_tokens_from_the_same_logits(record, weights, device):
    """Loss and gradients against the same casts, differentiated in plain PyTorch. Nothing is seen beyond the row."""
    torch.manual_seed(4)
    x = torch.nn.functional.rms_norm(torch.randn(48, 32, device=device), (32,)).bfloat16().requires_grad_()
    weight = (torch.randn(32, 80, device=device) * 0.3).bfloat16().requires_grad_()
    targets = torch.randint(0, 80, (48,), device=device)
    loss = record.FP8HeadLoss.apply(x, weight, targets, torch.tensor(weights, device=device), 23.0, 5.0, 7.5)
    (0.5 * loss).backward()

    def cast(tensor, scale, dtype):
        return (tensor.detach().float() / scale).to(dtype).float() * scale

    x8, weight8 = cast(x, 100 / 448, torch.float8_e4m3fn), cast(weight, 1.6 / 448, torch.float8_e4m3fn)
    z = rounded(x8 @ weight8).requires_grad_()
    log = torch.log_softmax(23 * torch.sigmoid((z + 5) / 7.5), dim=-1)
    terms = [-share * log[i, targets[i + k]] for i in range(48) for k, share in enumerate(weights) if i + k < 48]
    expected = torch.stack(terms).sum()
    expected.backward()
    gradient8 = cast(z.grad, 0.75 / 448, torch.float8_e5m2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for result, reference in ((x.grad, gradient8 @ weight8.T), (weight.grad, x8.T @ gradient8)):
        assert (result.float() - 0.5 * reference).norm() < 0.02 * reference.norm()


def test_61_ties_and_unties(record, one_rank):
    """While tied, the head alone learns, from both gradients; untied, the embedding goes on from the head's state."""
    head = torch.nn.Parameter(torch.randn(32, 64, generator=torch.Generator().manual_seed(5)).bfloat16())
    embedding = torch.nn.Parameter(head.detach().T.contiguous())
    rules = {
        name: record.Adam(parameter, 0.1, 0.0, (0.5, 0.95), 1e-10, 1.0)
        for name, parameter in (("lm_head", head), ("embedding", embedding))
    }
    optimizer = record.Optimizer(rules, ("lm_head", "embedding"))
    before = head.detach().clone()
    head.grad, embedding.grad = torch.zeros_like(head), torch.ones_like(embedding)
    optimizer.step(1.0, 0.0, with_adam=True)
    assert torch.equal(embedding, head.T) and head.grad is None and embedding.grad is None
    assert torch.allclose((before - head).float(), torch.tensor(0.1), atol=0.02)  # the first step is the rate's sign
    optimizer.untie()
    for state in ("first", "second"):
        assert torch.equal(getattr(rules["embedding"], state), getattr(rules["lm_head"], state).T)
    head.grad, embedding.grad = torch.zeros_like(head), torch.ones_like(embedding)
    optimizer.step(1.0, 0.0, with_adam=True)
    assert rules["embedding"].steps == 2 and not torch.equal(embedding, head.T)


@pytest.mark.parametrize("record", ["50", "61"], indirect=True)
def test_rows_grow_with_the_stages(record):
    """The packer goes on in the documents where it was, with longer rows."""
    record.settings = record.Settings(row_tokens=8, document_tokens=6, rows_per_step=2)
    bounds = np.arange(0, 400, 5)
    rows, document = record.pack_rows(bounds, 0, 8)
    longer, _ = record.pack_rows(bounds, document, 16)
    assert [sum(end - start for start, end in spans) for spans in rows + longer] == [9, 9, 17, 17]
    assert longer[0][0][0] == bounds[document]
