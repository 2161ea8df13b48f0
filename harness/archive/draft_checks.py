"""What can be said of a draft before any test is run: in a blink, and in one line each."""

import ast

from harness.archive.find import discover
from harness.archive.outline import docstring, docstring_lines, lines_of
from harness.archive.record import FACTS, Record


def draft_problems(record: Record) -> list[str]:
    """Why a draft cannot be frozen yet, each reason a line with what to do; [] if nothing speaks against testing it."""
    source = record.read_script()
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [f"{record.script} is no Python: {error}".splitlines()[0]]
    problems = []
    parent = next((one for one in discover() if one.number == record.parent), None)
    if parent is not None and parent.script.is_file():
        before = parent.read_script()
        if docstring(source) and docstring(source) == docstring(before):
            problems.append(
                f"{record.script}: the opening docstring is still {parent.label}'s: say what yours claims, "
                "what is new, and whose work it is"
            )
        if _code(source) == _code(before):
            problems.append(f"{record.script}: the code is still {parent.label}'s: there is nothing new to freeze")
    for name in ("techniques", "credit"):
        if problems and not getattr(record, name):
            problems.append(f"{record.folder / FACTS}: {name} is empty")
    return problems


def _code(source: str) -> list[str]:
    """The lines below the opening docstring."""
    return lines_of(source)[docstring_lines(source)[1] :]


def what_to_change(record: Record) -> list[str]:
    """What the author of a fresh draft has to do, in order."""
    return [
        f"{record.script}: your change, and the opening docstring: Claim, New, Credit, Parent",
        f"{record.folder / FACTS}: title, techniques, credit, source; kind, if it is systems only; [listed] in the end",
        f"harness replay {record.folder}/: does it still run and learn?",
        f"harness diff {record.parent or 'PARENT'} {record.folder}/: does it read like the explanation of your change?",
        f"harness freeze {record.folder}: the contract tests, and then the hash",
    ]
