"""Record 61 · 2026-01-18 · One optimizer for all parameters, weight banks, transposed head

Claim      1.748 minutes on the leaderboard; its eight public logs average 104.458 s = 1.741 minutes.
           Validation loss 3.2782 ± 0.0015 (n = 8, one-sided p = 0.006 against the target of 3.28), FineWeb.
Hardware   8x NVIDIA H100 80GB HBM3, PyTorch 2.10.0.dev20251210+cu126; 1,765 steps of 131,072, then 262,144, then
           393,216 tokens, 59.20 ms each.
New        One optimizer knows all parameters: a table says how each learns, two lists in which order gradients leave
           and updates are made. All attention matrices are one parameter and all MLP matrices another, which divide
           evenly by 8 ranks once the MLP's has a twelfth, unused layer; nothing is stacked or copied. The head is
           stored transposed, (model_dim, vocabulary), as its gradient comes out of the fp8 product; so embedding and
           head are two parameters, and the optimizer ties them for two thirds of the run.
           Also: 1,775 -> 1,765 steps. Attention learns at half the rate: its factor now follows from the square
           matrices, not from how they are stored.
Parent     60 (2026-01-16): fused softcapped cross entropy.
Credit     @ChrisJMcCormick
Source     https://github.com/KellerJordan/modded-nanogpt/pull/200
Rules      edition 2025-02-01: 12 untimed warmup steps, state restored, then every training step is timed.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 rows in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

Not as published, without effect on the mathematics:
  - All kernels are our own. The logits' gradient goes to fp8 at once, never through bf16; the MLP's kernel reads
    through plain pointers (published: TMA descriptors).
  - FlashAttention 3 is used where it is installed, else 4, else PyTorch's own 2.
  - The head is drawn in fp32 and rounded (published: drawn in bf16).
  - One table of rotary angles serves plain and paired heads, and only channels that turn are in it.
  - The loss is not divided by the number of rows that a rank takes: the optimizer divides the sum over all rows.
  - The scalars are not padded. A warmup step takes one row per rank.
  - Validation caps its logits in fp32 (published: in bf16, which is computed in fp32 registers when compiled).
With an effect on it, should it ever happen:
  - Once fp8 clips a thousandth of the head's weights, the head goes on in bf16, and the log says so.
"""

import argparse
import ast
import gc
import importlib
import json
import math
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version
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
    num_iterations: int = 1765
    extension_iterations: int = 40  # the last steps, after the learning rate has reached its floor
    rows_per_step: int = 8  # one row per GPU on 8 GPUs
    row_tokens: int = 16384
    row_stages: tuple = (1, 2, 3, 3)  # rows are so many times as long, stage by stage
    document_tokens: int = 2048  # longer documents are cut, the rest of them is dropped
    tokens_per_document: int = 300  # at least, on average: sizes the table of document ends
    first_scan_tokens: int = 4_000_000  # how far the first shard is searched for documents before the first step

    # Validation
    val_tokens: int = 10_485_760
    val_row_tokens: int = 262_144
    val_loss_every: int = 250

    # Model
    vocab_size: int = 50304  # 50,257 rounded up to a multiple of 128; the padding takes part in the softmax
    num_layers: int = 11
    model_dim: int = 768
    num_heads: int = 6
    head_dim: int = 128
    mlp_dim: int = 3072
    gate_dim: int = 12  # channels that the attention and smear gates read
    layer_without_attention: int = 6
    skip_from: int = 3  # the stream after this layer ...
    skip_to: int = 6  # ... is added to that before this one
    backout_layer: int = 7
    value_embedding_layers: tuple = ((0, 1), (1, 2), (8, 0), (9, 1), (10, 2))  # (layer, table)
    paired_layers: tuple = (0, 2, 5, 9)  # two heads of a token share one softmax
    logit_cap: float = 23.0  # cap * sigmoid((z + shift) / width)
    logit_shift: float = 5.0
    logit_width: float = 7.5
    # The loss of a position: its next tokens' cross entropies with these weights, stage by stage. Where there is more
    # than one, the last falls to zero in the course of the stage.
    target_stages: tuple = ((1.0, 0.5, 0.25), (1.0, 0.5), (1.0,), (1.0,))
    fp8: bool = True  # the head's matmuls in training; validation uses bf16

    # Attention windows, in blocks; a short layer sees half of a long one
    window_block: int = 128
    long_layers: tuple = (3, 10)  # their keys are shifted, too
    window_stages: tuple = (3, 7, 11, 13)
    final_window: int = 20  # validation after the last step: long layers
    attention_scale: float = 0.1
    rotary_base: int = 1024

    # Learning rate and optimizers
    cooldown_fraction: float = 0.5
    learning_rate_stages: tuple = (1.0, 1.52, 1.73)  # its plateau: about the batch's growth to the power 0.6, 0.5
    final_learning_rate: float = 0.1  # as a fraction of the first plateau
    adam_learning_rate: float = 0.008
    head_learning_rate: float = 0.008  # Adam's for the head and the embedding
    adam_epsilon: float = 1e-10
    adam_weight_decay: float = 0.005  # times the rate squared
    adam_every: int = 2  # Adam steps on the sum of this many steps' gradients
    muon_learning_rate: float = 0.023
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    muon_beta2: float = 0.95
    muon_weight_decay: float = 1.2  # times the rate, with the schedule in both
    momentum_warmup: int = 300
    momentum_cooldown: int = 50
    # How each parameter learns, in the order in which they are updated. Adam: factors on the rate and on the decay,
    # betas. Muon: factors on the rate of the bank's matrices, over and over: sqrt(rows / columns), for an MLP's down
    # matrix twice that.
    adam_parameters: tuple = (
        ("scalars", 5.0, 0.0, 0.9, 0.99),
        ("smear_gate", 0.01, 0.0, 0.9, 0.99),
        ("skip_gate", 0.05, 0.0, 0.9, 0.99),
        ("attention_gates", 1.0, 1.0, 0.9, 0.99),
        ("value_gates", 1.0, 1.0, 0.9, 0.99),
        ("embedding_mix", 5.0, 0.0, 0.65, 0.95),
        ("value_tables.0", 75.0, 5.0, 0.75, 0.95),
        ("value_tables.1", 75.0, 5.0, 0.75, 0.95),
        ("value_tables.2", 75.0, 5.0, 0.75, 0.95),
        ("lm_head", 1.0, 150.0, 0.5, 0.95),
        ("embedding", 1.0, 150.0, 0.5, 0.95),
    )
    muon_parameters: tuple = (("attention_bank", (1.0,)), ("mlp_bank", (2.0, 4.0)))
    # The order in which gradients leave: what takes long to arrive first.
    sending_order: tuple = (
        "attention_bank", "mlp_bank", "scalars", "value_tables.0", "value_tables.1", "value_tables.2",
        "smear_gate", "skip_gate", "attention_gates", "value_gates", "embedding_mix", "lm_head", "embedding",
    )  # fmt: skip


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


# Constant fp8 scales of the head. The largest number of e4m3 is 448: activations beyond 100 and weights beyond 1.6 are
# clipped. A row of activations has norm sqrt(dim), so no entry exceeds 27.7. The loss is a sum over tokens, so the
# gradient of a logit is of order 1.
FP8_ACTIVATION_SCALE = 100 / 448
FP8_WEIGHT_SCALE = 1.6 / 448
FP8_GRADIENT_SCALE = 0.75 / 448


class FP8HeadLoss(torch.autograd.Function):
    """Summed cross entropy of softly capped logits, cap * sigmoid((z + shift) / width) with z = x @ weight, where both
    factors and the gradient of z are rounded to 8 bits. A position predicts as many of its next tokens as there are
    target weights, all from the same logits.

    x (T, dim) bf16, weight (dim, vocabulary) bf16, targets (T,) int64, target_weights (1 to 3,) fp32; returns a scalar,
    fp32. Of the logits only z is kept, in bf16; its gradient exists in fp8 alone.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, target_weights, cap, shift, width):
        x8, x8_columns = quantised(x, FP8_ACTIVATION_SCALE)
        weight8, weight8_columns = quantised(weight, FP8_WEIGHT_SCALE)
        z = scaled_matmul(x8, weight8_columns.T, FP8_ACTIVATION_SCALE * FP8_WEIGHT_SCALE, torch.bfloat16, True)
        losses, log_sums = capped_cross_entropy(z, targets, target_weights, cap, shift, width)
        ctx.save_for_backward(x8_columns, weight8, z, targets, target_weights, log_sums)
        ctx.cap, ctx.shift, ctx.width = cap, shift, width
        return losses.sum()

    @staticmethod
    def backward(ctx, loss_gradient):
        x8_columns, weight8, z, targets, target_weights, log_sums = ctx.saved_tensors
        rows, columns = capped_cross_entropy_gradient(
            z, targets, target_weights, log_sums, ctx.cap, ctx.shift, ctx.width
        )
        x_scale, weight_scale = FP8_GRADIENT_SCALE * FP8_WEIGHT_SCALE, FP8_ACTIVATION_SCALE * FP8_GRADIENT_SCALE
        x_gradient = scaled_matmul(rows, weight8.T, x_scale, torch.bfloat16, False)
        weight_gradient = scaled_matmul(x8_columns, columns.T, weight_scale, torch.float32, False)
        weight_gradient = (weight_gradient * loss_gradient).to(torch.bfloat16)
        return x_gradient * loss_gradient, weight_gradient, None, None, None, None, None


def quantised(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """x / scale (rows, columns) as e4m3, clipped to its range, and its transpose: both contiguous, since the head's
    matmuls read it in either direction. Rows are a multiple of four."""
    rows = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    columns = torch.empty(x.size(1), x.size(0), dtype=torch.float8_e4m3fn, device=x.device)
    if x.is_cuda:
        grid = (triton.cdiv(x.size(1), 64), triton.cdiv(x.size(0), 128))
        quantise_kernel[grid](x, rows, columns, x.size(0), x.size(1), scale, QUADS=32, COLUMNS=64, num_warps=8)
        return rows, columns
    rows.copy_((x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn))
    return rows, columns.copy_(rows.T)


def capped_cross_entropy(z, targets, target_weights, cap: float, shift: float, width: float) -> tuple[Tensor, Tensor]:
    """Per token, from raw logits z (T, vocabulary) bf16: the loss and the logarithm of the softmax's sum, both fp32.
    A next token beyond the row's end counts for nothing."""
    losses, log_sums = torch.empty(z.size(0), device=z.device), torch.empty(z.size(0), device=z.device)
    if z.is_cuda:
        cross_entropy_kernel[(z.size(0),)](
            z, targets, target_weights, losses, log_sums, z.size(0), z.size(1),
            cap, shift, width, TARGETS=target_weights.size(0), BLOCK=4096, num_warps=8,
        )  # fmt: skip
        return losses, log_sums
    logits = cap * torch.sigmoid((z.float() + shift) / width)
    log_sums.copy_(logits.logsumexp(dim=-1))
    losses.zero_()
    for k in range(target_weights.size(0)):
        seen = z.size(0) - k
        losses[:seen] += target_weights[k] * (log_sums[:seen] - logits[:seen].gather(1, targets[k:, None])[:, 0])
    return losses, log_sums


def capped_cross_entropy_gradient(
    z, targets, target_weights, log_sums, cap: float, shift: float, width: float
) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss by z, over FP8_GRADIENT_SCALE, as e5m2: (T, vocabulary) and its transpose, both
    contiguous, since the head's two matmuls read it in either direction. T is a multiple of four."""
    tokens, vocabulary = z.shape
    rows = torch.empty(tokens, vocabulary, dtype=torch.float8_e5m2, device=z.device)
    columns = torch.empty(vocabulary, tokens, dtype=torch.float8_e5m2, device=z.device)
    if z.is_cuda:
        grid = (triton.cdiv(vocabulary, 64), triton.cdiv(tokens, 128))
        cross_entropy_gradient_kernel[grid](
            z, targets, target_weights, log_sums, rows, columns, tokens, vocabulary,
            cap, shift, width, FP8_GRADIENT_SCALE, TARGETS=target_weights.size(0), QUADS=32, COLUMNS=64, num_warps=8,
        )  # fmt: skip
        return rows, columns
    gate = torch.sigmoid((z.float() + shift) / width)
    probability = torch.exp(cap * gate - log_sums[:, None])
    error = torch.zeros_like(probability)
    for k in range(target_weights.size(0)):
        seen = torch.arange(tokens - k)
        error[: tokens - k] += target_weights[k] * probability[: tokens - k]
        error[seen, targets[k:]] -= target_weights[k]
    rows.copy_((error * cap / width * gate * (1 - gate) / FP8_GRADIENT_SCALE).to(torch.float8_e5m2))
    return rows, columns.copy_(rows.T)


class SquaredReLUMLP(torch.autograd.Function):
    """relu(x @ up.T)² @ down, with up and down (hidden, dim) and x (T, dim), all bf16. What the hidden units do is part
    of the product that makes them, in the forward and in the backward pass."""

    @staticmethod
    def forward(ctx, x, up, down):
        before, after = linear_relu_square(x, up)
        ctx.save_for_backward(x, up, down, before, after)
        return after @ down

    @staticmethod
    def backward(ctx, gradient):
        x, up, down, before, after = ctx.saved_tensors
        before_gradient = linear_relu_square_gradient(gradient, down, before)
        return before_gradient @ up, before_gradient.T @ x, after.T @ gradient


def linear_relu_square(x: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """z = x @ up.T and relu(z)², both bf16."""
    if not x.is_cuda:
        z = F.linear(x, up)
        return z, F.relu(z).square()
    z = torch.empty(x.size(0), up.size(0), dtype=x.dtype, device=x.device)
    return z, relu_square_matmul(x.contiguous(), up.contiguous(), z, backward=False)


def linear_relu_square_gradient(gradient: Tensor, down: Tensor, z: Tensor) -> Tensor:
    """The gradient of z for that of relu(z)² @ down: (gradient @ down.T) * 2 relu(z), bf16."""
    if not gradient.is_cuda:
        return F.linear(gradient, down) * 2 * F.relu(z)
    return relu_square_matmul(gradient.contiguous(), down.contiguous(), z, backward=True)


def relu_square_matmul(a: Tensor, b: Tensor, z: Tensor, backward: bool) -> Tensor:
    """a @ b.T, kept in z, and of that relu²; or backward, (a @ b.T) * 2 relu(z)."""
    out = torch.empty_like(z)
    size, hidden = z.shape

    def grid(tile):
        return (triton.cdiv(size, tile["ROWS"]) * triton.cdiv(hidden, tile["COLUMNS"]),)

    relu_square_kernel[grid](a, b, z, out, size, hidden, a.size(1), BACKWARD=backward, GROUP=8)
    return out


if triton is not None:
    TILES = [
        triton.Config({"ROWS": rows, "COLUMNS": columns, "INNER": 64}, num_stages=stages, num_warps=warps)
        for rows, columns, stages, warps in ((128, 128, 3, 8), (128, 128, 4, 4), (128, 64, 4, 4), (128, 256, 3, 8))
    ]

    # The assembler that comes with Triton (ptxas 12.8.93) loses a number of 8 bits that is used twice: one of its uses
    # may read a register that nobody has written. So what is needed in both directions is rounded twice: for the rows
    # in pairs along a row, for the columns four rows together.

    @triton.jit
    def store_columns(pointer, four_rows, quad, column, rows, inside, dtype: tl.constexpr):
        """Rows 4 * quad to 4 * quad + 3, each (quads, columns) in fp32, into a matrix of `rows` numbers a column."""
        together = tl.join(tl.join(four_rows[0], four_rows[2]), tl.join(four_rows[1], four_rows[3]))
        together = together.reshape(quad.shape[0], column.shape[1], 4)
        row = 4 * quad[:, :, None] + tl.arange(0, 4)[None, None, :]
        place = column.to(tl.int64)[:, :, None] * rows + row
        tl.store(pointer + place, together.to(dtype), mask=inside[:, :, None])

    @triton.jit
    def quantise_kernel(
        x_pointer, row_pointer, column_pointer, rows, columns, scale: tl.constexpr,
        QUADS: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        """One tile of `quantised`, as it is and transposed. What is not a number stays so: it must be seen."""
        quad = (tl.program_id(1) * QUADS + tl.arange(0, QUADS)).to(tl.int64)[:, None]
        column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
        inside = (4 * quad < rows) & (column < columns)
        four_rows = ()
        for i in tl.static_range(4):
            row = 4 * quad + i
            x = tl.load(x_pointer + row * columns + column, mask=inside, other=0.0)
            x = tl.clamp(x.to(tl.float32) / scale, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
            tl.store(row_pointer + row * columns + column, x.to(tl.float8e4nv), mask=inside)
            four_rows += (x,)
        store_columns(column_pointer, four_rows, quad, column, rows, inside, tl.float8e4nv)

    @triton.jit
    def cross_entropy_kernel(
        z_pointer, target_pointer, weight_pointer, loss_pointer, sum_pointer, tokens, size,
        cap: tl.constexpr, shift: tl.constexpr, width: tl.constexpr, TARGETS: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """One row of `capped_cross_entropy`. The cap bounds every logit, so the sum needs no running maximum."""
        row = tl.program_id(0).to(tl.int64)
        z_pointer += row * size
        total = tl.zeros((BLOCK,), dtype=tl.float32)
        for start in range(0, size, BLOCK):
            column = start + tl.arange(0, BLOCK)
            z = tl.load(z_pointer + column, mask=column < size, other=-float("inf")).to(tl.float32)
            total += tl.where(column < size, tl.exp(cap * tl.sigmoid((z + shift) / width) - cap), 0.0)
        log_sum = cap + tl.log(tl.sum(total))
        loss = log_sum * 0.0
        for k in tl.static_range(TARGETS):
            seen = row + k < tokens
            target = tl.load(target_pointer + row + k, mask=seen, other=0)
            z = tl.load(z_pointer + target).to(tl.float32)
            weight = tl.load(weight_pointer + k)
            loss += tl.where(seen, weight * (log_sum - cap * tl.sigmoid((z + shift) / width)), 0.0)
        tl.store(loss_pointer + row, loss)
        tl.store(sum_pointer + row, log_sum)

    @triton.jit
    def cross_entropy_gradient_kernel(
        z_pointer, target_pointer, weight_pointer, log_sum_pointer, row_pointer, column_pointer, tokens, vocabulary,
        cap: tl.constexpr, shift: tl.constexpr, width: tl.constexpr, scale: tl.constexpr,
        TARGETS: tl.constexpr, QUADS: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        """One tile of `capped_cross_entropy_gradient`, as it is and transposed."""
        quad = (tl.program_id(1) * QUADS + tl.arange(0, QUADS)).to(tl.int64)[:, None]
        column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
        inside = (4 * quad < tokens) & (column < vocabulary)
        four_rows = ()
        for i in tl.static_range(4):
            row = 4 * quad + i
            log_sum = tl.load(log_sum_pointer + row, mask=row < tokens, other=0.0)
            z = tl.load(z_pointer + row * vocabulary + column, mask=inside, other=0.0).to(tl.float32)
            gate = tl.sigmoid((z + shift) / width)
            probability = tl.exp(cap * gate - log_sum)
            error = probability * 0.0
            for k in tl.static_range(TARGETS):
                target = tl.load(target_pointer + row + k, mask=row + k < tokens, other=0).to(tl.int32)
                weight = tl.where(row + k < tokens, tl.load(weight_pointer + k), 0.0)
                error += weight * tl.where(target == column, probability - 1, probability)
            error = error * (cap / width / scale) * gate * (1 - gate)
            tl.store(row_pointer + row * vocabulary + column, error.to(tl.float8e5), mask=inside)
            four_rows += (error,)
        store_columns(column_pointer, four_rows, quad, column, tokens, inside, tl.float8e5)

    @triton.autotune(configs=TILES, key=["size", "hidden", "depth", "BACKWARD"])
    @triton.jit
    def relu_square_kernel(
        a_pointer, b_pointer, z_pointer, out_pointer, size, hidden, depth, BACKWARD: tl.constexpr,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
    ):  # fmt: skip
        """One tile of `relu_square_matmul`: a (size, depth), b (hidden, depth), z and out (size, hidden) contiguous.
        Like the published one it rounds the product to bf16 before anything else is done with it."""
        row_tiles = tl.cdiv(size, ROWS)
        column_tiles = tl.cdiv(hidden, COLUMNS)
        tile = tl.program_id(0)
        row_tile, column_tile = tl.swizzle2d(tile // column_tiles, tile % column_tiles, row_tiles, column_tiles, GROUP)
        rows = row_tile * ROWS + tl.arange(0, ROWS)
        columns = column_tile * COLUMNS + tl.arange(0, COLUMNS)
        inner = tl.arange(0, INNER)
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for start in range(0, depth, INNER):
            inside = start + inner < depth
            left = tl.load(
                a_pointer + rows[:, None] * depth + (start + inner)[None, :],
                mask=(rows < size)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            right = tl.load(
                b_pointer + columns[:, None] * depth + (start + inner)[None, :],
                mask=(columns < hidden)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            total = tl.dot(left, right.T, total)
        place = rows[:, None] * hidden + columns[None, :]
        mask = (rows < size)[:, None] & (columns < hidden)[None, :]
        product = total.to(out_pointer.dtype.element_ty)
        if BACKWARD:
            z = tl.load(z_pointer + place, mask=mask, other=0.0).to(tl.float32)
            result = product.to(tl.float32) * 2 * tl.maximum(z, 0.0)
        else:
            tl.store(z_pointer + place, product, mask=mask)
            active = tl.maximum(product.to(tl.float32), 0.0)
            result = active * active
        tl.store(out_pointer + place, result.to(out_pointer.dtype.element_ty), mask=mask)

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
    """The nearest (semi-)orthogonal matrix to each of a batch (n, rows, columns), roughly: singular values end between
    0.86 and 1.14. Computed in bf16; zero stays zero."""
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    x = x.contiguous()
    gram = torch.empty(*x.shape[:-1], x.size(-2), dtype=x.dtype, device=x.device)
    polynomial = torch.empty_like(gram)
    for a, b, c in POLAR_EXPRESS:
        symmetric_matmul(x, out=gram)
        symmetric_matmul(gram, out=polynomial, alpha=c, beta=b)
        # `baddbmm` copies x first: for the large matrices a product and an addition are faster.
        x = torch.bmm(polynomial, x).add_(x, alpha=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


@fast
def equalise_rows(updates: Tensor, mean_squares: Tensor, beta2: float) -> Tensor:
    """NorMuon (Li et al. 2025, arXiv 2510.05491): each row of each matrix (n, rows, columns) divided by the root of a
    running mean of its mean squares, which is moved on in place; each matrix then scaled to the norm it had."""
    square = updates.float().square().mean(dim=-1, keepdim=True)
    mean_squares.copy_(torch.lerp(square, mean_squares.float(), beta2))
    factor = mean_squares.float().clamp(min=1e-10).rsqrt()
    norm = (updates.size(-1) * square.sum(dim=-2, keepdim=True)).sqrt()
    new_norm = (updates.size(-1) * (square * factor.square()).sum(dim=-2, keepdim=True)).sqrt()
    return updates * (factor * norm / new_norm.clamp(min=1e-10)).to(updates.dtype)


def attend(query, key, value, document_ends: Tensor, longest: int, window: int, scale: float) -> Tensor:
    """Causal attention within each document, over at most `window` tokens back and the token itself.

    query, key, value (T, heads, head_dim) bf16; document_ends (documents,) int32: cumulative lengths from 0 to T.
    """
    if flash4 is not None:
        return flash4_attend(query, key, value, document_ends, longest, window, scale)[0]
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


flash4 = None  # FlashAttention 4's module, once `attention_backend` has tried it


@torch.library.custom_op("record61::flash4_attend", mutates_args=())
def flash4_attend(
    query: Tensor, key: Tensor, value: Tensor, document_ends: Tensor, longest: int, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """`attend` by FlashAttention 4, and for its gradient the logarithms of the softmax's sums, (heads, T) fp32.

    The kernels of the package flash-attn-4 are written in CuTe, which `torch.compile` cannot look into: hence an
    operator. PyTorch 2.11 can put them behind `varlen_attn`, but not with a window in the backward pass.
    """
    options = flash4_options(document_ends, longest, window, scale)
    return flash4._flash_attn_fwd(query, key, value, return_lse=True, **options)[:2]


@torch.library.custom_op("record61::flash4_gradient", mutates_args=())
def flash4_gradient(
    query: Tensor, key: Tensor, value: Tensor, document_ends: Tensor, longest: int, window: int, scale: float,
    out: Tensor, log_sums: Tensor, out_gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of query, key and value."""
    options = flash4_options(document_ends, longest, window, scale)
    return flash4._flash_attn_bwd(query, key, value, out, out_gradient, log_sums, **options)[:3]


def flash4_options(document_ends: Tensor, longest: int, window: int, scale: float) -> dict:
    """The arguments that both passes share, under the package's names."""
    documents = {"cu_seqlens_q": document_ends, "cu_seqlens_k": document_ends}
    lengths = {"max_seqlen_q": longest, "max_seqlen_k": longest}
    return {"softmax_scale": scale, "window_size_left": window, "window_size_right": 0, **documents, **lengths}


@flash4_attend.register_fake
def flash4_attend_shapes(query, key, value, *_):
    return query.new_empty(query.shape), query.new_empty(query.size(1), query.size(0), dtype=torch.float32)


@flash4_gradient.register_fake
def flash4_gradient_shapes(query, key, value, *_):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def flash4_keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.numbers = inputs[4:]


def flash4_backward(ctx, out_gradient, _):
    *inputs, out, log_sums = ctx.saved_tensors
    return *flash4_gradient(*inputs, *ctx.numbers, out, log_sums, out_gradient), None, None, None, None


flash4_attend.register_autograd(flash4_backward, setup_context=flash4_keep)


def attention_backend(heads: int, head_dim: int) -> str:
    """Choose the fastest kernels for `attend` that are installed and work here, and say which: FlashAttention 3, behind
    `varlen_attn`; else 4, which is tried on one document, forward and backward; else PyTorch's own 2."""
    global flash4
    if not torch.cuda.is_available():
        return "scaled_dot_product_attention with a dense mask"
    try:
        torch.nn.attention.activate_flash_attention_impl("FA3")
        return "varlen_attn, FlashAttention 3"
    except (ImportError, AttributeError, RuntimeError, ValueError):
        pass
    try:
        flash4 = importlib.import_module("flash_attn.cute.interface")
        document = torch.tensor([0, 512], dtype=torch.int32, device="cuda")
        x = torch.zeros(512, heads, head_dim, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        attend(x, x, x, document, 512, 128, 1.0).backward(x.detach())
        return f"flash-attn-4 {version('flash-attn-4')}, FlashAttention 4"
    except Exception as error:  # a foreign compiler fails in its own ways
        flash4 = None
        absent = isinstance(error, ModuleNotFoundError) and error.name.startswith("flash_attn")
        reason = "" if absent else f" (4 failed: {error!r:.200})"
        return f"varlen_attn, FlashAttention 2{reason}"


# --------------------------------------------------------------------------------------------------
# Optimizers
# --------------------------------------------------------------------------------------------------


@fast
def adam_update(parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rates: Tensor, epsilon: float):
    """One Adam step in place; `rates` holds beta1, beta2, the step size with both bias corrections, the share that a
    weight loses where its update agrees, gradient scale."""
    beta1, beta2, step_size, decay, gradient_scale = rates.unbind()
    gradient = gradient.float() * gradient_scale
    m = torch.lerp(gradient, first.float(), beta1)
    v = torch.lerp(gradient.square(), second.float(), beta2)
    first.copy_(m)
    second.copy_(v)
    value, update = parameter.float(), step_size * m / (v.sqrt() + epsilon)
    update += decay * value * (update * value > 0)  # cautious (arXiv 2510.12402): never against the update
    parameter.copy_(value - update)


class Adam:
    """Adam (Kingma & Ba 2015) of one parameter, with cautious weight decay.

    A large parameter's state is split over the ranks by rows of dimension 0, which must divide by their number: each
    rank receives the summed gradient of its rows (reduce-scatter), updates them and gives them to the others
    (all-gather). A small one's every rank has whole. Both moments are fp32. Epsilon is added to the uncorrected root of
    the second moment.
    """

    def __init__(self, parameter, learning_rate, weight_decay, betas, epsilon: float, gradient_scale: float):
        self.parameter, self.learning_rate, self.weight_decay = parameter, learning_rate, weight_decay
        self.betas, self.epsilon, self.gradient_scale = betas, epsilon, gradient_scale
        self.split = parameter.numel() >= 1024
        self.own = parameter.data.chunk(dist.get_world_size())[dist.get_rank()] if self.split else parameter.data
        self.first = torch.zeros_like(self.own, dtype=torch.float32)
        self.second = torch.zeros_like(self.own, dtype=torch.float32)
        self.steps = 0

    def reset(self):
        """Forget everything, as if no step had been taken."""
        self.steps = 0
        self.first.zero_()
        self.second.zero_()

    def send(self):
        """Set off the gradient's way to the rank that needs it."""
        if self.split:
            self.gradient = torch.empty_like(self.own)
            self.work = dist.reduce_scatter_tensor(self.gradient, self.parameter.grad.contiguous(), async_op=True)
        else:
            self.gradient = self.parameter.grad
            self.work = dist.all_reduce(self.gradient, async_op=True)

    def update(self, multiplier: float, momentum: float):
        """Once the gradient is here, update what is this rank's and set it off to the others."""
        self.work.wait()
        self.steps += 1
        beta1, beta2 = self.betas
        learning_rate = self.learning_rate * multiplier
        step_size = learning_rate * math.sqrt(1 - beta2**self.steps) / (1 - beta1**self.steps)
        rates = torch.tensor([beta1, beta2, step_size, learning_rate**2 * self.weight_decay, self.gradient_scale])
        rates = rates.to(self.gradient.device, non_blocking=True)
        adam_update(self.own, self.gradient, self.first, self.second, rates, self.epsilon)
        if self.split:
            self.work = dist.all_gather_into_tensor(self.parameter.data, self.own, async_op=True)

    def finish(self):
        """Order what follows behind the new values' arrival."""
        self.work.wait()
        self.gradient = self.work = self.parameter.grad = None


@fast
def cautious_update(high: Tensor, low: Tensor, updates: Tensor, factors: Tensor, rates: Tensor):
    """One step in place of matrices (n, rows, columns) along their updates, with cautious weight decay; `rates` holds
    the learning rate and the decay, `factors` (n, 1, 1) what each matrix multiplies the first with.

    The matrices are fp32: their upper 16 bits are `high`, bf16, which the model computes with, the others `low`, int16.
    """
    learning_rate, decay = rates.unbind()
    value = ((high.view(torch.int16).int() << 16) | (low.int() & 0xFFFF)).view(torch.float32)
    update = updates.float()
    update = update + decay * value * (update * value >= 0)
    bits = (value - factors * learning_rate * update).view(torch.int32)
    high.copy_((bits >> 16).to(torch.int16).view(torch.bfloat16))
    low.copy_(bits.to(torch.int16))


class NorMuon:
    """Momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), and
    whose rows are then brought to one scale (NorMuon); with cautious weight decay. For a bank, one parameter that is
    many matrices (rows, columns) of one shape; `factors` on the learning rate are theirs in turn, over and over.

    Each rank owns as many matrices as any other: it receives the sum of their gradients (reduce-scatter), keeps their
    momentum and their lower 16 bits, and gives the upper 16 to the others (all-gather).
    """

    def __init__(self, bank, factors, learning_rate, weight_decay, beta2: float, gradient_scale: float):
        self.parameter, self.learning_rate, self.weight_decay = bank, learning_rate, weight_decay
        self.beta2, self.gradient_scale, self.momentum = beta2, gradient_scale, 0.0
        self.matrices = bank.data.view(-1, *bank.shape[-2:])
        self.own = self.matrices.chunk(dist.get_world_size())[dist.get_rank()]
        repeated = torch.tensor(factors).repeat(len(self.matrices) // len(factors))[:, None, None]
        self.factors = repeated.chunk(dist.get_world_size())[dist.get_rank()].to(bank.device)
        self.low = torch.zeros_like(self.own, dtype=torch.int16)
        self.buffer = torch.zeros_like(self.own, dtype=torch.float32)
        self.mean_squares = torch.zeros(*self.own.shape[:2], 1, device=bank.device)

    def reset(self):
        """Forget everything, as if no step had been taken."""
        for state in (self.low, self.buffer, self.mean_squares):
            state.zero_()

    def send(self):
        """Set off the gradient's way to the rank that needs it."""
        self.gradient = torch.empty_like(self.own)
        gradient = self.parameter.grad.contiguous().view_as(self.matrices)
        self.work = dist.reduce_scatter_tensor(self.gradient, gradient, async_op=True)

    def update(self, multiplier: float, momentum: float):
        """Once the gradient is here, update what is this rank's and set it off to the others."""
        self.work.wait()
        self.momentum = momentum
        update = self.gradient.float().mul_(self.gradient_scale)
        self.buffer.lerp_(update, 1 - momentum)
        update.lerp_(self.buffer, momentum)  # Nesterov: look ahead along the momentum just formed
        update = equalise_rows(polar_express(update), self.mean_squares, self.beta2)
        learning_rate = self.learning_rate * multiplier
        rates = torch.tensor([learning_rate, learning_rate * self.weight_decay])
        rates = rates.to(update.device, non_blocking=True)
        cautious_update(self.own, self.low, update, self.factors, rates)
        self.work = dist.all_gather_into_tensor(self.matrices, self.own, async_op=True)

    def finish(self):
        """Order what follows behind the new values' arrival."""
        self.work.wait()
        self.gradient = self.work = self.parameter.grad = None

    def orthogonality_error(self) -> float:
        """‖Oᵀ O - I‖ / sqrt(columns) of a matrix of this rank's, O what `polar_express` makes of its momentum."""
        o = polar_express(self.buffer[:1])[0].float().T
        identity = torch.eye(o.size(0), device=o.device)
        return ((o @ o.T - identity).norm() / math.sqrt(o.size(0))).item()


class Optimizer:
    """All parameters' optimizers, by their names and in the order in which they update; `sending_order` names them in
    the order in which their gradients leave.

    While `tied`, the embedding is the head's transpose: its gradient is added to the head's, and only the head learns.
    """

    def __init__(self, rules: dict[str, Adam | NorMuon], sending_order: Iterable[str]):
        self.rules, self.sending_order, self.tied = rules, sending_order, True

    def reset(self):
        """Forget everything, as if no step had been taken."""
        self.tied = True
        for rule in self.rules.values():
            rule.reset()

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float, with_adam: bool):
        """Update the banks and, `with_adam`, all else, and clear their gradients; `multiplier` is the schedule's factor
        on the rates."""
        rules = {name: rule for name, rule in self.rules.items() if with_adam or isinstance(rule, NorMuon)}
        head, embedding = self.rules["lm_head"].parameter, self.rules["embedding"].parameter
        tying = with_adam and self.tied
        if tying:
            del rules["embedding"]
        for name in self.sending_order:
            if name in rules:
                if name == "lm_head" and tying:
                    head.grad.add_(embedding.grad.T)
                    embedding.grad = None
                rules[name].send()
        for rule in rules.values():
            rule.update(multiplier, momentum)
        for rule in rules.values():
            rule.finish()
        if tying:
            embedding.copy_(head.T)

    @torch.no_grad()
    def untie(self):
        """From now on the embedding learns by itself, from where the head stands: with its moments, transposed."""
        self.tied = False
        head, embedding = self.rules["lm_head"], self.rules["embedding"]
        embedding.steps = head.steps
        for state, new in ((head.first, embedding.first), (head.second, embedding.second)):
            whole = state.new_empty(head.parameter.shape)
            dist.all_gather_into_tensor(whole, state)
            new.copy_(whole.T.chunk(dist.get_world_size())[dist.get_rank()])


def stage(step: int) -> int:
    """Three stages of equal length, then the extension: 0 to 3."""
    scheduled = settings.num_iterations - settings.extension_iterations
    return min(3 * step // scheduled, 3)


def learning_rate_multiplier(step: int) -> float:
    """The stage's plateau; from some step on, in a straight line from the plateau to the floor, also where the plateau
    itself still rises; then flat through the extension. The plateaus change one step after the stages."""
    scheduled = settings.num_iterations - settings.extension_iterations
    plateau = settings.learning_rate_stages[(3 * step > scheduled) + (3 * step > 2 * scheduled)]
    left = 1 - min(1, step / scheduled)
    if left > settings.cooldown_fraction:
        return plateau
    share = left / settings.cooldown_fraction
    return plateau * share + (1 - share) * settings.final_learning_rate


def muon_momentum(step: int) -> float:
    """Up over the first steps, down over the last."""
    low, high = settings.muon_momentum_start, settings.muon_momentum
    falling = step - (settings.num_iterations - settings.momentum_cooldown)
    if falling > 0:
        return high - (high - low) * falling / settings.momentum_cooldown
    return low + (high - low) * min(1, step / settings.momentum_warmup)


def untie_step() -> int:
    """The first Adam step of the last stage: after it embedding and head part."""
    start = math.ceil(2 * (settings.num_iterations - settings.extension_iterations) / 3)
    return start + (-1 - start) % settings.adam_every


def target_weights(step: int) -> Tensor:
    """What a position's next tokens weigh in its loss."""
    *weights, last = settings.target_stages[stage(step)]
    left = stage(step) + 1 - 3 * step / (settings.num_iterations - settings.extension_iterations)
    return to_device(np.array([*weights, last * left if weights else last]), torch.float32)


def row_tokens(step: int) -> int:
    """How many tokens a row of this step holds."""
    return settings.row_tokens * settings.row_stages[stage(step)]


def window_blocks(step: int) -> int:
    """The long layers' attention window, in blocks."""
    return settings.window_stages[stage(step)]


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension. The eps is fp32's, also for bf16 input: explicit,
    because PyTorch's default has changed between versions."""
    return F.rms_norm(x, (x.size(-1),), eps=1.19e-7)


def uniform_(weight: Tensor, factor: float) -> Tensor:
    """Uniform with standard deviation factor / sqrt(model_dim); model_dim is the smaller side of every matrix here."""
    bound = math.sqrt(3) * factor / math.sqrt(min(weight.shape[-2:]))
    return weight.uniform_(-bound, bound)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) on the first half of the head's channels, in adjacent pairs;
    the others do not turn. Tables and rotation in bf16.

    YaRN (Peng et al. 2023, arXiv 2309.00071): when the attention window grows, frequencies that turn less than once
    in the old window are slowed by old/new, those that turn more than 32 times are kept, and those between are
    interpolated; the softmax scale grows with the logarithm of the window.
    """

    def __init__(self, head_dim: int, length: int, base: int, attention_scale: float, window_block: int):
        super().__init__()
        self.head_dim, self.length, self.base = head_dim, length, base
        self.first_scale, self.window_block = attention_scale, window_block
        self.register_buffer("cos", torch.empty(length, head_dim // 4, dtype=torch.bfloat16), persistent=False)
        self.register_buffer("sin", torch.empty(length, head_dim // 4, dtype=torch.bfloat16), persistent=False)
        self.reset()

    def reset(self):
        """Back to the frequencies and the softmax scale of step 0."""
        quarter = self.head_dim // 4
        self.frequencies = (1 / self.base) ** torch.linspace(0, 1, steps=quarter, device=self.cos.device)
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

    def forward(self, x: Tensor, paired: bool) -> Tensor:
        """Rotate (T, heads, head_dim) by each token's position; paired, even heads by twice that, odd heads by one more
        than twice."""
        count = 2 if paired else 1
        cos, sin = (table[: count * x.size(0)].view(x.size(0), 1, count, -1) for table in (self.cos, self.sin))
        turning, still = x.unflatten(1, (-1, count)).chunk(2, dim=-1)
        even, odd = turning.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([even * cos + odd * sin, odd * cos - even * sin], dim=-1).flatten(-2)
        return torch.cat([turned, still], dim=-1).flatten(1, 2)


def shift_keys(key: Tensor) -> Tensor:
    """Keys (T, heads, head_dim) with the second and the last quarter of their channels from the token before, in the
    row and not only in the document. A query can then look for the token after an earlier occurrence, in one layer.
    Since pairs are adjacent, the second quarter turns: so it was, though only channels that do not turn were meant."""
    first, second, third, fourth = key.chunk(4, dim=-1)
    second, fourth = (torch.cat([x[:1], x[:-1]]) for x in (second, fourth))
    return torch.cat([first, second, third, fourth], dim=-1)


def gated(x: Tensor, gate: Tensor) -> Tensor:
    """A sigmoid per row of the gate (n, gate_dim), of the first channels of x (T, model_dim): (T, n)."""
    return torch.sigmoid(F.linear(x[:, : gate.size(-1)], gate))


class Attention(nn.Module):
    """Multi-head attention over packed documents: QK norm, rotary, gated value embeddings and a sparse output gate.

    Paired, heads j and j + heads/2 of a token become two neighbouring positions of one head: a query sees the keys of
    both, and a window reaches half as far back in tokens.
    """

    def __init__(self, s: Settings, layer: int):
        super().__init__()
        self.num_heads, self.head_dim = s.num_heads, s.head_dim
        self.shifted, self.paired = layer in s.long_layers, layer in s.paired_layers

    def forward(self, x, qkvo, gate, factors, value_gate, value_embedding, rotary, document_ends, longest, window):
        tokens, side = x.size(0), self.num_heads * self.head_dim
        query_key_value, output = qkvo.flatten(0, 1).split([3 * side, side])
        # Factors on weights cost less than on activations. The first acts on the value alone: the others are normed.
        heads = F.linear(x, factors[0] * query_key_value).view(tokens, 3 * self.num_heads, self.head_dim)
        query, key, value = heads.chunk(3, dim=1)
        query, key = rotary(rms_norm(query), self.paired), rotary(rms_norm(key), self.paired)
        if self.shifted:
            key = shift_keys(key)
        if value_embedding is not None:
            value = value + 2 * gated(x, value_gate).unsqueeze(-1) * value_embedding.view_as(value)
        if self.paired:
            # Rotary takes neighbouring heads for a pair, this folding heads that are three apart: so it was.
            query, key, value = (t.reshape(2 * tokens, -1, self.head_dim) for t in (query, key, value))
            document_ends, longest = 2 * document_ends, 2 * longest
        y = attend(query, key, value, document_ends, longest, window, rotary.attention_scale)
        y = y.reshape(tokens, self.num_heads, self.head_dim) * gated(x, gate).unsqueeze(-1)
        return F.linear(y.flatten(1), factors[1] * output)


class Block(nn.Module):
    """One layer: attention (in most layers), MLP."""

    def __init__(self, s: Settings, layer: int):
        super().__init__()
        self.attention = Attention(s, layer) if layer != s.layer_without_attention else None

    def forward(self, x, up, down, *attention_inputs):
        if self.attention is not None:
            x = x + self.attention(rms_norm(x), *attention_inputs)
        return x + SquaredReLUMLP.apply(rms_norm(x), up, down)


class GPT(nn.Module):
    """The record's transformer. `forward` returns the loss: summed over tokens in training, their mean otherwise."""

    def __init__(self, s: Settings):
        super().__init__()
        self.settings, self.fp8 = s, s.fp8
        side = s.num_heads * s.head_dim
        self.attention_layers = [layer for layer in range(s.num_layers) if layer != s.layer_without_attention]
        # All attention matrices in one parameter: per layer query, key, value and output, each (model_dim, model_dim).
        # All MLP matrices in another: per layer up and down, both (mlp_dim, model_dim); as many layers more, which are
        # never executed, as make its matrices divide by 8 ranks.
        attention = torch.zeros(len(self.attention_layers), 4, side, s.model_dim)
        uniform_(attention[:, :3], 1.0)
        mlp = torch.zeros(math.ceil(s.num_layers / 4) * 4, 2, s.mlp_dim, s.model_dim)
        uniform_(mlp[:, 0], 0.5)
        self.attention_bank = nn.Parameter(attention.bfloat16())
        self.mlp_bank = nn.Parameter(mlp.bfloat16())
        self.lm_head = nn.Parameter((0.005 * torch.randn(s.model_dim, s.vocab_size)).bfloat16())
        self.embedding = nn.Parameter(self.lm_head.detach().T.contiguous())

        def zeros(*shape):
            return nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16))

        self.value_tables = nn.ParameterList([zeros(s.vocab_size, s.model_dim) for _ in range(3)])
        self.attention_gates = zeros(len(self.attention_layers), s.num_heads, s.gate_dim)
        self.value_gates = zeros(len(s.value_embedding_layers), s.num_heads, s.gate_dim)
        self.smear_gate, self.skip_gate = zeros(1, s.gate_dim), zeros(1, s.gate_dim)
        self.blocks = nn.ModuleList([Block(s, layer) for layer in range(s.num_layers)])
        length = 2 * max(s.row_tokens * max(s.row_stages), s.val_row_tokens)  # paired heads have two positions a token
        self.rotary = Rotary(s.head_dim, length, s.rotary_base, s.attention_scale, s.window_block)
        # All scalars in one vector: per layer what the stream is multiplied with, and a pair per layer for the weights
        # of attention; smear, backout, and the skip before a sigmoid. What the embedding is multiplied with before a
        # layer learns by itself.
        scalars = [1.1] * s.num_layers + [0.5, 1.0] * s.num_layers + [0.0, 0.5, -1.5]
        self.scalars = nn.Parameter(torch.tensor(scalars))
        self.embedding_mix = nn.Parameter(torch.zeros(s.num_layers))

    def smear(self, x: Tensor) -> Tensor:
        """Add to each token's embedding a gated share of the embedding before it."""
        strength = self.scalars[3 * self.settings.num_layers]
        gate = strength * gated(x[1:], self.smear_gate)
        return torch.cat([x[:1], x[1:] + gate * x[:-1]])

    def loss(self, x: Tensor, targets: Tensor, target_weights: Tensor | None) -> Tensor:
        """Cross entropy of logits softly capped to 0..logit_cap: in training the sum, over the next tokens that have a
        weight, too; in validation the mean of the next one's."""
        x, s = rms_norm(x), self.settings
        if self.training and self.fp8:
            return FP8HeadLoss.apply(
                x, self.lm_head, targets, target_weights, s.logit_cap, s.logit_shift, s.logit_width
            )
        logits = s.logit_cap * torch.sigmoid(((x @ self.lm_head).float() + s.logit_shift) / s.logit_width)
        if not self.training:
            return F.cross_entropy(logits, targets)
        count = len(x)
        losses = [
            F.cross_entropy(logits[: count - k], targets[k:], reduction="sum") for k in range(len(target_weights))
        ]
        return (target_weights * torch.stack(losses)).sum()

    def hidden(self, tokens, document_ends, longest: int, windows: tuple[int, int]) -> tuple[Tensor, dict]:
        """The final stream (T, model_dim), and the stream after each layer."""
        s, n = self.settings, self.settings.num_layers
        stream_mix, factors = self.scalars[:n], self.scalars[n : 3 * n].view(n, 2)
        backout, skip = self.scalars[3 * n + 1], torch.sigmoid(self.scalars[3 * n + 2])
        # `unbind`, because the gradient of an index would be as large as the bank, for each layer.
        matrices = self.mlp_bank.flatten(0, 1).unbind()
        qkvo = dict(zip(self.attention_layers, self.attention_bank.unbind()))
        gates = dict(zip(self.attention_layers, self.attention_gates.unbind()))
        values = {
            layer: (gate, F.embedding(tokens, self.value_tables[i]))
            for (layer, i), gate in zip(s.value_embedding_layers, self.value_gates.unbind())
        }

        x = embedding = rms_norm(self.smear(F.embedding(tokens, self.embedding)))
        stream = {}
        for layer, block in enumerate(self.blocks):
            if layer == s.skip_to:
                x = x + skip * 2 * gated(embedding, self.skip_gate) * stream[s.skip_from]
            if layer == 0:
                x = (stream_mix[0] + self.embedding_mix[0]) * x
            else:
                x = stream_mix[layer] * x + self.embedding_mix[layer] * embedding
            window = (windows[0] if layer in s.long_layers else windows[1]) * s.window_block
            inputs = (qkvo.get(layer), gates.get(layer), factors[layer], *values.get(layer, (None, None)))
            inputs = (*inputs, self.rotary, document_ends, longest, window)
            x = stream[layer] = block(x, matrices[2 * layer], matrices[2 * layer + 1], *inputs)
        return x - backout * stream[s.backout_layer], stream

    def forward(self, tokens, targets, document_ends, longest: int, windows: tuple[int, int], target_weights=None):
        """tokens (T,) int32, targets (T,) int64, document_ends int32; windows: (long, short) in blocks."""
        return self.loss(self.hidden(tokens, document_ends, longest, windows)[0], targets, target_weights)


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


def pack_rows(bounds: np.ndarray, document: int, size: int) -> tuple[list, int]:
    """The documents, as (start, end) spans, that fill the rows of one step in order, and the document after them.

    A row takes whole documents, none longer than `document_tokens`, until it holds size + 1 tokens; what is cut
    off the last one is dropped. Raises IndexError when the documents do not suffice.
    """
    rows = []
    for _ in range(settings.rows_per_step):
        spans, missing = [], size + 1
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


def train_batches(steps: Iterable[int]):
    """Yield for each of these steps what this rank computes in it: a list of 8/world_size rows' inputs.

    The rows of a step are the same at any number of ranks. Shards are walked in order and again from the first; the
    next one is searched for documents in the background, and so is all but the beginning of the first.
    """
    files = shard_files("train")
    background = ThreadPoolExecutor(max_workers=1)
    tokens, bounds = index_documents(files[0], settings.first_scan_tokens)
    upcoming = background.submit(index_documents, files[0])
    partial_index, document, shard = True, 0, 0
    for size in map(row_tokens, steps):
        while True:
            try:
                rows, document_after = pack_rows(bounds, document, size)
                break
            except IndexError:  # this index is used up: drop the step begun and go on with the one made meanwhile
                if not partial_index and document == 0:
                    fail(f"{files[shard % len(files)]} holds too few documents for one step")
                shard += not partial_index
                document = document if partial_index else 0
                partial_index = False
                tokens, bounds = upcoming.result()
                upcoming = background.submit(index_documents, files[(shard + 1) % len(files)])
        document = document_after
        batch = []
        for spans in rows[rank::world_size]:
            lengths = [end - start for start, end in spans]
            lengths[-1] -= 1  # the row's last token is only a target
            row = np.concatenate([tokens[start:end] for start, end in spans]).astype(np.int64)
            batch.append(as_inputs(row, lengths, document_slots(size), settings.document_tokens))
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
log(f"attention={attention_backend(settings.num_heads, settings.head_dim)}", console=False)
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

share = 1 / settings.rows_per_step  # gradients are summed over rows and ranks; the optimizers take the mean of rows
rules = {}
for name, rate, decay, *betas in settings.adam_parameters:
    rate *= settings.head_learning_rate if name in ("lm_head", "embedding") else settings.adam_learning_rate
    decay *= settings.adam_weight_decay
    rules[name] = Adam(model.get_parameter(name), rate, decay, betas, settings.adam_epsilon, share)
for name, factors in settings.muon_parameters:
    rates = (settings.muon_learning_rate, settings.muon_weight_decay, settings.muon_beta2)
    rules[name] = NorMuon(model.get_parameter(name), factors, *rates, share)
optimizer = Optimizer(rules, settings.sending_order)
compiled_model = fast(model)


def forward_backward(batch: list, step: int, window: int) -> Tensor:
    """Gradients of these rows; the last one's loss."""
    weights = target_weights(step)
    for tokens, targets, document_ends, longest in batch:
        loss = compiled_model(tokens, targets, document_ends, longest, (window, window // 2), weights)
        loss.backward()
    return loss


def update(step: int):
    """Every parameter at every second step, on the gradients of both; else the banks alone."""
    with_adam = step % settings.adam_every == settings.adam_every - 1
    optimizer.step(learning_rate_multiplier(step), muon_momentum(step), with_adam)
    if step == untie_step():
        optimizer.untie()


def train_step(batch: list, step: int, window: int):
    """Forward and backward over this rank's rows, then the update."""
    watch_loss(step, forward_backward(batch, step, window))
    watched = settings.telemetry_every and step % settings.telemetry_every == 0
    with telemetry(step, batch[0], window) if watched else nullcontext():
        update(step)


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
    _, stream = model.hidden(tokens, document_ends, longest, (window, window // 2))
    rms = [f"{x.float().square().mean().sqrt():.3f}" for x in stream.values()]
    log(
        f"telemetry step:{step} grad_norm:{norm(gradients) / settings.rows_per_step:.4e} "
        f"weight_norm:{norm(weights):.4e} update_norm:{norm(w - old for w, old in zip(weights, previous)):.4e} "
        f"activation_rms:[{','.join(rms)}] adam_steps:{rules['lm_head'].steps} "
        f"muon_momentum:{rules['mlp_bank'].momentum:.4f} "
        f"muon_orthogonality_error:{rules['mlp_bank'].orthogonality_error():.4f}"
    )
    guard_fp8(step)


def synchronize():
    """Wait until the GPU has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# --------------------------------------------------------------------------------------------------
# Warmup
# --------------------------------------------------------------------------------------------------

# Every graph is compiled, every Triton tile tuned and every communicator opened before the clock starts; then all that
# was learnt is forgotten. The warmup takes the first steps of the run and those around every change, each after a
# validation row; real batches, one row per rank.
initial = [parameter.detach().clone() for parameter in model.parameters()]
scheduled = settings.num_iterations - settings.extension_iterations
changes = [math.ceil(scheduled * i / 3) for i in (1, 2, 3)]
samples = sorted({0, 1, 2, *(change + i for change in changes for i in (-1, 0, 1))})
warmup_data = train_batches(samples)
model.rotary.reset()  # on the model's device
window = window_blocks(0)
for sample in samples:
    if window_blocks(sample) != window:
        model.rotary.extend(window, window_blocks(sample))
        window = window_blocks(sample)
    model.eval()
    with torch.no_grad():
        compiled_model(*next(val_batches()), (window, window // 2))
    model.train()
    forward_backward(next(warmup_data)[:1], sample, window)
    update(sample)
model.zero_grad()
model.rotary.reset()
optimizer.reset()
with torch.no_grad():
    torch._foreach_copy_(list(model.parameters()), initial)
del initial, warmup_data

# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------

train_data = train_batches(range(settings.num_iterations))
window = window_blocks(0)
training_time = 0.0  # seconds, validation excluded
gc.collect()  # or the collector does it in some step, and takes half a second
synchronize()
clock = time.perf_counter()
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations

    # Longer windows as training goes on, longer still for the last validation.
    if window_blocks(step) != window:
        model.rotary.extend(window, window_blocks(step))
        window = window_blocks(step)

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
