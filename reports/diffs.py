"""What changed between two scripts, as highlighted HTML whose lines keep Python's colours."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from markupsafe import Markup, escape
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String

MOST_BYTES = 100_000
"""A diff with more markup than this is cut, and says so: the page has to stay small."""

_CLASSES = ((Comment, "c"), (String, "s"), (Keyword, "k"), (Number, "m"), (Name.Function, "f"), (Name.Class, "f"))
_TAGS = {"section": "b", "scope": "em", "note": "small", "same": "span", "gone": "del", "come": "ins"}

Piece = tuple[str, str]  # CSS class of its syntax ("" for none) and text


@dataclass(frozen=True)
class Row:
    """One row of a diff.

    kind: "section", "scope" or "note", which say `text`; or a line of code: "same", "gone" (only in the old script),
    "come" (only in the new one) or "moved" (from elsewhere in the old one).  line: its 1-based number in the old
    script if it is gone, else in the new one.  words: (start, stop) of the characters that differ from the version of
    the line on the other side.
    """

    kind: str
    text: str = ""
    line: int = 0
    words: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Diff:
    """The rows as markup, and whether some were left out."""

    html: Markup
    cut: bool


def diff(old: str, new: str, rows: Iterable[Row], most_bytes: int = MOST_BYTES) -> Diff:
    """`rows` of the diff of two Python sources as at most `most_bytes` of markup.

    Every character of the sources is escaped; nothing is executed.
    """
    before, after = highlighted(old), highlighted(new)
    drawn = [_drawn(row, before if row.kind == "gone" else after) for row in rows]
    kept = sum(size <= most_bytes for size in accumulate(len(row.encode()) for row in drawn))
    return Diff(Markup("").join(drawn[:kept]), kept < len(drawn))


def _drawn(row: Row, lines: list[list[Piece]]) -> Markup:
    """One row as an element."""
    if row.kind == "moved":
        return Markup('<ins class="moved">{}</ins>').format(_code(lines[row.line - 1], row.words))
    code = _code(lines[row.line - 1], row.words) if row.line else row.text
    return Markup("<{0}>{1}</{0}>").format(_TAGS[row.kind], code)


def _code(line: list[Piece], words: tuple[tuple[int, int], ...]) -> Markup:
    """A line of code, its changed words marked; a blank where it is empty, so that it keeps its height."""
    drawn = []
    for kind, text, changed in _cut(line, words):
        part = Markup('<i class="{}">{}</i>').format(kind, text) if kind else escape(text)
        drawn.append(Markup("<mark>{}</mark>").format(part) if changed else part)
    return Markup("").join(drawn) or Markup(" ")


def _cut(line: list[Piece], words: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str, bool]]:
    """The pieces of a line cut where a changed word begins or ends: class, text, whether it changed."""
    bounds, start = [bound for word in words for bound in word], 0
    for kind, text in line:
        stop = start + len(text)
        edges = [start, *(bound for bound in bounds if start < bound < stop), stop]
        for first, last in pairwise(edges):
            changed = any(begin <= first < end for begin, end in words)
            yield kind, text[first - start : last - start], changed
        start = stop


@lru_cache(maxsize=128)  # most scripts stand in two diffs: as the new one and as the old one
def highlighted(source: str) -> list[list[Piece]]:
    """The pieces of each line of a Python source, one entry a line of `source.split("\\n")`."""
    lines: list[list[Piece]] = [[]]
    for _, kind, value in PythonLexer().get_tokens_unprocessed(source):
        name = next((name for ancestor, name in _CLASSES if kind in ancestor), "")
        for index, part in enumerate(value.split("\n")):
            if index:
                lines.append([])
            if part:
                lines[-1].append((name, part))
    return lines
