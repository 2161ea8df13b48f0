"""Which line of one script is which line of another: patience alignment, tidied up for reading.

Patience (Bram Cohen's idea, `git diff --patience`): lines that occur once in either text are certain landmarks; between
two of them the search begins anew. Definitions are matched by name first, so that no function is explained as the
remains of another.
"""

import re
from bisect import bisect_left
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise

from harness.archive.outline import chunks
from harness.diff.words import changed_words

KINSHIP = 0.3  # least share of common lines at which two blocks of different names count as versions of one


def align(old: list[str], new: list[str]) -> list[int | None]:
    """For each line of `new` the index of the line of `old` that it is, or None; the indices rise."""
    partners: list[int | None] = [None] * len(new)
    for i, j in _kin_in_gaps(old, new, _by_definition(old, new)):
        partners[j] = i
    _drop_chance_matches(old, new, partners)
    _slide(new, partners)
    mirror = _invert(partners, len(old))
    _slide(old, mirror)
    return _invert(mirror, len(new))


def pairs(old: list, new: list) -> list[tuple[int, int]]:
    """Index pairs of equal items, rising on both sides."""
    head, tail = _common_ends(old, new)
    inner = _between(old[head : len(old) - tail], new[head : len(new) - tail])
    return _with_ends(old, new, [(i + head, j + head) for i, j in inner])


def _common_ends(old: list, new: list) -> tuple[int, int]:
    """How many items are equal at the beginning, and how many of the others at the end."""
    head, tail, shorter = 0, 0, min(len(old), len(new))
    while head < shorter and old[head] == new[head]:
        head += 1
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return head, tail


def _with_ends(old: list, new: list, inner: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """`inner` and the pairs of the equal items at both ends."""
    head, tail = _common_ends(old, new)
    first = [(i, i) for i in range(head)]
    return first + inner + [(len(old) - k, len(new) - k) for k in range(tail, 0, -1)]


def _between(old: list, new: list) -> list[tuple[int, int]]:
    """Pairs of two stretches with different ends: by landmarks if there are any, else by the longest common blocks."""
    if not old or not new:
        return []
    once = {item for item, count in Counter(old).items() if count == 1}
    once &= {item for item, count in Counter(new).items() if count == 1}
    where = {item: i for i, item in enumerate(old) if item in once}
    landmarks = _longest_rising([(where[item], j) for j, item in enumerate(new) if item in once])
    if not landmarks:
        blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
        return [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]
    found = []
    for (i, j), (i_next, j_next) in pairwise([(-1, -1), *landmarks, (len(old), len(new))]):
        found += [(i + 1 + a, j + 1 + b) for a, b in pairs(old[i + 1 : i_next], new[j + 1 : j_next])]
        found += [(i_next, j_next)]
    return found[:-1]


def _longest_rising(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence of (i, j) with rising i; j rises already (patience sorting, O(n log n))."""
    tops, piles, below = [], [], {}
    for point in points:
        pile = bisect_left(tops, point[0])
        below[point] = piles[pile - 1] if pile else None
        tops[pile : pile + 1] = [point[0]]
        piles[pile : pile + 1] = [point]
    chain, point = [], piles[-1] if piles else None
    while point is not None:
        chain.append(point)
        point = below[point]
    return chain[::-1]


def _by_definition(old: list[str], new: list[str]) -> list[tuple[int, int]]:
    """Line pairs within the definitions that both sides have under one name."""
    old_chunks, new_chunks = ([chunk for chunk in chunks(side) if chunk.named] for side in (old, new))
    found = []
    for a, b in pairs([chunk.key for chunk in old_chunks], [chunk.key for chunk in new_chunks]):
        left, right = old_chunks[a], new_chunks[b]
        inner = pairs(old[left.start : left.stop], new[right.start : right.stop])
        found += [(left.start + i, right.start + j) for i, j in inner]
    return found


def _kin_in_gaps(old: list[str], new: list[str], found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """`found` and the line pairs between them: all where what is left on both sides has enough in common to be one
    thing under two names, else only banners and blank lines that go on from a pair already found."""
    every = []
    for (i, j), (i_next, j_next) in pairwise([(-1, -1), *found, (len(old), len(new))]):
        left, right = old[i + 1 : i_next], new[j + 1 : j_next]
        inner = pairs(left, right)
        telling = sum(_weight(left[a]) > 0 for a, _ in inner)
        if telling < KINSHIP * min(sum(_weight(line) > 0 for line in side) for side in (left, right)):
            inner = [(a, b) for a, b in _with_ends(left, right, []) if not left[a].startswith(" ")]
        every += [(i + 1 + a, j + 1 + b) for a, b in inner]
        every.append((i_next, j_next))
    return every[:-1]


def _weight(line: str) -> int:
    """Letters and digits in a line: 0 for a blank one or a lone bracket."""
    return len(re.sub(r"[\W_]", "", line))


def _drop_chance_matches(old: list[str], new: list[str], partners: list[int | None]) -> None:
    """Unpair runs of one or two lines that say next to nothing and stand amid rewritten code on both sides.

    Beside a line that is there in two versions such a run is no chance: it holds the paragraphs apart.
    """
    j = 0
    while j < len(new):
        if partners[j] is None:
            j += 1
            continue
        stop = j + 1
        while stop < len(new) and partners[stop] == partners[stop - 1] + 1:
            stop += 1
        trivial = stop - j <= 2 and sum(map(_weight, new[j:stop])) <= 8
        before, after = _gap(partners, j - 1, -1, len(old)), _gap(partners, stop, 1, len(old))
        rewritten = all(map(any, zip(before, after))) and any(before) and any(after)
        if trivial and rewritten and not _beside_versions(old, new, partners, j, stop):
            partners[j:stop] = [None] * (stop - j)
        j = stop


def _beside_versions(old: list[str], new: list[str], partners: list[int | None], j: int, stop: int) -> bool:
    """Whether the lines right before or right after the matched run [j, stop) are versions of each other."""
    i, i_stop = partners[j], partners[stop - 1] + 1
    before = i > 0 and j > 0 and changed_words(old[i - 1], new[j - 1])
    after = i_stop < len(old) and stop < len(new) and changed_words(old[i_stop], new[stop])
    return bool(before or after)


def _gap(partners: list[int | None], j: int, step: int, old_size: int) -> tuple[int, int]:
    """Lines (only in old, only in new) of the gap that begins beside a matched run, walking from `j` by `step`."""
    inside = j - step
    come = 0
    while 0 <= j < len(partners) and partners[j] is None:
        j, come = j + step, come + 1
    edge = partners[j] if 0 <= j < len(partners) else (-1 if step < 0 else old_size)
    return abs(edge - partners[inside]) - 1, come


def _slide(lines: list[str], partners: list[int | None]) -> None:
    """Shift each pure insertion among its equivalent places to where a reader would have put it, in place.

    Inserted after `a` or before it, a block `b a` gives the same text; the best place begins with the least indented
    line, after a blank one.
    """
    start = 0
    while start < len(lines):
        if partners[start] is not None:
            start += 1
            continue
        stop = start
        while stop < len(lines) and partners[stop] is None:
            stop += 1
        start = _best_place(lines, partners, start, stop)


def _best_place(lines: list[str], partners: list[int | None], start: int, stop: int) -> int:
    """Slide the insertion [start, stop) to its best place and return the line after it."""
    if not _pure(partners, start, stop):
        return stop
    while start and partners[start - 1] is not None and lines[start - 1] == lines[stop - 1]:
        if start > 1 and partners[start - 2] is None:
            break
        start, stop = start - 1, stop - 1
        partners[stop], partners[start] = partners[start], None
    places = [(start, _awkwardness(lines, start))]
    while stop < len(lines) and partners[stop] is not None and lines[start] == lines[stop]:
        partners[start], partners[stop] = partners[stop], None
        start, stop = start + 1, stop + 1
        places.append((start, _awkwardness(lines, start)))
        if stop < len(lines) and partners[stop] is None:
            break
    best = min(reversed(places), key=lambda place: place[1])[0]
    while start > best:
        start, stop = start - 1, stop - 1
        partners[stop], partners[start] = partners[start], None
    return stop


def _pure(partners: list[int | None], start: int, stop: int) -> bool:
    """Whether nothing was deleted where [start, stop) was inserted, and no other insertion has slid up to it."""
    if start == 0 or stop == len(partners) or partners[start - 1] is None:
        return False
    return partners[stop] == partners[start - 1] + 1


def _awkwardness(lines: list[str], start: int) -> tuple:
    """How ill a place suits the beginning of an insertion: smaller is better."""
    first, before = lines[start], lines[start - 1].strip() if start else ""
    torn = before.startswith(("@", "#"))  # from what stands right above it
    return (not first.strip(), len(first) - len(first.lstrip()), torn, bool(before))


def _invert(partners: list[int | None], size: int) -> list[int | None]:
    """The same matching seen from the other side, which has `size` lines."""
    mirror: list[int | None] = [None] * size
    for j, i in enumerate(partners):
        if i is not None:
            mirror[i] = j
    return mirror
