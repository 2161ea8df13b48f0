"""Record 15 · 2024-12-08 · U-net value embeddings, leaner code

Claim      3.95 minutes (1,480 steps at 161.1 ms; 236.9 s, the mean of 75 public logs). Validation loss 3.2785, with a
           standard deviation of 0.0021 (n = 75; fifteen of them end above 3.28).
Hardware   8x H100 80GB, a nightly PyTorch 2.6; 524,288 tokens per step.
New        Value embeddings after the pattern of the U-net: the first layer and the last share one, the second and the
           last but one, and so on, so that six take the place of twelve. Values and value embeddings are weighted by a
           factor each (were: shares of one).
           Muon's updates travel while the next ones are computed: each rank orthogonalises one matrix of a round, and
           an all-gather that does not block brings the round to all. So Newton-Schulz takes a matrix where it took a
           batch, and its products are written out. Its momentum is a moving average (was: a sum).
           A block of 128 keys is visited only if it begins less than the window before the block of queries: what the
           first of them could see of the end of one further back is lost. Tokens are int32.
           With it, retuned: 1,480 steps (was 1,530).
Parent     14 (2024-12-04): value embeddings.
Credit     @leloykun, @YouJiacheng
Source     https://github.com/KellerJordan/modded-nanogpt
Rules      edition 2024-05-28: the first 10 steps are not timed, nor is validation.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 rows in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

Not as in the published run, within the noise of a seed:
  - All ranks go to the next shard together; there, two of the eight went one step before the others.
Not as published, without effect on the mathematics:
  - Fewer than eight GPUs take several rows in turn, as before. The published script ran on eight alone.
  - The rule is not asked about blocks in which every pair may see each other; there, about all that are visited.
  - Rounds of Muon are of one shape (published: of one size), and each has memory of its own to arrive in.
  - No compiler tuning flag is set. What else was made leaner (no wait for the loss, batches copied beside the
    computation, the list of blocks made from the documents' borders) is so in 12 to 14 here already.
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
from torch.nn.parallel import DistributedDataParallel

try:
    import triton
except ImportError:  # CPU builds of PyTorch come without Triton
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
    num_iterations: int = 1480
    rows_per_step: int = 8  # one row per GPU on 8 GPUs
    row_tokens: int = 65_536
    untimed_iterations: int = 10  # the clock starts after them

    # Validation
    val_tokens: int = 10_485_760
    val_loss_every: int = 125

    # Model
    vocab_size: int = 50304  # 50,257 rounded up to a multiple of 128; the padding takes part in the softmax
    num_layers: int = 12
    model_dim: int = 768
    num_heads: int = 6
    mlp_dim: int = 3072
    logit_cap: float = 30.0

    # Attention: the window is how many tokens one sees, itself among them
    window_block: int = 128  # a block of keys is visited whole or not at all
    first_window: int = 64
    final_window: int = 1792  # only seen by the last validation
    window_step: int = 64  # it grows by so much at a time
    rotary_base: int = 10_000

    # Learning rate and optimizers
    cooldown_iterations: int = 600
    embedding_learning_rate: float = 0.6  # embedding and value table
    head_learning_rate: float = 0.008
    scalar_learning_rate: float = 0.04
    adam_beta1: float = 0.8
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    muon_learning_rate: float = 0.05
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    momentum_warmup: int = 300


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


def may_see(query, key, document: Tensor, window: Tensor):
    """Whether a token may attend to another: not to the future, not beyond the window, not to another document. A
    document is opened by its separator; the numbers count separators."""
    return (query >= key) & (query - key < window) & (document[query] == document[key])


def block_mask(document: Tensor, window: Tensor, block: int) -> BlockMask:
    """FlexAttention's mask: `may_see`, over blocks of tokens; document (T,) int32, window a 0-dimensional int32
    tensor: it may grow without a new compilation.

    For each block of queries, the blocks of keys in which every pair may see each other, and those in which some may
    and the rule has to be asked. Numbers rise along the row, so a block's first and last token tell which documents are
    in it, and nothing of size T x T is ever made. A block that begins a window or more before that of the queries is
    left out, with what the first of them could still see of its end.
    """
    blocks = torch.arange(document.size(0) // block, dtype=torch.int32, device=document.device)
    distance = block * (blocks[:, None] - blocks)
    first, last = document.view(-1, block)[:, 0], document.view(-1, block)[:, -1]
    visited = (distance >= 0) & (distance < window) & (first[:, None] <= last)
    full = (distance > 0) & (distance + block - 1 < window) & (last[:, None] == first)
    lists = []
    for kind in (visited & ~full, full):
        order = kind.int().argsort(dim=-1, descending=True, stable=True)
        lists += [kind.sum(dim=-1, dtype=torch.int32)[None, None], order.int()[None, None]]

    def rule(batch, head, query, key):
        return may_see(query, key, document, window)

    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=block, mask_mod=rule)


def dense_mask(document: Tensor, window: Tensor, block: int) -> Tensor:
    """The same mask as a (T, T) bool tensor, for the CPU."""
    position = torch.arange(document.size(0), device=document.device)
    near = block * (position[:, None] // block - position // block) < window
    return near & may_see(position[:, None], position[None, :], document, window)


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
    """1, then down to zero in a straight line."""
    return min(1.0, (settings.num_iterations - step) / settings.cooldown_iterations)


def muon_momentum(step: int) -> float:
    """Up in a straight line over the first steps, then constant."""
    low, high = settings.muon_momentum_start, settings.muon_momentum
    return low + (high - low) * min(1.0, step / settings.momentum_warmup)


def attention_window(step: int) -> int:
    """The attention window in tokens: up in a straight line, rounded down to a multiple of `window_step`."""
    low, high = settings.first_window, settings.final_window
    window = low + (high - low) * step / settings.num_iterations
    return int(window / settings.window_step) * settings.window_step


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension, in the dtype that came in. The eps is that dtype's,
    as was the default of PyTorch 2.6: 2^-7 for bf16."""
    return F.rms_norm(x, (x.size(-1),), eps=torch.finfo(x.dtype).eps).type_as(x)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) within a row. Frequencies are rounded to bf16; angles in
    fp32, tables in bf16."""

    def __init__(self, head_dim: int, length: int, base: int):
        super().__init__()
        frequencies = base ** -(torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.arange(length)[:, None] * frequencies.bfloat16().float()
        self.register_buffer("cos", angles.cos().bfloat16(), persistent=False)
        self.register_buffer("sin", angles.sin().bfloat16(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate (T, heads, head_dim): dimension j turns together with dimension j + head_dim/2."""
        cos, sin = self.cos[: x.size(0), None], self.sin[: x.size(0), None]
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


class Linear(nn.Linear):
    """fp32 weights without a bias, rounded to the dtype of the activations at each use. They start uniform in
    ±1/sqrt(in_features), which is PyTorch's default, rounded once to bf16."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)
        self.weight.data.copy_(self.weight.bfloat16())

    def forward(self, x):
        return F.linear(x, self.weight.type_as(x))


def scalars(*values: float) -> nn.Parameter:
    """Learnt factors in bf16."""
    return nn.Parameter(torch.tensor(values, dtype=torch.bfloat16))


class Attention(nn.Module):
    """Multi-head attention with QK norm; each layer adds an embedding of the token to its values."""

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
        value = self.value_mix[0] * value + self.value_mix[1] * value_embedding.view_as(value)
        query, key = rotary(rms_norm(query)), rotary(rms_norm(key))
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
    """One layer: the stream mixed with the embedding, then attention and MLP, each after a norm and added."""

    def __init__(self, s: Settings):
        super().__init__()
        self.attention, self.mlp = Attention(s), MLP(s)
        self.stream_mix = scalars(1.0, 0.0)

    def forward(self, x, embedding, *attention_inputs):
        x = self.stream_mix[0] * x + self.stream_mix[1] * embedding
        x = x + self.attention(rms_norm(x), *attention_inputs)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """The record's transformer. `forward` returns the mean loss over the row."""

    def __init__(self, s: Settings):
        super().__init__()
        self.settings = s

        def table(columns):
            return nn.Parameter(torch.randn(s.vocab_size, columns).bfloat16())

        self.embedding = table(s.model_dim)
        self.value_table = table(s.num_layers // 2 * s.model_dim)
        self.rotary = Rotary(s.model_dim // s.num_heads, s.row_tokens, s.rotary_base)
        self.blocks = nn.ModuleList([Block(s) for _ in range(s.num_layers)])
        self.skip_weights = scalars(*[1.0] * (s.num_layers // 2))
        self.lm_head = Linear(s.model_dim, s.vocab_size)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Zero where a layer adds to the stream, so that every block starts as nothing, and zero logits."""
        self.lm_head.weight.zero_()
        for block in self.blocks:
            block.attention.output.weight.zero_()
            block.mlp.down.weight.zero_()

    def hidden(self, tokens: Tensor, window: Tensor) -> tuple[Tensor, list]:
        """The final stream (T, model_dim) bf16, and the stream after each layer."""
        s = self.settings
        document = (tokens == DOCUMENT_START).cumsum(0, dtype=torch.int32)
        mask = (block_mask if tokens.is_cuda else dense_mask)(document, window, s.window_block)
        x = embedding = rms_norm(F.embedding(tokens, self.embedding))
        value_embeddings = F.embedding(tokens, self.value_table).chunk(s.num_layers // 2, dim=-1)
        value_embeddings += value_embeddings[::-1]  # mirrored, as the skips are
        stream = []
        for layer, block in enumerate(self.blocks):
            if layer >= s.num_layers // 2:  # the U-net's second half: each layer takes up its mirror image
                x = x + self.skip_weights[layer - s.num_layers // 2] * stream[s.num_layers - 1 - layer]
            x = block(x, embedding, value_embeddings[layer], self.rotary, mask)
            stream.append(x)
        return rms_norm(x), stream

    def forward(self, tokens: Tensor, targets: Tensor, window: Tensor):
        """tokens (T,) int32, targets (T,) int64; window: in tokens, 0-dimensional int32."""
        cap = self.settings.logit_cap
        logits = self.lm_head(self.hidden(tokens, window)[0]).float()
        logits = cap * torch.tanh(logits / cap)
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

torch._dynamo.config.optimize_ddp = False  # keep the graph whole: DDP's splitter may refuse FlexAttention
if settings.seed >= 0:
    torch.manual_seed(settings.seed)
model = GPT(settings).to(device)
compiled_model = fast(model)
parallel_model = DistributedDataParallel(compiled_model, broadcast_buffers=False, gradient_as_bucket_view=True)
matrices = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
tables = [model.embedding, model.value_table]
vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
adam_rates = [settings.embedding_learning_rate, settings.head_learning_rate, settings.scalar_learning_rate]
adam = torch.optim.Adam(
    [{"params": group} for group in (tables, [model.lm_head.weight], vectors)],
    betas=(settings.adam_beta1, settings.adam_beta2), eps=settings.adam_epsilon, fused=True,
)  # fmt: skip
muon = Muon(matrices, settings.muon_learning_rate)


def train_step(batch: list, step: int, window: Tensor):
    """Forward and backward over this rank's rows, then Adam and Muon on the mean gradient."""
    for i, (tokens, targets) in enumerate(batch):
        last = i == len(batch) - 1  # DDP averages over the ranks during the last backward
        with nullcontext() if last else parallel_model.no_sync():
            loss = parallel_model(tokens, targets, window) / accumulation
            loss.backward()
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


@contextmanager
@torch.no_grad()
def telemetry(step: int, row: tuple, window: Tensor):
    """Log what an update sees and does: norms of the gradient, of the weights and of the update, the root mean
    square of each block's output for one row, Muon's own figures."""

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
window = torch.tensor(attention_window(0), dtype=torch.int32, device=device)
training_time = 0.0  # seconds, validation excluded
synchronize()
clock = time.perf_counter()
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations
    if step == settings.untimed_iterations:
        synchronize()
        training_time, clock = 0.0, time.perf_counter()

    window.fill_(attention_window(step))  # longer as training goes on, without a new compilation

    if last_step or (settings.val_loss_every and step % settings.val_loss_every == 0):
        synchronize()
        training_time += time.perf_counter() - clock
        val_loss = validate(window)
        require_finite(step, "validation", val_loss)
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
os._exit(0)  # after DDP on a CPU, ranks that had finished were seen to abort in Python's own shutdown
