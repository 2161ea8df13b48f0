"""One digest for all spellings of one code: what does not run, or only names a run, leaves it as it is.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import hashlib
import re
from functools import cache

_RUN_ID = re.compile(r"(^|_)run_?(id|name)$", re.IGNORECASE)
_SILENT = {"annotation", "returns", "type_comment", "kind", "type_ignores", "ctx"}
_DOCUMENTED = {ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef}
_GIVING = {ast.Assign, ast.AnnAssign, ast.keyword}
_PLAIN = {ast.Assign: "Assign", ast.AnnAssign: "Assign"}


def fingerprint(*trees: ast.AST) -> str:
    """SHA-256 over syntax trees less their docstrings, comments, annotations and the literal that a run id is given.

    `x: int = 1` and `x = 1` are one code, except in the body of a class, where an annotation makes a field. Breadth
    first with the number of children of each field, so that equal digests mean equal trees; no recursion, so that deep
    code is no matter.
    """
    parts, queue, fields = [], list(trees), set()
    for node in queue:
        kind = type(node)
        if kind is ast.ClassDef:
            fields.update(node.body)
        plain = _PLAIN.get(kind) if node not in fields else None
        parts.append(plain or kind.__name__)
        run_id = kind in _GIVING and _names_run(node)
        for name in _spoken(kind):
            if plain and name == "simple":
                continue
            value = getattr(node, name, None)
            if plain and name == "target":
                value = [value]
            if isinstance(value, ast.AST):
                if run_id and name == "value" and isinstance(value, ast.Constant):
                    parts.append("run id")
                else:
                    parts.append("1")
                    queue.append(value)
            elif isinstance(value, list):
                value = _without_docstring(value) if name == "body" and kind in _DOCUMENTED else value
                children = [child for child in value if isinstance(child, ast.AST)]
                rest = [child for child in value if not isinstance(child, ast.AST)]
                parts.append(f"{len(children)}{rest or ''}")
                queue += children
            else:
                parts.append(f"{type(value).__name__} {value!r}")
    return hashlib.sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()


@cache
def _spoken(kind: type[ast.AST]) -> tuple[str, ...]:
    """The fields of a kind of node that tell one code from another."""
    return tuple(name for name in kind._fields if name not in _SILENT)


def _names_run(node: ast.Assign | ast.AnnAssign | ast.keyword) -> bool:
    """Whether a statement or keyword argument gives a run its id."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return bool(node.arg and _RUN_ID.search(node.arg))
    names = [getattr(target, "id", None) or getattr(target, "attr", None) or "" for target in targets]
    return all(map(_RUN_ID.search, names))


def _without_docstring(body: list) -> list:
    first = body[0] if body else None
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if documented else body
