"""Which library object an expression of a script means, followed through imports and assignments; nothing is executed.

An origin is a dotted path (`torch._inductor.config`), with builtins as `builtins.exec`, and with a module of the log
itself as `@name`. Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import builtins
from collections import Counter

CONFIG_MODULES = ("torch._inductor.config", "torch._dynamo.config", "torch._functorch.config", "torch.compiler.config")
_CONFIG_NAMES = {"config", "inductor_config", "dynamo_config"}
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.Module)
_IMPORTS = (ast.Import, ast.ImportFrom)
_TELLING = (ast.Name, ast.Attribute, ast.Call, ast.Constant)
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
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, AttributeError):
        return ...


class Names:
    """The names of all modules of one script: `modules` maps a module's name ("" for the script) to its tree.

    `settled` is False if aliases of aliases were still being followed when patience ended.
    """

    def __init__(self, modules: dict[str, ast.Module]):
        self.modules = modules
        self.parent: dict[ast.AST, ast.AST] = {}
        self.module_of: dict[ast.AST, str] = {}
        self.nodes: dict[str, list[ast.AST]] = {}
        self._scope: dict[ast.AST, ast.AST] = {}
        self._leaves: dict[ast.AST, list[ast.AST]] = {}
        self._bound: dict[ast.AST, set[str]] = {}
        self._origins: dict[tuple[ast.AST, str], set[str]] = {}
        self._values: dict[tuple[ast.AST, str], list[ast.AST]] = {}
        self._bindings: Counter = Counter()
        self._foreign: dict[ast.AST, set[str]] = {}
        for name, tree in modules.items():
            self._link(name, tree)
        for name, tree in modules.items():
            self._bind(self.nodes[name], tree)
        self._imports = [node for nodes in self.nodes.values() for node in nodes if isinstance(node, _IMPORTS)]
        self.settled = any(not self._propagate() for _ in range(_ROUNDS))

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class or module that `node` stands in; a module stands in itself."""
        return self._scope.get(node, node)

    def leaves(self, node: ast.AST) -> list[ast.AST]:
        """Names, attributes, calls and literals in `node`, itself among them: what says where a value comes from."""
        if node not in self._leaves:
            self._leaves[node] = [each for each in ast.walk(node) if isinstance(each, _TELLING)]
        return self._leaves[node]

    def ancestors(self, node: ast.AST):
        """The nodes around `node`, innermost first."""
        while (node := self.parent.get(node)) is not None:
            yield node

    def value(self, node: ast.AST | None):
        """Like `constant`, and a name that is assigned exactly once stands for the literal it was given."""
        if isinstance(node, ast.Name) and (scope := self.binder(node)) is not None:
            given = self._values.get((scope, node.id), [])
            if len(given) == 1 and self._bindings[scope, node.id] == 1:
                node = given[0]
        if isinstance(node, ast.Call) and self.resolve(node.func) == {"builtins.dict"} and not node.args:
            keys = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
            return ... if None in keys else keys
        return constant(node)

    def resolve(self, node: ast.AST | None, depth: int = 0) -> set[str]:
        """The origins that `node` may have; empty if it is nothing that imports or assignments account for."""
        if node is None or depth > 50:
            return set()
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return {found for base in self.resolve(node.value, depth + 1) for found in self._member(base, node.attr)}
        if isinstance(node, ast.Subscript):
            return self._item(node, depth)
        if isinstance(node, ast.Call):
            return self._result(node, depth)
        if isinstance(node, ast.IfExp):
            return self.resolve(node.body, depth + 1) | self.resolve(node.orelse, depth + 1)
        if isinstance(node, ast.BoolOp):
            return set().union(*(self.resolve(each, depth + 1) for each in node.values))
        return self.resolve(node.value, depth + 1) if isinstance(node, ast.NamedExpr) else set()

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
        own = scope = self.scope(node)
        while True:
            if node.id in self._bound[scope] and (scope is own or not isinstance(scope, ast.ClassDef)):
                return scope
            if isinstance(scope, ast.Module):
                return None
            scope = self.scope(scope)

    def _member(self, base: str, attribute: str) -> set[str]:
        if base.startswith("@") and "." not in base:
            tree = self.modules[base[1:]]
            return self._origins.get((tree, attribute), set())
        if attribute == "__dict__" or not base.endswith(".__dict__"):
            return {canonical(f"{base}.{attribute}")}
        return {f"{base}.{attribute}"}

    def _item(self, node: ast.Subscript, depth: int) -> set[str]:
        key, found = self.value(node.slice), set()
        for base in self.resolve(node.value, depth + 1):
            if isinstance(key, str) and base == "sys.modules":
                found.add(canonical(key))
            elif base.startswith(CONFIG_MODULES):
                found.add(f"{base}.{key if isinstance(key, str) else '?'}")
            elif isinstance(key, str) and base.endswith(".__dict__"):
                found |= self._member(base.removesuffix(".__dict__"), key)
        return found

    def _result(self, node: ast.Call, depth: int) -> set[str]:
        found, first = set(), node.args[0] if node.args else None
        for function in self.resolve(node.func, depth + 1):
            if function == "builtins.getattr" and len(node.args) > 1 and isinstance(self.value(node.args[1]), str):
                for base in self.resolve(first, depth + 1):
                    for part in [self.value(node.args[1])]:
                        found |= self._member(base, part)
            elif function in ("importlib.import_module", "builtins.__import__") and isinstance(self.value(first), str):
                path = self.value(first)
                found |= self._module(path) | (self._module(path.split(".")[0]) if "__" in function else set())
            elif function == "sys.modules.get" and isinstance(self.value(first), str):
                found |= self._module(self.value(first))
            elif function == "builtins.vars":
                found |= {f"{base}.__dict__" for base in self.resolve(first, depth + 1)}
            elif function in ("builtins.globals", "builtins.locals"):
                found.add(f"@{self.module_of[node]}.__dict__")
            elif function == "functools.partial":
                found |= self.resolve(first, depth + 1)
        return found

    def _module(self, path: str) -> set[str]:
        return {f"@{path}"} if path in self.modules else {canonical(path)}

    def _link(self, name: str, tree: ast.Module) -> None:
        """Note every node of a module with its parent, breadth first; what has no parts (`pass`, `+`) is left out."""
        nodes, parent, scope = [tree], self.parent, self._scope
        for node in nodes:
            inner, around = isinstance(node, _SCOPES), scope.get(node, node)
            if inner:
                self._bound[node] = set()
            for field in node._fields:
                value = getattr(node, field, None)
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, ast.AST) and child._fields:
                        parent[child] = node
                        scope[child] = node if inner else around
                        nodes.append(child)
        self.nodes[name] = nodes
        self.module_of |= dict.fromkeys(nodes, name)

    def _bind(self, nodes: list[ast.AST], tree: ast.Module) -> None:
        """Note which scope binds which name, and the values given to it."""
        for node in nodes:
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                self._foreign.setdefault(self.scope(node), set()).update(node.names)
        for node in nodes:
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
        return next(node for node in self.ancestors(argument) if isinstance(node, _SCOPES))

    def _propagate(self) -> bool:
        """One round of following imports and assignments; True if anything new was learnt."""
        before = sum(map(len, self._origins.values()))
        for node in self._imports:
            name = self.module_of[node]
            tree = self.modules[name]
            if isinstance(node, ast.ImportFrom):
                self._import_from(node, name, tree)
                continue
            for alias in node.names:
                path = alias.name if alias.asname else alias.name.split(".")[0]
                self._learn(node, alias.asname or path, self._module(path), tree)
        for (scope, name), values in self._values.items():
            for value in values:
                self._origins.setdefault((scope, name), set()).update(self.resolve(value))
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
