"""Record 04 · 2024-10-11 · Muon refined

Claim      22.3 minutes (6,200 steps at 216.33 ms, 1,339.1 s in the public log). Validation loss 3.2785 (n = 1).
Hardware   8x H100 80GB, torch 2.4.1; 524,288 tokens per step.
New        Muon takes the queries', keys' and values' parts of their joint matrix for the three matrices they are, and
           scales every update so that its entries have a root mean square of about 1, as Adam's have. Its rate is now a
           tenth of Adam's, which is doubled. No warmup, and 800 steps fewer. The first batch is taken twice.
Parent     03 (2024-10-04)
Credit     @kellerjordan0, @bozavlado
Source     https://github.com/KellerJordan/modded-nanogpt
Rules      edition 2024-05-28: the first 10 steps are not timed, nor is validation.

Run        torchrun --standalone --nproc_per_node=8 train.py        1, 2 and 4 ranks train on the same tokens: each
                                                                    rank takes 8/N of the step's 8 batches in turn.
           torchrun --standalone --nproc_per_node=2 train.py --num_iterations 20 --seed 1

Not as in the published run, within the noise of a seed:
  - All ranks go to the next shard together; there, two of the eight went one step before the others.
  - The matrices of one shape are orthogonalised as a batch, and no compiler tuning flag is set.
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
from torch.nn.parallel import DistributedDataParallel

try:
    import triton
except ImportError:  # CPU builds of PyTorch come without Triton
    triton = None

# --------------------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Every number of the record. `--name value` on the command line overrides one, and the log says so."""

    # This run: where it reads and writes. Not part of the record.
    data_dir: str = "data/fineweb10B"
    log_file: str = ""  # empty: logs/<uuid>.txt
    seed: int = -1  # -1: not set, as in the published runs
    telemetry_every: int = 0  # steps between telemetry lines; 0 turns telemetry off

    # Length and batch
    num_iterations: int = 6200
    batches_per_step: int = 8  # one batch per GPU on 8 GPUs
    batch_rows: int = 64
    row_tokens: int = 1024
    untimed_iterations: int = 10  # the clock starts after them

    # Validation
    val_tokens: int = 10_485_760
    val_loss_every: int = 125

    # Model
    vocab_size: int = 50257
    num_layers: int = 12
    model_dim: int = 768
    num_heads: int = 12
    mlp_dim: int = 3072
    rotary_base: int = 10_000

    # Learning rate and optimizers
    cooldown_iterations: int = 1800
    adam_learning_rate: float = 0.0036
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    muon_learning_rate: float = 0.00036
    muon_momentum: float = 0.95


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
    """The nearest (semi-)orthogonal matrix to each of a batch (n, rows, columns), roughly: singular values that are not
    tiny end between about 0.7 and 1.2. Five quintic iterations in bf16; zero stays zero."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x  # x @ x.mT is then the smaller of the two Gram matrices
    for _ in range(5):
        gram = x @ x.mT
        cubic = gram @ x
        x = torch.baddbmm(a * x + b * cubic, gram, cubic, alpha=c)
    return x.mT if tall else x


# --------------------------------------------------------------------------------------------------
# Optimizers
# --------------------------------------------------------------------------------------------------

# The table's AdamW (Loshchilov & Hutter 2019) is PyTorch's own, fused.


class Muon:
    """Momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    Every rank updates every matrix, from the gradients that DDP has averaged. Matrices of one shape are stacked and
    orthogonalised as a batch. An update is scaled so that its entries have a root mean square of about 1.
    """

    def __init__(self, matrices: list[nn.Parameter], learning_rate: float, momentum: float):
        self.learning_rate, self.momentum = learning_rate, momentum
        shapes = dict.fromkeys(matrix.shape for matrix in matrices)
        self.groups = [[matrix for matrix in matrices if matrix.shape == shape] for shape in shapes]
        self.buffers = [torch.zeros_like(torch.stack(group)) for group in self.groups]

    @torch.no_grad()
    def step(self, multiplier: float):
        """Update every matrix; `multiplier` is the schedule's factor on the rate."""
        for group, buffer in zip(self.groups, self.buffers):
            update = torch.stack([matrix.grad for matrix in group])
            buffer.mul_(self.momentum).add_(update)
            update.add_(buffer, alpha=self.momentum)  # Nesterov: look ahead along the momentum just formed
            rows, columns = buffer.shape[1:]
            if rows == 3 * columns:  # queries, keys and values: three matrices in one
                update = update.view(-1, columns, columns)
            rate = self.learning_rate * multiplier * math.sqrt(max(update.shape[1:]))
            update = newton_schulz(update).float().reshape(buffer.shape)
            torch._foreach_add_(group, list(update.unbind()), alpha=-rate)

    def orthogonality_error(self) -> float:
        """‖O Oᵀ - I‖ / sqrt(rows) of the first matrix, O what `newton_schulz` makes of its momentum."""
        o = newton_schulz(self.buffers[0])[0].float()
        identity = torch.eye(o.size(0), device=o.device)
        return ((o @ o.T - identity).norm() / math.sqrt(o.size(0))).item()


def learning_rate_multiplier(step: int) -> float:
    """1, then down to zero in a straight line."""
    return min(1.0, (settings.num_iterations - step) / settings.cooldown_iterations)


# --------------------------------------------------------------------------------------------------
# Model
# --------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor) -> Tensor:
    """x scaled to unit root mean square over its last dimension, in the dtype that came in."""
    return F.rms_norm(x, (x.size(-1),), eps=1e-6).type_as(x)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) within a row. Angles and tables in fp32."""

    def __init__(self, head_dim: int, length: int, base: int):
        super().__init__()
        frequencies = base ** -(torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.arange(length)[:, None] * frequencies
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate (rows, tokens, heads, head_dim): dimension j turns together with dimension j + head_dim/2."""
        cos, sin = self.cos[: x.size(1), None], self.sin[: x.size(1), None]
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


# Uniform weights in ±1/sqrt(in_features), which is PyTorch's default.
Linear = partial(nn.Linear, bias=False)


class Attention(nn.Module):
    """Causal multi-head attention within each row; documents in a row see each other."""

    def __init__(self, s: Settings):
        super().__init__()
        self.num_heads = s.num_heads
        self.query_key_value = Linear(s.model_dim, 3 * s.model_dim)
        self.output = Linear(s.model_dim, s.model_dim)

    def forward(self, x, rotary):
        rows, tokens, dim = x.shape
        heads = self.query_key_value(x).view(rows, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = heads.unbind(2)
        query, key = rotary(query), rotary(key)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(rows, tokens, dim))


class MLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, s: Settings):
        super().__init__()
        self.up = Linear(s.model_dim, s.mlp_dim)
        self.down = Linear(s.mlp_dim, s.model_dim)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """One layer: attention and MLP, each after a norm and added to the stream, attention scaled down."""

    def __init__(self, s: Settings):
        super().__init__()
        self.attention, self.mlp = Attention(s), MLP(s)
        self.attention_scale = 1 / math.sqrt(2 * s.num_layers)

    def forward(self, x, rotary):
        x = x + self.attention_scale * self.attention(rms_norm(x), rotary)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """The record's transformer. `forward` returns the mean loss over the batch."""

    def __init__(self, s: Settings):
        super().__init__()
        self.embedding = nn.Embedding(s.vocab_size, s.model_dim)  # also the head
        self.rotary = Rotary(s.model_dim // s.num_heads, s.row_tokens, s.rotary_base)
        self.blocks = nn.ModuleList([Block(s) for _ in range(s.num_layers)])
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """The table as a linear layer's, which it is as the head: PyTorch's default for a table is 48 times as wide."""
        bound = 1 / math.sqrt(self.embedding.embedding_dim)
        self.embedding.weight.uniform_(-bound, bound)

    def hidden(self, tokens: Tensor) -> tuple[Tensor, list]:
        """The final stream (rows, row_tokens, model_dim), and the stream after each layer."""
        x = self.embedding(tokens)
        stream = []
        for block in self.blocks:
            x = block(x, self.rotary)
            stream.append(x)
        return rms_norm(x), stream

    def forward(self, tokens: Tensor, targets: Tensor):
        """tokens and targets (rows, row_tokens) int64. Trained under autocast: the stream is fp32, matmuls are bf16."""
        logits = F.linear(self.hidden(tokens)[0], self.embedding.weight).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


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
    """Tokens and targets of one batch, (batch_rows, row_tokens): each target is the token after."""
    batch = to_device(tokens.astype(np.int64), torch.int64)
    shape = settings.batch_rows, settings.row_tokens
    return batch[:-1].view(shape), batch[1:].view(shape)


def train_batches():
    """Yield for ever what this rank computes in one step: a list of 8/world_size batches' inputs.

    The tokens of a step are consecutive, and the same at any number of ranks. Shards are walked in order and again
    from the first; what is left at the end of one, too short for a step, is dropped.
    """
    size = settings.batch_rows * settings.row_tokens
    per_step = size * settings.batches_per_step
    while True:
        for path in shard_files("train"):
            tokens = open_shard(path)
            if len(tokens) <= per_step:
                fail(f"{path} holds {len(tokens)} tokens, too few for one step of {per_step}")
            for start in range(0, len(tokens) - per_step, per_step):
                firsts = range(start + rank * size, start + per_step, world_size * size)
                yield [as_inputs(tokens[first : first + size + 1]) for first in firsts]


def val_batches():
    """Yield this rank's batches of the validation tokens, in order."""
    tokens = open_shard(shard_files("val")[0])
    size = settings.batch_rows * settings.row_tokens
    if settings.val_tokens % (size * world_size) or len(tokens) <= settings.val_tokens:
        fail(f"{settings.val_tokens} validation tokens are no multiple of {world_size} batches of {size}, or too many")
    for start in range(rank * size, settings.val_tokens, world_size * size):
        yield as_inputs(tokens[start : start + size + 1])


# --------------------------------------------------------------------------------------------------
# Setup
# --------------------------------------------------------------------------------------------------

settings, overrides = read_settings()
rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
accumulation = settings.batches_per_step // world_size
if settings.batches_per_step % world_size:
    fail(f"{world_size} ranks cannot share {settings.batches_per_step} batches evenly: use 1, 2, 4 or 8")
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

if settings.seed >= 0:
    torch.manual_seed(settings.seed)
model = GPT(settings).to(device)
compiled_model = fast(model)
parallel_model = DistributedDataParallel(compiled_model, broadcast_buffers=False, gradient_as_bucket_view=True)
adam = torch.optim.AdamW(
    [model.embedding.weight], betas=(settings.adam_beta1, settings.adam_beta2), eps=settings.adam_epsilon,
    weight_decay=0.0, fused=True,
)  # fmt: skip
muon = Muon(list(model.blocks.parameters()), settings.muon_learning_rate, settings.muon_momentum)
autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16)  # for the forward pass only


def train_step(batch: list, step: int):
    """Forward and backward over this rank's batches, then AdamW and Muon on the mean gradient."""
    for i, (tokens, targets) in enumerate(batch):
        last = i == len(batch) - 1  # DDP averages over the ranks during the last backward
        with nullcontext() if last else parallel_model.no_sync():
            with autocast():
                loss = parallel_model(tokens, targets) / accumulation
            loss.backward()
    watch_loss(step, loss)
    watched = settings.telemetry_every and step % settings.telemetry_every == 0
    with telemetry(step, batch[0]) if watched else nullcontext():
        multiplier = learning_rate_multiplier(step)
        adam.param_groups[0]["lr"] = settings.adam_learning_rate * multiplier
        adam.step()
        muon.step(multiplier)
    model.zero_grad()


@torch.no_grad()
def validate() -> float:
    """Mean loss over the validation tokens, in fp32 throughout, the same on every rank."""
    model.eval()
    losses = [compiled_model(*batch) for batch in val_batches()]
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
def telemetry(step: int, batch: tuple):
    """Log what an update sees and does: norms of the gradient, of the weights and of the update, the root mean
    square of each block's output for one batch, Muon's own figures."""

    def norm(tensors) -> float:
        return math.sqrt(sum(tensor.float().square().sum().item() for tensor in tensors))

    weights = list(model.parameters())
    grad_norm = norm(weight.grad for weight in weights)
    previous = [weight.clone() for weight in weights]
    yield
    with autocast():
        _, stream = model.hidden(batch[0])
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
training_time = 0.0  # seconds, validation excluded
synchronize()
clock = time.perf_counter()
for step in range(settings.num_iterations + 1):
    last_step = step == settings.num_iterations
    if step == settings.untimed_iterations:
        synchronize()
        training_time, clock = 0.0, time.perf_counter()

    if last_step or (settings.val_loss_every and step % settings.val_loss_every == 0):
        synchronize()
        training_time += time.perf_counter() - clock
        val_loss = validate()
        require_finite(step, "validation", val_loss)
        log(
            f"step:{step}/{settings.num_iterations} val_loss:{val_loss:.4f} "
            f"train_time:{1000 * training_time:.0f}ms step_avg:{per_step(training_time, step):.2f}ms"
        )
        synchronize()
        clock = time.perf_counter()
    if last_step:
        break

    if step != 1:  # the published run took its first batch twice
        batch = next(train_data)
    train_step(batch, step)
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
