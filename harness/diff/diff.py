"""What changed between two train scripts: lines, moved blocks and changed words, section by section."""

import re
from dataclasses import dataclass, replace

from harness.archive.outline import docstring_lines, lines_of, scopes, sections
from harness.diff.align import align
from harness.diff.words import changed_words

REACH = 12  # added lines that are looked at for the version of a deleted one
SMALLEST_LINES = 3  # fewer telling lines than this, or fewer letters, and a "move" is a coincidence
SMALLEST_LETTERS = 60


@dataclass(frozen=True)
class Line:
    """One line of a diff.

    kind: "same", "gone" (only in old) or "come" (only in new).  old, new: 1-based line numbers, None on the side that
    lacks it.  scope: the definitions around it.  peer: number, on the other side, of the line that it is a version or,
    if `moved`, a copy of.  words: (start, stop) of the characters that differ from that version.
    """

    kind: str
    text: str
    old: int | None
    new: int | None
    scope: str = ""
    peer: int | None = None
    moved: bool = False
    words: tuple[tuple[int, int], ...] = ()
    claim: bool = False  # part of the docstring that opens the script


@dataclass(frozen=True)
class SectionDiff:
    """One banner section of either script, or of both."""

    title: str
    lines: tuple[Line, ...]

    def count(self, kind: str, moved: bool = False) -> int:
        """Lines of a kind, moved ones apart from the others."""
        return sum(line.kind == kind and line.moved == moved for line in self.lines)

    @property
    def changed(self) -> bool:
        """Whether anything in it is not the same."""
        return any(line.kind != "same" for line in self.lines)


def compare(old: str, new: str) -> list[SectionDiff]:
    """The diff of two scripts' sources in the order of `new`; a section that only `old` has follows its predecessor."""
    old_parts = {part.title: part for part in sections(old)}
    new_parts = {part.title: part for part in sections(new)}
    titles = list(new_parts)
    for before, title in zip([None, *old_parts], old_parts):
        if title not in new_parts:
            titles.insert(titles.index(before) + 1 if before in titles else 0, title)
    context = (lines_of(old), lines_of(new), scopes(old), scopes(new))
    found = [SectionDiff(title, _section(old_parts.get(title), new_parts.get(title), *context)) for title in titles]
    return _mark_claim(_mark_moves(found), docstring_lines(old), docstring_lines(new))


def _section(old_part, new_part, old: list[str], new: list[str], old_scopes: list[str], new_scopes: list[str]) -> tuple:
    """Lines of one section; a part is None on the side that lacks it."""
    a, a_end = (old_part.first - 1, old_part.last) if old_part else (0, 0)
    b, b_end = (new_part.first - 1, new_part.last) if new_part else (0, 0)
    partners = align(old[a:a_end], new[b:b_end])
    lines, i = [], a
    for j, partner in zip([*range(b, b_end), b_end], [*partners, a_end - a]):
        if partner is None:
            continue
        come_from = lines[-1].new if lines and lines[-1].new else b
        gap = [Line("gone", old[k], k + 1, None, old_scopes[k]) for k in range(i, a + partner)]
        gap += [Line("come", new[k], None, k + 1, new_scopes[k]) for k in range(come_from, j)]
        lines += _pair_versions(gap)
        if j < b_end:
            lines.append(Line("same", new[j], a + partner + 1, j + 1, new_scopes[j]))
        i = a + partner + 1
    return tuple(lines)


def _pair_versions(gap: list[Line]) -> list[Line]:
    """The lines of one gap, deleted ones first, with versions of one line tied to each other and their words marked."""
    gone = [line for line in gap if line.kind == "gone"]
    come = [line for line in gap if line.kind == "come"]
    start = 0
    for i, left in enumerate(gone):
        for j in range(start, min(start + REACH, len(come))):
            words = changed_words(left.text, come[j].text)
            if words is not None:
                gone[i] = replace(left, peer=come[j].new, words=words[0])
                come[j] = replace(come[j], peer=left.old, words=words[1])
                start = j + 1
                break
    return gone + come


def _mark_moves(found: list[SectionDiff]) -> list[SectionDiff]:
    """Tie the lines of moved blocks to each other, wherever in the scripts they are."""
    lines = [line for part in found for line in part.lines]
    gone = {line.old: line.text for line in lines if line.kind == "gone"}
    come = {line.new: line.text for line in lines if line.kind == "come"}
    to, origin = {}, {}
    for i, j, length in find_moves(gone, come):
        to |= {i + k: j + k for k in range(length)}
        origin |= {j + k: i + k for k in range(length)}

    def marked(line: Line) -> Line:
        if line.kind == "gone" and line.old in to:
            return replace(line, peer=to[line.old], moved=True, words=())
        if line.kind == "come" and line.new in origin:
            return replace(line, peer=origin[line.new], moved=True, words=())
        if (line.kind == "gone" and line.peer in origin) or (line.kind == "come" and line.peer in to):
            return replace(line, peer=None, words=())  # its version turned out to have come from elsewhere
        return line

    return [replace(part, lines=tuple(map(marked, part.lines))) for part in found]


def _mark_claim(found: list[SectionDiff], old: tuple[int, int], new: tuple[int, int]) -> list[SectionDiff]:
    """Mark the lines of either opening docstring."""

    def inside(line: Line) -> bool:
        return old[0] <= (line.old or -1) <= old[1] or new[0] <= (line.new or -1) <= new[1]

    return [
        replace(part, lines=tuple(replace(line, claim=True) if inside(line) else line for line in part.lines))
        for part in found
    ]


def find_moves(gone: dict[int, str], come: dict[int, str]) -> list[tuple[int, int, int]]:
    """Moves (first line in old, first line in new, lines) among deleted and added lines, given by line number.

    The lines of a block are consecutive on both sides and equal up to one common change of indentation. Longer blocks
    win over shorter ones; no line moves twice.
    """
    gone, come = dict(gone), dict(come)
    places: dict[str, list[int]] = {}
    for number, text in gone.items():
        places.setdefault(text.strip(), []).append(number)
    candidates = [
        (_length(gone, come, i, j), i, j)
        for j, text in come.items()
        if text.strip()
        for i in places.get(text.strip(), ())
    ]
    moves = []
    for _, i, j in sorted(candidates, key=lambda found: (-found[0], found[2], found[1])):
        length = _length(gone, come, i, j) if i in gone and j in come else 0
        if _counts([come[j + k] for k in range(length)]):
            moves.append((i, j, length))
            for k in range(length):
                del gone[i + k], come[j + k]
    return sorted(moves, key=lambda move: move[1])


def _length(gone: dict[int, str], come: dict[int, str], i: int, j: int) -> int:
    """How many lines from `i` in old and `j` in new on are the same block, blank lines at its end included."""
    shift, length = _indent(come[j]) - _indent(gone[i]), 0
    while i + length in gone and j + length in come:
        left, right = gone[i + length], come[j + length]
        if left.strip() != right.strip() or (right.strip() and _indent(right) - _indent(left) != shift):
            break
        length += 1
    return length


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _counts(block: list[str]) -> bool:
    """Whether a block says enough to be recognised rather than met by chance."""
    letters = [len(re.sub(r"[\W_]", "", line)) for line in block]
    return sum(map(bool, letters)) >= SMALLEST_LINES and sum(letters) >= SMALLEST_LETTERS
