"""Records 02 to 11 against their sheets, and beside their parents, which they are without their own technique."""

import math
import threading
from contextlib import nullcontext

import pytest
import torch

CHAIN = ("02", "03", "04", "06", "07", "08", "09", "10", "11")
TIED, UNTIED = CHAIN[:5], CHAIN[5:]
TOY = {"vocab_size": 512, "num_layers": 4, "model_dim": 64, "num_heads": 2, "mlp_dim": 256, "row_tokens": 16}


def toy(record):
    """A small model of a record, from a seed, in which no weight is zero any more."""
    torch.manual_seed(0)
    model = record.GPT(record.Settings(**TOY))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and not parameter.any():
                parameter.uniform_(-0.5, 0.5)
    return model


def final_stream(number, model):
    """What the head is given for one batch, as the record computes it in training."""
    tokens = torch.arange(32).mul(37).remainder(512).view(2, 16)
    with torch.autocast("cpu", torch.bfloat16) if number < "10" else nullcontext(), torch.no_grad():
        return model.hidden(tokens)[0].float()


@pytest.mark.parametrize(
    "number, in_bf16, in_all",
    [(number, 0, 123_532_032) for number in ("02", "03", "04")]
    + [(number, 0, 123_568_128) for number in ("06", "07")]
    + [("08", 0, 162_201_600), ("09", 0, 162_201_636)]
    + [("10", 38_633_472 + 36, 162_201_636), ("11", 38_633_472 + 42, 162_201_642)],
)
def test_parameters_are_those_of_the_sheet(definitions_of, number, in_bf16, in_all):
    record = definitions_of(number)
    with torch.device("meta"):
        model = record.GPT(record.Settings())
    assert sum(p.numel() for p in model.parameters()) == in_all
    assert sum(p.numel() for p in model.parameters() if p.dtype == torch.bfloat16) == in_bf16


@pytest.mark.parametrize("number", CHAIN)
def test_weights_start_as_the_sheet_says(definitions_of, number):
    """Uniform in ±1/sqrt(in_features), in bf16's precision from 10 on; a table likewise while it is the head, then
    standard normal; zero head and, from 05 on, zero projections."""
    record = definitions_of(number)
    torch.manual_seed(0)
    model = record.GPT(record.Settings(**TOY))
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        if number in UNTIED and name == "embedding.weight":
            assert weight.float().std().item() == pytest.approx(1, abs=0.02)
        elif name == "lm_head.weight" or (number > "04" and name.endswith(("output.weight", "down.weight"))):
            assert not weight.any()
        else:
            bound = 1 / math.sqrt(weight.size(1))
            assert bound * 0.98 < weight.abs().max() <= bound * 1.004
            assert weight.float().std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert torch.equal(weight, weight.bfloat16().type_as(weight)) == (number >= "10")
    mixes = [value for name, value in model.named_parameters() if name.endswith(("value_mix", "stream_mix"))]
    assert [value.tolist() for value in mixes] == ([[1.0, 0.0], [0.5]] * 4 if number >= "09" else [])
    assert number != "11" or model.skip_weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("number, first", [("02", 10.97), ("06", 16.01)])
def test_the_first_loss_is_the_published_one(definitions_of, number, first):
    """At full width and vocabulary, with two layers, on a short row of tokens drawn at random."""
    record = definitions_of(number)
    torch.manual_seed(0)
    model = record.GPT(record.Settings(num_layers=2, row_tokens=256))
    tokens = torch.randint(0, 50257, (1, 257))
    with torch.no_grad():
        loss = model(tokens[:, :-1], tokens[:, 1:]).item()
    assert loss == pytest.approx(first, abs=0.15)


@pytest.mark.parametrize(
    "number, warmup, cooldown",
    [("02", 256, 2048), ("03", 250, 2000)]
    + [(number, 0, steps) for number, steps in zip(CHAIN[2:], (1800, 1450, 1450, 1308, 914, 926, 900))],
)
def test_the_learning_rate_hits_the_sheet_s_values(definitions_of, number, warmup, cooldown):
    record = definitions_of(number)
    peak = record.settings.learning_rate if number == "02" else 1.0
    rate = record.learning_rate if number == "02" else record.learning_rate_multiplier
    steps = record.settings.num_iterations
    assert rate(0) == pytest.approx(peak / max(1, warmup))
    assert rate(warmup) == rate(steps - cooldown) == peak
    assert rate(steps - cooldown + 1) == pytest.approx(peak * (cooldown - 1) / cooldown)
    assert rate(steps - 1) == pytest.approx(peak / cooldown)
    if number >= "09":
        assert [record.muon_momentum(step) for step in (0, 250, 500, 3000)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


@pytest.mark.parametrize("number", ["03", "06", "11"])
@pytest.mark.parametrize("rows, columns", [(64, 64), (128, 64), (64, 128)])
def test_newton_schulz_is_the_quintic_five_times(definitions_of, number, rows, columns):
    """In all three ways to write it down: on the singular values of a matrix, in fp64."""
    torch.manual_seed(rows + columns)
    matrix = torch.randn(rows, columns, dtype=torch.float64)
    u, values, vh = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    result = definitions_of(number).newton_schulz(matrix[None].float())[0].double()
    assert (result - u * values @ vh).norm() / values.norm() < 0.03


def scale_of(number, shape):
    """What the sheets multiply an orthogonalised update by."""
    rows, columns = shape
    if number == "03":
        return 1.0
    return math.sqrt(max(rows, columns)) if number < "08" else math.sqrt(max(1, rows / columns))


def one_at_a_time(record, number, start, gradients):
    """The sheet's rule for one matrix at a time, on one rank: where the matrices are after steps of `gradients`."""
    matrices, momenta = [matrix.clone() for matrix in start], [torch.zeros_like(matrix) for matrix in start]
    for step_gradients in gradients:
        for matrix, momentum, gradient in zip(matrices, momenta, step_gradients):
            momentum.mul_(0.9).add_(gradient)
            update = gradient + 0.9 * momentum
            parts = update.chunk(3) if number == "04" and update.size(0) == 3 * update.size(1) else [update]
            parts = [scale_of(number, part.shape) * record.newton_schulz(part[None])[0].float() for part in parts]
            matrix.sub_(0.01 * torch.cat(parts))
    return matrices


def on_ranks(record, number, start, gradients, ranks, monkeypatch):
    """The matrices of every rank after the record's own Muon has taken the same steps; the ranks are threads."""
    distributed = torch.distributed
    meeting, parts = threading.Barrier(ranks), []

    def all_reduce(tensor):
        parts.append(tensor.clone())
        meeting.wait(60)
        tensor.copy_(sum(parts))
        if meeting.wait(60) == 0:
            parts.clear()
        meeting.wait(60)

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "get_world_size", lambda: ranks)
    of_ranks = [[torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(ranks)]
    muons = []
    for rank, matrices in enumerate(of_ranks):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        momentum = {"momentum": 0.9} if number < "09" else {}
        muons.append(record.Muon(matrices, learning_rate=0.02, **momentum))

    def work(muon, matrices):
        for step_gradients in gradients:
            for matrix, gradient in zip(matrices, step_gradients):
                matrix.grad = gradient.clone()
            muon.step(0.5, 0.9) if number >= "09" else muon.step(0.5)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(muons, of_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [[matrix.detach() for matrix in matrices] for matrices in of_ranks]


@pytest.mark.parametrize(
    "number, ranks",
    [("03", 1), ("04", 1)] + [("06", ranks) for ranks in (1, 2, 4, 8)] + [("08", 8), ("09", 2), ("11", 4)],
)
def test_muon_is_the_sheet_s_at_any_number_of_ranks(definitions_of, monkeypatch, number, ranks):
    """Three steps over two blocks' matrices: all ranks end with the same bits, where the undistributed rule ends."""
    record = definitions_of(number)
    torch.manual_seed(0)
    attention = [(48, 16), (16, 16)] if number < "05" else [(16, 16)] * 4
    shapes = 2 * [*attention, (64, 16), (16, 64)]
    start = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(3)]
    expected = one_at_a_time(record, number, start, gradients)
    results = on_ranks(record, number, start, gradients, ranks, monkeypatch)
    for i, before in enumerate(start):
        move = expected[i] - before
        assert ((results[0][i] - before) - move).norm() < 0.02 * move.norm()
        assert all(torch.equal(of_rank[i], results[0][i]) for of_rank in results)


def test_what_06_spreads_is_what_05_does_on_every_rank(definitions_of, monkeypatch):
    """The parent's own Muon beside the distributed one, at 4 ranks."""
    torch.manual_seed(0)
    shapes = [(16, 16)] * 4 + [(64, 16), (16, 64)]
    start = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    (parent,) = on_ranks(definitions_of("05"), "05", start, gradients, 1, monkeypatch)
    spread = on_ranks(definitions_of("06"), "06", start, gradients, 4, monkeypatch)[0]
    for before, one, other in zip(start, parent, spread):
        assert (one - other).norm() < 0.01 * (one - before).norm()


def test_07_is_06_to_the_byte_below_the_docstring(definitions_of):
    texts = []
    for number in ("06", "07"):
        with open(definitions_of(number).__file__, encoding="utf-8") as script:
            texts.append(script.read().split('"""', 2)[2])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("number", CHAIN)
def test_rotary_is_multiplication_by_a_complex_number(definitions_of, number):
    rotary = definitions_of(number).Rotary(head_dim=16, length=32, base=10_000)
    x = torch.randn(2, 32, 3, 16)
    turn = torch.exp(-1j * torch.arange(32)[:, None] * 10_000.0 ** (-2 * torch.arange(8) / 16))
    expected = torch.complex(x[..., :8], x[..., 8:]) * turn[:, None]
    tolerance = 1e-5 if number < "05" else 2e-2  # tables in fp32, then in bf16
    torch.testing.assert_close(rotary(x), torch.cat([expected.real, expected.imag], -1), rtol=0, atol=tolerance)


def switched_off(number, model):
    """The model with its record's technique made ineffective."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name == "skip_weights" or (number == "09" and name.endswith("value_mix")):
                value.zero_()
    return model


@pytest.mark.parametrize("parent, number", [("05", "06"), ("08", "09"), ("09", "10"), ("10", "11")])
def test_without_its_technique_it_is_its_parent(definitions_of, parent, number):
    """With the parent's weights: 06 normalises before it rotates, 10 rounds more, 09 and 11 add shortcuts, which do
    nothing with a weight of zero, and something with another."""
    ancestor, model = toy(definitions_of(parent)), toy(definitions_of(number))
    weights = {name: weight for name, weight in model.state_dict().items() if name not in ancestor.state_dict()}
    model.load_state_dict(ancestor.state_dict() | weights)
    opened, expected = final_stream(number, model), final_stream(parent, ancestor)
    assert (final_stream(number, switched_off(number, model)) - expected).norm() < 0.02 * expected.norm()
    assert number in ("06", "10") or (opened - expected).norm() > 0.1 * expected.norm()


def test_skips_mirror_the_first_half_in_the_second(definitions_of):
    """Sheet 11: block 5 - i goes to block 6 + i, the nearest pair too; here 1 to 2 and 0 to 3."""
    record = definitions_of("11")
    model = toy(record)
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        model.skip_weights.copy_(torch.tensor([0.5, 2.0]))
        x = embedding = record.rms_norm(model.embedding(tokens))
        a, first_value = model.blocks[0](x, embedding, model.rotary, None)
        b, _ = model.blocks[1](a, embedding, model.rotary, first_value)
        c, _ = model.blocks[2](b + 0.5 * b, embedding, model.rotary, first_value)
        d, _ = model.blocks[3](c + 2 * a, embedding, model.rotary, first_value)
        result, _ = model.hidden(tokens)
    assert torch.equal(result, record.rms_norm(d))


@pytest.mark.parametrize("number", ["09", "10", "11"])
def test_logits_stop_at_the_cap(definitions_of, number):
    """However sure the head is, the target's logit cannot be more than 60 below another: 30 · tanh."""
    model = toy(definitions_of(number))
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    tokens = torch.arange(16)[None]
    assert 20 < model(tokens, tokens).item() < 60 + math.log(512)


@pytest.mark.parametrize("number", ["02", "03", "04"])
def test_attention_is_causal_within_a_row(definitions_of, number):
    """A later token changes no earlier output, nor anything in another row."""
    model = toy(definitions_of(number))
    tokens = torch.randint(0, 512, (2, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 512
    before, after = model.hidden(tokens)[0], model.hidden(changed)[0]
    assert torch.equal(before[0, :10], after[0, :10]) and torch.equal(before[1], after[1])
    assert not torch.equal(before[0, 10:], after[0, 10:])
