"""A log as a stream of blocks of whole lines, in bounded memory whatever the file holds."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from timing.digits import overlapping_words
from timing.run import LogError
from timing.text import printable

BLOCK = 1 << 20
LONGEST_LINE = 1 << 16  # no line that matters is longer; a longer one is skipped, and said so
_PAD = 256  # bytes of zeros behind a block, so that reading ahead from its last line stays inside

UTF_16 = b"\xff\xfe"
_FOREIGN = {
    b"\x1f\x8b": "gzip-compressed; decompress it first: gunzip",
    b"\xfd7zXZ\x00": "xz-compressed; decompress it first: unxz",
    b"PK\x03\x04": "a ZIP archive; unpack it first: unzip",
    b"BZh": "bzip2-compressed; decompress it first: bunzip2",
    b"\x28\xb5\x2f\xfd": "zstandard-compressed; decompress it first: unzstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"%PDF-": "a PDF document; the plain text log is needed",
    b"\x89PNG": "a PNG image; the plain text log is needed",
    b"\x7fELF": "a program; the plain text log is needed",
    b"\xff\xfe\x00\x00": "UTF-32 text; convert it first: iconv -f UTF-32 -t UTF-8",
    UTF_16: "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; convert it first: iconv -f UTF-32 -t UTF-8",
}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Whole lines: line i is `buffer[starts[i]:ends[i]]`, without its newline. The next block reuses the buffer."""

    memory: bytearray
    buffer: np.ndarray  # `memory` as uint8, zeros behind the last line
    words: np.ndarray  # entry i: the 64-bit word of bytes i to i + 7
    starts: np.ndarray  # int64
    ends: np.ndarray  # int64
    offset: int  # of the buffer's first byte in the file
    first_line: int  # number of line 0, from 1
    terminated: bool  # whether the last line ends with a newline


@dataclass
class Tally:
    """What the stream as a whole was: filled while the blocks are read."""

    bytes: int = 0
    lines: int = 0
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    terminated: bool = True
    byte_order_mark: bool = False
    windows_line: int = 0  # first line that ends with \r\n
    nul_line: int = 0  # first line with a NUL byte
    long_line: int = 0  # first line that was skipped for its length


def open_log(path: str | os.PathLike):
    """`path` opened for reading, unbuffered. Raises LogError unless it is a readable regular file; never blocks."""
    name = printable(os.fspath(path), 300)
    try:
        file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115 (the caller closes it)
    except IsADirectoryError:
        raise LogError(f"{name}: is a folder; name a log file") from None
    except (OSError, ValueError) as error:
        raise LogError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise LogError(f"{name}: is not a regular file; name a log file")
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    """Open even a FIFO without a writer at once, so that it can be refused."""
    return os.open(path, flags | os.O_NONBLOCK)


def blocks(file, name: str, tally: Tally) -> Iterator[Block]:
    """The lines of `file` in blocks of about 1 MiB. Raises LogError, with `name`, for a file that is not plain text."""
    memory = bytearray(LONGEST_LINE + BLOCK + _PAD)
    buffer = np.frombuffer(memory, np.uint8)
    words = overlapping_words(buffer)
    kept, skipping = 0, False
    while got := _fill(file, memory, kept):
        fresh = memoryview(memory)[kept : kept + got]
        if not tally.bytes:
            _refuse_foreign(bytes(fresh[:64]), name)
            tally.byte_order_mark = bytes(fresh[:3]) == BYTE_ORDER_MARK
        tally.sha256.update(fresh)
        size, begin = kept + got, 0
        offset = tally.bytes - kept
        tally.bytes += got
        memory[size : size + _PAD] = bytes(_PAD)
        if skipping:
            begin = memory.find(b"\n", 0, size) + 1
            if not begin:
                kept = 0
                continue
            tally.lines += 1
            skipping = False
        elif tally.byte_order_mark and offset == 0:
            begin = len(BYTE_ORDER_MARK)
        ends = np.flatnonzero(buffer[begin:size] == 10)
        ends += begin
        if len(ends):
            yield _block(memory, buffer, words, begin, ends, offset, tally, True)
            begin = int(ends[-1]) + 1
        kept = size - begin
        memory[:kept] = memory[begin:size]
        if kept > LONGEST_LINE:
            tally.long_line = tally.long_line or tally.lines + 1
            kept, skipping = 0, True
    if kept:
        memory[kept : kept + _PAD] = bytes(_PAD)
        yield _block(memory, buffer, words, 0, np.array([kept]), tally.bytes - kept, tally, False)
    tally.lines += skipping
    tally.terminated = not (kept or skipping)


def _fill(file, memory: bytearray, kept: int) -> int:
    """Read up to BLOCK bytes behind the `kept` ones; a short read is not the end, an empty one is."""
    view, got = memoryview(memory)[kept : kept + BLOCK], 0
    while got < BLOCK and (more := file.readinto(view[got:])):
        got += more
    return got


def _block(memory, buffer, words, begin, ends, offset, tally, terminated) -> Block:
    starts = np.empty_like(ends)
    starts[0] = begin
    np.add(ends[:-1], 1, out=starts[1:])
    first_line = tally.lines + 1
    tally.lines += len(ends)
    last = int(ends[-1])
    if not tally.windows_line and (found := memory.find(b"\r", begin, last)) >= 0:  # one byte is found much faster
        found = memory.find(b"\r\n", found, last + 1)
        tally.windows_line = first_line + int(np.searchsorted(ends, found)) if found >= 0 else 0
    if not tally.nul_line and (found := memory.find(b"\0", begin, last)) >= 0:
        tally.nul_line = first_line + int(np.searchsorted(ends, found))
    return Block(memory, buffer, words, starts, ends, offset, first_line, terminated)


def _refuse_foreign(start: bytes, name: str) -> None:
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise LogError(f"{name}: is {what}")
    if len(start) >= 16 and start.strip(b"\0") and not (any(start[::2]) and any(start[1::2])):
        raise LogError(f"{name}: is {_FOREIGN[UTF_16]}")
