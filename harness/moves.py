"""Blocks that left one place of a script and turned up in another."""

import re

SMALLEST_LINES = 3  # fewer telling lines than this, or fewer letters, and a "move" is a coincidence
SMALLEST_LETTERS = 60


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
