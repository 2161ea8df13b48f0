"""What of a diff is worth a reader's time: changes with a little context, everything else folded into one line each."""

from dataclasses import dataclass
from itertools import groupby

from harness.diff.diff import Line, SectionDiff

SMALLEST_FOLD = 3  # lines


@dataclass(frozen=True)
class Fold:
    """Lines left out, and why: "same", "away" (moved elsewhere) or "claim" (the opening docstring, rewritten)."""

    reason: str
    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """What was left out, in words."""
        if self.reason == "claim":
            return "its claim, rewritten: --whole shows the lines, `harness show` the new text"
        count = _count(len(self.lines))
        return f"{count} unchanged" if self.reason == "same" else f"{count} moved to line {self.lines[0].peer}"


@dataclass(frozen=True)
class Heading:
    """The definition in which the lines that follow stand."""

    text: str


@dataclass(frozen=True)
class Arrival:
    """The lines that follow, `count` of them, came from line `origin` of the old script on."""

    origin: int
    count: int

    @property
    def text(self) -> str:
        """Whence they came, in words."""
        return f"{_count(self.count)} moved here from line {self.origin} of the old script"


def _count(lines: int) -> str:
    return "1 line" if lines == 1 else f"{lines} lines"


def rows(section: SectionDiff, context: int = 3, whole: bool = False) -> list[Line | Fold | Heading | Arrival]:
    """The rows of one section to be drawn. With `whole`, nothing that changed is folded."""
    lines = section.lines
    near = _near_changes(lines, context, whole)
    reworded = not whole and any(line.claim and line.kind != "same" for line in lines)

    def treatment(index: int) -> tuple[str, int]:
        """What becomes of a line; lines of different moves are kept apart by how far each moved."""
        line = lines[index]
        if line.claim and reworded:
            return "claim", 0
        if line.moved:
            how = "here" if line.kind == "come" else "leaves" if whole else "away"
            return how, line.peer - (line.new or line.old)
        return "shown" if line.kind != "same" or index in near else "same", 0

    banner = _banner(lines)
    found, scope = [], None
    for (how, _), indices in groupby(range(banner, len(lines)), key=treatment):
        block = tuple(lines[index] for index in indices)
        if how in ("same", "away", "claim"):
            found.append(Fold(how, block))
            scope = None if how == "same" else scope
            continue
        if how == "here":
            found.append(Arrival(block[0].peer, len(block)))
        for line in block:
            if line.text.strip():
                if line.scope and scope is None and not _is_head(line):
                    found.append(Heading(line.scope))
                scope = line.scope
            found.append(line)
    return found


def _banner(lines: tuple[Line, ...]) -> int:
    """How many lines the unchanged banner of a section takes, which its title in the diff says already."""
    framed = len(lines) > 2 and all(line.kind == "same" for line in lines[:3])
    if not (framed and lines[0].text == lines[2].text and lines[0].text.startswith("# ---")):
        return 0
    return 4 if len(lines) > 3 and lines[3].kind == "same" and not lines[3].text else 3


def _near_changes(lines: tuple[Line, ...], context: int, whole: bool) -> set[int]:
    """Indices of the unchanged lines within `context` lines of a change that is itself shown."""
    folded = [not whole and (line.claim or (line.moved and line.kind == "gone")) for line in lines]
    shown = [index for index, line in enumerate(lines) if line.kind != "same" and not folded[index]]
    near = {near for index in shown for near in range(index - context, index + context + 1)}
    for index in sorted(near):  # a fold takes a line too: it must be worth it
        if index + 1 not in near and any(index + ahead in near for ahead in range(2, SMALLEST_FOLD + 1)):
            near |= set(range(index + 1, index + SMALLEST_FOLD))
    return near


def _is_head(line: Line) -> bool:
    """Whether a line is the head of its own scope, which needs no heading above it."""
    name = line.scope.rpartition(" › ")[2]
    return line.text.strip().startswith((name, "@", "#"))


def side_by_side(block: list[Line]) -> list[tuple[Line | None, Line | None]]:
    """Rows of two columns for consecutive lines: versions of one line face each other, what has no version faces
    nothing."""
    facing, waiting = [], []
    for line in block:
        if line.kind == "same":
            facing += [(gone, None) for gone in waiting] + [(line, line)]
            waiting = []
        elif line.kind == "gone":
            waiting.append(line)
        elif not line.moved and any(gone.old == line.peer for gone in waiting):
            while waiting[0].old != line.peer:
                facing.append((waiting.pop(0), None))
            facing.append((waiting.pop(0), line))
        else:
            facing.append((None, line))
    return facing + [(gone, None) for gone in waiting]
