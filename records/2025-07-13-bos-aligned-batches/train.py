"""Record 26 · 2025-07-13 · Every sequence starts with a document

Claim      2.863 minutes on the leaderboard; its public log: 171.743 s and a validation loss of 3.2771 (n = 1). Twenty
           logs of an earlier variant, whose learning rate ended at 0.05 of its peak: 3.2791 ± 0.0013, p = 0.0049
           against the target of 3.28, FineWeb.
Hardware   8x NVIDIA H100 80GB HBM3, PyTorch 2.9.0.dev20250713+cu126; 1,750 steps of 393,216 tokens, 98.14 ms.
New        A row of training tokens starts where a document does, not wherever the row before it ended: no row opens
           with the rest of a document whose beginning is out of sight. What lies between a row's end and the next
           document is skipped. Validation rows stay as they fall.
           Also: 1,770 -> 1,750 steps, cooldown fraction 0.40 -> 0.45.
Parent     25 (2025-07-13): PyTorch 2.9, the whole model in one compiled graph.
Credit     @classiclarryd; the clean-up of systems that it builds on: @vagrawal.
Source     https://github.com/KellerJordan/modded-nanogpt
Rules      edition 2025-02-01: 10 untimed warmup steps, state restored, then every training step is timed.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 rows in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

Not as published, without effect on the mathematics:
  - Ranks that own no matrix of a chunk receive into memory of their own (published: over the chunk before).
  - The head's rounding to fp8, softcap, cross entropy and fp8 gradient are kernels of our own.
  - The element-wise Adam update is fused and computed in fp32 (published: one bf16 rounding per operation).
  - Optimizer state exists before the clock starts, and is zeroed after the warmup rather than dropped.
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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # read when torch is imported

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

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
    num_iterations: int = 1750
    rows_per_step: int = 8  # one row per GPU on 8 GPUs
    row_tokens: int = 49152
    search_steps: int = 2  # documents to start a step's rows with are looked for in this many steps' tokens

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
    layer_without_attention: int = 7
    value_embedding_layers: tuple = ((0, 0), (1, 1), (2, 2), (9, 0), (10, 1), (11, 2))  # (layer, table)
    skip_pairs: tuple = ((6, 5), (7, 4), (8, 3), (9, 2), (10, 1), (11, 0))  # (to, from)
    logit_cap: float = 30.0  # cap * sigmoid(z / (width * sqrt(model_dim)))
    logit_width: float = 7.5
    fp8: bool = True  # the head's matmuls in training; validation uses bf16

    # Attention windows, in blocks; a short layer sees half of a long one
    window_block: int = 128
    long_layers: tuple = (0, 4, 11)
    final_window: float = 13.5  # the window grows in a straight line, rounded up, from one block to this
    attention_scale: float = 0.12
    rotary_base: int = 1024

    # Learning rate and optimizers
    cooldown_fraction: float = 0.45
    final_learning_rate: float = 0.1  # as a fraction of the peak
    adam_learning_rate: float = 0.008
    table_multiplier: float = 75.0  # embedding and value tables
    head_multiplier: float = 27.5
    scalar_multiplier: float = 5.0
    adam_beta1: float = 0.8
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-10
    muon_learning_rate: float = 0.05
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    momentum_warmup: int = 300

    # Untimed warmup, all state restored after it
    warmup_iterations: int = 10


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


# Constant fp8 scales of the head. A weight of 24 is mapped to 448, the largest number of e4m3, and larger ones are
# clipped. A row of activations has norm sqrt(dim), so no entry exceeds sqrt(dim), which is mapped to 448. The loss is a
# sum over tokens, so a logit's gradient is at most 1.
FP8_WEIGHT_SCALE = 24 / 448
FP8_GRADIENT_SCALE = 1 / 448


class FP8HeadLoss(torch.autograd.Function):
    """Summed cross entropy of softly capped logits, cap * sigmoid(z / width) with z = x @ weight.T, where both
    factors and the gradient of z are rounded to 8 bits.

    x (T, dim) bf16, weight (vocabulary, dim) fp32, targets (T,) int64; returns a scalar, fp32. Of the logits only z
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
        return x_gradient * loss_gradient, weight_gradient * loss_gradient, None, None, None


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


@fast
def newton_schulz(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each of a batch (..., rows, columns), roughly: five iterations of an odd
    quintic (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), in bf16. Zero stays zero."""
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def may_see(query, key, document: Tensor):
    """Whether a token may attend to another within the blocks of its window: not to the future, not to another
    document. A document is opened by its separator; the numbers count separators."""
    return (query >= key) & (document[query] == document[key])


def block_mask(document: Tensor, window: Tensor, block: int) -> BlockMask:
    """FlexAttention's mask: `may_see`, over the query's block and the `window` - 1 blocks before it.

    document (T,) int32, window a 0-dimensional int32 tensor: it may grow without a new compilation. A block whose
    tokens all belong to one document, with its query's, is visited without evaluating the rule.
    """
    blocks = torch.arange(document.size(0) // block, dtype=torch.int32, device=document.device)
    distance = blocks[:, None] - blocks
    first, last = document.view(-1, block)[:, 0], document.view(-1, block)[:, -1]
    visited = (distance >= 0) & (distance < window) & (first[:, None] <= last)
    full = visited & (distance > 0) & (first == last[:, None])  # numbers never fall: all between are the same
    lists = []
    for kind in (visited & ~full, full):
        order = kind.int().argsort(dim=-1, descending=True, stable=True)
        lists += [kind.sum(dim=-1, dtype=torch.int32)[None, None], order.int()[None, None]]

    def rule(batch, head, query, key):
        return may_see(query, key, document)

    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=block, mask_mod=rule)


def dense_mask(document: Tensor, window: Tensor, block: int) -> Tensor:
    """The same mask as a (T, T) bool tensor, for the CPU."""
    position = torch.arange(document.size(0))
    near = position[:, None] // block - position // block < window
    return near & may_see(position[:, None], position[None, :], document)


@fast
def attend(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask | Tensor, scale: float) -> Tensor:
    """Masked attention; query, key, value and result (T, heads, head_dim) bf16."""
    query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
    if isinstance(mask, BlockMask):
        y = flex_attention(query, key, value, block_mask=mask, scale=scale)
    else:
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return y[0].transpose(0, 1)


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
    (all-gather). Moments have the parameter's dtype. Epsilon is added to the uncorrected root of the second moment.
    `parameters` is a list of (parameter, learning rate); dimension 0 must divide by the number of ranks.
    """

    def __init__(self, parameters, beta1: float, beta2: float, epsilon: float, gradient_scale: float):
        self.parameters = [parameter for parameter, _ in parameters]
        self.learning_rates = [rate for _, rate in parameters]
        self.beta1, self.beta2, self.epsilon, self.gradient_scale = beta1, beta2, epsilon, gradient_scale
        self.own = [p.data.chunk(dist.get_world_size())[dist.get_rank()] for p in self.parameters]
        self.first = [torch.zeros_like(own) for own in self.own]
        self.second = [torch.zeros_like(own) for own in self.own]
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

    Matrices of one shape are dealt out to the ranks in turn. The rank that owns a matrix receives its summed gradient
    (reduce-scatter), keeps its momentum, updates it, and gives the new values to the others (all-gather). A parameter
    with three dimensions is a batch of matrices.
    """

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float, gradient_scale: float):
        self.learning_rate, self.gradient_scale, self.momentum = learning_rate, gradient_scale, 0.0
        self.groups, self.buffers = [], []
        size = dist.get_world_size()
        for shape in dict.fromkeys(parameter.shape for parameter in parameters):
            same = [parameter for parameter in parameters if parameter.shape == shape]
            for group in (same[i : i + size] for i in range(0, len(same), size)):
                self.groups.append(group + [torch.zeros_like(group[0])] * (size - len(group)))
                self.buffers.append(torch.zeros_like(group[0])[None])

    def reset(self):
        """Forget everything, as if no step had been taken."""
        for buffer in self.buffers:
            buffer.zero_()

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
        for (work, update), group, buffer in zip(scattered, self.groups, self.buffers):
            work.wait()
            update.mul_(self.gradient_scale)
            buffer.lerp_(update, 1 - momentum)
            update.lerp_(buffer, momentum)  # Nesterov: look ahead along the momentum just formed
            rate = self.learning_rate * multiplier * math.sqrt(max(1, update.size(-2) / update.size(-1)))
            own = group[dist.get_rank()] - rate * newton_schulz(update)[0].float()
            values = own.new_empty(len(group), *own.shape)
            gathering.append((dist.all_gather_into_tensor(values, own[None], async_op=True), group, values))
        for work, group, values in gathering:
            work.wait()
            torch._foreach_copy_(group, list(values.unbind()))
            for parameter in group:
                parameter.grad = None

    def orthogonality_error(self) -> float:
        """‖O Oᵀ - I‖ / sqrt(rows) of this rank's last matrix, O what `newton_schulz` makes of its momentum."""
        o = newton_schulz(self.buffers[-1])[0].float()
        identity = torch.eye(o.size(0), device=o.device)
        return ((o @ o.T - identity).norm() / math.sqrt(o.size(0))).item()


def learning_rate_multiplier(step: int) -> float:
    """1, then down in a straight line to the floor."""
    share = min(1.0, (1 - step / settings.num_iterations) / settings.cooldown_fraction)
    return share + (1 - share) * settings.final_learning_rate


def muon_momentum(step: int) -> float:
    """Up in a straight line over the first steps, then constant."""
    low, high = settings.muon_momentum_start, settings.muon_momentum
    return low + (high - low) * min(1.0, step / settings.momentum_warmup)


def window_blocks(step: int) -> int:
    """The long layers' attention window, in blocks."""
    return max(1, math.ceil(settings.final_window * step / settings.num_iterations))


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension. The eps is fp32's, also for bf16 input: explicit,
    because PyTorch's default has changed between versions."""
    return F.rms_norm(x, (x.size(-1),), eps=1.19e-7)


def uniform_(weight: Tensor) -> Tensor:
    """Uniform with standard deviation 0.5 / sqrt(inputs)."""
    bound = math.sqrt(3) * 0.5 / math.sqrt(weight.size(-1))
    return weight.uniform_(-bound, bound)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) on half of the head's dimension pairs: the others, of zero
    frequency, do not turn. Tables and rotation in fp32."""

    def __init__(self, head_dim: int, length: int, base: int):
        super().__init__()
        turning = (1 / base) ** torch.linspace(0, 1, steps=head_dim // 4)
        angles = torch.arange(length)[:, None] * torch.cat([turning, torch.zeros_like(turning)])
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate (T, heads, head_dim): dimension j turns together with dimension j + head_dim/2."""
        cos, sin = self.cos[: x.size(0), None], self.sin[: x.size(0), None]
        first, second = x.float().chunk(2, dim=-1)
        return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1).type_as(x)


class Attention(nn.Module):
    """Attention within documents: merged query, key and value matrices, QK norm, rotary, value embeddings."""

    def __init__(self, s: Settings):
        super().__init__()
        self.num_heads, self.head_dim, self.scale = s.num_heads, s.head_dim, s.attention_scale
        side = s.num_heads * s.head_dim
        self.query_key_value = nn.Parameter(uniform_(torch.empty(3, side, s.model_dim)))
        self.output = nn.Parameter(torch.zeros(s.model_dim, side))

    def forward(self, x, value_embedding, value_mix, rotary, mask):
        weight = self.query_key_value.flatten(0, 1).bfloat16()
        heads = F.linear(x, weight).view(x.size(0), 3 * self.num_heads, self.head_dim)
        query, key, value = heads.chunk(3, dim=1)
        query, key = rotary(rms_norm(query)), rotary(rms_norm(key))
        value = value_mix[0] * value
        if value_embedding is not None:
            value = value + value_mix[1] * value_embedding.view_as(value)
        y = attend(query, key, value, mask, self.scale)
        return F.linear(y.flatten(1), self.output.bfloat16())


class MLP(nn.Module):
    """Two linear layers with a squared ReLU (So et al. 2021, arXiv 2109.08668) between them."""

    def __init__(self, s: Settings):
        super().__init__()
        self.up = nn.Parameter(uniform_(torch.empty(s.mlp_dim, s.model_dim)))
        self.down = nn.Parameter(torch.zeros(s.model_dim, s.mlp_dim))

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.up.bfloat16())).square(), self.down.bfloat16())


class Block(nn.Module):
    """One layer: the stream mixed with the embedding, attention (in all but one), MLP."""

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

        def table():
            return nn.Parameter(torch.randn(s.vocab_size, s.model_dim).bfloat16())

        self.embedding = table()
        self.value_tables = nn.ParameterList([table() for _ in range(3)])
        self.blocks = nn.ModuleList([Block(s, layer) for layer in range(s.num_layers)])
        self.lm_head = nn.Parameter(torch.zeros(s.vocab_size, s.model_dim))
        self.rotary = Rotary(s.head_dim, max(s.row_tokens, s.val_row_tokens), s.rotary_base)
        # All scalars in one vector, padded so that 8 ranks can share it: skip weights, then a pair per layer for the
        # stream and a pair per layer for the values.
        scalars = [1.0] * s.num_layers + [1.0, 0.0] * s.num_layers + [0.5, 0.5] * s.num_layers
        self.scalars = nn.Parameter(torch.tensor(scalars + [1.0] * (-len(scalars) % 8)))

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits softly capped to 0..logit_cap: the sum in training, the mean in validation."""
        x = rms_norm(x)
        cap, width = self.settings.logit_cap, self.settings.logit_width * math.sqrt(x.size(-1))
        if self.training and self.fp8:
            return FP8HeadLoss.apply(x, self.lm_head, targets, cap, width)
        logits = cap * torch.sigmoid(F.linear(x, self.lm_head.bfloat16()).float() / width)
        return F.cross_entropy(logits, targets, reduction="sum" if self.training else "mean")

    def hidden(self, tokens: Tensor, window: Tensor) -> list[Tensor]:
        """The stream after each layer, (T, model_dim)."""
        s, n = self.settings, self.settings.num_layers
        stream_mix = self.scalars[n : 3 * n].view(n, 2)
        value_mix = self.scalars[3 * n : 5 * n].view(n, 2)
        values = [F.embedding(tokens, table) for table in self.value_tables]
        value_embeddings = {layer: values[table] for layer, table in s.value_embedding_layers}
        skip_from = {to: (source, self.scalars[i]) for i, (to, source) in enumerate(s.skip_pairs)}
        document = (tokens == DOCUMENT_START).cumsum(0, dtype=torch.int32)
        make_mask = block_mask if tokens.is_cuda else dense_mask
        long = make_mask(document, window, s.window_block)
        short = make_mask(document, (window // 2).clamp(min=1), s.window_block)

        x = embedding = rms_norm(F.embedding(tokens, self.embedding))
        stream = []
        for layer, block in enumerate(self.blocks):
            if layer in skip_from:
                source, skip_weight = skip_from[layer]
                x = x + skip_weight * stream[source]
            mask = long if layer in s.long_layers else short
            inputs = (value_embeddings.get(layer), value_mix[layer], self.rotary, mask)
            x = block(x, embedding, stream_mix[layer], *inputs)
            stream.append(x)
        return stream

    def forward(self, tokens: Tensor, targets: Tensor, window: Tensor) -> Tensor:
        """tokens (T,) int32, targets (T,) int64; window: of the long layers, in blocks, 0-dimensional int32."""
        return self.loss(self.hidden(tokens, window)[-1], targets)


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


def to_device(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Copy to the GPU without waiting for it."""
    tensor = torch.from_numpy(array).to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def as_inputs(tokens: np.ndarray) -> tuple[Tensor, Tensor]:
    """Tokens and targets of one row: each target is the token after."""
    row = tokens.astype(np.int64)
    return to_device(row[:-1], torch.int32), to_device(row[1:], torch.int64)


def aligned_starts(tokens: np.ndarray, position: int, reach: int) -> list[int]:
    """Where the rows of one step start, and last where the search for the next step's begins.

    A row starts with the first document that begins after the row before it; all begin within `reach` of `position`.
    """
    documents = position + np.flatnonzero(tokens[position : position + reach] == DOCUMENT_START)
    starts, earliest = [], position
    while len(starts) <= settings.rows_per_step:
        document = np.searchsorted(documents, earliest)
        if document == len(documents):
            fail(f"{reach} tokens hold no {settings.rows_per_step} rows that start a document: raise --search_steps")
        starts.append(int(documents[document]))
        earliest = starts[-1] + settings.row_tokens
    return starts


def train_batches():
    """Yield for ever what this rank computes in one step: a list of 8/world_size rows' inputs.

    Every row starts with a document; a step's rows are the same at any number of ranks. Shards are walked in order and
    again from the first; what is left at the end of one, too short for a search, is dropped.
    """
    size = settings.row_tokens
    reach = settings.search_steps * size * settings.rows_per_step
    while True:
        for path in shard_files("train"):
            tokens, position = open_shard(path), 0
            if len(tokens) <= reach + 1:
                fail(f"{path} holds {len(tokens)} tokens, too few to look for a step in {reach}")
            while position + reach + 1 < len(tokens):
                *starts, position = aligned_starts(tokens, position, reach)
                yield [as_inputs(tokens[start : start + size + 1]) for start in starts[rank::world_size]]


def val_batches():
    """Yield this rank's rows of the validation tokens, in order."""
    tokens = open_shard(shard_files("val")[0])
    size = settings.val_row_tokens
    if settings.val_tokens % (size * world_size) or len(tokens) <= settings.val_tokens:
        fail(f"{settings.val_tokens} validation tokens are no multiple of {world_size} rows of {size}, or too many")
    for start in range(rank * size, settings.val_tokens, world_size * size):
        yield as_inputs(tokens[start : start + size + 1])


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
for name, value in overrides.items():
    log(f"override {name}={value}", console=False)
log(os.popen("nvidia-smi").read() if device.type == "cuda" else "nvidia-smi: not available", console=False)
log("=" * 100, console=False)

if settings.seed >= 0:
    torch.manual_seed(settings.seed)
model = GPT(settings).to(device)
for parameter in model.parameters():
    dist.broadcast(parameter.data, src=0)
if model.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
    model.fp8 = False
    log("fallback step:0 fp8 -> bf16: this GPU has no fp8 matmul")

matrices = [parameter for block in model.blocks for parameter in block.parameters()]
tables = [model.embedding, *model.value_tables]
rate = settings.adam_learning_rate
rates = [(model.lm_head, rate * settings.head_multiplier)]
rates += [(table, rate * settings.table_multiplier) for table in tables]
rates += [(model.scalars, rate * settings.scalar_multiplier)]
share = 1 / settings.rows_per_step  # gradients are summed over rows and ranks; the optimizers take the mean of rows
adam = ShardedAdam(rates, settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon, share)
muon = Muon(matrices, settings.muon_learning_rate, share)
compiled_model = fast(model)


def train_step(batch: list, step: int, window: Tensor):
    """Forward and backward over this rank's rows, then Adam and Muon."""
    for tokens, targets in batch:
        loss = compiled_model(tokens, targets, window)
        loss.backward()
    watch_loss(step, loss)
    watched = settings.telemetry_every and step % settings.telemetry_every == 0
    with telemetry(step, batch[0], window) if watched else nullcontext():
        multiplier = learning_rate_multiplier(step)
        adam.step(multiplier)
        muon.step(multiplier, muon_momentum(step))


@torch.no_grad()
def validate(window: Tensor) -> float:
    """Mean loss over the validation tokens, the same on every rank."""
    model.eval()
    losses = [compiled_model(*row, window) for row in val_batches()]
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
def telemetry(step: int, row: tuple, window: Tensor):
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
    rms = [f"{x.float().square().mean().sqrt():.3f}" for x in model.hidden(row[0], window)]
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

# Everything is compiled and every communicator opened before the clock starts; then all that was learnt is forgotten.
# The steps take real batches.
initial = [parameter.detach().clone() for parameter in model.parameters()]
warmup_data = train_batches()
window = torch.tensor(window_blocks(0), dtype=torch.int32, device=device)
for _ in range(settings.warmup_iterations):
    for tokens, targets in next(warmup_data):
        compiled_model(tokens, targets, window).backward()
    adam.step(1.0)
    muon.step(1.0, settings.muon_momentum)
adam.reset()
muon.reset()
with torch.no_grad():
    torch._foreach_copy_(list(model.parameters()), initial)
del initial, warmup_data

# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------

train_data = train_batches()
training_time = 0.0  # seconds, validation excluded
synchronize()
clock = time.perf_counter()
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations

    window.fill_(window_blocks(step))  # longer as training goes on, without a new compilation

    if last_step or (settings.val_loss_every and step % settings.val_loss_every == 0):
        synchronize()
        training_time += time.perf_counter() - clock
        val_loss = validate(window)
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
