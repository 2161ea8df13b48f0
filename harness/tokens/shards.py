"""The token shard format of the speedrun (`.bin`): 256 little-endian int32 of header, then one uint16 per token.

    header[0]   magic number 20240520
    header[1]   version 1
    header[2]   number of tokens
    header[3:]  zeros

The format is that of llm.c's `dev/data/fineweb.py`, in which all FineWeb shards of the speedrun are published.
"""

from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.files import write_whole

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN_BYTES = 2
VOCABULARY = 50257  # GPT-2; the last id, 50256, starts every document
MAX_TOKENS = 2**31 - 1  # the count is a signed 32-bit integer

_CHUNK = 1 << 24  # tokens per look at a shard: 32 MiB of it in memory at a time


class ShardError(UserError):
    """A shard that cannot be trusted. The message names the file, the byte offset of the defect and what was found."""

    def __init__(self, path: Path | str, offset: int, defect: str):
        self.path, self.offset, self.defect = Path(path), offset, defect
        super().__init__(f"{path}: byte {offset}: {defect}")


def read_header(path: Path | str) -> int:
    """Number of tokens that the shard at `path` announces, once magic, version and file size agree with it.

    Raises ShardError where they do not, or where the file cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise ShardError(path, 0, f"cannot be read: {error.strerror}") from error
    if len(header) < HEADER_BYTES:
        raise ShardError(path, len(header), f"the file ends inside the {HEADER_BYTES}-byte header; fetch it again")
    magic, version, tokens = (int(field) for field in np.frombuffer(header, "<i4", count=3))
    if magic != MAGIC:
        raise ShardError(path, 0, f"magic number {magic} is not {MAGIC}: not a token shard")
    if version != VERSION:
        raise ShardError(path, 4, f"version {version} is not {VERSION}")
    if tokens < 0:
        raise ShardError(path, 8, f"a token count of {tokens}")
    expected = HEADER_BYTES + TOKEN_BYTES * tokens
    if size != expected:
        defect = f"{tokens} tokens announced need {expected} bytes, the file has {size}"
        raise ShardError(path, min(size, expected), f"{defect}; fetch it again")
    return tokens


def open_shard(path: Path | str) -> np.memmap:
    """The tokens of the shard at `path`: uint16, shape (tokens,), read-only and memory-mapped. Raises ShardError."""
    tokens = read_header(path)
    if tokens == 0:
        raise ShardError(path, 8, "a shard without tokens")
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(tokens,))


def check_shard(path: Path | str) -> int:
    """Read the whole shard, make sure that every token is a GPT-2 id, and return their number. Raises ShardError."""
    tokens = open_shard(path)
    position = _first_foreign(tokens)
    if position is not None:
        offset = HEADER_BYTES + TOKEN_BYTES * position
        defect = f"token {int(tokens[position])} at position {position} is outside the vocabulary of {VOCABULARY}"
        raise ShardError(path, offset, defect)
    return len(tokens)


def write_shard(path: Path | str, tokens) -> Path:
    """Write `tokens` (integers in [0, 50257), shape (n,), n >= 1) as a shard, whole or not at all.

    Raises ShardError if they do not fit the format, OSError as the file system gives it.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ShardError(path, HEADER_BYTES, f"one row of integers expected, got {tokens.dtype} {tokens.shape}")
    if not 1 <= len(tokens) <= MAX_TOKENS:
        raise ShardError(path, 8, f"a token count of {len(tokens)} does not fit the format (1 to {MAX_TOKENS})")
    position = _first_foreign(tokens)
    if position is not None:
        offset = HEADER_BYTES + TOKEN_BYTES * position
        raise ShardError(path, offset, f"token {int(tokens[position])} is outside the vocabulary of {VOCABULARY}")
    header = np.zeros(256, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    return write_whole(path, header.tobytes() + tokens.astype("<u2").tobytes())


def _first_foreign(tokens: np.ndarray) -> int | None:
    """Position of the first token outside the vocabulary, or None. `tokens` is looked at in chunks of bounded size."""
    for start in range(0, len(tokens), _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        foreign = (chunk >= VOCABULARY) | (chunk < 0)
        if foreign.any():
            return start + int(foreign.argmax())
    return None
