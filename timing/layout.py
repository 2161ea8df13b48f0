"""Where the parts of a log stand: the source with its helper modules, the environment, the metrics.

[100 x "="]                     some logs open with one
<source of the training script>
[helper modules, each under 40 x "-", "# file.py", 40 x "-"]
100 x "="
<environment>
100 x "="
[<more text>, 100 x "="]
<metric lines>
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

BANNER = b"=" * 100
SOURCES_KEPT = 4  # the logs of one script share its source: what is known of the last few is not found out again
_NAMED = re.compile(rb"^-{40}\r?\n# [^\r\n]{1,300}\.py\r?$", re.MULTILINE)  # quick to tell that there is no helper

# Strings and comments of Python, far enough to know whether a place stands inside a triple-quoted string. Possessive
# repetition of classes that exclude their end: the scan is linear.
_QUOTED = re.compile(
    rb'"""|'
    rb"'''|"
    rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?|'
    rb"'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'?|"
    rb"#[^\n]*+",
    re.DOTALL,
)
_ENVIRONMENT = re.compile(rb"\s*(?:Running |nvidia-smi|NVIDIA-SMI|Using |world_size|Python |Py[Tt]orch |\+-{20})")
_METRIC = re.compile(rb"^(?:step:\d+/\d+ |s:\d+ t(?:el|rl):)", re.MULTILINE)
_PYTHON = re.compile(
    rb"^(?:import [\w.]|from [\w.]+ import |(?:async )?def \w|class \w|if __name__|@\w|#!|\"\"\"|''')", re.MULTILINE
)
_HELPER = re.compile(rb"^-{40}\r?\n# ([^\r\n]{1,300}\.py)\r?\n-{40}(?:\r?\n(?:\r?\n)?|\Z)", re.MULTILINE)
_NEWLINES = re.compile(rb"\r?\n?\r?\n?\Z")  # before a helper's banner: a search that began with them would be slow


@dataclass(frozen=True)
class Banner:
    """A line of 100 `=`: its first byte and its line, from 1."""

    offset: int
    line: int


@dataclass(frozen=True)
class Layout:
    """Byte ranges of a log's parts. No source: `source_start == source_end`."""

    source_start: int
    source_end: int
    source_line: int | None
    environment_start: int  # metric lines count from here
    environment_line: int
    odd: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Part:
    """A module in a source block: the banner bytes before it (`glue`), its name ("" for the script) and its bytes.

    Glue and content of all parts, one after the other, are the source block's bytes.
    """

    glue: bytes
    name: str
    content: bytes


def find_layout(head: bytes, banners: list[Banner], start: int = 0) -> Layout:
    """Divide a log, of which `head` holds the beginning up to and with the line after the last of `banners`.

    `start` is the offset of the text behind a byte order mark. The source ends at the first banner that is not part
    of a string of the source and that an environment follows, or else at the first of either kind.
    """
    line = 1
    if banners and not head[start : banners[0].offset].strip():
        start, line = _after(head, banners[0].offset), banners[0].line + 1
        banners = banners[1:]
    none = Layout(start, start, None, start, line)
    if not banners or _ENVIRONMENT.match(head, start):
        return none
    end, odd = _source_end(head, start, banners)
    source = head[start : end.offset]
    if not _is_python(source):
        return none
    return Layout(start, start + len(_unprinted(source)), line, _after(head, end.offset), end.line + 1, odd)


def first_metric(text: bytes) -> int:
    """Where the first metric line in `text` starts; its length if there is none."""
    match = _METRIC.search(text)
    return match.start() if match else len(text)


@lru_cache(maxsize=SOURCES_KEPT)
def split_helpers(source: bytes) -> tuple[Part, ...]:
    """The modules in a source block: the script first, then each appended helper module."""
    parts, glue, name, begin = [], b"", "", 0
    for match in _HELPER.finditer(source) if _NAMED.search(source) else ():
        end = _NEWLINES.search(source, max(begin, match.start() - 4), match.start()).start()
        parts.append(Part(glue, name, source[begin:end]))
        glue, name, begin = source[end : match.end()], match[1].decode(errors="replace"), match.end()
    return (*parts, Part(glue, name, source[begin:]))


def renderings(modules: Sequence[Part]) -> list[bytes]:
    """The ways in which a source block is hashed by one tool or another: with its helper modules or the script alone,
    as it stands, without a newline at its end, or with just one. Windows line ends count as Unix ones."""
    block = b"".join(part.glue + part.content for part in modules).replace(b"\r\n", b"\n")
    texts = [block, modules[0].content.replace(b"\r\n", b"\n")] if len(modules) > 1 else [block]
    found = [form for text in texts for form in (text, text.rstrip(b"\n"), text.rstrip(b"\n") + b"\n")]
    found += [text.removesuffix(b"\n") for text in texts]
    return list(dict.fromkeys(found))


def _unprinted(source: bytes) -> bytes:
    """`source` without the newline that print() put behind it: scripts end with one newline, printed ones with two."""
    for newline in (b"\r\n", b"\n"):
        if source.endswith(2 * newline):
            return source[: -len(newline)]
    return source


def _source_end(head: bytes, start: int, banners: list[Banner]) -> tuple[Banner, tuple[tuple[int, str], ...]]:
    """The banner that ends the source, and what is odd about it. As a rule that is the first, and nothing more needs to
    be known of the text than whether it leaves a string open there: the logs of one source share it."""
    if not _leaves_open(head[start : banners[0].offset]) and _ENVIRONMENT.match(head, _after(head, banners[0].offset)):
        return banners[0], ()
    inside = _strings(head, start, banners[-1].offset)
    free = [banner for banner in banners if not any(a <= banner.offset < b for a, b in inside)]
    outside = set(free)
    followed = [banner for banner in banners if _ENVIRONMENT.match(head, _after(head, banner.offset))]
    best = next((banner for banner in followed if banner in outside), None)
    if best is None and (followed or not free):
        best = (followed or banners)[0]
        return best, ((best.line, "the quotes of the source do not pair: it may be cut, or not be Python"),)
    if best is None or _METRIC.search(head, free[0].offset, best.offset):
        best = free[0]
    return best, ()


@lru_cache(maxsize=SOURCES_KEPT)
def _is_python(text: bytes) -> bool:
    """Whether a line of Python stands in `text`, before any metric line."""
    python = _PYTHON.search(text)
    return python is not None and not _METRIC.search(text, 0, python.start())


@lru_cache(maxsize=SOURCES_KEPT)
def _leaves_open(text: bytes) -> bool:
    """Whether a triple-quoted string is still open where `text` ends."""
    position = 0
    while match := _QUOTED.search(text, position):
        position = match.end()
        if match[0] in (b'"""', b"'''"):
            position = _closed(text, match[0], position)
            if position == len(text) and not text.endswith(match[0]):
                return True
    return False


def _strings(text: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where the triple-quoted strings stand that hold a line of 100 `=`; an open last one reaches to the end."""
    spans, position = [], start
    while match := _QUOTED.search(text, position, end):
        position = match.end()
        if match[0] in (b'"""', b"'''"):
            position = _closed(text, match[0], position)
            if text.find(BANNER, match.start(), position) >= 0:
                spans.append((match.start(), position))
    return spans


def _closed(text: bytes, quotes: bytes, position: int) -> int:
    """The end of the triple-quoted string whose inside starts at `position`; a quote behind a backslash is inside."""
    while (found := text.find(quotes, position)) >= 0:
        inside = text[position:found]
        if (len(inside) - len(inside.rstrip(b"\\"))) % 2 == 0:
            return found + len(quotes)
        position = found + 1
    return len(text)


def _after(text: bytes, offset: int) -> int:
    newline = text.find(b"\n", offset)
    return newline + 1 if newline >= 0 else len(text)
