"""What a script does with its data, as far as its text tells: how many validation tokens, which functions make the
token stream, which modules it needs.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import re
import sys

from harness.referee.source.fingerprint import fingerprint
from harness.referee.source.names import Names
from harness.referee.source.nodes import plain, within
from harness.referee.source.validation import READ_CALLS

READERS = re.compile(r"(^|_)(load|shards?|batch(es)?|data|tokens?|documents?|stream|generator)(_|$)|Loader|BOS")
_KNOWN_PACKAGES = {
    "torch",
    "numpy",
    "triton",
    "kernels",
    "flash_attn",
    "flash_attn_interface",
    "huggingface_hub",
    "tqdm",
}


def data_facts(names: Names) -> dict:
    """Facts of the whole script, as a plain dictionary:

    `prints_metrics`: it holds the text of a validation line; `val_tokens`: [value or None, module, line] wherever the
    setting is given; `loader`: digest of each data-loading function's code, by name;
    `imports`: modules that are neither known packages nor part of the log.
    """
    return {
        "prints_metrics": any("val_loss" in str(node.value) for node in names.of(ast.Constant)),
        "val_tokens": _val_tokens(names),
        "loader": loader_of(names.modules, names.within),
        "imports": _foreign_imports(names),
    }


def _val_tokens(names: Names) -> list:
    found = []
    for node in names.of(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.keyword):
        if isinstance(node, ast.Assign):
            given = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.keyword):
            given = [(node, node.value)]
        else:
            given = [(node.target, node.value)] if node.value is not None else []
        for target, value in given:
            name = getattr(target, "id", None) or getattr(target, "attr", None) or getattr(target, "arg", None)
            if name == "val_tokens" and not isinstance(node, ast.AugAssign):
                found.append([whole_number(value), names.module_of(node), value.lineno])
            elif name == "val_tokens":
                found.append([None, names.module_of(node), value.lineno])
    return found


def whole_number(node: ast.AST, depth: int = 0) -> int | None:
    """The value of whole-number arithmetic on literals, None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.BinOp) and depth < 20:
        left, right = whole_number(node.left, depth + 1), whole_number(node.right, depth + 1)
        if left is not None and right is not None:
            if isinstance(node.op, ast.Mult) and max(abs(left), abs(right)) < 1 << 60:
                return left * right
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.FloorDiv) and right:
                return left // right
            if isinstance(node.op, (ast.Pow, ast.LShift)) and 0 <= right <= 64 and abs(left) < 1 << 16:
                return left**right if isinstance(node.op, ast.Pow) else left << right
    return None


def loader_of(modules: dict[str, ast.Module], within=within) -> dict[str, str]:
    """Digest by name of the functions and classes that read shards or build batches: their code, less its annotations,
    docstrings and comments. Definitions inside others belong to them. `within` lists what a node holds."""
    found = {}
    for module, tree in modules.items():
        for node in tree.body:
            defines = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if defines and (READERS.search(node.name) or _reads(within(node))):
                found[f"{module}:{node.name}" if module else node.name] = fingerprint(node)
    return found


def _reads(nodes: list[ast.AST]) -> bool:
    return any(type(each) is ast.Call and plain(each.func) in READ_CALLS for each in nodes)


def _foreign_imports(names: Names) -> list:
    known = _KNOWN_PACKAGES | set(sys.stdlib_module_names) | set(names.modules)
    found = []
    for node in names.of(ast.Import, ast.ImportFrom):
        wanted = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
        found += [[name, node.lineno] for name in wanted if name.split(".")[0] not in known]
    return found
