"""Record 19 · 2025-01-13 · The head in fp8, offset logits, learning rate down to a tenth

Claim      3.142 minutes (1,395 steps at 136.11 ms, 188.512 s in the public log). Validation loss 3.2770 (n = 1).
           Target: 3.28.
Hardware   8x NVIDIA H100 80GB HBM3, a nightly PyTorch 2.7; 524,288 tokens per step.
New        In training the head's three matmuls have 8-bit factors, under constant scales: about a third of the matmul
           work outside attention, at twice the rate. Validation keeps bf16. The soft cap, 15 tanh(z/15), becomes
           30 sigmoid(z/7.5), in fp32: the same, 15 higher, which a softmax does not see. The learning rate ends at a
           tenth of its peak, no longer at zero. Weights start with standard deviation 0.5/sqrt(inputs), the tables are
           no longer padded (the head still is), and the window is rounded up. DistributedDataParallel is gone: one
           all-reduce a parameter, after the backward pass.
Parent     18 (2025-01-04): logits softly capped at 15.
Credit     @YouJiacheng
Source     https://github.com/KellerJordan/modded-nanogpt
Rules      edition 2025-01-01: the first 10 steps are not timed, nor is validation; p < 0.01.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 rows in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

Not as published, without effect on the mathematics:
  - On fewer than 8 GPUs the gradient is the mean of 8 rows; there, it grew as ranks became fewer.
  - Rounds of Muon are of one shape (published: of one size), and each has memory of its own to arrive in.
  - The compiler is not tuned, unless by --tune_kernels true.
  - The head's rounding to fp8, softcap, cross entropy and fp8 gradient are kernels of our own.
Not known:
  - From which nightly on PyTorch's rms_norm took fp32's eps for bf16 input too. This archive changes it in 21.
With an effect on it, should it ever happen:
  - fp8 weights are clipped at the end of their range, where they became NaN. Once a thousandth of the head's weights
    is, the head goes on in bf16, and the log says so.
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
    num_iterations: int = 1395
    rows_per_step: int = 8  # one row per GPU on 8 GPUs
    row_tokens: int = 65_536
    untimed_iterations: int = 10  # the clock starts after them

    # Validation
    val_tokens: int = 10_485_760
    val_loss_every: int = 125

    # Model
    table_rows: int = 50257
    vocab_size: int = 50304  # the head's: 50,257 rounded up to a multiple of 128; the padding takes part in the softmax
    num_layers: int = 12
    model_dim: int = 768
    num_heads: int = 6
    mlp_dim: int = 3072
    layer_without_attention: int = 7
    value_embedding_layers: tuple = ((0, 0), (1, 1), (2, 2), (9, 0), (10, 1), (11, 2))  # (layer, table)
    skip_pairs: tuple = ((6, 5), (7, 4), (8, 3), (9, 2), (10, 1), (11, 0))  # (to, from)
    logit_cap: float = 30.0  # cap * sigmoid(z / width)
    logit_width: float = 7.5
    fp8: bool = True  # the head's matmuls in training; validation uses bf16

    # Attention window, in blocks
    window_block: int = 128
    final_window: float = 13.5  # the window grows in a straight line, rounded up, from one block to this
    rotary_base: int = 1024

    # Learning rate and optimizers
    cooldown_fraction: float = 0.4
    final_learning_rate: float = 0.1  # as a fraction of the peak
    embedding_learning_rate: float = 0.6  # embedding and value tables
    head_learning_rate: float = 0.008
    scalar_learning_rate: float = 0.04
    adam_beta1: float = 0.8
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    muon_learning_rate: float = 0.05
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    momentum_warmup: int = 300

    # Inductor's coordinate descent, on in the published run: 3 s faster for 25 minutes more of compilation
    tune_kernels: bool = False


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


# Constant fp8 scales of the head. Weights are multiplied by 32; e4m3 ends at 448, and what is beyond 14 is clipped.
# Activations are multiplied by 2: a row of them has norm sqrt(dim), so none comes near 224. A token's loss has a
# gradient by its logits of at most 1; in the mean over 65,536 tokens it was multiplied by 2^29.
FP8_ACTIVATION_SCALE = 1 / 2
FP8_WEIGHT_SCALE = 1 / 32
FP8_GRADIENT_SCALE = 65536 / 2**29


class FP8HeadLoss(torch.autograd.Function):
    """Mean cross entropy of softly capped logits, cap * sigmoid(z / width) with z = x @ weight.T, where both
    factors and the gradient of z are rounded to 8 bits.

    x (T, dim) bf16, weight (vocabulary, dim) fp32, targets (T,) int64; returns a scalar, fp32. Of the logits only z
    is kept, in bf16; its gradient exists in fp8 alone.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, cap, width):
        x8, x8_columns = quantised(x, FP8_ACTIVATION_SCALE)
        weight8, weight8_columns = quantised(weight, FP8_WEIGHT_SCALE)
        z = scaled_matmul(x8, weight8.T, FP8_ACTIVATION_SCALE * FP8_WEIGHT_SCALE, torch.bfloat16, True)
        losses, log_sums = capped_cross_entropy(z, targets, cap, width)
        ctx.save_for_backward(x8_columns, weight8_columns, z, targets, log_sums)
        ctx.cap, ctx.width = cap, width
        return losses.mean()

    @staticmethod
    def backward(ctx, loss_gradient):
        x8_columns, weight8_columns, z, targets, log_sums = ctx.saved_tensors
        x_scale, scale = FP8_ACTIVATION_SCALE, FP8_GRADIENT_SCALE / x8_columns.size(1)  # the loss is a mean
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
def attend(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask | Tensor) -> Tensor:
    """Masked attention; query, key, value and result (T, heads, head_dim) bf16."""
    query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
    if isinstance(mask, BlockMask):
        y = flex_attention(query, key, value, block_mask=mask)
    else:
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return y[0].transpose(0, 1)


# --------------------------------------------------------------------------------------------------
# Optimizers
# --------------------------------------------------------------------------------------------------

# The tables' and scalars' Adam (Kingma & Ba 2015) is PyTorch's own, fused.


def average_gradients(parameters):
    """The mean over all ranks, in place: one all-reduce a parameter, one after the other."""
    for parameter in parameters:
        dist.all_reduce(parameter.grad, op=dist.ReduceOp.AVG)


class Muon:
    """Momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    Matrices of one shape are dealt out to the ranks in turn. The rank that owns a matrix keeps its momentum and
    orthogonalises its update, which then goes to the others in bf16 (all-gather), while the next is computed.
    """

    def __init__(self, matrices: list[nn.Parameter], learning_rate: float):
        self.learning_rate, self.momentum = learning_rate, 0.0
        self.groups, self.buffers = [], []
        size = dist.get_world_size()
        for shape in dict.fromkeys(matrix.shape for matrix in matrices):
            same = [matrix for matrix in matrices if matrix.shape == shape]
            for group in (same[i : i + size] for i in range(0, len(same), size)):
                self.groups.append(group)
                self.buffers.append(torch.zeros_like(group[0]))

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float):
        """Update every matrix; `multiplier` is the schedule's factor on the rate."""
        self.momentum = momentum
        rank, size = dist.get_rank(), dist.get_world_size()
        gathering = []
        for group, buffer in zip(self.groups, self.buffers):
            update = group[rank].grad if rank < len(group) else torch.zeros_like(buffer)
            buffer.lerp_(update, 1 - momentum)
            update.lerp_(buffer, momentum)  # Nesterov: look ahead along the momentum just formed
            own = newton_schulz(update).contiguous()
            updates = own.new_empty(size, *own.shape)
            gathering.append((dist.all_gather_into_tensor(updates, own[None], async_op=True), group, updates))
        for work, group, updates in gathering:
            work.wait()
            rate = self.learning_rate * multiplier * math.sqrt(max(1, updates.size(-2) / updates.size(-1)))
            torch._foreach_add_(group, list(updates[: len(group)].unbind()), alpha=-rate)

    def orthogonality_error(self) -> float:
        """‖O Oᵀ - I‖ / sqrt(rows) of this rank's last matrix, O what `newton_schulz` makes of its momentum."""
        o = newton_schulz(self.buffers[-1]).float()
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
    """The attention window, in blocks."""
    return max(1, math.ceil(settings.final_window * step / settings.num_iterations))


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension, in the dtype that came in. The eps is that dtype's,
    as was the default of PyTorch 2.6: 2^-7 for bf16."""
    return F.rms_norm(x, (x.size(-1),), eps=torch.finfo(x.dtype).eps).type_as(x)


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


class Linear(nn.Linear):
    """fp32 weights without a bias, rounded to the dtype of the activations at each use. They start uniform with
    standard deviation 0.5 / sqrt(in_features)."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self):
        bound = math.sqrt(3) * 0.5 / math.sqrt(self.in_features)
        self.weight.data.uniform_(-bound, bound)

    def forward(self, x):
        return F.linear(x, self.weight.type_as(x))


def scalars(*values: float) -> nn.Parameter:
    """Learnt factors in fp32. Taken one by one they have no dimensions, and leave bf16 activations in bf16."""
    return nn.Parameter(torch.tensor(values))


class Attention(nn.Module):
    """Multi-head attention with QK norm; some layers add an embedding of the token to their values."""

    def __init__(self, s: Settings):
        super().__init__()
        self.num_heads = s.num_heads
        self.query = Linear(s.model_dim, s.model_dim)
        self.key = Linear(s.model_dim, s.model_dim)
        self.value = Linear(s.model_dim, s.model_dim)
        self.output = Linear(s.model_dim, s.model_dim)
        self.value_mix = scalars(0.5, 0.5)

    def forward(self, x, value_embedding, rotary, mask):
        heads = x.size(0), self.num_heads, x.size(1) // self.num_heads
        query, key, value = self.query(x).view(heads), self.key(x).view(heads), self.value(x).view(heads)
        query, key = rotary(rms_norm(query)), rotary(rms_norm(key))
        value = self.value_mix[0] * value
        if value_embedding is not None:
            value = value + self.value_mix[1] * value_embedding.view_as(value)
        y = attend(query, key, value, mask)
        return self.output(y.flatten(1))


class MLP(nn.Module):
    """Two linear layers with a squared ReLU (So et al. 2021, arXiv 2109.08668) between them."""

    def __init__(self, s: Settings):
        super().__init__()
        self.up = Linear(s.model_dim, s.mlp_dim)
        self.down = Linear(s.mlp_dim, s.model_dim)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """One layer: a skip from its mirror image, the stream mixed with the embedding, attention (in all but one), MLP."""

    def __init__(self, s: Settings, layer: int):
        super().__init__()
        self.stream_mix = scalars(1.0, 0.0)
        self.attention = Attention(s) if layer != s.layer_without_attention else None
        self.mlp = MLP(s)

    def forward(self, x, skip, skip_weight, embedding, *attention_inputs):
        if skip is not None:
            x = x + skip_weight * skip
        x = self.stream_mix[0] * x + self.stream_mix[1] * embedding
        if self.attention is not None:
            x = x + self.attention(rms_norm(x), *attention_inputs)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """The record's transformer. `forward` returns the mean loss over the row."""

    def __init__(self, s: Settings):
        super().__init__()
        self.settings, self.fp8 = s, s.fp8

        def table():
            return nn.Parameter(torch.randn(s.table_rows, s.model_dim).bfloat16())

        self.embedding = table()
        self.value_tables = nn.ParameterList([table() for _ in range(3)])
        self.rotary = Rotary(s.model_dim // s.num_heads, s.row_tokens, s.rotary_base)
        self.blocks = nn.ModuleList([Block(s, layer) for layer in range(s.num_layers)])
        self.skip_weights = scalars(*[1.0] * len(s.skip_pairs))
        self.lm_head = Linear(s.model_dim, s.vocab_size)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Zero where a layer adds to the stream, so that every block starts as nothing, and zero logits."""
        self.lm_head.weight.zero_()
        for block in self.blocks:
            if block.attention is not None:
                block.attention.output.weight.zero_()
            block.mlp.down.weight.zero_()

    def hidden(self, tokens: Tensor, window: Tensor) -> tuple[Tensor, list]:
        """The final stream (T, model_dim) bf16, and the stream after each layer."""
        s = self.settings
        skip_from = {to: (source, self.skip_weights[i]) for i, (to, source) in enumerate(s.skip_pairs)}
        document = (tokens == DOCUMENT_START).cumsum(0, dtype=torch.int32)
        mask = (block_mask if tokens.is_cuda else dense_mask)(document, window, s.window_block)
        x = embedding = rms_norm(F.embedding(tokens, self.embedding))
        values = [F.embedding(tokens, table) for table in self.value_tables]
        value_embeddings = {layer: values[table] for layer, table in s.value_embedding_layers}
        stream = []
        for layer, block in enumerate(self.blocks):
            source, skip_weight = skip_from.get(layer, (None, None))
            skip = None if source is None else stream[source]
            x = block(x, skip, skip_weight, embedding, value_embeddings.get(layer), self.rotary, mask)
            stream.append(x)
        return rms_norm(x), stream

    def forward(self, tokens: Tensor, targets: Tensor, window: Tensor):
        """tokens (T,) int32, targets (T,) int64; window: in blocks, 0-dimensional int32."""
        x, _ = self.hidden(tokens, window)
        cap, width = self.settings.logit_cap, self.settings.logit_width
        if self.training and self.fp8:
            return FP8HeadLoss.apply(x, self.lm_head.weight, targets, cap, width)
        logits = cap * torch.sigmoid(self.lm_head(x).float() / width)
        return F.cross_entropy(logits, targets)


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


def train_batches():
    """Yield for ever what this rank computes in one step: a list of 8/world_size rows' inputs.

    The tokens of a step are consecutive, and the same at any number of ranks. Shards are walked in order and again
    from the first; what is left at the end of one, too short for a step, is dropped.
    """
    size = settings.row_tokens
    per_step = size * settings.rows_per_step
    while True:
        for path in shard_files("train"):
            tokens = open_shard(path)
            if len(tokens) <= per_step:
                fail(f"{path} holds {len(tokens)} tokens, too few for one step of {per_step}")
            for start in range(0, len(tokens) - per_step, per_step):
                firsts = range(start + rank * size, start + per_step, world_size * size)
                yield [as_inputs(tokens[first : first + size + 1]) for first in firsts]


def val_batches():
    """Yield this rank's rows of the validation tokens, in order."""
    tokens = open_shard(shard_files("val")[0])
    size = settings.row_tokens
    if settings.val_tokens % (size * world_size) or len(tokens) <= settings.val_tokens:
        fail(f"{settings.val_tokens} validation tokens are no multiple of {world_size} rows of {size}, or too many")
    for start in range(rank * size, settings.val_tokens, world_size * size):
        yield as_inputs(tokens[start : start + size + 1])


# --------------------------------------------------------------------------------------------------
# Setup
# --------------------------------------------------------------------------------------------------

settings, overrides = read_settings()
rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
accumulation = settings.rows_per_step // world_size
if settings.rows_per_step % world_size:
    fail(f"{world_size} ranks cannot share {settings.rows_per_step} rows evenly: use 1, 2, 4 or 8")
if torch.cuda.is_available() and settings.row_tokens % settings.window_block:
    fail(f"FlexAttention takes rows of whole blocks of {settings.window_block} tokens: not {settings.row_tokens}")
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
log(f"world_size={world_size} accumulation={accumulation}", console=False)
log(f"seed={settings.seed if settings.seed >= 0 else 'none'}", console=False)
log(f"manifest={json.loads(manifest.read_text())['digest'] if manifest.exists() else 'none'}", console=False)
for name, value in overrides.items():
    log(f"override {name}={value}", console=False)
log(os.popen("nvidia-smi").read() if device.type == "cuda" else "nvidia-smi: not available", console=False)
log("=" * 100, console=False)

torch._inductor.config.coordinate_descent_tuning = settings.tune_kernels
if settings.seed >= 0:
    torch.manual_seed(settings.seed)
model = GPT(settings).to(device)
compiled_model = fast(model)
for parameter in model.parameters():
    dist.broadcast(parameter.data, src=0)
if model.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
    model.fp8 = False
    log("fallback step:0 fp8 -> bf16: this GPU has no fp8 matmul")

matrices = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
tables = [model.embedding, *model.value_tables]
vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
adam_rates = [settings.embedding_learning_rate, settings.head_learning_rate, settings.scalar_learning_rate]
adam = torch.optim.Adam(
    [{"params": group} for group in (tables, [model.lm_head.weight], vectors)],
    betas=(settings.adam_beta1, settings.adam_beta2), eps=settings.adam_epsilon, fused=True,
)  # fmt: skip
muon = Muon(matrices, settings.muon_learning_rate)


def train_step(batch: list, step: int, window: Tensor):
    """Forward and backward over this rank's rows; then the gradients are exchanged; then Adam and Muon."""
    for tokens, targets in batch:
        loss = compiled_model(tokens, targets, window) / accumulation
        loss.backward()
    average_gradients(model.parameters())
    watch_loss(step, loss)
    watched = settings.telemetry_every and step % settings.telemetry_every == 0
    with telemetry(step, batch[0], window) if watched else nullcontext():
        multiplier = learning_rate_multiplier(step)
        for group, rate in zip(adam.param_groups, adam_rates):
            group["lr"] = rate * multiplier
        adam.step()
        muon.step(multiplier, muon_momentum(step))
    model.zero_grad()


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
    clipped = (model.lm_head.weight.abs() > limit).float().mean().item()
    if model.fp8 and clipped > 1e-3:
        model.fp8 = False
        log(f"fallback step:{step} fp8 -> bf16: {clipped:.2%} of the head's weights are beyond {limit:.3f}")


@contextmanager
@torch.no_grad()
def telemetry(step: int, row: tuple, window: Tensor):
    """Log what an update sees and does: norms of the gradient, of the weights and of the update, the root mean
    square of each block's output for one row, Muon's own figures. Guards fp8 as well."""

    def norm(tensors) -> float:
        return math.sqrt(sum(tensor.float().square().sum().item() for tensor in tensors))

    weights = list(model.parameters())
    grad_norm = norm(weight.grad for weight in weights)
    previous = [weight.clone() for weight in weights]
    yield
    _, stream = model.hidden(row[0], window)
    rms = [f"{x.float().square().mean().sqrt():.3f}" for x in stream]
    log(
        f"telemetry step:{step} grad_norm:{grad_norm:.4e} weight_norm:{norm(weights):.4e} "
        f"update_norm:{norm(w - old for w, old in zip(weights, previous)):.4e} activation_rms:[{','.join(rms)}] "
        f"muon_momentum:{muon.momentum:.4f} muon_orthogonality_error:{muon.orthogonality_error():.4f}"
    )
    guard_fp8(step)


def synchronize():
    """Wait until the GPU has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# --------------------------------------------------------------------------------------------------
# Warmup
# --------------------------------------------------------------------------------------------------

# None: in this era everything is compiled during the first steps of training, and they are not timed.

# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------


def per_step(seconds: float, steps: int) -> float:
    """Milliseconds per timed step; not a number before the first of them."""
    timed = steps - settings.untimed_iterations
    return 1000 * seconds / timed if timed > 0 else math.nan


train_data = train_batches()
window = torch.tensor(window_blocks(0), dtype=torch.int32, device=device)
training_time = 0.0  # seconds, validation excluded
synchronize()
clock = time.perf_counter()
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations
    if step == settings.untimed_iterations:
        synchronize()
        training_time, clock = 0.0, time.perf_counter()

    window.fill_(window_blocks(step))  # longer as training goes on, without a new compilation

    if last_step or (settings.val_loss_every and step % settings.val_loss_every == 0):
        synchronize()
        training_time += time.perf_counter() - clock
        val_loss = validate(window)
        require_finite(step, "validation", val_loss)
        guard_fp8(step)
        log(
            f"step:{step}/{settings.num_iterations} val_loss:{val_loss:.4f} "
            f"train_time:{1000 * training_time:.0f}ms step_avg:{per_step(training_time, step):.2f}ms"
        )
        synchronize()
        clock = time.perf_counter()
    if last_step:
        break

    train_step(next(train_data), step, window)
    so_far = training_time + time.perf_counter() - clock
    log(
        f"step:{step + 1}/{settings.num_iterations} "
        f"train_time:{1000 * so_far:.0f}ms step_avg:{per_step(so_far, step + 1):.2f}ms"
    )

mebibytes = [0, 0]
if device.type == "cuda":
    mebibytes = [torch.cuda.max_memory_allocated() >> 20, torch.cuda.max_memory_reserved() >> 20]
log(f"peak memory allocated: {mebibytes[0]} MiB reserved: {mebibytes[1]} MiB")
dist.destroy_process_group()
