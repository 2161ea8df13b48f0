"""Which of the records' kernels this machine has, and how fast. Prints one JSON object a line, as each is done.

Shapes are a record's own on CUDA (768 wide, 6 heads of 128, 32,768 tokens) and small ones on a CPU.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
TOKENS, HEADS, HEAD_DIM = (32768, 6, 128) if CUDA else (512, 2, 64)
SIDE = 8192 if CUDA else 512
WINDOW = 384
DOCUMENT = 512 if CUDA else 64


class Unavailable(Exception):
    """This machine lacks what the probe needs; the message says what."""


def seconds_per_call(call) -> float:
    """Median time of a call once warm."""
    times = []
    for _ in range(8):
        _synchronise()
        began = time.perf_counter()
        call()
        _synchronise()
        times.append(time.perf_counter() - began)
    return sorted(times[3:])[2]


def _synchronise() -> None:
    if CUDA:
        torch.cuda.synchronize()


def bf16_matmul() -> dict:
    """Square bf16 matrices, accumulated in fp32."""
    a = torch.randn(SIDE, SIDE, device=DEVICE, dtype=torch.bfloat16)
    return _arithmetic(lambda: a @ a, 2 * SIDE**3)


def fp8_matmul() -> dict:
    """Square e4m3 matrices through torch._scaled_mm, as the head of the FP8 records uses it."""
    a = torch.randn(SIDE, SIDE, device=DEVICE).to(torch.float8_e4m3fn)
    b, one = a.T.contiguous().T, torch.ones((), device=DEVICE)
    return _arithmetic(lambda: torch._scaled_mm(a, b, one, one, out_dtype=torch.bfloat16), 2 * SIDE**3)


def memory_copy() -> dict:
    """One large tensor onto another; both the read and the write count."""
    a = torch.zeros((1 << 30) if CUDA else (1 << 26), dtype=torch.uint8, device=DEVICE)
    b = torch.empty_like(a)
    seconds = seconds_per_call(lambda: b.copy_(a))
    return {"ms": 1e3 * seconds, "rate": f"{2 * a.numel() / seconds / 1e9:,.0f} GB/s"}


def dense_attention() -> dict:
    """scaled_dot_product_attention, causal, forward and backward, over documents cut to one length."""
    shape = (TOKENS // DOCUMENT, HEADS, DOCUMENT, HEAD_DIM)
    return _attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), shape)


def varlen_attention() -> dict:
    """torch.nn.attention.varlen: packed documents with a causal window, forward and backward."""
    if not CUDA:
        raise Unavailable("it has no CPU kernel; records use a dense mask there")
    from torch.nn.attention.varlen import varlen_attn

    def attend(q, k, v, ends):
        return varlen_attn(q, k, v, ends, ends, DOCUMENT, DOCUMENT, window_size=(WINDOW, 0))

    return _packed(attend)


def flex_attention() -> dict:
    """FlexAttention, compiled, document-causal with a window, forward and backward."""
    if not CUDA:
        raise Unavailable("it has no backward on the CPU; records use a dense mask there")
    from torch.nn.attention import flex_attention as flex

    def mask(batch, head, query, key):
        return (query >= key) & (query - key < WINDOW) & (query // DOCUMENT == key // DOCUMENT)

    blocks = torch.compile(flex.create_block_mask)(mask, None, None, TOKENS, TOKENS, device=DEVICE)
    compiled = torch.compile(flex.flex_attention, dynamic=False)
    return _attention(lambda q, k, v: compiled(q, k, v, block_mask=blocks), (1, HEADS, TOKENS, HEAD_DIM))


def flash_attention_3() -> dict:
    """The varlen probe again, with FlashAttention 3 in place, as the published records 29 and later had it."""
    if not CUDA:
        raise Unavailable("it is made for Hopper GPUs")
    from torch.nn.attention import activate_flash_attention_impl

    activate_flash_attention_impl("FA3")
    return varlen_attention()


def flash_attention_4() -> dict:
    """The same by the package flash-attn-4, as records from 50 on use it where there is no FlashAttention 3."""
    if not CUDA:
        raise Unavailable("it is made for Hopper GPUs and later ones")
    from flash_attn.cute import flash_attn_varlen_func

    def attend(q, k, v, ends):
        documents = {"cu_seqlens_q": ends, "cu_seqlens_k": ends, "max_seqlen_q": DOCUMENT, "max_seqlen_k": DOCUMENT}
        return flash_attn_varlen_func(q, k, v, **documents, window_size=(WINDOW, 0))[0]

    return _packed(attend)


def compiler() -> dict:
    """torch.compile of a small fused function."""
    if not CUDA:
        raise Unavailable("records run uncompiled on the CPU")
    x = torch.randn(1 << 24, device=DEVICE, dtype=torch.bfloat16)
    fused = torch.compile(
        lambda x: F.rms_norm(x.view(-1, 1024), (1024,)).relu().square(), dynamic=False, fullgraph=True
    )
    seconds = seconds_per_call(lambda: fused(x))
    return {"ms": 1e3 * seconds, "rate": f"{4 * x.numel() / seconds / 1e9:,.0f} GB/s"}


def _packed(attend) -> dict:
    """Time of `attend(query, key, value, ends)` on packed documents of one length."""
    ends = torch.arange(0, TOKENS + 1, DOCUMENT, device=DEVICE, dtype=torch.int32)
    return _attention(lambda q, k, v: attend(q, k, v, ends), (TOKENS, HEADS, HEAD_DIM))


def _attention(attend, shape: tuple) -> dict:
    """Time of forward and backward of `attend(query, key, value)` for bf16 tensors of this shape."""
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    gradient = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)
    seconds = seconds_per_call(lambda: attend(q, k, v).backward(gradient))
    return {"ms": 1e3 * seconds, "rate": f"{TOKENS / seconds / 1e6:,.2f} M tokens/s"}


def _arithmetic(call, operations: float) -> dict:
    seconds = seconds_per_call(call)
    return {"ms": 1e3 * seconds, "rate": f"{operations / seconds / 1e12:,.2f} TFLOP/s"}


# FlashAttention 3 comes last, since it stays in place once activated.
PROBES = (
    bf16_matmul,
    fp8_matmul,
    memory_copy,
    dense_attention,
    varlen_attention,
    flex_attention,
    compiler,
    flash_attention_4,
    flash_attention_3,
)


def main():
    """Try every probe; one that fails says why and does not keep the others from running."""
    for probe in PROBES:
        try:
            outcome = probe()
        except Exception as error:  # a probe may fail in any way that a kernel can
            lines = str(error).strip().splitlines()
            outcome = {"unavailable": lines[0][:160] if lines else type(error).__name__}
        print(json.dumps({"name": probe.__name__, **outcome}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
