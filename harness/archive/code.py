"""What runs of a script, as against how it is worded."""

import ast
import hashlib
from pathlib import Path

from harness.archive.run_folder import LOG
from timing.log import LogError
from timing.parts import read_modules


def code_of(source: str) -> str | None:
    """What runs of a script: its syntax tree without docstrings, as text. None if it is no Python."""
    try:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            if documented and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        return ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def ran(folder: Path, facts: dict, script: Path) -> bool:
    """Whether the run in a folder ran this script: the very file, by its SHA-256 in the run's `facts`, or the same code
    in other words. Words that were mended since need no GPU to be proved; for that its log must hold, at its head, the
    source that `facts` names."""
    digest, text = facts.get("script_sha256"), script.read_bytes()
    if digest == hashlib.sha256(text).hexdigest():
        return True
    try:
        modules = read_modules(folder / LOG)
    except (LogError, OSError):
        return False
    source = modules[0].content if len(modules) == 1 else b""
    if digest not in {hashlib.sha256(source + end).hexdigest() for end in (b"", b"\n")}:
        return False
    code = code_of(source.decode(errors="replace"))
    return code is not None and code == code_of(text.decode(errors="replace"))
