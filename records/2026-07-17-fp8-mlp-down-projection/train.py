"""Record 89 · 2026-07-17 · FP8 MLP down-projection, with delayed scales

Claim      1.23 minutes on the leaderboard (73.8 s). No log of this state was published. The linked log and its arm, of
           the change on record 84's script, average 79.685 s = 1.328 minutes at 1,390 steps, with a validation loss
           of 3.2784 ± 0.0014 (n = 13, one-sided p = 0.0007 against the target of 3.28), FineWeb.
Hardware   8x NVIDIA H100 80GB HBM3; 1,285 steps of 131,072, 262,144 and then 393,216 tokens. The linked log is of
           PyTorch 2.10.0+cu128, and its steps took 57.22 ms on average.
New        The MLP's second product is computed from 8-bit factors in training's forward pass, as the first has been
           since record 84. The hidden activations are rounded by the kernel that makes them, so their scale must be
           known before their maximum is: each layer uses the maximum of its previous pass, with a factor of 1.80 to
           spare. The weights' scale lags as well, by one step and with a factor of 1.12, but for the first 16 steps,
           in which they grow from zero. The backward pass and validation stay in bf16.
Parent     88 (2026-07-13): prefix token prediction loss.
Credit     @Mister-dev-oss, @CerovazS, @MarioPaerle, @GabrieleCirillo, @crisostomi
Source     https://github.com/KellerJordan/modded-nanogpt/pull/342
Rules      edition 2025-02-01: 14 untimed warmup steps, state restored, then every training step is timed.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 rows in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

The prefix loss needs the byte strings of GPT-2's tokens: a file gpt2.tiktoken in the data folder, a token in base64 and
its number on each line, as OpenAI's package openai-whisper ships it. `--prefix_loss false` does without.

Not as published, without effect on the mathematics:
  - The kernels for the loss and for the MLP's products are our own, in Triton. The dynamic heads of layer 10 are plain
    batched matrix products over blocks of 128 queries and 256 keys.
  - FlashAttention 3 is used where it is installed; else 4 from the second stage on; else PyTorch's own 2.
  - The banks are padded for 8 ranks at any number of ranks. A tall matrix is orthogonalised through its transpose.
  - The maximum of a layer's activations is one atomic number, not one per program of the kernel.
  - The value and bigram tables' gradients are added up in fp32, row by row (published: bf16, whole tables).
  - The up matrices are divided by their scale and rounded to fp8 at once (published: through bf16).
  - A warmup step takes one row per rank.
  - Any number of ranks above one exchanges the bigram table's gradient by touched rows (published: 8 alone).
With an effect on it, should it ever happen:
  - Once fp8 clips a thousandth of the head's weights, head and MLPs go on in bf16, and the log says so.
"""

import argparse
import ast
import base64
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
    from triton.tools.tensor_descriptor import TensorDescriptor
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

    # Length
    num_iterations: int = 1285
    extension_iterations: int = 15  # the last steps, after the learning rate has reached its floor

    # Stages: three of equal length, then the extension; one entry each
    row_stages: tuple = (1, 2, 3, 3)  # rows are so many times as long
    document_stages: tuple = (896, 2048, 2048, 2048)  # longer documents are cut, the rest of them is dropped
    window_stages: tuple = ((3, 1), (7, 3), (11, 5), (13, 6))  # attention windows in blocks: long, short layers
    learning_rate_stages: tuple = (1.0, 1.52, 1.73, 1.73)
    # The loss's weights for the next token, the one after it and so on: each from .. to, over the stage
    target_stages: tuple = (((1, 1), (0.5, 0.5), (0.25, 0)), ((1, 1), (0.5, 0)), ((1, 1),), ((1, 1),))
    prefix_stages: tuple = ((0.25, 0.25), (0.25, 0), (0, 0), (0, 0))
    untie_stage: int = 2  # embedding and head are one table until Adam's first step in this stage

    # Batch
    rows_per_step: int = 8  # one row per GPU on 8 GPUs
    row_tokens: int = 16384  # in the first stage
    tokens_per_document: int = 300  # at least, on average: sizes the table of document ends
    first_scan_tokens: int = 6_000_000  # how far the first shard is searched for documents before the first step

    # Validation
    val_tokens: int = 10_485_760
    val_row_tokens: int = 262_144
    val_loss_every: int = 250
    final_windows: tuple = (20, 6)  # after the last step

    # Model
    vocab_size: int = 50304  # 50,257 rounded up to a multiple of 128; the padding takes part in the softmax
    bigram_rows: int = 377_280
    sign_rows: int = 8192
    num_layers: int = 11
    model_dim: int = 768
    num_heads: int = 6
    head_dim: int = 128
    mlp_dim: int = 3072
    gate_dim: int = 12  # channels that the value and smear gates read
    hidden_dim: int = 64  # of the blocks that generate coefficients
    paired_layers: tuple = (0, 2, 5, 9)
    long_layers: tuple = (3, 10)  # they also see half of the previous token's key
    self_excluding_layers: tuple = (1, 3, 4, 7)
    value_layers: tuple = (1, 2, 8, 9, 10)  # each has a value table of its own
    layer_without_attention: int = 6
    dynamic_keys: int = 112  # how many keys the dynamic heads see, their own among them
    dynamic_block: int = 128  # their queries are taken in blocks
    head_std: float = 0.005
    value_std: float = 0.01
    logit_cap: float = 23.0  # cap * sigmoid((z + shift) / width)
    logit_shift: float = 5.0
    logit_width: float = 7.5
    prefix_loss: bool = True

    # FP8, in training's forward pass; validation uses bf16
    fp8: bool = True
    activation_headroom: float = 1.80  # how far a hidden activation may exceed the previous pass's maximum
    weight_headroom: float = 1.12  # the same for the down matrices
    bootstrap_iterations: int = 16  # the down matrices' scales are exact until then

    # Attention
    window_block: int = 128
    attention_scale: float = 0.1
    rotary_base: int = 1024

    # Learning rate and optimizers
    cooldown_fraction: float = 0.6
    final_learning_rate: float = 0.15  # what the rate is blended into
    adam_learning_rate: float = 0.008
    head_learning_rate: float = 0.008  # Adam's for the head and the embedding
    adam_weight_decay: float = 0.005
    adam_epsilon: float = 1e-10
    adam_every: int = 2  # Adam steps on the sum of this many steps' gradients
    muon_learning_rate: float = 0.023
    muon_weight_decay: float = 1.2
    muon_beta2: float = 0.9
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    momentum_warmup: int = 300
    momentum_cooldown: int = 50
    # How each parameter learns, in the order in which they are updated: small ones first, so that the tables' way back
    # overlaps with the banks' orthogonalisation. Adam: factors on the rate and on the decay, betas. Muon: factors on
    # the rate of the bank's matrices, over and over: sqrt(rows / columns), for an MLP's down matrix twice that.
    adam_parameters: tuple = (
        ("scalars", 5.0, 0.0, 0.9, 0.99),
        ("smear_gate", 0.01, 0.0, 0.9, 0.99),
        ("value_gates", 1.0, 1.0, 0.9, 0.99),
        ("mixing_bias", 0.25, 0.0, 0.9, 0.99),
        ("gate_bias", 0.1, 0.0, 0.9, 0.99),
        ("gate_scale", 0.1, 0.0, 0.9, 0.99),
        ("output_scales", 1.0, 0.0, 0.9, 0.95),
        ("residual_scales", 5.0, 0.0, 0.9, 0.95),
        ("mixing_second", 0.25, 1.0, 0.9, 0.99),
        ("gate_second", 0.1, 1.0, 0.9, 0.99),
        ("value_tables", 75.0, 5.0, 0.75, 0.95),
        ("bigram_table", 75.0, 5.0, 0.75, 0.95),
        ("mixing_first", 0.25, 1.0, 0.9, 0.99),
        ("gate_first", 0.1, 1.0, 0.9, 0.99),
        ("lm_head", 1.0, 150.0, 0.5, 0.95),
        ("embedding", 1.0, 150.0, 0.5, 0.95),
    )
    muon_parameters: tuple = (("query_key_bank", (1.0,)), ("value_output_bank", (1.0,)), ("mlp_bank", (2.0, 4.0)))
    # The order in which gradients leave
    sending_order: tuple = (
        "query_key_bank", "value_output_bank", "mlp_bank", "scalars", "smear_gate", "value_gates", "lm_head",
        "bigram_table", "output_scales", "residual_scales", "value_tables", "embedding", "mixing_first",
        "mixing_second", "mixing_bias", "gate_first", "gate_second", "gate_bias", "gate_scale",
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
PROCESSORS = torch.cuda.get_device_properties().multi_processor_count if torch.cuda.is_available() else 1


def scaled_matmul(a: Tensor, b: Tensor, scale: float, dtype: torch.dtype, fast_accumulation: bool) -> Tensor:
    """(a @ b) * scale for fp8 matrices, accumulated in fp32. The tensor cores want `b` in column-major order."""
    if not a.is_cuda:
        return (a.float() @ b.float() * scale).to(dtype)
    one = torch.ones((), device=a.device)
    return torch._scaled_mm(a, b, scale * one, one, out_dtype=dtype, use_fast_accum=fast_accumulation)


# Constant fp8 scales of the head. The largest number of e4m3 is 448: normed activations, at most sqrt(dim) = 27.7, stay
# far below 100, weights beyond 1.6 are clipped. The loss is a sum over tokens, so a logit's gradient is at most
# cap / width / 4 = 0.77 times the sum of the loss's weights: 2 at most, which e5m2, up to 57,344, holds with ease.
FP8_ACTIVATION_SCALE = 100 / 448
FP8_WEIGHT_SCALE = 1.6 / 448
FP8_GRADIENT_SCALE = 0.75 / 448


class FP8HeadLoss(torch.autograd.Function):
    """Summed cross entropy of softly capped logits, cap * sigmoid((z + shift) / width) with z = x @ weight, where both
    factors and the gradient of z are rounded to 8 bits.

    x (T, dim) bf16, weight (dim, vocabulary) bf16; classes, shares and totals as `wanted_classes` gives them; returns
    a scalar, fp32. Of the logits only z is kept, in bf16; its gradient exists in fp8 alone.
    """

    @staticmethod
    def forward(ctx, x, weight, classes, shares, totals, cap, shift, width):
        x8, x8_columns = quantised(x, FP8_ACTIVATION_SCALE)
        weight8, weight8_columns = quantised(weight, FP8_WEIGHT_SCALE)
        z = scaled_matmul(x8, weight8_columns.T, FP8_ACTIVATION_SCALE * FP8_WEIGHT_SCALE, torch.bfloat16, True)
        losses, log_sums = capped_cross_entropy(z, classes, shares, cap, shift, width)
        ctx.save_for_backward(x8_columns, weight8, z, classes, shares, totals, log_sums)
        ctx.cap, ctx.shift, ctx.width = cap, shift, width
        return losses.sum()

    @staticmethod
    def backward(ctx, loss_gradient):
        x8_columns, weight8, z, classes, shares, totals, log_sums = ctx.saved_tensors
        rows, columns = capped_cross_entropy_gradient(
            z, classes, shares, totals, log_sums, ctx.cap, ctx.shift, ctx.width
        )
        x_scale, weight_scale = FP8_GRADIENT_SCALE * FP8_WEIGHT_SCALE, FP8_ACTIVATION_SCALE * FP8_GRADIENT_SCALE
        x_gradient = scaled_matmul(rows, weight8.T, x_scale, torch.bfloat16, False)
        weight_gradient = scaled_matmul(x8_columns, columns.T, weight_scale, torch.float32, False)
        weight_gradient = (weight_gradient * loss_gradient).to(torch.bfloat16)
        return x_gradient * loss_gradient, weight_gradient, None, None, None, None, None, None


def wanted_classes(targets: Tensor, prefixes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the loss asks of each token: classes and their shares, both (n + 1, T), and a total (T,).

    `weights` holds n weights, for the next token, the one after it and so on, and the prefix's. A token's loss is the
    sum over its classes of share * (log of the softmax's sum - logit). The last tokens of a row lack some targets;
    their gradient nevertheless takes the softmax times all n weights, as published, so `totals` is a thing of its own.
    """
    position = torch.arange(targets.size(0), device=targets.device)
    targets_ahead = range(weights.size(0) - 1)
    has_prefix = prefixes >= 0
    classes = [targets.roll(-ahead) for ahead in targets_ahead] + [prefixes.clamp(min=0)]
    shares = [weights[ahead] * (position < targets.size(0) - ahead) for ahead in targets_ahead]
    shares.append(weights[-1] * has_prefix)
    return torch.stack(classes), torch.stack(shares), weights[:-1].sum() + weights[-1] * has_prefix


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


def quantise_columns(x: Tensor, scales: Tensor, out: Tensor):
    """out (n, columns, rows) e4m3 = the transpose of each x / scale, clipped; x (n, rows, columns), scales (n,)."""
    if x.is_cuda:
        grid = (triton.cdiv(x.size(2), 64), triton.cdiv(x.size(1), 64), x.size(0))
        quantise_columns_kernel[grid](x, scales, out, x.size(1), x.size(2), x.stride(0), SIDE=64, num_warps=8)
        return
    out.copy_((x.float() / scales[:, None, None]).clamp(-448, 448).to(torch.float8_e4m3fn).mT)


def capped_cross_entropy(z, classes, shares, cap: float, shift: float, width: float) -> tuple[Tensor, Tensor]:
    """Per token, from raw logits z (T, vocabulary) bf16: the loss and the logarithm of the softmax's sum, both fp32.
    The sigmoid is rounded to bf16, here and in the gradient."""
    losses, log_sums = torch.empty(z.size(0), device=z.device), torch.empty(z.size(0), device=z.device)
    if z.is_cuda:
        cross_entropy_kernel[(z.size(0),)](
            z, classes, shares, losses, log_sums, z.size(0), z.size(1),
            cap, shift, width, CLASSES=classes.size(0), BLOCK=1024, num_warps=4,
        )  # fmt: skip
        return losses, log_sums
    logits = cap * torch.sigmoid((z.float() + shift) / width).bfloat16().float()
    log_sums.copy_(logits.logsumexp(dim=-1))
    return losses.copy_(((log_sums - logits.gather(1, classes.T).T) * shares).sum(0)), log_sums


def capped_cross_entropy_gradient(
    z, classes, shares, totals, log_sums, cap: float, shift: float, width: float
) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss by z, over FP8_GRADIENT_SCALE, as e5m2: (T, vocabulary) and its transpose, both
    contiguous, since the head's two matmuls read it in either direction. T is a multiple of four."""
    tokens, vocabulary = z.shape
    rows = torch.empty(tokens, vocabulary, dtype=torch.float8_e5m2, device=z.device)
    columns = torch.empty(vocabulary, tokens, dtype=torch.float8_e5m2, device=z.device)
    if z.is_cuda:
        grid = (triton.cdiv(vocabulary, 64), triton.cdiv(tokens, 64))
        cross_entropy_gradient_kernel[grid](
            z, classes, shares, totals, log_sums, rows, columns, tokens, vocabulary,
            cap, shift, width, FP8_GRADIENT_SCALE, CLASSES=classes.size(0), QUADS=16, COLUMNS=64, num_warps=4,
        )  # fmt: skip
        return rows, columns
    gate = torch.sigmoid((z.float() + shift) / width).bfloat16().float()
    error = totals[:, None] * torch.exp(cap * gate - log_sums[:, None])
    error.scatter_add_(1, classes.T, -shares.T)
    rows.copy_((error * cap / width * gate * (1 - gate) / FP8_GRADIENT_SCALE).to(torch.float8_e5m2))
    return rows, columns.copy_(rows.T)


class FP8SquaredReLUMLP(torch.autograd.Function):
    """relu(x @ up.T)² @ down, both products from 8-bit factors; the backward pass in bf16, through the roundings as if
    there were none. Of the hidden activations only their square is kept: its root is what the gradient needs.

    x (T, dim), up and down (mlp_dim, dim), all bf16; up8 (mlp_dim, dim) and down8 (dim, mlp_dim) with their scales;
    post_scale: by which the squares are divided before they are rounded. Also returns the largest of them.
    """

    @staticmethod
    def forward(ctx, x, up, down, up8, up_scale, down8, down_scale, post_scale):
        largest = x.abs().amax().float().clamp(min=1e-12)
        x8 = (x.float() * (448 / largest)).clamp(-448, 448).to(torch.float8_e4m3fn)
        post, post8, maximum = linear_relu_square8(x8, up8, up_scale * largest / 448, post_scale)
        ctx.save_for_backward(x, up, down, post)
        return scaled_matmul(post8, down8.T, post_scale * down_scale, torch.bfloat16, True), maximum

    @staticmethod
    def backward(ctx, gradient, _):
        x, up, down, post = ctx.saved_tensors
        gradient = gradient.contiguous()
        pre_gradient = linear_relu_square_gradient(gradient, down, post)
        down_gradient, up_gradient = post.T @ gradient, pre_gradient.T @ x
        return pre_gradient @ up, up_gradient, down_gradient, None, None, None, None, None


def linear_relu_square8(x8: Tensor, up8: Tensor, scale: Tensor, post_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """relu(x8 @ up8.T * scale)² in bf16; the same over post_scale, clipped, as e4m3; its maximum, in fp32. The depth is
    a multiple of 16."""
    shape = x8.size(0), up8.size(0)
    maximum = torch.zeros(1, device=x8.device)
    if x8.is_cuda:
        post = torch.empty(shape, dtype=torch.bfloat16, device=x8.device)
        post8 = torch.empty(shape, dtype=torch.float8_e4m3fn, device=x8.device)
        relu_square_kernel[(PROCESSORS,)](
            TensorDescriptor.from_tensor(x8, [128, 128]), TensorDescriptor.from_tensor(up8, [256, 128]),
            post, post8, scale, post_scale, maximum, *shape, x8.size(1),
            FORWARD=True, ROWS=128, COLUMNS=256, INNER=128, GROUP=8, num_warps=8, num_stages=3,
        )  # fmt: skip
        return post, post8, maximum
    post = F.relu((x8.float() @ up8.float().T * scale).bfloat16()).square()
    post8 = (post.float() * (1 / post_scale)).clamp(max=448).to(torch.float8_e4m3fn)
    return post, post8, post.amax().float().view(1)


def linear_relu_square_gradient(gradient: Tensor, down: Tensor, post: Tensor) -> Tensor:
    """The gradient before relu()², from that after `down` and the square itself: gradient @ down.T * 2 * sqrt(post).
    The depth is a multiple of 8."""
    if gradient.is_cuda:
        out = torch.empty_like(post)
        relu_square_kernel[(PROCESSORS,)](
            TensorDescriptor.from_tensor(gradient, [128, 64]), TensorDescriptor.from_tensor(down, [256, 64]),
            post, out, post, post, post, *post.shape, down.size(1),
            FORWARD=False, ROWS=128, COLUMNS=256, INNER=64, GROUP=8, num_warps=8, num_stages=4,
        )  # fmt: skip
        return out
    return ((gradient @ down.T).float() * 2 * post.float().sqrt()).bfloat16()


def add_rows(sums: Tensor, rows: Tensor, gradients: Tensor):
    """Add gradients (T, columns) to these rows (T,) of sums (n, columns) fp32, to some of them more than one."""
    if sums.is_cuda:
        block = triton.next_power_of_2(sums.size(1))
        add_rows_kernel[(len(rows),)](sums, rows, gradients, sums.size(1), BLOCK=block, num_warps=4)
        return
    sums.index_add_(0, rows, gradients.float())


@fast
def quantise_up(up: Tensor, out: Tensor, scales: Tensor):
    """out (n, rows, columns) e4m3 = each matrix over its scale, which is made to map its largest number to 448."""
    scales.copy_((largest_weights(up) / 448).bfloat16())
    out.copy_((up.float() / scales[:, None, None]).clamp(-448, 448).to(torch.float8_e4m3fn))


@fast
def largest_weights(matrices: Tensor) -> Tensor:
    """The largest absolute value of each matrix, in fp32."""
    return matrices.abs().amax((1, 2)).float().clamp(min=1e-12)


if triton is not None:
    TILES = [
        triton.Config({"ROWS": rows, "COLUMNS": columns, "INNER": 64}, num_stages=stages, num_warps=warps)
        for rows, columns, stages, warps in ((128, 128, 3, 8), (128, 128, 4, 4), (128, 64, 4, 4), (128, 256, 3, 8))
    ]

    LOG2_E = tl.constexpr(math.log2(math.e))  # for the machine has an instruction for powers of two

    @triton.jit
    def rounded(x):
        """x in bf16, two numbers an instruction. Of a conversion by itself Triton makes one that is as slow as a root,
        and the loss's kernels had four such instructions a logit."""
        return tl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [x], dtype=tl.bfloat16, is_pure=True, pack=2
        )

    @triton.jit
    def rounded_sigmoid(z, shift: tl.constexpr, width: tl.constexpr):
        """sigmoid((z + shift) / width), rounded to bf16, in fp32."""
        power = tl.exp2(z * (-LOG2_E / width) - shift * LOG2_E / width)
        return rounded(1 / (1 + power)).to(tl.float32)

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
    def quantised_at(x_pointer, row, column, rows, columns, scale):
        """x / scale at these places, clipped, in fp32. What is not a number stays so: it must be seen."""
        x = tl.load(x_pointer + row * columns + column, mask=(row < rows) & (column < columns), other=0.0)
        return tl.clamp(x.to(tl.float32) / scale, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)

    @triton.jit
    def quantise_kernel(
        x_pointer, row_pointer, column_pointer, rows, columns, scale: tl.constexpr,
        QUADS: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        """One tile of `quantised`, as it is and transposed."""
        quad = (tl.program_id(1) * QUADS + tl.arange(0, QUADS)).to(tl.int64)[:, None]
        column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
        inside = (4 * quad < rows) & (column < columns)
        four_rows = ()
        for i in tl.static_range(4):
            row = 4 * quad + i
            x = quantised_at(x_pointer, row, column, rows, columns, scale)
            tl.store(row_pointer + row * columns + column, x.to(tl.float8e4nv), mask=inside)
            four_rows += (x,)
        store_columns(column_pointer, four_rows, quad, column, rows, inside, tl.float8e4nv)

    @triton.jit
    def quantise_columns_kernel(
        x_pointer, scale_pointer, column_pointer, rows, columns, x_stride, SIDE: tl.constexpr
    ):  # fmt: skip
        """One tile of `quantise_columns`."""
        batch = tl.program_id(2).to(tl.int64)
        row = (tl.program_id(1) * SIDE + tl.arange(0, SIDE)).to(tl.int64)
        column = (tl.program_id(0) * SIDE + tl.arange(0, SIDE)).to(tl.int64)
        scale = tl.load(scale_pointer + batch)
        tile = quantised_at(x_pointer + batch * x_stride, row[None, :], column[:, None], rows, columns, scale)
        column_pointer += batch * rows * columns
        inside = (column < columns)[:, None] & (row < rows)[None, :]
        tl.store(column_pointer + column[:, None] * rows + row[None, :], tile.to(tl.float8e4nv), mask=inside)

    @triton.jit
    def cross_entropy_kernel(
        z_pointer, class_pointer, share_pointer, loss_pointer, sum_pointer, tokens, size,
        cap: tl.constexpr, shift: tl.constexpr, width: tl.constexpr, CLASSES: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """One row of `capped_cross_entropy`. The cap bounds every logit, so the sum needs no running maximum."""
        row = tl.program_id(0).to(tl.int64)
        z_pointer += row * size
        total = tl.zeros((BLOCK,), dtype=tl.float32)
        for start in range(0, size, BLOCK):
            column = start + tl.arange(0, BLOCK)
            z = tl.load(z_pointer + column, mask=column < size, other=0.0).to(tl.float32)
            gate = rounded_sigmoid(z, shift, width)
            total += tl.where(column < size, tl.exp2(gate * (cap * LOG2_E) - cap * LOG2_E), 0.0)
        log_sum = cap + tl.log(tl.sum(total))
        loss = log_sum * 0
        for i in tl.static_range(CLASSES):
            z = tl.load(z_pointer + tl.load(class_pointer + i * tokens + row)).to(tl.float32)
            gate = rounded_sigmoid(z, shift, width)
            loss += tl.load(share_pointer + i * tokens + row) * (log_sum - cap * gate)
        tl.store(loss_pointer + row, loss)
        tl.store(sum_pointer + row, log_sum)

    @triton.jit
    def cross_entropy_gradient_kernel(
        z_pointer, class_pointer, share_pointer, total_pointer, log_sum_pointer, row_pointer, column_pointer,
        tokens, vocabulary, cap: tl.constexpr, shift: tl.constexpr, width: tl.constexpr, scale: tl.constexpr,
        CLASSES: tl.constexpr, QUADS: tl.constexpr, COLUMNS: tl.constexpr,
    ):  # fmt: skip
        """One tile of `capped_cross_entropy_gradient`, as it is and transposed."""
        quad = (tl.program_id(1) * QUADS + tl.arange(0, QUADS)).to(tl.int64)[:, None]
        column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
        inside = (4 * quad < tokens) & (column < vocabulary)
        four_rows = ()
        for i in tl.static_range(4):
            row = 4 * quad + i
            total = tl.load(total_pointer + row, mask=row < tokens, other=0.0) * (cap / width / scale)
            log_sum = tl.load(log_sum_pointer + row, mask=row < tokens, other=0.0)
            z = tl.load(z_pointer + row * vocabulary + column, mask=inside, other=0.0).to(tl.float32)
            gate = rounded_sigmoid(z, shift, width)
            error = total * tl.exp2(gate * (cap * LOG2_E) - log_sum * LOG2_E)
            for k in tl.static_range(CLASSES):
                wanted = tl.load(class_pointer + k * tokens + row, mask=row < tokens, other=0).to(tl.int32)
                share = tl.load(share_pointer + k * tokens + row, mask=row < tokens, other=0.0) * (cap / width / scale)
                error = tl.where(wanted == column, error - share, error)
            error = error * (gate - gate * gate)
            tl.store(row_pointer + row * vocabulary + column, error.to(tl.float8e5), mask=inside)
            four_rows += (error,)
        store_columns(column_pointer, four_rows, quad, column, tokens, inside, tl.float8e5)

    @triton.jit
    def relu_square_kernel(
        left, right, post_pointer, out_pointer, scale_pointer, post_scale_pointer, maximum_pointer,
        rows, columns, depth, FORWARD: tl.constexpr,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
    ):  # fmt: skip
        """left @ right.T, then what comes after it. left (rows, depth) and right (columns, depth) are contiguous, and
        described by TensorDescriptors, whose tiles (ROWS, INNER) and (COLUMNS, INNER) Hopper copies by itself, zeros
        for what is beyond the edge. FORWARD: `linear_relu_square8`, which writes post and, at 8 bits, out. Otherwise:
        `linear_relu_square_gradient`, which reads post and writes out. A program computes tile after tile: the next
        one's operands arrive while it stores one."""
        row_tiles = tl.cdiv(rows, ROWS)
        column_tiles = tl.cdiv(columns, COLUMNS)
        for tile in tl.range(tl.program_id(0), row_tiles * column_tiles, tl.num_programs(0), flatten=True):
            # Walk the tiles in bands of GROUP rows, so that neighbours share their operands in the L2 cache.
            row_tile, column_tile = tile // column_tiles, tile % column_tiles
            row_tile, column_tile = tl.swizzle2d(row_tile, column_tile, row_tiles, column_tiles, GROUP)
            first_row, first_column = row_tile * ROWS, column_tile * COLUMNS
            total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
            for start in range(0, depth, INNER):
                total = tl.dot(left.load([first_row, start]), right.load([first_column, start]).T, total)
            row = (first_row + tl.arange(0, ROWS)).to(tl.int64)
            column = first_column + tl.arange(0, COLUMNS)
            place = row[:, None] * columns + column[None, :]
            inside = (row < rows)[:, None] & (column < columns)[None, :]
            if FORWARD:
                pre = rounded(total * tl.load(scale_pointer)).to(tl.float32)
                post = tl.maximum(pre, 0.0, propagate_nan=tl.PropagateNan.ALL)
                post = rounded(post * post)
                tl.store(post_pointer + place, post, mask=inside)
                post = post.to(tl.float32)
                post8 = tl.minimum(post * (1 / tl.load(post_scale_pointer)), 448.0, propagate_nan=tl.PropagateNan.ALL)
                tl.store(out_pointer + place, post8.to(tl.float8e4nv), mask=inside)
                tl.atomic_max(maximum_pointer, tl.max(tl.where(inside, post, 0.0)))
            else:
                post = tl.load(post_pointer + place, mask=inside, other=0.0).to(tl.float32)
                after = rounded(total).to(tl.float32)
                tl.store(out_pointer + place, (2 * after * tl.sqrt(post)).to(tl.bfloat16), mask=inside)

    @triton.jit
    def add_rows_kernel(sum_pointer, row_pointer, gradient_pointer, columns, BLOCK: tl.constexpr):
        """One row of `add_rows`."""
        place = tl.program_id(0).to(tl.int64)
        row = tl.load(row_pointer + place).to(tl.int64)
        column = tl.arange(0, BLOCK)
        gradient = tl.load(gradient_pointer + place * columns + column, mask=column < columns).to(tl.float32)
        tl.atomic_add(sum_pointer + row * columns + column, gradient, mask=column < columns, sem="relaxed")

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
def equalise(updates: Tensor, mean_squares: Tensor, beta2: float) -> Tensor:
    """NorMuon (Li et al. 2025, arXiv 2510.05491): each row of each matrix (n, rows, columns), or each column where
    there are more of these, divided by the root of a running mean of its mean squares, which is moved on in place; each
    matrix then scaled to the norm it had."""
    square = updates.float().square().mean(dim=-1 if updates.size(-2) >= updates.size(-1) else -2, keepdim=True)
    mean_squares.copy_(torch.lerp(square, mean_squares, beta2))
    factor = mean_squares.clamp(min=1e-10).rsqrt()
    norm = square.sum(dim=(-2, -1), keepdim=True).sqrt()
    new_norm = (square * factor.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return updates * (factor * norm / new_norm.clamp(min=1e-10)).to(updates.dtype)


def attend(query, key, value, document_ends: Tensor, longest: int, window: int, scale: float) -> Tensor:
    """Causal attention within each document, over at most `window` tokens back and the token itself.

    query, key, value (T, heads, head_dim) bf16; document_ends (documents,) int32: cumulative lengths from 0 to T.
    """
    if flash4 is not None and query.size(0) * query.size(1) > FLASH4_SIZE:
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
FLASH4_SIZE = 16384 * 6  # T x heads: it is launched from Python, and up to here the card would wait for that


@torch.library.custom_op("record89::flash4_attend", mutates_args=())
def flash4_attend(
    query: Tensor, key: Tensor, value: Tensor, document_ends: Tensor, longest: int, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """`attend` by FlashAttention 4, and for its gradient the logarithms of the softmax's sums, (heads, T) fp32.

    The kernels of the package flash-attn-4 are written in CuTe, which `torch.compile` cannot look into: hence an
    operator. PyTorch 2.11 can put them behind `varlen_attn`, but not with a window in the backward pass.
    """
    options = flash4_options(document_ends, longest, window, scale)
    return flash4._flash_attn_fwd(query, key, value, return_lse=True, **options)[:2]


@torch.library.custom_op("record89::flash4_gradient", mutates_args=())
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
        flash4_attend(x, x, x, document, 512, 128, 1.0)[0].backward(x.detach())
        return f"flash-attn-4 {version('flash-attn-4')}, FlashAttention 4 (2 for short rows)"
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
        self.split = parameter.numel() >= 2**17
        self.own = parameter.data.chunk(dist.get_world_size())[dist.get_rank()] if self.split else parameter.data
        self.first = torch.zeros_like(self.own, dtype=torch.float32)
        self.second = torch.zeros_like(self.own, dtype=torch.float32)
        self.steps = 0

    def reset(self):
        """Forget everything, as if no step had been taken."""
        self.steps = 0
        self.first.zero_()
        self.second.zero_()

    def local_gradient(self) -> Tensor:
        """What this rank has of the gradient."""
        return self.parameter.grad

    def send(self):
        """Set off the gradient's way to the rank that needs it."""
        if self.split:
            self.gradient = torch.empty_like(self.own)
            self.work = dist.reduce_scatter_tensor(self.gradient, self.local_gradient().contiguous(), async_op=True)
        else:
            self.gradient = self.local_gradient()
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


class TableAdam(Adam):
    """Adam for a table of which a row of tokens uses few rows. Their gradients are added up in place, in fp32: autograd
    would make a gradient of the whole table for every row of tokens, and add zeros to zeros."""

    def __init__(self, parameter, *arguments):
        super().__init__(parameter, *arguments)
        self.sums = torch.zeros_like(parameter, dtype=torch.float32)

    def reset(self):
        super().reset()
        self.sums.zero_()

    def look_up(self, rows: Tensor) -> list[Tensor]:
        """These rows (n, T) of the table, as n leaves (T, columns), whose gradients are for `add`: one alone would make
        autograd put its gradient together from n."""
        return [F.embedding(some, self.parameter.detach()).requires_grad_() for some in rows]

    def add(self, rows: Tensor, found: list[Tensor]):
        """Add up what each of these rows is to receive."""
        for some, leaf in zip(rows, found):
            add_rows(self.sums, some, leaf.grad)

    def local_gradient(self) -> Tensor:
        return self.sums.to(self.own.dtype)

    def finish(self):
        super().finish()
        self.sums.zero_()


class SparseAdam(TableAdam):
    """Adam for a table of which few rows are used between its steps: only these rows' gradients travel, to the ranks
    that own them. All rows are updated, and the result is that of `Adam`."""

    def __init__(self, parameter, *arguments):
        super().__init__(parameter, *arguments)
        self.used = np.zeros(parameter.size(0), dtype=bool)
        self.exchanging = self.split and dist.get_world_size() > 1

    def use(self, rows: np.ndarray, last: bool):
        """These rows are about to be used. With the last ones before a step, tell the other ranks how many are theirs:
        on the CPU, while the GPU computes."""
        self.used[rows] = True
        if last and self.exchanging:
            self.rows = np.flatnonzero(self.used)
            owners = self.rows // self.own.size(0)
            self.going = torch.from_numpy(np.bincount(owners, minlength=dist.get_world_size()))
            self.coming = torch.empty_like(self.going)
            self.counting = dist.all_to_all_single(self.coming, self.going, async_op=True)
            self.used[:] = False

    def send(self):
        if not self.exchanging:
            return super().send()
        self.counting.wait()
        going, coming = self.going.tolist(), self.coming.tolist()
        rows = torch.from_numpy(self.rows).to(self.own.device)
        values = self.sums[rows].to(self.own.dtype)
        self.received_rows = rows.new_empty(sum(coming))
        self.received = values.new_empty(sum(coming), values.size(1))
        dist.all_to_all_single(self.received_rows, rows, coming, going)
        self.work = dist.all_to_all_single(self.received, values, coming, going, async_op=True)

    def update(self, multiplier: float, momentum: float):
        if self.exchanging:
            self.work.wait()
            own_rows = self.received_rows - dist.get_rank() * self.own.size(0)
            self.gradient = torch.zeros_like(self.own).index_add_(0, own_rows, self.received)
        super().update(multiplier, momentum)


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
    whose rows or columns are then brought to one scale (NorMuon); with cautious weight decay. For a bank, one parameter
    that is many matrices (rows, columns) of one shape; `factors` on the learning rate are theirs in turn, over and
    over.

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
        rows, columns = bank.shape[-2:]
        neurons = (rows, 1) if rows >= columns else (1, columns)
        self.mean_squares = torch.zeros(len(self.own), *neurons, device=bank.device)

    def reset(self):
        """Forget everything, as if no step had been taken."""
        for state in (self.low, self.buffer, self.mean_squares):
            state.zero_()

    def local_gradient(self) -> Tensor:
        """What this rank has of the gradient."""
        return self.parameter.grad

    def send(self):
        """Set off the gradient's way to the rank that needs it."""
        self.gradient = torch.empty_like(self.own)
        gradient = self.local_gradient().contiguous().view_as(self.matrices)
        self.work = dist.reduce_scatter_tensor(self.gradient, gradient, async_op=True)

    def update(self, multiplier: float, momentum: float):
        """Once the gradient is here, update what is this rank's and set it off to the others."""
        self.work.wait()
        self.momentum = momentum
        update = self.gradient.float().mul_(self.gradient_scale)
        self.buffer.lerp_(update, 1 - momentum)
        update.lerp_(self.buffer, momentum)  # Nesterov: look ahead along the momentum just formed
        update = equalise(polar_express(update), self.mean_squares, self.beta2)
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
        """‖Oᵀ O - I‖ / sqrt(columns) of a tall matrix of this rank's, O what `polar_express` makes of its momentum."""
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


def stage_starts() -> list[int]:
    """The first steps of three stages of equal length and of the extension."""
    scheduled = settings.num_iterations - settings.extension_iterations
    return [round(scheduled * third / 3) for third in range(4)]


def stage(step: int) -> int:
    """Three stages, then the extension: 0 to 3."""
    return sum(step >= start for start in stage_starts()) - 1


def learning_rate_multiplier(step: int) -> float:
    """The stage's plateau; from some step on blended into the floor in a straight line, also where the plateau itself
    still rises; then flat through the extension."""
    scheduled = settings.num_iterations - settings.extension_iterations
    start = int((1 - settings.cooldown_fraction) * scheduled)
    share = min(1, max(0, (step - start) / (scheduled - start)))
    plateau = settings.learning_rate_stages[stage(step)]
    return plateau * (1 - share) + share * settings.final_learning_rate


def muon_momentum(step: int) -> float:
    """Up over the first steps, down over the last."""
    low, high = settings.muon_momentum_start, settings.muon_momentum
    falling = step - (settings.num_iterations - settings.momentum_cooldown)
    if falling > 0:
        return high - (high - low) * falling / settings.momentum_cooldown
    return low + (high - low) * min(1, step / settings.momentum_warmup)


def row_tokens(step: int) -> int:
    """How many tokens a row of this step holds."""
    return settings.row_tokens * settings.row_stages[stage(step)]


def loss_weights(step: int) -> list[float]:
    """The loss's weights for the next token, the one after it and so on, and for the prefix of the next."""
    now, starts = stage(step), [*stage_starts(), settings.num_iterations]
    share = (step - starts[now]) / (starts[now + 1] - starts[now])
    spans = [*settings.target_stages[now], settings.prefix_stages[now]]
    return [first + (last - first) * share for first, last in spans]


def adam_steps(step: int) -> bool:
    """Adam steps on the sum of some steps' gradients, at the last of them."""
    return step % settings.adam_every == settings.adam_every - 1


def unties(step: int) -> bool:
    """Whether embedding and head are no longer tied after this step, which is one of Adam's."""
    return stage(step) >= settings.untie_stage and adam_steps(step)


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension. The eps is fp32's, also for bf16 input: explicit,
    because PyTorch's default has changed between versions."""
    return F.rms_norm(x, (x.size(-1),), eps=1.19e-7)


def uniform_(weight: Tensor, bound: float) -> Tensor:
    """Uniform numbers between -bound and bound, drawn in fp32 and rounded to the weight's dtype."""
    return weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound))


def normal_(weight: Tensor, std: float) -> Tensor:
    """Normal numbers, drawn in fp32 and rounded to the weight's dtype."""
    return weight.copy_(torch.empty(weight.shape).normal_(std=std))


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
    """The dimensions that do not turn, the second half of each head, come from the key before; the row's first key
    keeps its own. So a head can find what followed an earlier occurrence of the current token."""
    turning, still = key.chunk(2, dim=-1)
    return torch.cat([turning, torch.cat([still[:1], still[:-1]])], dim=-1)


def exclude_self(y: Tensor, value: Tensor, strength: Tensor) -> Tensor:
    """Take out of each head's result, as far as tanh(strength) says, its component along the token's own value.
    (Exclusive self-attention.) y and value (T, heads, head_dim), strength (T, heads)."""
    along = (y * value).sum(-1, keepdim=True) / (value * value).sum(-1, keepdim=True).clamp(min=1e-8)
    return y - torch.tanh(strength).unsqueeze(-1) * along * value


def dynamic_heads(query, key, value, first, second, document_ends, keys: int, block: int, scale: float) -> Tensor:
    """Attention over the last `keys` tokens whose heads are mixed anew for every query (dynamically composable heads,
    Xiao et al. 2024, arXiv 2405.08553, here of rank one): all heads' attention, weighted by `first`, is summed into
    one matrix, and head h attends with second_h times that.

    query, key, value (T, heads, head_dim), first and second (T, heads), all bf16. Queries are taken in blocks, each
    with the keys of its own and of the block before, so `keys` may be `block` + 1 at most.
    """
    block = min(block, query.size(0))

    def own(x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, block))

    def with_previous(x: Tensor) -> Tensor:
        return torch.cat([own(torch.cat([torch.zeros_like(x[:block]), x[:-block]])), own(x)], dim=1)

    position = torch.arange(query.size(0), dtype=document_ends.dtype, device=query.device)
    document = torch.searchsorted(document_ends, position, right=True)  # from 1 on: before the first block is none
    distance = own(position)[:, :, None] - with_previous(position)[:, None, :]
    seen = (distance >= 0) & (distance < keys) & (own(document)[:, :, None] == with_previous(document)[:, None, :])
    # Products of bf16 numbers are exact in TF32, so on tensor cores the scores come out as fp32.
    scores = own(query).transpose(1, 2).float() @ with_previous(key).permute(0, 2, 3, 1).float() * scale
    attention = torch.softmax(scores.masked_fill(~seen[:, None], -float("inf")), dim=-1)
    first = first.float() * torch.rsqrt(first.float().square().mean(-1, keepdim=True) + 1e-6)
    mixed = (own(first.bfloat16()).transpose(1, 2).float().unsqueeze(-1) * attention).sum(1, keepdim=True)
    mixed = (own(second).transpose(1, 2).float().unsqueeze(-1) * mixed).bfloat16()
    return (mixed @ with_previous(value).transpose(1, 2)).transpose(1, 2).reshape(query.shape)


class GPT(nn.Module):
    """The record's transformer. `forward` returns the loss: summed over tokens in training, their mean otherwise.

    Matrices of one shape are kept in banks, padded so that 8 ranks can share them evenly. The layers' coefficients are
    generated for every token by small MLPs: gate blocks before layers 0 and 4, mixing blocks before layer 10 and the
    head (after MUDD, Xiao et al. 2025, arXiv 2502.12170).
    """

    def __init__(self, s: Settings):
        super().__init__()
        self.settings, self.fp8 = s, s.fp8
        heads, dim, bf16 = s.num_heads, s.model_dim, torch.bfloat16
        self.attention_layers = [layer for layer in range(s.num_layers) if layer != s.layer_without_attention]

        def parameter(*shape, dtype=bf16, value=0.0):
            return nn.Parameter(torch.full(shape, value, dtype=dtype))

        def padded(count: int) -> int:
            return count + -count % s.rows_per_step

        # A layer's queries and keys are matrices of two heads each; its value and output matrices are square.
        self.query_key_bank = parameter(padded(heads * len(self.attention_layers)), 2 * s.head_dim, dim)
        self.value_output_bank = parameter(padded(2 * len(self.attention_layers)), dim, dim)
        self.mlp_bank = parameter(padded(2 * s.num_layers) // 2, 2, s.mlp_dim, dim)  # up and down
        self.lm_head = parameter(dim, s.vocab_size)
        self.embedding = parameter(s.vocab_size, dim)
        self.value_tables = parameter(len(s.value_layers) * s.vocab_size, dim)
        self.bigram_table = parameter(s.bigram_rows, dim)
        self.value_gates = parameter(len(s.value_layers), heads, s.gate_dim)
        self.smear_gate = parameter(1, s.gate_dim)
        # Of attention's and the MLP's result, and of the stream that it is added to
        self.output_scales = parameter(s.num_layers, 2, dtype=torch.float32, value=1.0)
        self.residual_scales = parameter(s.num_layers, 2, dtype=torch.float32, value=math.sqrt(1.1))
        # A pair per layer for the weights of query, key and value, and of the output; smear; skip, before a sigmoid
        self.scalars = nn.Parameter(torch.tensor([0.5, 1.0] * s.num_layers + [0.0, -1.5]))
        self.gate_sizes = ((heads, heads, heads, 8), (heads, heads, heads, 10, 1, heads, heads))
        self.gate_first = parameter(2, s.hidden_dim, dim)
        self.gate_second = parameter(2, sum(self.gate_sizes[1]), s.hidden_dim)
        self.gate_bias = parameter(2, sum(self.gate_sizes[1]))
        self.gate_scale = parameter(dtype=torch.float32, value=0.1)
        self.mixing_first = parameter(2, s.hidden_dim, dim)
        self.mixing_second = parameter(2, 14, s.hidden_dim)
        self.mixing_bias = parameter(2, 14)

        length = 2 * max(s.row_tokens * max(s.row_stages), s.val_row_tokens)
        self.rotary = Rotary(s.head_dim, length, s.rotary_base, s.attention_scale, s.window_block)
        self.register_buffer("signs", torch.randn(s.sign_rows, dim).sign().to(bf16))
        self.register_buffer("prefixes", torch.full((s.vocab_size,), -1), persistent=False)
        # FP8: the hidden activations' scales; the matrices at 8 bits, with their scales, and the down matrices' next
        layers, fp8 = len(self.mlp_bank), torch.float8_e4m3fn
        self.register_buffer("post_scales", torch.ones(s.num_layers))
        self.register_buffer("up_scales", torch.ones(layers))
        self.register_buffer("down_scales", torch.ones(layers))
        self.register_buffer("next_down_scales", torch.ones(layers))
        self.register_buffer("up8", torch.zeros(layers, s.mlp_dim, dim, dtype=fp8), persistent=False)
        self.register_buffer("down8", torch.zeros(layers, dim, s.mlp_dim, dtype=fp8), persistent=False)
        with torch.no_grad():
            self.initialise()

    def initialise(self):
        """The matrices that the stream is read by get a standard deviation of 0.5 / sqrt(model_dim), the values' output
        matrices too; of the MLP, those that add to the stream are zero. So is the padding of attention's banks."""
        s, heads = self.settings, self.settings.num_heads
        bound = math.sqrt(3) * 0.5 / math.sqrt(s.model_dim)
        uniform_(self.query_key_bank[: heads * len(self.attention_layers)], bound)
        uniform_(self.value_output_bank[: 2 * len(self.attention_layers)], bound)
        uniform_(self.mlp_bank[:, 0], bound)
        normal_(self.lm_head, s.head_std)
        self.embedding.copy_(self.lm_head.T)
        normal_(self.value_tables, s.value_std)
        for first in (self.gate_first, self.mixing_first):
            uniform_(first, 1 / math.sqrt(s.model_dim))
        # What a coefficient is at first, over the blocks' scale of 0.1
        pairs = [0.0, 0.5]  # of the embedding, of the bigram
        gates = [0.0] * 2 * heads + [2.5] * heads + pairs * 4
        self.gate_bias[0, : len(gates)] = torch.tensor(gates)
        gates = [0.0] * 2 * heads + [2.5] * heads + pairs * 5 + [5.0] + [10.0] * heads + [0.0] * heads
        self.gate_bias[1] = torch.tensor(gates)
        scale = 10 * math.sqrt(1.1)
        self.mixing_bias[0] = torch.tensor([0.0] * 6 + [20.0, 20.0, scale, 10.0, 0.0, 0.5, scale, 10.0])
        self.mixing_bias[1, 1] = -5.0

    @torch.no_grad()
    def quantise_mlp(self, exact: bool):
        """Round the MLP's matrices to 8 bits for the passes until the next step. The down matrices' scales stem from
        the step before, unless they are to be `exact`."""
        up, down = self.mlp_bank.unbind(1)
        quantise_up(up, self.up8, self.up_scales)
        largest = largest_weights(down)
        if exact:
            self.next_down_scales.copy_((largest / 448).bfloat16())
        self.down_scales.copy_(self.next_down_scales)
        quantise_columns(down, self.down_scales, self.down8)
        self.next_down_scales.copy_(largest * self.settings.weight_headroom / 448)

    def smear(self, x: Tensor) -> Tensor:
        """Add to each token's embedding a gated share of the embedding before it."""
        gate = self.scalars[-2] * torch.sigmoid(F.linear(x[1:, : self.smear_gate.size(-1)], self.smear_gate))
        return torch.cat([x[:1], x[1:] + gate * x[:-1]])

    def gates(self, block: int, x: Tensor) -> list[Tensor]:
        """The coefficients that a gate block makes of x (T, model_dim), each (T, some)."""
        hidden, sizes = F.gelu(F.linear(x, self.gate_first[block])), self.gate_sizes[block]
        made = F.linear(hidden, self.gate_second[block], self.gate_bias[block])[:, : sum(sizes)]
        return (made * self.gate_scale.bfloat16()).split(sizes, dim=-1)

    def mixing(self, block: int, x: Tensor) -> tuple[Tensor, ...]:
        """The coefficients that a mixing block makes of x, each (T, 1)."""
        hidden = F.gelu(F.linear(x, self.mixing_first[block]))
        return (F.linear(hidden, self.mixing_second[block], self.mixing_bias[block]) * 0.1).split(1, dim=-1)

    def attention(self, layer, matrices, x, value_added, strength, gate, dynamic, document_ends, longest, windows):
        """x (T, model_dim) normed. To the values `value_added` (T, heads, head_dim) is added; self is excluded by
        `strength`, results are multiplied by `gate`, `dynamic` are the dynamic heads' weights: each may be None."""
        s, tokens = self.settings, x.size(0)
        factors = self.scalars[2 * layer : 2 * layer + 2]
        query_key, value_matrix, output_matrix = matrices
        matrix = torch.cat([query_key.flatten(0, 1), value_matrix])
        heads = F.linear(x, factors[0] * matrix).view(tokens, 3 * s.num_heads, s.head_dim)
        query, key, value = heads.chunk(3, dim=1)
        paired, long = layer in s.paired_layers, layer in s.long_layers
        query, key = self.rotary(rms_norm(query), paired), self.rotary(rms_norm(key), paired)
        if long:
            key = shift_keys(key)
        if value_added is not None:
            value = value + value_added
        window = (windows[0] if long else windows[1]) * s.window_block
        scale = self.rotary.attention_scale
        if paired:
            # A token's heads are taken as those of two tokens, the first half of them before the second, in half as
            # many heads. So heads 0 and 3 form one, 1 and 4, 2 and 5; but they were rotated as if these were 0 and 1,
            # 2 and 3, 4 and 5: head 1 is late by a position, head 4 early. The published runs train with that.
            halves = (x.reshape(2 * tokens, s.num_heads // 2, s.head_dim) for x in (query, key, value))
            y = attend(*halves, 2 * document_ends, 2 * longest, window, scale).reshape(tokens, s.num_heads, s.head_dim)
        else:
            y = attend(query, key, value, document_ends, longest, window, scale)
        if dynamic is not None:
            y = y + dynamic_heads(query, key, value, *dynamic, document_ends, s.dynamic_keys, s.dynamic_block, scale)
        if strength is not None:
            y = exclude_self(y, value, strength)
        if gate is not None:
            y = y * gate.unsqueeze(-1)
        return F.linear(y.flatten(1), factors[1] * output_matrix)

    def gated_value(self, layer: int, x: Tensor, value_embedding: Tensor) -> Tensor:
        """A value table's rows, each head's times a gate that reads them and x."""
        gate, half = self.value_gates[self.settings.value_layers.index(layer)], self.settings.gate_dim // 2
        gate = 2 * torch.sigmoid(F.linear(torch.cat([x[:, :half], value_embedding[:, :half]], dim=-1), gate))
        return gate.unsqueeze(-1) * value_embedding.view(x.size(0), self.settings.num_heads, -1)

    def feed_forward(self, layer: int, matrices, x: Tensor, maxima: list) -> Tensor:
        """The MLP on x, normed; `maxima` receives its largest hidden activation if it was computed at 8 bits."""
        up, down = matrices
        if not (self.training and self.fp8):
            return F.relu(F.linear(x, up)).square() @ down
        scales = self.up_scales[layer], self.down8[layer], self.down_scales[layer], self.post_scales[layer]
        out, maximum = FP8SquaredReLUMLP.apply(x, up, down, self.up8[layer], *scales)
        maxima.append(maximum.detach())
        return out

    def value_rows(self, tokens: Tensor) -> Tensor:
        """Where the value tables, which are one parameter, hold these tokens: (tables, T)."""
        tables = torch.arange(len(self.settings.value_layers), device=tokens.device)
        return self.settings.vocab_size * tables[:, None] + tokens

    def hidden(self, tokens, bigrams, document_ends, longest: int, windows: tuple[int, int], looked_up=None):
        """The final stream (T, model_dim), the stream after each layer, and the MLPs' maxima. `looked_up` may hold what
        the value tables and the bigram table say of these tokens."""
        s, heads = self.settings, self.settings.num_heads
        if looked_up is None:
            values = F.embedding(self.value_rows(tokens), self.value_tables).unbind()
            looked_up = values, (F.embedding(bigrams, self.bigram_table),)
        values, (bigram,) = looked_up
        value_embeddings = dict(zip(s.value_layers, values))
        pairs = torch.cat([torch.zeros_like(tokens[:1]), tokens[1:] ^ tokens[:-1]]) % s.sign_rows
        bigram = bigram * F.embedding(pairs, self.signs)
        residual, output = self.residual_scales.bfloat16(), self.output_scales.bfloat16()
        inputs = document_ends, longest, windows
        maxima, stream = [], {}
        # Each bank is taken apart once: so its gradient is put together once, too.
        query_key, value_output = self.query_key_bank.split(heads), self.value_output_bank.unbind()
        attention_matrices = dict(zip(self.attention_layers, zip(query_key, value_output[::2], value_output[1::2])))
        mlp_matrices = [pair.unbind() for pair in self.mlp_bank.unbind()]

        embedding = rms_norm(self.smear(F.embedding(tokens, self.embedding)))
        *strengths, gate, injections = self.gates(0, embedding)
        strength, output_gates = dict(zip(s.self_excluding_layers[:2], strengths)), {s.long_layers[0]: gate}
        injections = injections.split(1, dim=-1)
        injection = {layer: injections[2 * layer : 2 * layer + 2] for layer in range(4)}
        x = first = embedding + injection[0][1] * bigram
        for layer in range(s.num_layers - 1):
            if layer == 4:
                *strengths, gate, injections, skip, before, after = self.gates(1, x)
                strength |= dict(zip(s.self_excluding_layers[2:], strengths))
                output_gates[s.long_layers[1]] = gate
                injections = injections.split(1, dim=-1)
                for i, later in enumerate(self.attention_layers[4:-1]):
                    injection[later] = injections[2 * i : 2 * i + 2]
            if layer == s.layer_without_attention:
                x = x + torch.sigmoid(self.scalars[-1]) * skip * stream[3]
            else:
                h = rms_norm(stream[7] if layer > 7 else x)
                value_added = None
                if layer in value_embeddings:
                    value_added = self.gated_value(layer, h, value_embeddings[layer])
                changes = value_added, strength.get(layer), output_gates.get(layer), None
                added = self.attention(layer, attention_matrices[layer], h, *changes, *inputs)
                of_embedding, of_bigram = injection[layer]
                x = residual[layer, 0] * x + output[layer, 0] * added + of_embedding * embedding
                if layer > 0:
                    x = x + of_bigram * bigram
            added = self.feed_forward(layer, mlp_matrices[layer], rms_norm(x), maxima)
            x = stream[layer] = residual[layer, 1] * x + output[layer, 1] * added

        # The last layer: its values, its input and its sums are mixed from earlier streams.
        layer, last = s.num_layers - 1, x
        v0, v7, v9, r0, r7, r9, gate_a, gate_b, p_a, q_a, c_0, c_b, p_m, q_m = self.mixing(0, last)
        value_added = torch.cat([gate_a.expand(-1, heads // 2), gate_b.expand(-1, heads // 2)], dim=-1).unsqueeze(-1)
        value_added = value_added * value_embeddings[layer].view(-1, heads, s.head_dim)
        value_added = value_added + (v0 * first + v7 * stream[7] + v9 * last).view(-1, heads, s.head_dim)
        x = (1 + r9) * last + r0 * first + r7 * stream[7]
        changes = value_added, None, output_gates[layer], (before, after)
        added = self.attention(layer, attention_matrices[layer], rms_norm(stream[7]), *changes, *inputs)
        x = p_a * x + q_a * added + c_0 * first + c_b * bigram
        x = p_m * x + q_m * self.feed_forward(layer, mlp_matrices[layer], rms_norm(x), maxima)

        # What the head sees: early layers are mixed in, which at first means taken back.
        stream[layer] = x
        k0, k1, k2, k3, k4 = self.mixing(1, x)[:5]
        earlier = value_embeddings[s.value_layers[0]]
        return x + k0 * first + k1 * stream[7] + k2 * last + k3 * earlier + k4 * stream[3], stream, maxima

    def loss(self, x: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Cross entropy of softly capped logits, 0 to logit_cap. In training a sum, over tokens and, with their
        weights, over the next tokens and the prefix of the next; in validation the mean of the next token's."""
        x = rms_norm(x)
        cap = self.settings.logit_cap, self.settings.logit_shift, self.settings.logit_width
        if not self.training:
            logits = (x @ self.lm_head).float()
            return F.cross_entropy(cap[0] * torch.sigmoid((logits + cap[1]) / cap[2]), targets)
        wanted = wanted_classes(targets, self.prefixes[targets], weights)
        if self.fp8:
            return FP8HeadLoss.apply(x, self.lm_head, *wanted, *cap)
        classes, shares, _ = wanted
        logits = cap[0] * torch.sigmoid((x @ self.lm_head + cap[1]) / cap[2])
        return ((logits.float().logsumexp(-1) - logits.gather(1, classes.T).T) * shares).sum()

    def forward(
        self, tokens, targets, document_ends, bigrams, longest: int, windows: tuple[int, int], weights=None,
        looked_up=None,
    ):  # fmt: skip
        """tokens (T,) int32, targets (T,) int64, document_ends int32, bigrams (T,) int32: rows of the bigram table;
        windows: (long, short) in blocks; weights: of the loss, in training; looked_up: as in `hidden`."""
        x, _, maxima = self.hidden(tokens, bigrams, document_ends, longest, windows, looked_up)
        if maxima:
            # Only now: each layer's scale is in use until its product is back in bf16.
            largest = torch.cat(maxima).clamp(min=1e-12)
            self.post_scales.copy_(largest * self.settings.activation_headroom / 448)
        return self.loss(x, targets, weights)


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


def pack_rows(bounds: np.ndarray, document: int, size: int, longest: int) -> tuple[list, int]:
    """The documents, as (start, end) spans, that fill the rows of one step in order, and the document after them.

    A row takes whole documents, none longer than `longest`, until it holds size + 1 tokens; what is cut off the last
    one is dropped. Raises IndexError when the documents do not suffice.
    """
    rows = []
    for _ in range(settings.rows_per_step):
        spans, missing = [], size + 1
        while missing:
            start, end = int(bounds[document]), int(bounds[document + 1])
            end = min(end, start + longest, start + missing)
            spans.append((start, end))
            missing -= end - start
            document += 1
        rows.append(spans)
    return rows, document


def to_device(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Copy to the GPU without waiting for it."""
    tensor = torch.from_numpy(array).to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def bigram_rows(tokens: np.ndarray) -> np.ndarray:
    """For each token the row of the bigram table that it shares with its predecessor: a hash of both, in int32, which
    wraps around. The first token has the last row; the second is hashed with that row's number for a predecessor."""
    last = settings.bigram_rows - 1
    tokens = tokens.astype(np.int32)
    previous = np.concatenate([[last], tokens[1:-1]]).astype(np.int32)
    return np.concatenate([[last], (36313 * tokens[1:] ^ 27191 * previous) % last]).astype(np.int32)


def as_inputs(row: np.ndarray, lengths: list[int], slots: int, longest: int) -> tuple[tuple, np.ndarray]:
    """Tokens, targets, cumulative document ends (padded with empty documents to a fixed size), rows of the bigram
    table, longest document; and the bigram table's rows on the CPU."""
    if len(lengths) >= slots:
        fail(f"a row holds {len(lengths)} documents, the table has {slots - 1}: lower --tokens_per_document")
    ends = np.full(slots, len(row) - 1)
    ends[0] = 0
    ends[1 : len(lengths) + 1] = np.cumsum(lengths)
    bigrams = bigram_rows(row[:-1])
    tokens, targets = to_device(row[:-1], torch.int32), to_device(row[1:], torch.int64)
    return (tokens, targets, to_device(ends, torch.int32), to_device(bigrams, torch.int32), longest), bigrams


def document_slots(tokens: int) -> int:
    """How many document ends a row of this length has room for: a multiple of 128."""
    return max(1, math.ceil(tokens // settings.tokens_per_document / 128)) * 128


def train_batches(steps: Iterable[int]):
    """Yield what this rank computes in each of these steps: a list of 8/world_size rows' inputs, and the rows of the
    bigram table that they touch.

    The rows of a step are the same at any number of ranks. Shards are walked in order and again from the first; the
    next one is searched for documents in the background, and so is all but the beginning of the first.
    """
    files = shard_files("train")
    background = ThreadPoolExecutor(max_workers=1)
    tokens, bounds = index_documents(files[0], settings.first_scan_tokens)
    upcoming = background.submit(index_documents, files[0])
    partial_index, document, shard = True, 0, 0
    for step in steps:
        size, longest = row_tokens(step), settings.document_stages[stage(step)]
        rows = None
        while rows is None:
            try:
                rows, document_after = pack_rows(bounds, document, size, longest)
            except IndexError:  # this index is used up: drop the step begun and go on with the one made meanwhile
                if not partial_index and document == 0:
                    fail(f"{files[shard % len(files)]} holds too few documents for one step")
                shard += not partial_index
                document = document if partial_index else 0
                partial_index = False
                tokens, bounds = upcoming.result()
                upcoming = background.submit(index_documents, files[(shard + 1) % len(files)])
        document = document_after
        batch, touched = [], []
        for spans in rows[rank::world_size]:
            lengths = [end - start for start, end in spans]
            lengths[-1] -= 1  # the row's last token is only a target
            row = np.concatenate([tokens[start:end] for start, end in spans]).astype(np.int64)
            inputs, bigrams = as_inputs(row, lengths, document_slots(size), longest)
            batch.append(inputs)
            touched.append(bigrams)
        yield batch, np.concatenate(touched)


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
        yield as_inputs(row, lengths, document_slots(size), size)[0]


def token_bytes(path: Path) -> list[bytes]:
    """The byte strings of GPT-2's tokens but the end-of-text token, in the order of their numbers."""
    if not path.exists():
        fail(f"no {path}, which the prefix loss reads GPT-2's tokens from: set --prefix_loss false to train without it")
    lines = [line.split() for line in path.read_bytes().splitlines()]
    if [int(number) for _, number in lines] != list(range(DOCUMENT_START)):
        fail(f"{path} does not hold GPT-2's {DOCUMENT_START} tokens in order")
    return [base64.b64decode(token) for token, _ in lines]


def prefix_table(vocabulary: list[bytes], size: int) -> Tensor:
    """For each of so many tokens the longest other one that its byte string begins with, or -1."""
    prefixes = np.full(size, -1)
    beginnings = []  # of the current token, each one of the next
    for token in sorted(range(len(vocabulary)), key=vocabulary.__getitem__):
        while beginnings and not vocabulary[token].startswith(vocabulary[beginnings[-1]]):
            beginnings.pop()
        if beginnings:
            prefixes[token] = beginnings[-1]
        beginnings.append(token)
    return torch.from_numpy(prefixes)


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
    dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
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
torch.set_float32_matmul_precision("high")  # TF32 for the dynamic heads' scores, which loses nothing there
if settings.seed >= 0:
    torch.manual_seed(settings.seed)
model = GPT(settings).to(device)
for tensor in (*model.parameters(), model.signs):
    dist.broadcast(tensor.data, src=0)
if model.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
    model.fp8 = False
    log("fallback step:0 fp8 -> bf16: this GPU has no fp8 matmul")

vocabulary = token_bytes(Path(settings.data_dir, "gpt2.tiktoken")) if settings.prefix_loss else []

share = 1 / settings.rows_per_step  # gradients are summed over rows and ranks; the optimizers take the mean of rows
rules = {}
for name, rate, decay, *betas in settings.adam_parameters:
    rate *= settings.head_learning_rate if name in ("lm_head", "embedding") else settings.adam_learning_rate
    decay *= settings.adam_weight_decay
    kind = {"value_tables": TableAdam, "bigram_table": SparseAdam}.get(name, Adam)
    rules[name] = kind(model.get_parameter(name), rate, decay, betas, settings.adam_epsilon, share)
for name, factors in settings.muon_parameters:
    rates = (settings.muon_learning_rate, settings.muon_weight_decay, settings.muon_beta2)
    rules[name] = NorMuon(model.get_parameter(name), factors, *rates, share)
optimizer = Optimizer(rules, settings.sending_order)
compiled_model = fast(model)


def forward_backward(batch: list, bigrams: np.ndarray, step: int) -> Tensor:
    """Gradients of these rows, which use these rows of the bigram table; the last one's loss."""
    weights = to_device(np.array(loss_weights(step)), torch.float32)
    value_rule, bigram_rule = rules["value_tables"], rules["bigram_table"]
    bigram_rule.use(bigrams, last=adam_steps(step))
    for row in batch:
        value_rows, bigram_rows = model.value_rows(row[0]), row[3][None]
        looked_up = value_rule.look_up(value_rows), bigram_rule.look_up(bigram_rows)
        loss = compiled_model(*row, settings.window_stages[stage(step)], weights, looked_up)
        loss.backward()
        value_rule.add(value_rows, looked_up[0])
        bigram_rule.add(bigram_rows, looked_up[1])
    return loss


def update(step: int, exact: bool):
    """Every parameter at every second step, on the gradients of both; else the banks alone. Then the MLP's matrices at
    8 bits."""
    optimizer.step(learning_rate_multiplier(step), muon_momentum(step), adam_steps(step))
    if optimizer.tied and unties(step):
        optimizer.untie()
    model.quantise_mlp(exact)


def train_step(batch: list, bigrams: np.ndarray, step: int):
    """Forward and backward over this rank's rows, then the update."""
    watch_loss(step, forward_backward(batch, bigrams, step))
    watched = settings.telemetry_every and step % settings.telemetry_every == 0
    with telemetry(step, batch[0]) if watched else nullcontext():
        update(step, exact=step < settings.bootstrap_iterations)


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
def telemetry(step: int, row: tuple):
    """Log what an update sees and does: norms of the gradient (averaged over the step's rows), of the weights and of
    the update, the root mean square of each layer's stream for one row, NorMuon's own figures. Guards fp8 as well."""

    def norm(tensors) -> float:
        return math.sqrt(sum(tensor.float().square().sum().item() for tensor in tensors))

    weights = list(model.parameters())
    gradients = [rule.local_gradient().clone() for rule in rules.values()]
    for gradient in gradients:
        dist.all_reduce(gradient)
    previous = [weight.clone() for weight in weights]
    yield
    tokens, _, document_ends, bigrams, longest = row
    _, stream, _ = model.hidden(tokens, bigrams, document_ends, longest, settings.window_stages[stage(step)])
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

# Every graph is compiled, every Triton tile tuned and every communicator opened before the clock starts: by the steps
# at the beginning and around each change of stage, with a row of training and of validation each. Then all that was
# learnt is forgotten.
around = {start + offset for start in stage_starts()[1:] for offset in (-2, -1, 0, 1)}
sampled = [i for i in sorted({0, 1} | around) if 0 <= i < settings.num_iterations]
initial = [tensor.detach().clone() for tensor in (*model.parameters(), model.post_scales)]
model.quantise_mlp(exact=True)
model.rotary.reset()  # on the model's device
reached = 0
for i, (batch, bigrams) in zip(sampled, train_batches(sampled)):
    for now in range(reached, stage(i)):
        model.rotary.extend(settings.window_stages[now][0], settings.window_stages[now + 1][0])
    reached = stage(i)
    with torch.no_grad():
        model.eval()
        compiled_model(*next(val_batches()), settings.window_stages[reached])
        model.train()
    forward_backward(batch[:1], bigrams, i)
    update(i, exact=True)
model.rotary.reset()
optimizer.reset()
model.zero_grad()
with torch.no_grad():
    torch._foreach_copy_([*model.parameters(), model.post_scales], initial)
model.quantise_mlp(exact=True)
del initial

# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------

train_data = train_batches(range(settings.num_iterations))
reached = 0  # the stage
training_time = 0.0  # seconds, validation excluded
gc.collect()  # or the collector does it in some step, and takes half a second
synchronize()
clock = time.perf_counter()
if settings.prefix_loss:
    model.prefixes.copy_(prefix_table(vocabulary, settings.vocab_size))
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations

    # Longer windows as training goes on, longer still for the last validation.
    for now in range(reached, stage(step)):
        model.rotary.extend(settings.window_stages[now][0], settings.window_stages[now + 1][0])
    reached = stage(step)

    if last_step or (settings.val_loss_every and step % settings.val_loss_every == 0):
        synchronize()
        training_time += time.perf_counter() - clock
        val_loss = validate(settings.final_windows if last_step else settings.window_stages[reached])
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

    train_step(*next(train_data), step)
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
