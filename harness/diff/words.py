"""Whether two lines are versions of one, and which of their words differ."""

import re
from difflib import SequenceMatcher

SIMILAR = 0.55  # least share of equal characters, counted by whole words, at which two lines are versions of one

Spans = tuple[tuple[int, int], ...]


def changed_words(left: str, right: str) -> tuple[Spans, Spans] | None:
    """(start, stop) of the characters that differ, on either side, or None if the lines are not versions of one."""
    if not left.strip() or not right.strip():
        return None
    a, b = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (left, right))
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    common = sum(len("".join(a[block.a : block.a + block.size]).strip()) for block in matcher.get_matching_blocks())
    if 2 * common < SIMILAR * (len(left.strip()) + len(right.strip())):
        return None
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    return _spans(a, [change[1:3] for change in changes]), _spans(b, [change[3:5] for change in changes])


def _spans(words: list[str], ranges: list[tuple[int, int]]) -> Spans:
    ends = [0]
    for word in words:
        ends.append(ends[-1] + len(word))
    return tuple((ends[start], ends[stop]) for start, stop in ranges if stop > start)
