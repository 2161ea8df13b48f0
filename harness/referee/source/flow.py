"""What is given to what in a script: names and attributes followed through its assignments, and numbers reckoned out.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import operator

from harness.referee.source.names import Names
from harness.referee.source.nodes import plain

GIVING = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.Return)
SIGNS = {ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Add: "+", ast.Sub: "-", ast.Pow: "**", ast.Mod: "%"}
CHOOSERS = {"builtins.min", "builtins.max"}
_RECKONED = {ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Add: operator.add, ast.Sub: operator.sub}
_DEEPEST = 20


def given_in(names: Names, node: ast.AST) -> list[tuple[object, ast.AST]]:
    """(key of a name, the expression given to it) pairs of one statement."""
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.Return) and node.value is not None:
        owner = names.scope(node)
        return [(("def", getattr(owner, "name", "")), node.value)]
    else:
        return []
    found = []
    for target, value in pairs:
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = (
                value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) else ()
            )
            found += [(key_of(names, each), part) for each, part in zip(target.elts, parts, strict=False)]
        else:
            found.append((key_of(names, target), value))
    return found


def key_of(names: Names, node: ast.AST) -> object:
    """What a value is known by: a name with the scope that binds it, an attribute by its name alone."""
    if isinstance(node, ast.Name):
        return names.binder(node), node.id
    return getattr(node, "attr", None)


def keys_within(names: Names, value: ast.AST) -> set:
    """What the names, attributes and called functions in an expression are known by."""
    called = {("def", plain(node.func)) for node in names.leaves(value) if isinstance(node, ast.Call)}
    return called | {key_of(names, node) for node in names.leaves(value) if isinstance(node, (ast.Name, ast.Attribute))}


def printed_behind(label: str, text: ast.JoinedStr) -> list[ast.AST]:
    """What an f-string puts behind a label such as `train_time:`."""
    return [
        after.value
        for before, after in zip(text.values, text.values[1:], strict=False)
        if isinstance(after, ast.FormattedValue)
        and isinstance(before, ast.Constant)
        and str(before.value).endswith(label)
    ]


class Numbers:
    """The numbers of a script: literals, what is reckoned of them, names and fields that are given one once."""

    def __init__(self, names: Names):
        self._names = names
        self._fields: dict[str, list[ast.AST]] = {}
        for node in names.of(ast.Assign, ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Attribute) or isinstance(names.scope(node), ast.ClassDef):
                    self._fields.setdefault(plain(target) or "", []).append(node.value)

    def value(self, node: ast.AST | None, depth: int = 0) -> float | int | None:
        """The number that an expression always is, None if it is none or not always."""
        if depth > _DEEPEST:
            return None
        if isinstance(node, ast.BinOp) and type(node.op) in _RECKONED:
            left, right = (self.value(side, depth + 1) for side in (node.left, node.right))
            try:
                return None if left is None or right is None else _RECKONED[type(node.op)](left, float(right))
            except ArithmeticError:
                return None
        if isinstance(node, ast.Attribute):
            fields = self._fields.get(node.attr, [])
            return self.value(fields[0], depth + 1) if len(fields) == 1 else None
        found = self._names.value(node)
        return found if type(found) is float or (type(found) is int and abs(found) < 1 << 63) else None
