"""FlashAttention 4 as an operator: that it is given what `attend` means, and that a run goes on without it."""

import sys
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.defines("flash4_attend")
ENDS, LONGEST, WINDOW, SCALE = (0, 7, 40, 41, 64, 64), 33, 12, 0.3


class InFloat32:
    """In the package's place, under its names: whole matrices, and further results as its newer versions have them."""

    def __init__(self):
        self.passes = []

    def _flash_attn_fwd(self, query, key, value, *, return_lse, **options):
        assert return_lse
        self.passes.append("forward")
        seen = scores(query, key, **options)
        out = torch.einsum("hij,jhd->ihd", seen.softmax(-1), value.float())
        return query.new_empty(query.shape).copy_(out), seen.logsumexp(-1), None, None, None

    def _flash_attn_bwd(self, query, key, value, out, out_gradient, log_sums, **options):
        self.passes.append("backward")
        q, k, v, out, out_gradient = (x.float() for x in (query, key, value, out, out_gradient))
        weights = (scores(query, key, **options) - log_sums[..., None]).exp()
        change = torch.einsum("ihd,jhd->hij", out_gradient, v) - (out_gradient * out).sum(-1).T[..., None]
        change = weights * change * options["softmax_scale"]
        gradients = (
            torch.einsum("hij,jhd->ihd", change, k),
            torch.einsum("hij,ihd->jhd", change, q),
            torch.einsum("hij,ihd->jhd", weights, out_gradient),
        )
        return [torch.empty_like(x).copy_(gradient) for x, gradient in zip((query, key, value), gradients)]


def scores(
    query, key, *, softmax_scale, window_size_left, window_size_right, cu_seqlens_q, cu_seqlens_k,
    max_seqlen_q, max_seqlen_k,
):  # fmt: skip
    """(heads, T, T) fp32: a query sees keys of its document from so many before it to so many after."""
    assert cu_seqlens_q.equal(cu_seqlens_k) and max_seqlen_q == max_seqlen_k >= cu_seqlens_q.diff().max()
    position = torch.arange(query.size(0), device=query.device)
    document = torch.searchsorted(cu_seqlens_q, position, right=True)
    ahead = position - position[:, None]
    seen = (ahead >= -window_size_left) & (ahead <= window_size_right) & (document[:, None] == document)
    products = torch.einsum("ihd,jhd->hij", query.float(), key.float()) * softmax_scale
    return products.masked_fill(~seen, -torch.inf)


@pytest.fixture
def record(folder, definitions_in, monkeypatch):
    found = definitions_in(folder)
    monkeypatch.setattr(found, "flash4", None)  # and again when the test is over, whatever it has chosen
    monkeypatch.setattr(found, "FLASH4_SIZE", 0, raising=False)
    return found


def inputs(device="cpu", heads=2, head_dim=16):
    q, k, v = (torch.randn(64, heads, head_dim, device=device).bfloat16().requires_grad_() for _ in range(3))
    return (q, k, v), (torch.tensor(ENDS, dtype=torch.int32, device=device), LONGEST, WINDOW, SCALE)


def with_gradients(attend, tensors, options):
    """What comes out, and each input's gradient of one weighted sum of it."""
    out = attend(*tensors, *options)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).bfloat16()
    return out, *torch.autograd.grad(out, tensors, weights)


def test_the_operator_is_attend(record):
    tensors, options = inputs()
    expected = with_gradients(record.attend, tensors, options)
    record.flash4 = InFloat32()
    for got, wanted in zip(with_gradients(record.attend, tensors, options), expected):
        torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2)
    assert record.flash4.passes == ["forward", "backward"]


def test_the_compiler_may_trust_the_operators(record):
    """Schema, shapes without values, gradient: PyTorch's own checks. Inputs are views, as the layers' are."""
    record.flash4 = InFloat32()
    (q, k, v), options = inputs()
    views = [x.detach().repeat(1, 1, 2)[..., :16].requires_grad_() for x in (q, k, v)]
    turned = [x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for x in (q, k, v)]
    for tensors in ((q, k, v), views, turned):
        torch.library.opcheck(record.flash4_attend, (*tensors, *options))
        with torch.no_grad():
            out, log_sums = record.flash4_attend(*tensors, *options)
        detached = [x.detach() for x in tensors]
        torch.library.opcheck(record.flash4_gradient, (*detached, *options, out, log_sums, out))


@pytest.mark.defines("FLASH4_SIZE")
def test_short_rows_are_not_for_it(record, monkeypatch):
    """Those of the first stage: of 64 tokens here."""
    monkeypatch.setattr(record, "FLASH4_SIZE", 64 * 2)
    record.flash4 = InFloat32()
    tensors, options = inputs()
    record.attend(*tensors, *options)
    assert record.flash4.passes == []


def test_without_the_package_pytorchs_own_runs(record, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert record.attention_backend(2, 16) == "varlen_attn, FlashAttention 2"
    assert record.flash4 is None


def test_a_package_that_misses_another_is_named(record, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def misses(name):
        raise ModuleNotFoundError("No module named 'quack'", name="quack")

    monkeypatch.setattr(record.importlib, "import_module", misses)
    said = record.attention_backend(2, 16)
    assert said == """varlen_attn, FlashAttention 2 (4 failed: ModuleNotFoundError("No module named 'quack'"))"""


def test_a_package_that_fails_here_is_named_and_left(record, monkeypatch):
    """As one would for another GPU or another version."""

    def fails(*_, **__):
        raise RuntimeError("no kernel\nfor this GPU")

    package = ModuleType("flash_attn.cute.interface")
    package._flash_attn_fwd = fails
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", ModuleType("flash_attn.cute"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_cpu = {name: getattr(torch, name) for name in ("zeros", "tensor")}
    for name, make in on_cpu.items():
        monkeypatch.setattr(torch, name, lambda *a, make=make, **k: make(*a, **k | {"device": "cpu"}))
    said = record.attention_backend(2, 16)
    assert said == r"varlen_attn, FlashAttention 2 (4 failed: RuntimeError('no kernel\nfor this GPU'))"
    assert record.flash4 is None


@pytest.mark.gpu
def test_its_kernels_are_attend(record):
    """The package's, compiled around as in a run, at a head's own width."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("flash_attn.cute", reason="flash-attn-4 is not installed")
    tensors, options = inputs("cuda", 6, 128)
    expected = with_gradients(record.attend, tensors, options)
    assert "FlashAttention 4" in record.attention_backend(6, 128)
    compiled = torch.compile(lambda *a: record.attend(*a), fullgraph=True, dynamic=False)
    for got, wanted in zip(with_gradients(compiled, tensors, options), expected):
        torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2)
