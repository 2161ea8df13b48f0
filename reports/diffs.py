"""What changed between two scripts, as highlighted HTML: a unified diff whose lines keep Python's colours."""

import difflib
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup, escape
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String

CONTEXT = 2
MOST_BYTES = 100_000
"""A diff with more markup than this is cut, and says so: the page has to stay small."""

_CLASSES = ((Comment, "c"), (String, "s"), (Keyword, "k"), (Number, "m"), (Name.Function, "f"), (Name.Class, "f"))


@dataclass(frozen=True)
class Diff:
    """The changed stretches as markup, and how many lines came and went."""

    html: Markup
    added: int
    removed: int
    cut: bool


def diff(before: str, after: str, most_bytes: int = MOST_BYTES) -> Diff:
    """The unified diff of two Python sources, of at most `most_bytes` of markup.

    Every character of the sources is escaped; nothing is executed.
    """
    old, new = before.splitlines(), after.splitlines()
    old_html, new_html = highlighted(before), highlighted(after)
    pieces, added, removed = [], 0, 0
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(CONTEXT):
        first = group[0]
        pieces.append(Markup("<b>line {}</b>").format(first[3] + 1))
        for tag, i1, i2, j1, j2 in group:
            lines = []
            if tag == "equal":
                lines += [Markup("<span>{}</span>").format(line or " ") for line in new_html[j1:j2]]
            else:
                lines += [Markup("<del>{}</del>").format(line or " ") for line in old_html[i1:i2]]
                lines += [Markup("<ins>{}</ins>").format(line or " ") for line in new_html[j1:j2]]
                added, removed = added + j2 - j1, removed + i2 - i1
            pieces += lines
    sizes = accumulate(len(piece.encode()) for piece in pieces)
    kept = sum(size <= most_bytes for size in sizes)
    return Diff(Markup("").join(pieces[:kept]), added, removed, kept < len(pieces))


def highlighted(source: str) -> list[Markup]:
    """The lines of a Python source as markup, one entry a line of `source.splitlines()`."""
    wanted = source.splitlines()
    lines, current = [], []
    for _, kind, value in PythonLexer().get_tokens_unprocessed("\n".join(wanted)):
        name = next((name for ancestor, name in _CLASSES if kind in ancestor), "")
        for index, part in enumerate(value.split("\n")):
            if index:
                lines.append(Markup("").join(current))
                current = []
            if part:
                current.append(Markup('<i class="{}">{}</i>').format(name, part) if name else escape(part))
    return [*lines, Markup("").join(current)] if wanted else []
