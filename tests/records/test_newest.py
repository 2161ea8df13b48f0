"""What record 89 does, held to plain definitions, at toy size on the CPU."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

TOY = {"vocab_size": 160, "bigram_rows": 97, "sign_rows": 16, "model_dim": 32, "num_heads": 2, "head_dim": 16}
TOY |= {"mlp_dim": 64, "hidden_dim": 8, "window_block": 8, "row_tokens": 64, "val_row_tokens": 64}
TOY |= {"dynamic_keys": 12, "dynamic_block": 16}


@pytest.fixture
def record(definitions_of):
    return definitions_of("89")


@pytest.fixture
def toy(record):
    """The definitions with toy settings, and a model in which nothing that could matter is zero."""
    record.settings = record.Settings(**TOY)
    torch.manual_seed(1)
    model = record.GPT(record.settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.quantise_mlp(exact=True)
        model.prefixes.copy_(torch.randint(-1, 160, (160,), generator=generator))
    return record, model


def batch(record, tokens: int = 64):
    """A row of inputs and the documents in it."""
    generator = np.random.default_rng(3)
    record.device = torch.device("cpu")
    row = generator.integers(0, 160, tokens + 1)
    return record.as_inputs(row, [tokens // 4, tokens // 2, tokens // 4], 8, tokens)[0]


def test_dynamic_heads_follow_their_definition(record):
    torch.manual_seed(1)
    query, key, value = (torch.randn(48, 3, 8).bfloat16() for _ in range(3))
    first, second = (torch.randn(48, 3).bfloat16() for _ in range(2))
    ends = torch.tensor([0, 7, 40, 48, 48], dtype=torch.int32)
    got = record.dynamic_heads(query, key, value, first, second, ends, 12, 16, 0.3)
    first = (first.float() * torch.rsqrt(first.float().square().mean(1, keepdim=True) + 1e-6)).bfloat16().float()
    for t in range(48):
        start = max(t - 11, max(end for end in (0, 7, 40) if end <= t))
        scores = torch.einsum("hd,jhd->hj", query[t].float(), key[start : t + 1].float()) * 0.3
        mixed = torch.einsum("h,hj->j", first[t], scores.softmax(-1))
        expected = torch.einsum("hj,jhd->hd", (second[t].float()[:, None] * mixed), value[start : t + 1].float())
        assert torch.allclose(got[t].float(), expected, rtol=2e-2, atol=3e-2)


def test_the_loss_and_its_gradient_follow_the_sheet(record):
    torch.manual_seed(1)
    z = torch.randn(12, 160).bfloat16() * 4
    targets, prefixes = torch.randint(0, 160, (12,)), torch.randint(0, 160, (12,))
    prefixes[::3] = -1
    weights = torch.tensor([1.0, 0.5, 0.25, 0.125])
    classes, shares, totals = record.wanted_classes(targets, prefixes, weights)
    losses, log_sums = record.capped_cross_entropy(z, classes, shares, 23.0, 5.0, 7.5)
    logits = (23 * torch.sigmoid((z.float() + 5) / 7.5).bfloat16().float()).double()
    gradient = torch.zeros(12, 160, dtype=torch.float64)
    for i in range(12):
        total, loss = 0.0, 0.0
        wanted = [(weights[k], targets[i + k] if i + k < 12 else None) for k in range(3)]
        wanted += [(weights[3], prefixes[i])] if prefixes[i] >= 0 else []
        for weight, target in wanted:
            total += weight.item()
            if target is not None:
                loss += weight * -F.log_softmax(logits[i], 0)[target]
                gradient[i, target] -= weight
        gradient[i] += total * logits[i].softmax(0)
        assert losses[i].item() == pytest.approx(loss.item(), rel=1e-5)
    gate = logits / 23
    gradient *= 23 / 7.5 * gate * (1 - gate)
    rows, columns = record.capped_cross_entropy_gradient(z, classes, shares, totals, log_sums, 23.0, 5.0, 7.5)
    assert torch.equal(rows.float(), columns.float().T)
    assert torch.allclose(rows.double() * record.FP8_GRADIENT_SCALE, gradient, rtol=0.13, atol=1e-6)


def test_the_mlps_8_bit_pass_and_its_gradient_follow_the_sheet(toy):
    """Sheet 89, 4.8, rounding by rounding, with a scale so small that the largest activations are clipped. The backward
    pass knows of no rounding but that of post."""
    record, model = toy
    x = record.rms_norm(torch.randn(64, 32)).bfloat16().requires_grad_()
    up, down = (matrix.detach().clone().requires_grad_() for matrix in model.mlp_bank[0])
    post_scale = F.relu(F.linear(x, up)).square().max().float().detach() / 1.5 / 448
    scales = model.up8[0], model.up_scales[0], model.down8[0], model.down_scales[0], post_scale
    out, maximum = record.FP8SquaredReLUMLP.apply(x, up, down, *scales)

    def cast(tensor, scale):
        return (tensor.detach().float() / scale).clamp(max=448).to(torch.float8_e4m3fn).float() * scale

    up8, down8 = (cast(w, (w.detach().abs().max().float() / 448).bfloat16().float()) for w in (up, down))
    pre = (cast(x, x.detach().abs().max().float() / 448) @ up8.T).bfloat16()
    post = F.relu(pre).square()
    assert maximum.item() == post.max().item() > 448 * post_scale
    expected = cast(post, post_scale) @ down8
    assert (out - expected).norm() < 0.01 * expected.norm()
    towards = torch.randn_like(out)
    pre_gradient = 2 * (towards.float() @ down.float().T) * post.float().sqrt()
    expected = pre_gradient @ up.float(), pre_gradient.T @ x.float(), post.float().T @ towards.float()
    for got, gradient in zip(torch.autograd.grad(out, (x, up, down), towards), expected):
        assert (got - gradient).norm() < 0.01 * gradient.norm()


def test_scales_lag_by_one_pass(toy):
    record, model = toy
    row, windows = batch(record), (3, 1)
    weights = torch.tensor([1.0, 0.25])
    with torch.no_grad():
        *_, maxima = model.hidden(row[0], row[3], row[2], row[4], windows)
        assert model.post_scales.tolist() == [1.0] * 11
        model(*row, windows, weights)
        assert torch.allclose(model.post_scales, torch.cat(maxima) * 1.8 / 448)
        before = model.post_scales.clone()
        model.eval()
        model(*row, windows)
        assert torch.equal(model.post_scales, before)
        # The weights' scale: exact, then that of the step before, times 1.12.
        down = model.mlp_bank[:, 1]
        largest = down.abs().amax((1, 2)).float().clamp(min=1e-12)
        assert torch.allclose(model.down_scales, largest / 448, rtol=4e-3)
        down.mul_(1.1)
        model.quantise_mlp(exact=False)
        assert torch.allclose(model.down_scales, largest * 1.12 / 448)
        again = model.down8.float() * model.down_scales[:, None, None]
        assert torch.allclose(again.mT, down.float(), rtol=0.07, atol=1e-4)


def test_a_token_sees_nothing_of_what_comes_later(toy):
    """Neither through windows, pairs, shifted keys, dynamic heads, bigrams nor smear."""
    record, model = toy
    model.eval()
    tokens, _, ends, bigrams, longest = batch(record)
    other = tokens.clone()
    other[40:] = (other[40:] + 11) % 160
    changed = torch.from_numpy(record.bigram_rows(other.numpy()))
    with torch.no_grad():
        x, *_ = model.hidden(tokens, bigrams, ends, longest, (3, 1))
        y, *_ = model.hidden(other, changed, ends, longest, (3, 1))
    assert torch.equal(x[:40], y[:40]) and not torch.equal(x[40:], y[40:])


@pytest.mark.parametrize("rows, columns", [(64, 16), (16, 16), (8, 32)])
def test_normuon_keeps_32_bits(record, one_rank, rows, columns):
    """Sheet 89, 4.12: statistics by row, or by column where there are more of these."""
    torch.manual_seed(1)
    bank = torch.nn.Parameter(torch.randn(4, 2, rows, columns).bfloat16())
    trained = record.NorMuon(bank, (2.0, 4.0), 0.023, 1.2, 0.9, 0.125)
    value, buffer, second = bank.detach().float().flatten(0, 1), torch.zeros(8, rows, columns), 0
    for _ in range(3):
        bank.grad = torch.randn(bank.shape).bfloat16()
        gradient = bank.grad.float().flatten(0, 1) / 8
        trained.send()
        trained.update(1.52, 0.9)
        trained.finish()
        # By the same operations as the record's: a rounding that fell otherwise would be seen in all that follows.
        buffer = torch.lerp(buffer, gradient, 1 - 0.9)
        o = record.polar_express(torch.lerp(gradient, buffer, 0.9).bfloat16()).float()
        q = o.square().mean(2 if rows >= columns else 1, keepdim=True)
        second = 0.9 * second + 0.1 * q
        k = second.clamp(min=1e-10) ** -0.5
        ratio = q.sum((1, 2), keepdim=True).sqrt() / (q * k**2).sum((1, 2), keepdim=True).sqrt()
        o = (o * (k * ratio).bfloat16()).bfloat16().float()
        rate = 0.023 * 1.52
        rates = rate * 2 * torch.tensor([1.0, 2.0]).repeat(4)[:, None, None]
        value = value - (o * value >= 0) * value * 1.2 * rate * rates - o * rates
    low = trained.low.int() & 0xFFFF
    whole = ((bank.detach().flatten(0, 1).view(torch.int16).int() << 16) | low).view(torch.float32)
    assert torch.allclose(whole, value, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(bank.detach().flatten(0, 1).float(), value, rtol=1e-3, atol=1e-3)


def test_adam_decays_with_caution(record, one_rank):
    table = torch.nn.Parameter(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    adam = record.Adam(table, 0.1, 5.0, (0.9, 0.99), 1e-10, 1.0)
    table.grad = torch.tensor([[2.0, -2.0], [2.0, -2.0]])
    adam.send()
    adam.update(1.0, 0.0)
    size = 0.1 * math.sqrt(0.01) / 0.1 * 0.1 / math.sqrt(0.01)  # both moments' corrections cancel at the first step
    expected = [[1 - size - 0.05, 1 + size], [-1 - size, -1 + size + 0.05]]
    assert torch.allclose(table.detach(), torch.tensor(expected), atol=1e-6)


def test_tables_add_up_what_autograd_would(toy, one_rank):
    """Over two rows of tokens, without a gradient of the whole table; and they forget it with the step."""
    record, model = toy
    row, weights = batch(record), torch.tensor([1.0, 0.25])
    tables, scales = (model.value_tables, model.bigram_table), model.post_scales.clone()
    expected = [gradient.float() for gradient in torch.autograd.grad(model(*row, (3, 1), weights), tables)]
    rules = [record.TableAdam(table, 0.1, 0.0, (0.9, 0.99), 1e-10, 1.0) for table in tables]
    for _ in range(2):
        model.post_scales.copy_(scales)  # the first pass has set the next one's
        rows = model.value_rows(row[0]), row[3][None]
        looked_up = [rule.look_up(places) for rule, places in zip(rules, rows)]
        model(*row, (3, 1), weights, looked_up).backward()
        for rule, places, found in zip(rules, rows, looked_up):
            rule.add(places, found)
    for rule, gradient in zip(rules, expected):
        assert rule.parameter.grad is None and gradient.any()
        torch.testing.assert_close(rule.sums, 2 * gradient, rtol=2e-2, atol=1e-4)
        rule.send()
        assert torch.equal(rule.gradient, rule.sums.bfloat16())
        rule.update(1.0, 0.0)
        rule.finish()
        assert not rule.sums.any()
        rule.sums.fill_(1.0)  # what the warmup may leave
        rule.reset()
        assert not rule.sums.any()


def test_kernels_agree_with_their_definitions(record, device):
    """On a GPU each Triton kernel is held to the plain definition, at sizes that its tiles do not divide."""
    torch.manual_seed(1)

    def agree(make, atol, rtol=2e-2):
        """`make` gives the results of the definitions on a device."""
        for fast, plain in zip(make(device), make(torch.device("cpu")), strict=True):
            assert torch.allclose(fast.float().cpu(), plain.float(), rtol=rtol, atol=atol)

    down, scales = torch.randn(3, 200, 136).bfloat16(), torch.tensor([0.01, 0.004, 0.02])

    def columns(place):
        out = torch.empty(3, 136, 200, dtype=torch.float8_e4m3fn, device=place)
        record.quantise_columns(down.to(place), scales.to(place), out)
        return (out,)

    agree(columns, atol=0)
    up8, x8 = (torch.randn(rows, 208).mul(50).to(torch.float8_e4m3fn) for rows in (520, 300))
    scale, post_scale = torch.tensor(1e-4), torch.tensor(0.01)
    inputs = x8, up8, scale, post_scale
    agree(lambda place: record.linear_relu_square8(*(x.to(place) for x in inputs)), atol=2e-2, rtol=0.13)
    post = record.linear_relu_square8(*inputs)[0]
    gradient, bank = torch.randn(300, 208).bfloat16(), torch.randn(520, 208).bfloat16()
    inputs = gradient, bank, post
    agree(lambda place: (record.linear_relu_square_gradient(*(x.to(place) for x in inputs)),), atol=0.3)
    z, targets = torch.randn(72, 1000).mul(4).bfloat16(), torch.randint(0, 1000, (72,))
    wanted = record.wanted_classes(targets, torch.randint(-1, 1000, (72,)), torch.tensor([1.0, 0.5, 0.25, 0.25]))

    def losses(place):
        classes, shares, totals = (x.to(place) for x in wanted)
        loss, log_sums = record.capped_cross_entropy(z.to(place), classes, shares, 23.0, 5.0, 7.5)
        inputs = z.to(place), classes, shares, totals, log_sums, 23.0, 5.0, 7.5
        return loss, log_sums, *record.capped_cross_entropy_gradient(*inputs)

    agree(losses, atol=2e-3, rtol=0.26)
    sums, rows, gradients = torch.randn(20, 136), torch.randint(0, 19, (300,)), torch.randn(300, 136).bfloat16()

    def added(place):
        result = sums.to(place)
        record.add_rows(result, rows.to(place), gradients.to(place))
        return (result,)

    agree(added, atol=1e-4)
