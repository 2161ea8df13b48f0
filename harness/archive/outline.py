"""The shape of a train script, read without running it: banner sections, definitions, and the claim that opens it."""

import ast
import re
from dataclasses import dataclass
from itertools import groupby, pairwise

OPENING = "Claim and imports"  # what stands before the first banner

_RULE = re.compile(r"# ?-{40,}\s*$")
_HEAD = re.compile(r"(?:async def|def|class)\s+(\w+)")
_COLUMNS = re.compile(r"\S {2,}\S")


def lines_of(source: str) -> list[str]:
    """The lines of a text as editors and Python number them: other separators, such as form feeds, stay inside."""
    return source.removesuffix("\n").split("\n")


@dataclass(frozen=True)
class Section:
    """Lines first .. last (1-based, inclusive) under one banner, the banner itself included."""

    title: str
    first: int
    last: int


def sections(source: str) -> list[Section]:
    """The sections of a script in order; together they cover every line. Titles that come twice get a number."""
    lines = lines_of(source)
    starts, titles = [1], [OPENING]
    for index in range(len(lines) - 2):
        framed = _RULE.match(lines[index]) and _RULE.match(lines[index + 2])
        if framed and lines[index + 1].startswith("# ") and not _RULE.match(lines[index + 1]):
            title = lines[index + 1][2:].strip()
            starts.append(index + 1)
            titles.append(title if title not in titles else f"{title} ({titles.count(title) + 1})")
    ends = [start - 1 for start in starts[1:]] + [len(lines)]
    return [Section(*parts) for parts in zip(titles, starts, ends) if parts[2] >= parts[1]]


def scopes(source: str) -> list[str]:
    """For each line the definitions that enclose it, outermost first: "class Muon", "class Muon › def step", or ""."""
    names, stack, lines = [], [], lines_of(source)
    for line in lines:
        if line.strip() and not line.lstrip().startswith((")", "]", "}")):
            while stack and stack[-1][0] >= _indent(line):
                stack.pop()
            if match := _HEAD.match(line.strip()):
                stack.append((_indent(line), line.strip()[: match.end()]))
        names.append(" › ".join(name for _, name in stack))
    for index in range(len(lines) - 2, -1, -1):  # comments and decorators belong to the definition below them
        line, below = lines[index], lines[index + 1]
        heads = _HEAD.match(below.strip()) or below.lstrip().startswith(("@", "#"))
        if line.lstrip().startswith(("@", "#")) and heads and _indent(line) == _indent(below):
            names[index] = names[index + 1]
    return names


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def docstring_lines(source: str) -> tuple[int, int]:
    """First and last line of the docstring that opens a script, (0, 0) if there is none or the script is no Python."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0, 0
    if body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0].value, "value", None), str):
        return body[0].lineno, body[0].end_lineno
    return 0, 0


def docstring(source: str) -> str:
    """The docstring that opens a script, "" if there is none."""
    first, last = docstring_lines(source)
    if not first:
        return ""
    return ast.get_docstring(ast.parse("\n".join(lines_of(source)[:last]) + "\n")) or ""


def claim(source: str) -> dict[str, str]:
    """The entries of the opening docstring by their keys ("New", "Parent", ...), each joined to running text.

    An entry is a word at the start of a line, spaces, and text that goes on in indented lines. A line of columns stays
    a line.
    """
    entries, key = {}, None
    for line in docstring(source).splitlines()[1:]:
        if match := re.match(r"([A-Z]\w+) {2,}(\S.*)", line):
            key = match[1]
            entries[key] = [match[2]]
        elif key and line.startswith(" ") and line.strip():
            entries[key].append(line.strip())
        else:
            key = None
    return {key: _joined(parts) for key, parts in entries.items()}


def _joined(lines: list[str]) -> str:
    """Lines of prose as one line; those set in columns, as the rows of a table are, by themselves."""
    text = lines[0]
    for before, line in pairwise(lines):
        text += ("\n" if in_columns(before) or in_columns(line) else " ") + line
    return text


def in_columns(line: str) -> bool:
    """Whether a line, its indentation aside, is set in columns: blanks stand together between its words."""
    return _COLUMNS.search(line) is not None


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines [start, stop) that belong to one top-level definition, or to what stands between two."""

    key: str
    start: int
    stop: int

    @property
    def named(self) -> bool:
        """Whether it is a definition."""
        return bool(_HEAD.match(self.key))


def chunks(lines: list[str]) -> list[Chunk]:
    """`lines` cut at their top-level definitions; comments and decorators right above one belong to it."""
    keys, key = [], "begin"
    for line in lines:
        if match := _HEAD.match(line):
            key = line[: match.end()]
        elif line[:1] not in ("", " ", "\t", ")", "]", "}") and not key.startswith("after"):
            key = f"after {key}"
        keys.append(key)
    for index in range(len(lines) - 2, -1, -1):
        if lines[index][:1] in ("@", "#") and not keys[index + 1].startswith("after"):
            keys[index] = keys[index + 1]
    found, start = [], 0
    for key, run in groupby(keys):
        stop = start + len(list(run))
        found.append(Chunk(key, start, stop))
        start = stop
    return found
