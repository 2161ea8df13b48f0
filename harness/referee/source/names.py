"""Which library object an expression of a script means, followed through imports and assignments; nothing is executed.

An origin is a dotted path (`torch._inductor.config`), with builtins as `builtins.exec`, and with a module of the log
itself as `@name`. Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import builtins
from collections import Counter

from harness.referee.source.nodes import SCOPES, Nodes

CONFIG_MODULES = ("torch._inductor.config", "torch._dynamo.config", "torch._functorch.config", "torch.compiler.config")
_CONFIG_NAMES = {"config", "inductor_config", "dynamo_config"}
_BINDING = (ast.Name, ast.arg, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BINDING += (ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.Assign, ast.AnnAssign, ast.NamedExpr)
_LITERALS = {ast.Constant, ast.UnaryOp, ast.BinOp, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Call}
_ROUNDS = 25


def canonical(origin: str) -> str:
    """`origin` with the configuration modules under their own names: other modules of torch hold references to them."""
    parts = origin.split(".")
    if parts[:2] in (["torch", "_inductor"], ["torch", "_dynamo"]):
        for at, part in enumerate(parts[2:], start=2):
            if part in _CONFIG_NAMES:
                return ".".join([*parts[:2], "config", *parts[at + 1 :]])
    return origin


def constant(node: ast.AST | None):
    """The value of a literal (numbers, strings, None, dicts of them...), or `...` where it is none."""
    if type(node) not in _LITERALS:
        return ...
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, AttributeError):
        return ...


class Names(Nodes):
    """The names of all modules of one script, over its nodes.

    `settled` is False if aliases of aliases were still being followed when patience ended.
    """

    def __init__(self, modules: dict[str, ast.Module]):
        super().__init__(modules)
        self._binders: dict[tuple[ast.AST, str], ast.AST | None] = {}
        self._resolved: dict[object, set[str]] = {}
        self._bound: dict[ast.AST, set[str]] = {scope: set() for scope in self.of(*SCOPES)}
        self._origins: dict[tuple[ast.AST, str], set[str]] = {}
        self._values: dict[tuple[ast.AST, str], list[ast.AST]] = {}
        self._bindings: Counter = Counter()
        self._foreign: dict[ast.AST, set[str]] = {}
        for name, tree in modules.items():
            self._bind(name, tree)
        self._imports = self.of(ast.Import, ast.ImportFrom)
        self.settled = any(not self._propagate() for _ in range(_ROUNDS))

    def value(self, node: ast.AST | None):
        """Like `constant`, and a name that is assigned exactly once stands for the literal it was given."""
        if isinstance(node, ast.Name) and (scope := self.binder(node)) is not None:
            given = self._values.get((scope, node.id), [])
            if len(given) == 1 and self._bindings[scope, node.id] == 1:
                node = given[0]
        if isinstance(node, ast.Call) and self._trace(node.func) == {"builtins.dict"} and not node.args:
            keys = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
            return ... if None in keys else keys
        return constant(node)

    def resolve(self, node: ast.AST | None) -> set[str]:
        """The origins that `node` may have; empty if it is nothing that imports or assignments account for."""
        key = (self.scope(node), node.id) if isinstance(node, ast.Name) else node
        if key not in self._resolved:
            self._resolved[key] = self._trace(node)
        return self._resolved[key]

    def _trace(self, node: ast.AST | None, depth: int = 0) -> set[str]:
        """`resolve`, by what is known of the names so far."""
        if node is None or depth > 50:
            return set()
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return {found for base in self._trace(node.value, depth + 1) for found in self._member(base, node.attr)}
        if isinstance(node, ast.Subscript):
            return self._item(node, depth)
        if isinstance(node, ast.Call):
            return self._result(node, depth)
        if isinstance(node, ast.IfExp):
            return self._trace(node.body, depth + 1) | self._trace(node.orelse, depth + 1)
        if isinstance(node, ast.BoolOp):
            return set().union(*(self._trace(each, depth + 1) for each in node.values))
        return self._trace(node.value, depth + 1) if isinstance(node, ast.NamedExpr) else set()

    def _name(self, node: ast.Name) -> set[str]:
        scope = self.binder(node)
        if scope is not None:
            return self._origins.get((scope, node.id), set())
        return {f"builtins.{node.id}"} if hasattr(builtins, node.id) else set()

    def bound_to(self, node: ast.FunctionDef | ast.ClassDef) -> set[str]:
        """What else the name of a definition means where it is defined."""
        return self._origins.get((self.scope(node), node.name), set())

    def binder(self, node: ast.Name) -> ast.AST | None:
        """The scope that binds the name, by Python's rule: class bodies are seen only from within themselves."""
        place = self.scope(node), node.id
        if place not in self._binders:
            self._binders[place] = self._binder_from(*place)
        return self._binders[place]

    def _binder_from(self, own: ast.AST, name: str) -> ast.AST | None:
        scope = own
        while name not in self._bound[scope] or (scope is not own and isinstance(scope, ast.ClassDef)):
            if isinstance(scope, ast.Module):
                return None
            scope = self.scope(scope)
        return scope

    def _member(self, base: str, attribute: str) -> set[str]:
        if base.startswith("@") and "." not in base:
            tree = self.modules[base[1:]]
            return self._origins.get((tree, attribute), set())
        if attribute == "__dict__" or not base.endswith(".__dict__"):
            return {canonical(f"{base}.{attribute}")}
        return {f"{base}.{attribute}"}

    def _item(self, node: ast.Subscript, depth: int) -> set[str]:
        key, found = self.value(node.slice), set()
        for base in self._trace(node.value, depth + 1):
            if isinstance(key, str) and base == "sys.modules":
                found.add(canonical(key))
            elif base.startswith(CONFIG_MODULES):
                found.add(f"{base}.{key if isinstance(key, str) else '?'}")
            elif isinstance(key, str) and base.endswith(".__dict__"):
                found |= self._member(base.removesuffix(".__dict__"), key)
        return found

    def _result(self, node: ast.Call, depth: int) -> set[str]:
        found, first = set(), node.args[0] if node.args else None
        for function in self._trace(node.func, depth + 1):
            if function == "builtins.getattr" and len(node.args) > 1 and isinstance(self.value(node.args[1]), str):
                for base in self._trace(first, depth + 1):
                    for part in [self.value(node.args[1])]:
                        found |= self._member(base, part)
            elif function in ("importlib.import_module", "builtins.__import__") and isinstance(self.value(first), str):
                path = self.value(first)
                found |= self._module(path) | (self._module(path.split(".")[0]) if "__" in function else set())
            elif function == "sys.modules.get" and isinstance(self.value(first), str):
                found |= self._module(self.value(first))
            elif function == "builtins.vars":
                found |= {f"{base}.__dict__" for base in self._trace(first, depth + 1)}
            elif function in ("builtins.globals", "builtins.locals"):
                found.add(f"@{self.module_of(node)}.__dict__")
            elif function == "functools.partial":
                found |= self._trace(first, depth + 1)
        return found

    def _module(self, path: str) -> set[str]:
        return {f"@{path}"} if path in self.modules else {canonical(path)}

    def _bind(self, module: str, tree: ast.Module) -> None:
        """Note which scope binds which name, and the values given to it."""
        for node in self.of(ast.Global, ast.Nonlocal, module=module):
            self._foreign.setdefault(self.scope(node), set()).update(node.names)
        for node in self.of(*_BINDING, module=module):
            for name in _names_bound_by(node):
                owner = self._owner(node, name, tree)
                self._bound[owner].add(name)
                self._bindings[owner, name] += 1
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    continue
                self._values.setdefault((owner, name), [])
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._give(target, node.value, tree)
            elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
                self._give(node.target, node.value, tree)

    def _give(self, target: ast.AST, value: ast.AST, tree: ast.Module) -> None:
        if isinstance(target, ast.Name):
            self._values.setdefault((self._owner(target, target.id, tree), target.id), []).append(value)
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            for each, part in zip(target.elts, value.elts, strict=False):
                self._give(each, part, tree)

    def _owner(self, node: ast.AST, name: str, tree: ast.Module) -> ast.AST:
        scope = self.scope(node) if not isinstance(node, ast.arg) else self._function_of(node)
        return tree if name in self._foreign.get(scope, ()) else scope

    def _function_of(self, argument: ast.arg) -> ast.AST:
        return next(node for node in self.ancestors(argument) if type(node) in SCOPES)

    def _propagate(self) -> bool:
        """One round of following imports and assignments; True if anything new was learnt."""
        before = sum(map(len, self._origins.values()))
        for node in self._imports:
            name = self.module_of(node)
            tree = self.modules[name]
            if isinstance(node, ast.ImportFrom):
                self._import_from(node, name, tree)
                continue
            for alias in node.names:
                path = alias.name if alias.asname else alias.name.split(".")[0]
                self._learn(node, alias.asname or path, self._module(path), tree)
        for (scope, name), values in self._values.items():
            for value in values:
                self._origins.setdefault((scope, name), set()).update(self._trace(value))
        return sum(map(len, self._origins.values())) > before

    def _import_from(self, node: ast.ImportFrom, name: str, tree: ast.Module) -> None:
        for base in self._module(node.module or name):
            for alias in node.names:
                self._learn(node, alias.asname or alias.name, self._member(base, alias.name), tree)

    def _learn(self, node: ast.AST, name: str, origins: set[str], tree: ast.Module) -> None:
        self._origins.setdefault((self._owner(node, name, tree), name), set()).update(origins)


def _names_bound_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, (ast.Store, ast.Del)) else []
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    return [node.name] if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name else []
