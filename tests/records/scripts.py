"""What a train script defines, without launching anything."""

import ast
import sys
import types
from functools import cache
from pathlib import Path


def definitions(folder: Path) -> types.ModuleType:
    """Everything a train script defines before its Setup section, as a module: nothing is launched or read."""
    script = folder / "train.py"
    source = script.read_text(encoding="utf-8")
    head, banner, _ = source.partition(f"# {'-' * 98}\n# Setup\n")
    assert banner, f"{script} has no Setup section"
    module = types.ModuleType(f"record_{folder.name.replace('-', '_')}")
    module.__file__ = str(script)
    sys.modules[module.__name__] = module  # dataclasses and Triton look their module up
    exec(compile(head, str(script), "exec"), module.__dict__)
    module.settings = module.Settings()
    return module


@cache
def texts_of(script: str, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The source of a script's kernels, which stand in a block that asks for Triton, and of these functions."""
    body = ast.parse(script).body
    blocks = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "triton is not None"]
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name in names]
    return tuple(map(ast.unparse, blocks + functions))
