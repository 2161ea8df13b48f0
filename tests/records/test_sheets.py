"""Records 50, 61 and 89 as wholes, against their sheets written down a second time (`sheets.py`): in fp32, every
parameter somewhere it was not put, two windows, three documents."""

import pytest
import sheets
import smoke
import torch
import torch.nn.functional as F

TOY = {"vocab_size": 80, "model_dim": 96, "num_heads": 6, "head_dim": 16, "mlp_dim": 32, "window_block": 2}
TOY |= {"row_tokens": 24, "val_row_tokens": 24, "bigram_rows": 64, "sign_rows": 16, "hidden_dim": 8, "fp8": False}
TOY |= {"dynamic_keys": 5, "dynamic_block": 8, "attention_scale": 0.4}
ENDS, LONGEST, WINDOWS = torch.tensor([0, 3, 17, 24, 24], dtype=torch.int32), 14, (3, 1)


@pytest.fixture
def full_precision(monkeypatch):
    """fp32 where a script asks for bf16, until the test is over."""
    for place, name in ((torch, "bfloat16"), (torch.Tensor, "bfloat16"), (torch.nn.Module, "bfloat16")):
        monkeypatch.setattr(place, name, getattr(place, name))
    smoke.compute_in_full_precision()


@pytest.fixture(params=sheets.FORWARDS)
def both(request, definitions_of, full_precision):
    """A record's model in which nothing is at its start, a row, and what the model and the sheet make of it."""
    record = definitions_of(request.param)
    known = record.Settings.__dataclass_fields__
    record.settings = settings = record.Settings(**{name: value for name, value in TOY.items() if name in known})
    torch.manual_seed(1)
    model = record.GPT(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    ids, targets = torch.randint(0, 80, (2, 24))
    p = dict(model.named_parameters()) | dict(model.named_buffers())
    p["bigrams"] = torch.randint(0, 64, (24,), dtype=torch.int32)
    row = (ids.int(), p["bigrams"]) if request.param == "89" else (ids.int(),)
    ours = model.hidden(*row, ENDS, LONGEST, WINDOWS)[0]
    theirs = sheets.FORWARDS[request.param](p, settings, ids, [3, 17], (6, 2))
    return record, model, ids, targets, ours, theirs


def test_what_the_head_sees(both):
    *_, ours, theirs = both
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_every_gradient(both):
    """Of a loss with weights of its own for each number. What has no gradient by the sheet has none here."""
    _, model, *_, ours, theirs = both
    weights, towards = dict(model.named_parameters()), torch.randn_like(theirs)
    results, references = (
        torch.autograd.grad(x, weights.values(), towards, retain_graph=True, allow_unused=True) for x in (ours, theirs)
    )
    seen = 0
    for name, result, reference in zip(weights, results, references):
        if reference is None:
            assert result is None or not result.any(), name
            continue
        seen += 1
        assert (result - reference).norm() <= 2e-4 * reference.norm(), name
    assert seen >= len(weights) - 1  # all but the head


def test_losses(both):
    """Training's sum over what the record asks for; validation's mean over the next tokens."""
    _, model, _, targets, x, _ = both
    s = model.settings
    z = sheets.norm(x) @ (model.lm_head if model.lm_head.size(0) == s.model_dim else model.lm_head.T)
    log = F.log_softmax(s.logit_cap * torch.sigmoid((z + getattr(s, "logit_shift", 0)) / s.logit_width), dim=-1)
    weights = [1.0, 0.5, 0.25] if hasattr(s, "target_stages") else [1.0]
    expected = -sum(w * log[i, targets[i + k]] for k, w in enumerate(weights) for i in range(24 - k))
    if hasattr(model, "prefixes"):
        model.prefixes.copy_(torch.randint(-1, 80, (80,)))
        expected -= 0.125 * sum(log[i, p] for i, p in enumerate(model.prefixes[targets]) if p >= 0)
        weights.append(0.125)
    asked = [torch.tensor(weights)] if len(weights) > 1 else []
    assert model.loss(x, targets, *asked).item() == pytest.approx(expected.item(), rel=1e-5)
    model.eval()
    mean = -log[torch.arange(24), targets].mean().item()
    assert model.loss(x, targets, *asked).item() == pytest.approx(mean, rel=1e-5)
