"""Shards of a seeded source whose entropy rate is known, for smoke replays on any machine without a download.

The distribution and the derivation of its entropy rate are in `harness.tokens.synthetic_source`.
"""

from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.tokens.manifest import Manifest, fingerprint, read_manifest, shards_on_disk
from harness.tokens.shards import write_shard
from harness.tokens.synthetic_source import (
    DOCUMENT_START,
    LONGEST,
    MEDIAN_LENGTH,
    RESTART,
    STATES,
    Source,
    entropy_rate,
    source,
)

__all__ = ["code_length", "ensure_synthetic", "entropy_rate", "generate"]

RECIPE = 1  # counts up with every change of the source, so that no folder is taken for what it is not
# What `_facts` finds for the seed of every smoke replay, kept because finding it takes longer than starting one.
OF_SEED_0 = {
    "recipe": RECIPE,
    "seed": 0,
    "entropy_nats": 1.870733,
    "unigram_nats": 3.817804,
    "vocabulary": STATES + 1,
    "median_document": MEDIAN_LENGTH,
    "mean_document": 83.116,
}


def generate(tokens: int, seed: int = 0, stream: int = 0, median_length: float = MEDIAN_LENGTH) -> np.ndarray:
    """`tokens` consecutive tokens (uint16) that begin with a document start; the last document may be cut.

    Streams of one seed share the distribution and are independent draws of it.
    """
    model = source(seed, median_length)
    generator = np.random.default_rng([seed, 1, stream])
    lengths = _draw_lengths(model, generator, tokens)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    order = np.argsort(-lengths, kind="stable")  # longest first: the documents still being written are a prefix
    lengths, starts = lengths[order], starts[order]
    stream_of_tokens = np.empty(int(lengths.sum()), dtype=np.uint16)
    stream_of_tokens[starts] = DOCUMENT_START
    state = _draw(np.cumsum(model.stationary), generator, len(lengths))
    for age in range(1, int(lengths[0])):
        alive = int(np.searchsorted(-lengths, -age, side="left"))
        state = state[:alive]
        stream_of_tokens[starts[:alive] + age] = model.ids[state]
        state = _step(model, generator, state)
    return stream_of_tokens[:tokens]


def _draw(cumulative: np.ndarray, generator: np.random.Generator, count: int) -> np.ndarray:
    """`count` independent draws from the distribution with these cumulative probabilities."""
    return np.searchsorted(cumulative[:-1], generator.random(count), side="right")


def _draw_lengths(model: Source, generator: np.random.Generator, tokens: int) -> np.ndarray:
    """Document lengths, just as many as it takes to cover `tokens`."""
    cumulative, lengths = np.cumsum(model.length), np.zeros(0, dtype=np.int64)
    while (covered := int(lengths.sum())) < tokens:
        more = 16 + int(1.05 * (tokens - covered) / model.mean_length)
        lengths = np.concatenate([lengths, _draw(cumulative, generator, more)])
    return lengths[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1]


def _step(model: Source, generator: np.random.Generator, state: np.ndarray) -> np.ndarray:
    """The next state of each of several walks, shape as `state`."""
    restarts = generator.random(len(state)) < RESTART
    following = model.successors[state, _draw(np.cumsum(model.branch), generator, len(state))]
    return np.where(restarts, _draw(np.cumsum(model.zipf), generator, len(state)), following)


def code_length(tokens: np.ndarray, seed: int = 0, median_length: float = MEDIAN_LENGTH) -> np.ndarray:
    """-log p(token | everything before it) in nats under the true distribution, for tokens[1:]; shape (n - 1,).

    `tokens` must begin with a document start. Tokens that the source cannot emit cost infinity.
    """
    model = source(seed, median_length)
    tokens = np.asarray(tokens).astype(np.int64)
    state_of = np.full(DOCUMENT_START + 1, -1)
    state_of[model.ids] = np.arange(STATES)
    is_start = tokens == DOCUMENT_START
    position = np.arange(len(tokens))
    age = (position - np.maximum.accumulate(np.where(is_start, position, 0)) + 1)[:-1]  # tokens of the document so far
    state, before = state_of[tokens[1:]], state_of[tokens[:-1]]
    survival = np.append(np.cumsum(model.length[::-1])[::-1], 0.0)  # P(L >= l), up to l = LONGEST + 1
    age = np.minimum(age, LONGEST + 1)
    ends, goes_on = np.append(model.length, 0.0)[age], survival[np.minimum(age + 1, LONGEST + 1)]
    content = np.where(is_start[:-1], model.stationary[state], model.transition[before, state])
    content = np.where(state >= 0, content, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.log(np.where(is_start[1:], ends, goes_on * content) / survival[age])


def ensure_synthetic(
    data_dir: Path | str,
    *,
    train_shards: int = 2,
    tokens_per_shard: int = 1 << 20,
    val_tokens: int = 1 << 19,
    seed: int = 0,
    median_length: float = MEDIAN_LENGTH,
) -> Manifest:
    """Shards of the synthetic source in `data_dir`, written unless they are there already and intact.

    Raises UserError where the folder holds other data: nothing that this function has not made is ever overwritten.
    """
    if min(train_shards, tokens_per_shard, val_tokens) < 1 or seed < 0:
        raise UserError("the synthetic source needs at least one shard, one token of each split, and a seed from 0 on")
    data_dir = Path(data_dir)
    counts = {"fineweb_val_000000.bin": val_tokens}
    counts |= {f"fineweb_train_{number:06d}.bin": tokens_per_shard for number in range(1, train_shards + 1)}
    facts = OF_SEED_0 if (seed, median_length) == (0, MEDIAN_LENGTH) else _facts(seed, median_length)
    present = _ours(data_dir)
    if present is not None and present.synthetic == facts and _intact(data_dir, present, counts):
        return present
    return _write(data_dir, counts, facts, stale=present)


def _facts(seed: int, median_length: float) -> dict:
    model = source(seed, median_length)
    return {
        "recipe": RECIPE,
        "seed": seed,
        "entropy_nats": round(model.entropy_rate(), 6),
        "unigram_nats": round(model.unigram_entropy(), 6),
        "vocabulary": STATES + 1,
        "median_document": median_length,
        "mean_document": round(model.mean_length, 3),
    }


def _ours(data_dir: Path) -> Manifest | None:
    """The manifest of an earlier call, or None for an empty folder. Raises UserError for a folder of other data."""
    manifest = read_manifest(data_dir)
    if manifest is not None and manifest.name != "synthetic":
        raise UserError(f"{data_dir} holds {manifest.name}: name another folder for the synthetic source (--data-dir)")
    foreign = shards_on_disk(data_dir) - set(manifest.files if manifest else ())
    if foreign:
        raise UserError(f"{data_dir}/{min(foreign)} is not of the synthetic source: name another folder (--data-dir)")
    return manifest


def _intact(data_dir: Path, manifest: Manifest, counts: dict[str, int]) -> bool:
    """Whether the folder holds exactly these shards, each with the bytes that its manifest says."""
    try:
        found = {name: fingerprint(data_dir / name) for name in counts}
    except (UserError, OSError):
        return False
    return found == manifest.files and {name: entry["tokens"] for name, entry in found.items()} == counts


def _write(data_dir: Path, counts: dict[str, int], facts: dict, stale: Manifest | None) -> Manifest:
    """Write the shards, the manifest last, in place of those of an earlier call."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        for name in sorted(set(stale.files) - set(counts)) if stale else ():
            (data_dir / name).unlink(missing_ok=True)
        for stream, (name, tokens) in enumerate(counts.items()):
            drawn = generate(tokens, facts["seed"], stream, facts["median_document"])
            write_shard(data_dir / name, drawn)
        files = {name: fingerprint(data_dir / name) for name in counts}
        revision = f"recipe {RECIPE}, seed {facts['seed']}"
        manifest = Manifest("synthetic", "harness/synthetic.py", revision, files, facts)
        manifest.write(data_dir)
    except OSError as error:
        raise UserError(f"the synthetic shards cannot be written to {data_dir}: {error.strerror}") from error
    return manifest
