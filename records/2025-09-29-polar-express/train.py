"""Record 38 · 2025-09-29 · Polar Express in place of Newton-Schulz

Claim      2.476 minutes on the leaderboard; its seven public logs average 148.589 s = 2.476 minutes.
           Validation loss 3.2790 ± 0.0007 (n = 7, one-sided p = 0.0045 against the target of 3.28), FineWeb.
Hardware   8x NVIDIA H100 80GB HBM3, PyTorch 2.10.0.dev20250926+cu126; 1,670 steps of 393,216 tokens, 88.99 ms each.
New        Muon orthogonalises by Polar Express: still five iterations of an odd quintic, but each with the polynomial
           that is best for the interval of singular values the ones before it have left, where Newton-Schulz took one
           compromise five times. Small singular values rise faster (0.001 -> 0.86, before 0.47) and all end closer
           to 1. A step costs what it did.
           Also: Muon's learning rate 0.05 -> 0.06, 1,680 -> 1,670 steps.
Parent     37 (2025-09-27): cross entropy in bf16.
Credit     @varunneal; Polar Express: Amsel et al.
Source     https://github.com/KellerJordan/modded-nanogpt/pull/134
Rules      edition 2025-02-01: 30 untimed warmup steps, state restored, then every training step is timed.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 rows in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

Not as published, without effect on the mathematics:
  - One kernel makes both of Muon's symmetric products (published: two, as the shared one was slower for the first),
    with four choices of tile to tune over (published: 30).
  - The head's rounding to fp8, softcap, cross entropy and fp8 gradient are kernels of our own.
  - FlashAttention 3 is used where it is installed; otherwise PyTorch's own FlashAttention 2.
  - The element-wise Adam update is fused and computed in fp32 (published: one bf16 rounding per operation).
  - Muon's chunks may hold both kinds of matrix, so that its grouping is right at 1, 2 and 4 ranks as well.
  - Optimizer state exists before the clock starts, and is zeroed after the warmup rather than dropped.
  - Validation caps its logits in fp32 (published: in bf16, which is computed in fp32 registers when compiled).
With an effect on it, should it ever happen:
  - Once fp8 clips a thousandth of the head's weights, the head goes on in bf16, and the log says so.
"""

import argparse
import ast
import json
import math
import os
import sys
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from itertools import groupby
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # read when torch is imported

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds of PyTorch come without Triton; the plain definitions below are used there
    triton = None

# --------------------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------------------

DOCUMENT_START = 50256  # GPT-2's end-of-text token opens every document of a shard


@dataclass(frozen=True)
class Settings:
    """Every number of the record. `--name value` on the command line overrides one, and the log says so."""

    # This run: where it reads and writes. Not part of the record.
    data_dir: str = "data/fineweb10B"
    log_file: str = ""  # empty: logs/<uuid>.txt
    seed: int = -1  # -1: not set, as in the published runs
    telemetry_every: int = 0  # steps between telemetry lines; 0 turns telemetry off

    # Length and batch
    num_iterations: int = 1670
    extension_iterations: int = 40  # the last steps, after the learning rate has reached its floor
    rows_per_step: int = 8  # one row per GPU on 8 GPUs
    row_tokens: int = 49152
    document_tokens: int = 2048  # longer documents are cut, the rest of them is dropped
    tokens_per_document: int = 300  # at least, on average: sizes the table of document ends
    first_scan_tokens: int = 4_000_000  # how far the first shard is searched for documents before the first step

    # Validation
    val_tokens: int = 10_485_760
    val_row_tokens: int = 262_144
    val_loss_every: int = 125

    # Model
    vocab_size: int = 50304  # 50,257 rounded up to a multiple of 128; the padding takes part in the softmax
    num_layers: int = 12
    model_dim: int = 768
    num_heads: int = 6
    head_dim: int = 128
    mlp_dim: int = 3072
    gate_dim: int = 12  # channels that the attention and smear gates read
    absent_layer: int = 0  # never executed
    layer_without_attention: int = 7
    value_embedding_layers: tuple = ((1, 1), (2, 2), (9, 0), (10, 1), (11, 2))  # (layer, table)
    skip_pairs: tuple = ((6, 5), (7, 4), (8, 3), (9, 2), (10, 1))  # (to, from)
    logit_cap: float = 30.0  # cap * sigmoid(z / width)
    logit_width: float = 7.5
    fp8: bool = True  # the head's matmuls in training; validation uses bf16

    # Attention windows, in blocks; a short layer sees half of a long one
    window_block: int = 128
    long_layers: tuple = (4, 11)
    window_stages: tuple = (3, 7, 11)
    final_window: int = 20  # validation after the last step: long layers
    final_yarn_window: int = 13  # the same: rotary scale, and twice the short window
    attention_scale: float = 0.1
    rotary_base: int = 1024

    # Learning rate and optimizers
    cooldown_fraction: float = 0.5
    final_learning_rate: float = 0.1  # as a fraction of the peak
    adam_learning_rate: float = 0.008
    table_multiplier: float = 75.0  # embedding and value tables
    scalar_multiplier: float = 5.0
    adam_beta1: float = 0.8
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    muon_learning_rate: float = 0.06
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    momentum_warmup: int = 300

    # Untimed warmup, all state restored after it
    warmup_iterations: int = 30


THIS_RUN = {"data_dir", "log_file", "seed", "telemetry_every"}


def read_settings() -> tuple[Settings, dict[str, object]]:
    """The settings of this run, and those that differ from the record's."""
    kinds = {bool: lambda text: {"true": True, "false": False}[text.lower()], tuple: ast.literal_eval}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for field in fields(Settings):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kinds.get(kind, kind), default=field.default, metavar=kind.__name__)
    given = vars(parser.parse_args())
    record = {field.name: field.default for field in fields(Settings)}
    overrides = {name: value for name, value in given.items() if name not in THIS_RUN and value != record[name]}
    return Settings(**given), overrides


def fail(message: str) -> None:
    """End this rank with one line for the person who started it."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


# --------------------------------------------------------------------------------------------------
# Kernels
# --------------------------------------------------------------------------------------------------

# On CUDA the hot functions are compiled. On the CPU they run as they stand here, and are the reference.
fast = partial(torch.compile, dynamic=False, fullgraph=True) if torch.cuda.is_available() else lambda function: function


def scaled_matmul(a: Tensor, b: Tensor, scale: float, dtype: torch.dtype, fast_accumulation: bool) -> Tensor:
    """(a @ b) * scale for fp8 matrices, accumulated in fp32. The tensor cores want `b` in column-major order."""
    if not a.is_cuda:
        return (a.float() @ b.float() * scale).to(dtype)
    one = torch.ones((), device=a.device)
    return torch._scaled_mm(a, b, scale * one, one, out_dtype=dtype, use_fast_accum=fast_accumulation)


# Constant fp8 scales of the head. The largest number of e4m3 is 448: weights beyond 448 * 2^-9 = 0.875 are clipped. A
# row of activations has norm sqrt(dim), so no entry exceeds sqrt(dim), which is mapped to 448. The loss is a sum over
# tokens, so a logit's gradient is at most 1.
FP8_WEIGHT_SCALE = 2.0**-9
FP8_GRADIENT_SCALE = 1 / 448


class FP8HeadLoss(torch.autograd.Function):
    """Summed cross entropy of softly capped logits, cap * sigmoid(z / width) with z = x @ weight.T, where both
    factors and the gradient of z are rounded to 8 bits.

    x (T, dim) bf16, weight (vocabulary, dim) bf16, targets (T,) int64; returns a scalar, fp32. Of the logits only z
    is kept, in bf16; its gradient exists in fp8 alone.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, cap, width):
        x_scale = math.sqrt(x.size(-1)) / 448
        x8, x8_columns = quantised(x, x_scale)
        weight8, weight8_columns = quantised(weight, FP8_WEIGHT_SCALE)
        z = scaled_matmul(x8, weight8.T, x_scale * FP8_WEIGHT_SCALE, torch.bfloat16, True)
        losses, log_sums = capped_cross_entropy(z, targets, cap, width)
        ctx.save_for_backward(x8_columns, weight8_columns, z, targets, log_sums)
        ctx.cap, ctx.width = cap, width
        return losses.sum()

    @staticmethod
    def backward(ctx, loss_gradient):
        x8_columns, weight8_columns, z, targets, log_sums = ctx.saved_tensors
        x_scale, scale = math.sqrt(x8_columns.size(0)) / 448, FP8_GRADIENT_SCALE
        rows, columns = capped_cross_entropy_gradient(z, targets, log_sums, ctx.cap, ctx.width)
        x_gradient = scaled_matmul(rows, weight8_columns.T, scale * FP8_WEIGHT_SCALE, torch.bfloat16, False)
        # The transposed product, (dim, vocabulary), is the faster one for this shape.
        weight_gradient = scaled_matmul(x8_columns, columns.T, x_scale * scale, torch.float32, False).T
        return x_gradient * loss_gradient, (weight_gradient * loss_gradient).to(torch.bfloat16), None, None, None


def quantised(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """x / scale (rows, columns) as e4m3, clipped to its range, and its transpose: both contiguous, since the head's
    matmuls read it in either direction."""
    rows = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    columns = torch.empty(x.size(1), x.size(0), dtype=torch.float8_e4m3fn, device=x.device)
    if x.is_cuda:
        grid = (triton.cdiv(x.size(1), 64), triton.cdiv(x.size(0), 64))
        quantise_kernel[grid](x, rows, columns, x.size(0), x.size(1), scale, SIDE=64, num_warps=8)
        return rows, columns
    rows.copy_((x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn))
    return rows, columns.copy_(rows.T)


def capped_cross_entropy(z: Tensor, targets: Tensor, cap: float, width: float) -> tuple[Tensor, Tensor]:
    """Per token, from raw logits z (T, vocabulary) bf16: the loss and the logarithm of the softmax's sum, both fp32."""
    losses, log_sums = torch.empty(z.size(0), device=z.device), torch.empty(z.size(0), device=z.device)
    if z.is_cuda:
        cross_entropy_kernel[(z.size(0),)](z, targets, losses, log_sums, z.size(1), cap, width, BLOCK=4096, num_warps=8)
        return losses, log_sums
    logits = cap * torch.sigmoid(z.float() / width)
    log_sums.copy_(logits.logsumexp(dim=-1))
    return losses.copy_(log_sums - logits.gather(1, targets[:, None])[:, 0]), log_sums


def capped_cross_entropy_gradient(z, targets, log_sums, cap: float, width: float) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss by z, over FP8_GRADIENT_SCALE, as e5m2: (T, vocabulary) and its transpose, both
    contiguous, since the head's two matmuls read it in either direction."""
    tokens, vocabulary = z.shape
    rows = torch.empty(tokens, vocabulary, dtype=torch.float8_e5m2, device=z.device)
    columns = torch.empty(vocabulary, tokens, dtype=torch.float8_e5m2, device=z.device)
    if z.is_cuda:
        grid = (triton.cdiv(vocabulary, 32), triton.cdiv(tokens, 64))
        cross_entropy_gradient_kernel[grid](
            z, targets, log_sums, rows, columns, tokens, vocabulary,
            cap, width, FP8_GRADIENT_SCALE, ROWS=64, COLUMNS=32, num_warps=4,
        )  # fmt: skip
        return rows, columns
    gate = torch.sigmoid(z.float() / width)
    error = torch.exp(cap * gate - log_sums[:, None])
    error[torch.arange(tokens), targets] -= 1
    rows.copy_((error * cap / width * gate * (1 - gate) / FP8_GRADIENT_SCALE).to(torch.float8_e5m2))
    return rows, columns.copy_(rows.T)


if triton is not None:
    TILES = [
        triton.Config({"ROWS": rows, "COLUMNS": columns, "INNER": 64}, num_stages=stages, num_warps=warps)
        for rows, columns, stages, warps in ((128, 128, 3, 8), (128, 128, 4, 4), (128, 64, 4, 4), (128, 256, 3, 8))
    ]

    # Triton 3.6 misplaces a quarter of the values when it transposes a tile of 8-bit numbers, and some of them come out
    # as NaN: in many tilings, also where the compiler writes the kernel, as for `x8.T.contiguous()`. So nothing here is
    # transposed at 8 bits: a tile that is needed in both directions is loaded and computed once for each.

    @triton.jit
    def quantised_at(x_pointer, row, column, rows, columns, scale: tl.constexpr):
        """What `quantised` holds at these places. What is not a number stays so: it must be seen."""
        x = tl.load(x_pointer + row * columns + column, mask=(row < rows) & (column < columns), other=0.0)
        x = tl.clamp(x.to(tl.float32) / scale, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
        return x.to(tl.float8e4nv)

    @triton.jit
    def quantise_kernel(x_pointer, row_pointer, column_pointer, rows, columns, scale: tl.constexpr, SIDE: tl.constexpr):
        """One tile of `quantised`, as it is and transposed."""
        row = (tl.program_id(1) * SIDE + tl.arange(0, SIDE)).to(tl.int64)
        column = (tl.program_id(0) * SIDE + tl.arange(0, SIDE)).to(tl.int64)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        tile = quantised_at(x_pointer, row[:, None], column[None, :], rows, columns, scale)
        tl.store(row_pointer + row[:, None] * columns + column[None, :], tile, mask=inside)
        tile = quantised_at(x_pointer, row[None, :], column[:, None], rows, columns, scale)
        tl.store(column_pointer + column[:, None] * rows + row[None, :], tile, mask=inside.T)

    @triton.jit
    def cross_entropy_kernel(
        z_pointer, target_pointer, loss_pointer, sum_pointer, size,
        cap: tl.constexpr, width: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """One row of `capped_cross_entropy`. The cap bounds every logit, so the sum needs no running maximum."""
        row = tl.program_id(0).to(tl.int64)
        z_pointer += row * size
        total = tl.zeros((BLOCK,), dtype=tl.float32)
        for start in range(0, size, BLOCK):
            column = start + tl.arange(0, BLOCK)
            z = tl.load(z_pointer + column, mask=column < size, other=-float("inf")).to(tl.float32)
            total += tl.where(column < size, tl.exp(cap * tl.sigmoid(z / width) - cap), 0.0)
        log_sum = cap + tl.log(tl.sum(total))
        z = tl.load(z_pointer + tl.load(target_pointer + row)).to(tl.float32)
        tl.store(loss_pointer + row, log_sum - cap * tl.sigmoid(z / width))
        tl.store(sum_pointer + row, log_sum)

    @triton.jit
    def gradient_at(
        z_pointer, target_pointer, log_sum_pointer, row, column, tokens, vocabulary,
        cap: tl.constexpr, width: tl.constexpr, scale: tl.constexpr,
    ):  # fmt: skip
        """What `capped_cross_entropy_gradient` holds at these places."""
        inside = (row < tokens) & (column < vocabulary)
        target = tl.load(target_pointer + row, mask=row < tokens, other=0)
        log_sum = tl.load(log_sum_pointer + row, mask=row < tokens, other=0.0)
        gate = tl.sigmoid(tl.load(z_pointer + row * vocabulary + column, mask=inside, other=0.0).to(tl.float32) / width)
        error = tl.exp(cap * gate - log_sum)
        error = tl.where(target == column, error - 1, error)
        return (error * cap / width * gate * (1 - gate) / scale).to(tl.float8e5)

    @triton.jit
    def cross_entropy_gradient_kernel(
        z_pointer, target_pointer, log_sum_pointer, row_pointer, column_pointer, tokens, vocabulary,
        cap: tl.constexpr, width: tl.constexpr, scale: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        """One tile of `capped_cross_entropy_gradient`, as it is and transposed."""
        row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
        inside = (row < tokens)[:, None] & (column < vocabulary)[None, :]
        tile = gradient_at(
            z_pointer, target_pointer, log_sum_pointer, row[:, None], column[None, :], tokens, vocabulary,
            cap, width, scale,
        )  # fmt: skip
        tl.store(row_pointer + row[:, None] * vocabulary + column[None, :], tile, mask=inside)
        tile = gradient_at(
            z_pointer, target_pointer, log_sum_pointer, row[None, :], column[:, None], tokens, vocabulary,
            cap, width, scale,
        )  # fmt: skip
        tl.store(column_pointer + column[:, None] * tokens + row[None, :], tile, mask=inside.T)

    @triton.autotune(configs=TILES, key=["size", "depth"])
    @triton.jit
    def symmetric_matmul_kernel(
        x_pointer, out_pointer, size, depth, alpha: tl.constexpr, beta: tl.constexpr,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
    ):  # fmt: skip
        """One tile of alpha * x @ x.T + beta * x, x (batch, size, depth) contiguous. Only tiles that touch the lower
        triangle are computed; each is stored twice, in place and mirrored, which halves the arithmetic."""
        row_tiles = tl.cdiv(size, ROWS)
        column_tiles = tl.cdiv(size, COLUMNS)
        tile = tl.program_id(0) % (row_tiles * column_tiles)
        batch = tl.program_id(0) // (row_tiles * column_tiles)
        # Walk the tiles in bands of GROUP rows, so that neighbours share their operands in the L2 cache.
        row_tile, column_tile = tl.swizzle2d(tile // column_tiles, tile % column_tiles, row_tiles, column_tiles, GROUP)
        first_row, first_column = row_tile * ROWS, column_tile * COLUMNS
        if first_row + ROWS <= first_column:
            return

        x_pointer += batch.to(tl.int64) * size * depth
        out_pointer += batch.to(tl.int64) * size * size
        rows = first_row + tl.arange(0, ROWS)
        columns = first_column + tl.arange(0, COLUMNS)
        inner = tl.arange(0, INNER)
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for start in range(0, depth, INNER):
            inside = start + inner < depth
            left = tl.load(
                x_pointer + rows[:, None] * depth + (start + inner)[None, :],
                mask=(rows < size)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            right = tl.load(
                x_pointer + columns[:, None] * depth + (start + inner)[None, :],
                mask=(columns < size)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            total = tl.dot(left, right.T, total)
        total *= alpha
        mask = (rows < size)[:, None] & (columns < size)[None, :]
        if beta != 0:
            same = tl.load(x_pointer + rows[:, None] * depth + columns[None, :], mask=mask, other=0.0)
            total += beta * same.to(tl.float32)
        result = total.to(out_pointer.dtype.element_ty)
        tl.store(out_pointer + rows[:, None] * size + columns[None, :], result, mask=mask)
        tl.store(out_pointer + columns[:, None] * size + rows[None, :], result.T, mask=mask.T)


def symmetric_matmul(x: Tensor, out: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    """out = alpha * x @ x.T + beta * x; x (batch, size, depth) and out (batch, size, size) bf16. With beta, x is
    itself symmetric."""
    if not x.is_cuda or x.size(1) < 128:  # a tile would be mostly empty
        product = alpha * (x.float() @ x.float().mT)
        return out.copy_(product + beta * x.float() if beta else product)
    batch, size, depth = x.shape

    def grid(tile):
        return (batch * triton.cdiv(size, tile["ROWS"]) * triton.cdiv(size, tile["COLUMNS"]),)

    symmetric_matmul_kernel[grid](x, out, size, depth, alpha, beta, GROUP=8)
    return out


# Polar Express (Amsel et al. 2025, arXiv 2505.16932): the best odd quintic for each iteration in turn, here for 5
# iterations with a safety factor of 2e-2 and a cushion of 2. Values from the record's published configuration.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


@fast
def polar_express(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each of a batch (n, rows, columns), rows <= columns, roughly: singular
    values end between 0.86 and 1.14. Computed in bf16; zero stays zero."""
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    x = x.contiguous()
    gram = torch.empty(*x.shape[:-1], x.size(-2), dtype=x.dtype, device=x.device)
    polynomial = torch.empty_like(gram)
    for a, b, c in POLAR_EXPRESS:
        symmetric_matmul(x, out=gram)
        symmetric_matmul(gram, out=polynomial, alpha=c, beta=b)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def attend(query, key, value, document_ends: Tensor, longest: int, window: int, scale: float) -> Tensor:
    """Causal attention within each document, over at most `window` tokens back and the token itself.

    query, key, value (T, heads, head_dim) bf16; document_ends (documents,) int32: cumulative lengths from 0 to T.
    """
    if query.is_cuda:
        return varlen_attn(
            query, key, value, document_ends, document_ends, longest, longest, scale=scale, window_size=(window, 0)
        )
    position = torch.arange(query.size(0))
    document = torch.searchsorted(document_ends, position, right=True)
    distance = position[:, None] - position
    mask = (distance >= 0) & (distance <= window) & (document[:, None] == document)
    query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(0, 1)


def attention_backend() -> str:
    """Activate FlashAttention 3 for `varlen_attn` if it is installed, and say which kernel will run."""
    if not torch.cuda.is_available():
        return "scaled_dot_product_attention with a dense mask"
    try:
        torch.nn.attention.activate_flash_attention_impl("FA3")
    except (ImportError, AttributeError, RuntimeError, ValueError):
        return "varlen_attn, FlashAttention 2"
    return "varlen_attn, FlashAttention 3"


# --------------------------------------------------------------------------------------------------
# Optimizers
# --------------------------------------------------------------------------------------------------


@fast
def adam_update(parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rates: Tensor, epsilon: float):
    """One Adam step in place; `rates` holds beta1, beta2, the step size with both bias corrections, gradient scale."""
    beta1, beta2, step_size, gradient_scale = rates.unbind()
    gradient = gradient.float() * gradient_scale
    m = torch.lerp(gradient, first.float(), beta1)
    v = torch.lerp(gradient.square(), second.float(), beta2)
    first.copy_(m)
    second.copy_(v)
    parameter.copy_(parameter.float() - step_size * m / (v.sqrt() + epsilon))


class ShardedAdam:
    """Adam (Kingma & Ba 2015) whose state is split over the ranks by rows of dimension 0.

    Each rank receives the summed gradient of its rows (reduce-scatter), updates them and gives them to the others
    (all-gather). Both moments are bf16. Epsilon is added to the uncorrected root of the second moment.
    `parameters` is a list of (parameter, learning rate); dimension 0 must divide by the number of ranks.
    """

    def __init__(self, parameters, beta1: float, beta2: float, epsilon: float, gradient_scale: float):
        self.parameters = [parameter for parameter, _ in parameters]
        self.learning_rates = [rate for _, rate in parameters]
        self.beta1, self.beta2, self.epsilon, self.gradient_scale = beta1, beta2, epsilon, gradient_scale
        self.own = [p.data.chunk(dist.get_world_size())[dist.get_rank()] for p in self.parameters]
        self.first = [torch.zeros_like(own, dtype=torch.bfloat16) for own in self.own]
        self.second = [torch.zeros_like(own, dtype=torch.bfloat16) for own in self.own]
        self.steps = 0

    def reset(self):
        """Forget everything, as if no step had been taken."""
        self.steps = 0
        for state in self.first + self.second:
            state.zero_()

    @torch.no_grad()
    def step(self, multiplier: float):
        """Update every parameter and clear its gradient; `multiplier` is the schedule's factor on the rates."""
        self.steps += 1
        correction = math.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        scattered = []
        for parameter, own in zip(self.parameters, self.own):
            gradient = torch.empty_like(own)
            work = dist.reduce_scatter_tensor(gradient, parameter.grad.contiguous(), async_op=True)
            scattered.append((work, gradient))
            parameter.grad = None
        gathering = []
        for i, (work, gradient) in enumerate(scattered):
            work.wait()
            step_size = self.learning_rates[i] * multiplier * correction
            rates = torch.tensor([self.beta1, self.beta2, step_size, self.gradient_scale])
            rates = rates.to(gradient.device, non_blocking=True)
            adam_update(self.own[i], gradient, self.first[i], self.second[i], rates, self.epsilon)
            gathering.append(dist.all_gather_into_tensor(self.parameters[i].data, self.own[i], async_op=True))
        for work in gathering:
            work.wait()


class Muon:
    """Momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    The parameters of a group have one shape. Stacked, and padded with zeros to a multiple of the ranks, their gradients
    are reduce-scattered; each rank then owns a contiguous chunk of the group, keeps its momentum, and orthogonalises
    it while the next group's gradients are still arriving; the new values are all-gathered. A parameter with an
    attribute `matrices` = n is n square matrices in one buffer, orthogonalised one by one.
    """

    def __init__(self, groups: list[list[nn.Parameter]], learning_rate: float, gradient_scale: float):
        self.learning_rate, self.gradient_scale, self.momentum = learning_rate, gradient_scale, 0.0
        self.groups, self.own, self.buffers = [], [], []
        for group in groups:
            group = group + [torch.zeros_like(group[0]) for _ in range(-len(group) % dist.get_world_size())]
            chunk = len(group) // dist.get_world_size()
            own = group[dist.get_rank() * chunk :][:chunk]
            self.groups.append(group)
            self.own.append(own)
            self.buffers.append(torch.zeros_like(torch.stack(own)))

    def reset(self):
        """Forget everything, as if no step had been taken."""
        for buffer in self.buffers:
            buffer.zero_()

    @staticmethod
    def orthogonalise(parameters: list[Tensor], updates: Tensor) -> None:
        """Orthogonalise in place the updates of these parameters, in batches of neighbours of one kind."""
        start = 0
        for matrices, run in groupby(parameters, key=lambda parameter: getattr(parameter, "matrices", 1)):
            stop = start + len(list(run))
            batch = updates[start:stop]
            if matrices > 1:
                side = math.isqrt(batch[0].numel() // matrices)
                batch = batch.view(-1, side, side)
            batch.copy_(polar_express(batch))
            start = stop

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float):
        """Update every parameter and clear its gradient; `multiplier` is the schedule's factor on the rate."""
        self.momentum = momentum
        scattered = []
        for group, buffer in zip(self.groups, self.buffers):
            gradients = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in group])
            update = torch.empty_like(buffer)
            scattered.append((dist.reduce_scatter_tensor(update, gradients, async_op=True), update))
        gathering = []
        for (work, update), group, own, buffer in zip(scattered, self.groups, self.own, self.buffers):
            work.wait()
            update.mul_(self.gradient_scale)
            buffer.lerp_(update, 1 - momentum)
            update.lerp_(buffer, momentum)  # Nesterov: look ahead along the momentum just formed
            self.orthogonalise(own, update)
            update.mul_(-self.learning_rate * multiplier)
            torch._foreach_add_(list(update.unbind()), own)
            values = update.new_empty(len(group), *update.shape[1:])
            gathering.append((dist.all_gather_into_tensor(values, update, async_op=True), group, values))
        for work, group, values in gathering:
            work.wait()
            torch._foreach_copy_(group, list(values.unbind()))
            for parameter in group:
                parameter.grad = None

    def orthogonality_error(self) -> float:
        """‖O Oᵀ - I‖ / sqrt(rows) of this rank's first large matrix, O what `polar_express` makes of its momentum."""
        o = polar_express(self.buffers[-1][:1])[0].float()
        identity = torch.eye(o.size(0), device=o.device)
        return ((o @ o.T - identity).norm() / math.sqrt(o.size(0))).item()


def learning_rate_multiplier(step: int) -> float:
    """1, then down in a straight line to the floor, then flat through the extension, a hair above it."""
    scheduled = settings.num_iterations - settings.extension_iterations
    share = min(1.0, (1 - min(0.9999, step / scheduled)) / settings.cooldown_fraction)
    return share + (1 - share) * settings.final_learning_rate


def muon_momentum(step: int) -> float:
    """Up in a straight line over the first steps, then constant."""
    low, high = settings.muon_momentum_start, settings.muon_momentum
    return low + (high - low) * min(1.0, step / settings.momentum_warmup)


def window_blocks(step: int) -> int:
    """The long layers' attention window, in blocks: three stages of equal length."""
    scheduled = settings.num_iterations - settings.extension_iterations
    stage = int(len(settings.window_stages) * min(0.9999, step / (scheduled + 1)))
    return settings.window_stages[stage]


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension. The eps is fp32's, also for bf16 input: explicit,
    because PyTorch's default has changed between versions."""
    return F.rms_norm(x, (x.size(-1),), eps=1.19e-7)


def uniform_(weight: Tensor) -> Tensor:
    """Uniform with standard deviation 0.5 / sqrt(model_dim); model_dim is the smaller side of every matrix here."""
    bound = math.sqrt(3) * 0.5 / math.sqrt(min(weight.shape[-2:]))
    return weight.uniform_(-bound, bound)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) on half of the head's dimension pairs: the others, of zero
    frequency, do not turn. Tables and rotation in bf16.

    YaRN (Peng et al. 2023, arXiv 2309.00071): when the attention window grows, frequencies that turn less than once
    in the old window are slowed by old/new, those that turn more than 32 times are kept, and those between are
    interpolated; the softmax scale grows with the logarithm of the window.
    """

    def __init__(self, head_dim: int, length: int, base: int, attention_scale: float, window_block: int):
        super().__init__()
        self.head_dim, self.length, self.base = head_dim, length, base
        self.first_scale, self.window_block = attention_scale, window_block
        self.register_buffer("cos", torch.empty(length, head_dim // 2, dtype=torch.bfloat16), persistent=False)
        self.register_buffer("sin", torch.empty(length, head_dim // 2, dtype=torch.bfloat16), persistent=False)
        self.reset()

    def reset(self):
        """Back to the frequencies and the softmax scale of step 0."""
        quarter = self.head_dim // 4
        turning = (1 / self.base) ** torch.linspace(0, 1, steps=quarter, device=self.cos.device)
        self.frequencies = torch.cat([turning, torch.zeros_like(turning)])
        self.attention_scale = self.first_scale
        self.fill_tables()

    def extend(self, old_window: int, new_window: int):
        """Rescale for attention windows (in blocks) that grow from old to new, on top of earlier rescalings."""
        turns = self.window_block * old_window * self.frequencies / (2 * math.pi)
        kept = ((turns - 1) / (32 - 1)).clamp(0, 1)
        slower = old_window / new_window
        self.frequencies = self.frequencies * (slower + kept * (1 - slower))
        self.attention_scale *= 1 + 0.2 * math.log(new_window / old_window)
        self.fill_tables()

    def fill_tables(self):
        """In place, so that the compiled graphs keep reading the same buffers. Angles in fp32, tables in bf16."""
        angles = torch.arange(self.length, dtype=torch.float32, device=self.cos.device)[:, None] * self.frequencies
        self.cos.copy_(angles.cos())
        self.sin.copy_(angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        """Rotate (T, heads, head_dim): dimension j turns together with dimension j + head_dim/2."""
        cos, sin = self.cos[: x.size(0), None], self.sin[: x.size(0), None]
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


class Attention(nn.Module):
    """Multi-head attention over packed documents: QK norm, rotary, value embeddings and a sparse output gate."""

    def __init__(self, s: Settings):
        super().__init__()
        self.num_heads, self.head_dim = s.num_heads, s.head_dim
        side = s.num_heads * s.head_dim
        # Query, key, value and output matrices in one buffer, declared in the shape of the MLP's matrices, so that
        # Muon can spread both kinds evenly over the ranks.
        self.qkvo = nn.Parameter(torch.empty(side, 4 * s.model_dim))
        self.qkvo.matrices = 4
        self.gate = nn.Parameter(torch.zeros(s.num_heads, s.gate_dim, dtype=torch.bfloat16))
        with torch.no_grad():
            uniform_(self.qkvo.view(4, side, s.model_dim)[:3])
            self.qkvo.view(4, side, s.model_dim)[3].zero_()

    def forward(self, x, value_embedding, value_mix, rotary, document_ends, longest, window):
        tokens = x.size(0)
        query_key_value, output = self.qkvo.view(4, x.size(-1), x.size(-1)).bfloat16().split([3, 1])
        heads = F.linear(x, query_key_value.flatten(0, 1)).view(tokens, 3 * self.num_heads, self.head_dim)
        query, key, value = heads.chunk(3, dim=1)
        query, key = rotary(rms_norm(query)), rotary(rms_norm(key))
        value = value_mix[0] * value
        if value_embedding is not None:
            value = value + value_mix[1] * value_embedding.view_as(value)
        y = attend(query, key, value, document_ends, longest, window, rotary.attention_scale)
        y = y * torch.sigmoid(F.linear(x[:, : self.gate.size(-1)], self.gate)).unsqueeze(-1)
        return F.linear(y.flatten(1), output[0])


class MLP(nn.Module):
    """Squared ReLU. Both matrices are stored (model_dim, mlp_dim): up is applied from the left, down as a weight."""

    def __init__(self, s: Settings):
        super().__init__()
        self.up = nn.Parameter(uniform_(torch.empty(s.model_dim, s.mlp_dim)))
        self.down = nn.Parameter(torch.zeros(s.model_dim, s.mlp_dim))

    def forward(self, x):
        return F.linear(F.relu(x @ self.up.bfloat16()).square(), self.down.bfloat16())


class Block(nn.Module):
    """One layer: the stream mixed with the embedding, attention (in most layers), MLP."""

    def __init__(self, s: Settings, layer: int):
        super().__init__()
        self.attention = Attention(s) if layer != s.layer_without_attention else None
        self.mlp = MLP(s)

    def forward(self, x, embedding, stream_mix, *attention_inputs):
        x = stream_mix[0] * x + stream_mix[1] * embedding
        if self.attention is not None:
            x = x + self.attention(rms_norm(x), *attention_inputs)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """The record's transformer. `forward` returns the loss: summed over tokens in training, their mean otherwise."""

    def __init__(self, s: Settings):
        super().__init__()
        self.settings, self.fp8 = s, s.fp8
        self.layers = [layer for layer in range(s.num_layers) if layer != s.absent_layer]

        def table():
            return nn.Parameter(torch.randn(s.vocab_size, s.model_dim).bfloat16())

        self.embedding = table()
        self.smear_gate = nn.Parameter(torch.zeros(1, s.gate_dim, dtype=torch.bfloat16))
        self.value_tables = nn.ParameterList([table() for _ in range(3)])
        self.blocks = nn.ModuleDict({str(layer): Block(s, layer) for layer in self.layers})
        self.lm_head = nn.Parameter(torch.zeros(s.vocab_size, s.model_dim, dtype=torch.bfloat16))
        length = max(s.row_tokens, s.val_row_tokens)
        self.rotary = Rotary(s.head_dim, length, s.rotary_base, s.attention_scale, s.window_block)
        # All scalars in one vector, padded so that 8 ranks can share it: skip gates (before a sigmoid), then a pair
        # per layer for the stream and a pair per layer for the values, then smear and, unused, the rest of its block.
        scalars = [-1.5] * s.num_layers + [1.0, 0.0] * s.num_layers + [0.5, 0.5] * s.num_layers + [0.0] * s.num_layers
        self.scalars = nn.Parameter(torch.tensor(scalars + [1.0] * (-len(scalars) % 8)))

    def smear(self, x: Tensor) -> Tensor:
        """Add to each token's embedding a gated share of the embedding before it."""
        strength = self.scalars[5 * self.settings.num_layers]
        gate = strength * torch.sigmoid(F.linear(x[1:, : self.smear_gate.size(-1)], self.smear_gate))
        return torch.cat([x[:1], x[1:] + gate * x[:-1]])

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits softly capped to 0..logit_cap: the sum in training, in bf16; the mean in
        validation, in fp32."""
        x = rms_norm(x)
        cap, width = self.settings.logit_cap, self.settings.logit_width
        if self.training and self.fp8:
            return FP8HeadLoss.apply(x, self.lm_head, targets, cap, width)
        logits = F.linear(x, self.lm_head)
        if self.training:
            return F.cross_entropy(cap * torch.sigmoid(logits / width), targets, reduction="sum")
        return F.cross_entropy(cap * torch.sigmoid(logits.float() / width), targets)

    def hidden(self, tokens, document_ends, longest: int, windows: tuple[int, int]) -> dict[int, Tensor]:
        """The stream after each layer, (T, model_dim)."""
        s, n = self.settings, self.settings.num_layers
        skip_gates = torch.sigmoid(self.scalars[:n])
        stream_mix = self.scalars[n : 3 * n].view(n, 2)
        value_mix = self.scalars[3 * n : 5 * n].view(n, 2)
        values = [F.embedding(tokens, table) for table in self.value_tables]
        value_embeddings = {layer: values[table] for layer, table in s.value_embedding_layers}
        skip_from = {to: (source, gate) for gate, (to, source) in enumerate(s.skip_pairs)}

        x = embedding = rms_norm(self.smear(F.embedding(tokens, self.embedding)))
        stream = {}
        for layer in self.layers:
            if layer in skip_from:
                source, gate = skip_from[layer]
                x = x + skip_gates[gate] * stream[source]
            window = (windows[0] if layer in s.long_layers else windows[1]) * s.window_block
            inputs = (value_embeddings.get(layer), value_mix[layer], self.rotary, document_ends, longest, window)
            x = self.blocks[str(layer)](x, embedding, stream_mix[layer], *inputs)
            stream[layer] = x
        return stream

    def forward(self, tokens: Tensor, targets: Tensor, document_ends: Tensor, longest: int, windows: tuple[int, int]):
        """tokens (T,) int32, targets (T,) int64, document_ends int32; windows: (long, short) in blocks."""
        return self.loss(self.hidden(tokens, document_ends, longest, windows)[self.layers[-1]], targets)


# --------------------------------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------------------------------


def shard_files(split: str) -> list[Path]:
    """The shards of "train" or "val", sorted by name."""
    files = sorted(Path(settings.data_dir).glob(f"fineweb_{split}_*.bin"))
    return files or fail(f"no fineweb_{split}_*.bin in {settings.data_dir}: set --data_dir")


def open_shard(path: Path) -> np.ndarray:
    """The tokens of a shard, memory-mapped uint16, after a header of 256 int32: magic, version, number of tokens."""
    header = np.fromfile(path, dtype="<i4", count=256)
    if len(header) < 256 or header[0] != 20240520 or header[1] != 1:
        fail(f"{path} is not a token shard (magic 20240520, version 1)")
    if path.stat().st_size != 1024 + 2 * int(header[2]):
        fail(f"{path} holds {path.stat().st_size} bytes, its header promises {1024 + 2 * int(header[2])}")
    return np.memmap(path, dtype="<u2", mode="r", offset=1024, shape=(int(header[2]),))


def index_documents(path: Path, first_tokens: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A shard's tokens and its document bounds: document i is bounds[i] to bounds[i + 1]."""
    tokens = open_shard(path)
    bounds = np.flatnonzero(tokens[:first_tokens] == DOCUMENT_START)
    searched = first_tokens is not None and first_tokens < len(tokens)
    return tokens, bounds if searched else np.append(bounds, len(tokens))


def pack_rows(bounds: np.ndarray, document: int) -> tuple[list, int]:
    """The documents, as (start, end) spans, that fill the rows of one step in order, and the document after them.

    A row takes whole documents, none longer than `document_tokens`, until it holds row_tokens + 1; what is cut off
    the last one is dropped. Raises IndexError when the documents do not suffice.
    """
    rows = []
    for _ in range(settings.rows_per_step):
        spans, missing = [], settings.row_tokens + 1
        while missing:
            start, end = int(bounds[document]), int(bounds[document + 1])
            end = min(end, start + settings.document_tokens, start + missing)
            spans.append((start, end))
            missing -= end - start
            document += 1
        rows.append(spans)
    return rows, document


def to_device(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Copy to the GPU without waiting for it."""
    tensor = torch.from_numpy(array).to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def as_inputs(row: np.ndarray, lengths: list[int], slots: int, longest: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Tokens, targets, cumulative document ends (padded with empty documents to a fixed size), longest document."""
    if len(lengths) >= slots:
        fail(f"a row holds {len(lengths)} documents, the table has {slots - 1}: lower --tokens_per_document")
    ends = np.full(slots, len(row) - 1)
    ends[0] = 0
    ends[1 : len(lengths) + 1] = np.cumsum(lengths)
    tokens, targets = to_device(row[:-1], torch.int32), to_device(row[1:], torch.int64)
    return tokens, targets, to_device(ends, torch.int32), longest


def document_slots(tokens: int) -> int:
    """How many document ends a row of this length has room for: a multiple of 128."""
    return max(1, math.ceil(tokens // settings.tokens_per_document / 128)) * 128


def train_batches():
    """Yield for ever what this rank computes in one step: a list of 8/world_size rows' inputs.

    The rows of a step are the same at any number of ranks. Shards are walked in order and again from the first; the
    next one is searched for documents in the background, and so is all but the beginning of the first.
    """
    files = shard_files("train")
    background = ThreadPoolExecutor(max_workers=1)
    tokens, bounds = index_documents(files[0], settings.first_scan_tokens)
    upcoming = background.submit(index_documents, files[0])
    partial_index, document, shard = True, 0, 0
    while True:
        try:
            rows, document_after = pack_rows(bounds, document)
        except IndexError:  # this index is used up: drop the step begun and go on with the one made meanwhile
            if not partial_index and document == 0:
                fail(f"{files[shard % len(files)]} holds too few documents for one step")
            shard += not partial_index
            document = document if partial_index else 0
            partial_index = False
            tokens, bounds = upcoming.result()
            upcoming = background.submit(index_documents, files[(shard + 1) % len(files)])
            continue
        document = document_after
        batch = []
        for spans in rows[rank::world_size]:
            lengths = [end - start for start, end in spans]
            lengths[-1] -= 1  # the row's last token is only a target
            row = np.concatenate([tokens[start:end] for start, end in spans]).astype(np.int64)
            batch.append(as_inputs(row, lengths, document_slots(settings.row_tokens), settings.document_tokens))
        yield batch


def val_batches():
    """Yield this rank's rows of the validation tokens: contiguous slices, documents as they fall, none cut short."""
    tokens = open_shard(shard_files("val")[0])
    size = settings.val_row_tokens
    if settings.val_tokens % (size * world_size) or len(tokens) <= settings.val_tokens:
        fail(f"{settings.val_tokens} validation tokens are no multiple of {world_size} rows of {size}, or too many")
    for start in range(rank * size, settings.val_tokens, world_size * size):
        row = tokens[start : start + size + 1].astype(np.int64)
        starts = np.flatnonzero(row[:-1] == DOCUMENT_START)
        lengths = np.diff(starts[starts > 0], prepend=0, append=size).tolist()
        yield as_inputs(row, lengths, document_slots(size), size)


# --------------------------------------------------------------------------------------------------
# Setup
# --------------------------------------------------------------------------------------------------

settings, overrides = read_settings()
rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if settings.rows_per_step % world_size:
    fail(f"{world_size} ranks cannot share {settings.rows_per_step} rows evenly: use 1, 2, 4 or 8")
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
if device.type == "cuda":
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
else:
    dist.init_process_group("gloo")

log_path = Path(settings.log_file or f"logs/{uuid.uuid4()}.txt")
if rank == 0:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_file = log_path.open("w", encoding="utf-8", buffering=1)


def log(text: str, console: bool = True):
    """One line to the log file and, for metrics, to stdout; from rank 0 alone."""
    if rank == 0:
        log_file.write(text + "\n")
        if console:
            print(text, flush=True)


manifest = Path(settings.data_dir, "manifest.json")
log(Path(__file__).read_text(encoding="utf-8"), console=False)
log("=" * 100, console=False)
log(f"Running Python {sys.version}", console=False)
log(f"Running PyTorch {torch.__version__} compiled for CUDA {torch.version.cuda}", console=False)
log(f"Running Triton version {triton.__version__ if triton else 'none'}", console=False)
log(f"world_size={world_size} accumulation={settings.rows_per_step // world_size}", console=False)
log(f"seed={settings.seed if settings.seed >= 0 else 'none'}", console=False)
log(f"manifest={json.loads(manifest.read_text())['digest'] if manifest.exists() else 'none'}", console=False)
log(f"attention={attention_backend()}", console=False)
for name, value in overrides.items():
    log(f"override {name}={value}", console=False)
log(os.popen("nvidia-smi").read() if device.type == "cuda" else "nvidia-smi: not available", console=False)
log("=" * 100, console=False)

torch._dynamo.config.recompile_limit = 64  # one graph per pair of windows, for training and for validation
if settings.seed >= 0:
    torch.manual_seed(settings.seed)
model = GPT(settings).to(device)
for parameter in model.parameters():
    dist.broadcast(parameter.data, src=0)
if model.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
    model.fp8 = False
    log("fallback step:0 fp8 -> bf16: this GPU has no fp8 matmul")

gates = [block.attention.gate for block in model.blocks.values() if block.attention]
matrices = [block.attention.qkvo for block in model.blocks.values() if block.attention]
matrices += [matrix for block in model.blocks.values() for matrix in (block.mlp.up, block.mlp.down)]
tables = [model.embedding, *model.value_tables]
rate = settings.adam_learning_rate
rates = [(model.lm_head, rate), *((table, rate * settings.table_multiplier) for table in tables)]
rates += [(model.scalars, rate * settings.scalar_multiplier)]
share = 1 / settings.rows_per_step  # gradients are summed over rows and ranks; the optimizers take the mean of rows
adam = ShardedAdam(rates, settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon, share)
# The two halves of the matrices travel one after the other, so that one is orthogonalised while the other arrives.
half = len(matrices) // 2
groups = [[model.smear_gate], gates, matrices[:half], matrices[half:]]
muon = Muon(groups, settings.muon_learning_rate, share)
compiled_model = fast(model)


def train_step(batch: list, step: int, window: int):
    """Forward and backward over this rank's rows, then Adam and Muon."""
    for tokens, targets, document_ends, longest in batch:
        loss = compiled_model(tokens, targets, document_ends, longest, (window, window // 2))
        loss.backward()
    watch_loss(step, loss)
    watched = settings.telemetry_every and step % settings.telemetry_every == 0
    with telemetry(step, batch[0], window) if watched else nullcontext():
        multiplier = learning_rate_multiplier(step)
        adam.step(multiplier)
        muon.step(multiplier, muon_momentum(step))


@torch.no_grad()
def validate(windows: tuple[int, int]) -> float:
    """Mean loss over the validation tokens, the same on every rank."""
    model.eval()
    losses = [compiled_model(*row, windows) for row in val_batches()]
    loss = torch.stack(losses).mean()
    dist.all_reduce(loss)
    model.train()
    return loss.item() / world_size


travelling = deque()  # training losses on their way from the GPU: (step, loss, event of its arrival)


def watch_loss(step: int, loss: Tensor):
    """End the run once a training loss is not finite. Each loss travels behind the GPU's work and is looked at when it
    has arrived, so that no step waits for it. One row's is enough: what it does not show is in the weights next."""
    arrival = torch.cuda.Event() if device.type == "cuda" else None
    travelling.append((step, loss.detach().to("cpu", non_blocking=True), arrival))
    if arrival:
        arrival.record()
    while travelling and (not arrival or travelling[0][2].query()):
        step, loss, _ = travelling.popleft()
        if not loss.isfinite():
            require_finite(step, "training", loss.item())


@torch.no_grad()
def require_finite(step: int, kind: str, loss: float):
    """End the run at once, in one line that says which, when a loss or a weight is not finite."""
    lost = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if math.isfinite(loss) and not lost:
        return
    weights = f"{len(lost)} weights are not finite, {lost[0]} among them" if lost else "the weights are finite"
    log(f"stopped step:{step} {kind} loss {loss}, {weights}", console=False)
    sys.stderr.write(f"error: stopped at step {step}: {kind} loss {loss}, {weights}\n")
    sys.stderr.flush()
    os._exit(1)  # not by an exception: other ranks may be waiting in a collective, and this one would wait for them


@torch.no_grad()
def guard_fp8(step: int):
    """Give up fp8 for bf16 once it clips more than a thousandth of the head's weights. Same weights, same decision on
    all ranks. The graphs for bf16 are compiled then, on the clock."""
    limit = 448 * FP8_WEIGHT_SCALE
    clipped = (model.lm_head.abs() > limit).float().mean().item()
    if model.fp8 and clipped > 1e-3:
        model.fp8 = False
        log(f"fallback step:{step} fp8 -> bf16: {clipped:.2%} of the head's weights are beyond {limit:.3f}")


@contextmanager
@torch.no_grad()
def telemetry(step: int, row: tuple, window: int):
    """Log what an update sees and does: norms of the gradient (averaged over the step's rows), of the weights and of
    the update, the root mean square of each block's output for one row, Muon's own figures. Guards fp8 as well."""

    def norm(tensors) -> float:
        return math.sqrt(sum(tensor.float().square().sum().item() for tensor in tensors))

    weights = list(model.parameters())
    gradients = [weight.grad.clone() for weight in weights]
    for gradient in gradients:
        dist.all_reduce(gradient)
    previous = [weight.clone() for weight in weights]
    yield
    tokens, _, document_ends, longest = row
    stream = model.hidden(tokens, document_ends, longest, (window, window // 2))
    rms = [f"{x.float().square().mean().sqrt():.3f}" for x in stream.values()]
    log(
        f"telemetry step:{step} grad_norm:{norm(gradients) / settings.rows_per_step:.4e} "
        f"weight_norm:{norm(weights):.4e} update_norm:{norm(w - old for w, old in zip(weights, previous)):.4e} "
        f"activation_rms:[{','.join(rms)}] adam_steps:{adam.steps} muon_momentum:{muon.momentum:.4f} "
        f"muon_orthogonality_error:{muon.orthogonality_error():.4f}"
    )
    guard_fp8(step)


def synchronize():
    """Wait until the GPU has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# --------------------------------------------------------------------------------------------------
# Warmup
# --------------------------------------------------------------------------------------------------

# Every training graph is compiled, every Triton tile tuned and every communicator opened before the clock starts;
# then all that was learnt is forgotten. The steps take real batches, one row per rank.
initial = [parameter.detach().clone() for parameter in model.parameters()]
warmup_data = train_batches()
stages = settings.window_stages
for i in range(settings.warmup_iterations):
    window = stages[i % len(stages)]
    if i % len(stages):
        model.rotary.extend(stages[i % len(stages) - 1], window)
    else:
        model.rotary.reset()
    tokens, targets, document_ends, longest = next(warmup_data)[0]
    compiled_model(tokens, targets, document_ends, longest, (window, window // 2)).backward()
    adam.step(1.0)
    muon.step(1.0, settings.muon_momentum)
model.rotary.reset()
adam.reset()
muon.reset()
with torch.no_grad():
    torch._foreach_copy_(list(model.parameters()), initial)
del initial, warmup_data

# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------

train_data = train_batches()
window = window_blocks(0)
training_time = 0.0  # seconds, validation excluded
synchronize()
clock = time.perf_counter()
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations

    # Longer windows as training goes on, longer still for the last validation.
    new_window = settings.final_yarn_window if last_step else window_blocks(step)
    if new_window != window:
        model.rotary.extend(window, new_window)
        window = new_window

    if last_step or (settings.val_loss_every and step % settings.val_loss_every == 0):
        synchronize()
        training_time += time.perf_counter() - clock
        val_loss = validate((settings.final_window if last_step else window, window // 2))
        require_finite(step, "validation", val_loss)
        guard_fp8(step)
        log(
            f"step:{step}/{settings.num_iterations} val_loss:{val_loss:.4f} "
            f"train_time:{1000 * training_time:.0f}ms step_avg:{1000 * training_time / max(step, 1):.2f}ms"
        )
        synchronize()
        clock = time.perf_counter()
    if last_step:
        break

    train_step(next(train_data), step, window)
    so_far = training_time + time.perf_counter() - clock
    log(
        f"step:{step + 1}/{settings.num_iterations} "
        f"train_time:{1000 * so_far:.0f}ms step_avg:{1000 * so_far / (step + 1):.2f}ms"
    )

mebibytes = [0, 0]
if device.type == "cuda":
    mebibytes = [torch.cuda.max_memory_allocated() >> 20, torch.cuda.max_memory_reserved() >> 20]
log(f"peak memory allocated: {mebibytes[0]} MiB reserved: {mebibytes[1]} MiB")
dist.destroy_process_group()
