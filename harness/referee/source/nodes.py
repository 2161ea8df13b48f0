"""The syntax trees of one script, walked once: which nodes there are of a kind, and where each of them stands.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache

SCOPES = {ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.Module}
_BARE = {"id", "attr", "arg", "ctx", "op", "ops", "kind", "type_comment"}
_TELLING = {ast.Name, ast.Attribute, ast.Call, ast.Constant}


def parts(node: ast.AST) -> list[ast.AST]:
    """The nodes right below `node`; what has no parts of its own (`pass`, `+`) is left out."""
    found = []
    for field in _branches(type(node)):
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [each for each in value if isinstance(each, ast.AST) and each._fields]
        elif isinstance(value, ast.AST) and value._fields:
            found.append(value)
    return found


@cache
def _branches(kind: type[ast.AST]) -> tuple[str, ...]:
    """The fields of a kind of node that may hold others."""
    return () if kind is ast.Constant else tuple(field for field in kind._fields if field not in _BARE)


def within(node: ast.AST, parts: Callable[[ast.AST], Sequence[ast.AST]] = parts) -> list[ast.AST]:
    """`node` and all below it, breadth first."""
    nodes = [node]
    for each in nodes:
        nodes += parts(each)
    return nodes


def plain(node: ast.AST) -> str | None:
    """The last name in an expression such as `a.b`, None in what is neither a name nor an attribute."""
    return getattr(node, "id", None) or getattr(node, "attr", None)


class Nodes:
    """The nodes of all modules of one script: `modules` maps a module's name ("" for the script) to its tree, `nodes`
    to its nodes, breadth first."""

    def __init__(self, modules: dict[str, ast.Module]):
        self.modules = modules
        self.parent: dict[ast.AST, ast.AST] = {}
        self._module_of: dict[ast.AST, str] = {}
        self.nodes: dict[str, list[ast.AST]] = {}
        self._places: dict[str, dict[type[ast.AST], list[int]]] = {}
        self._scope: dict[ast.AST, ast.AST] = {}
        self._parts: dict[ast.AST, list[ast.AST]] = {}
        self._leaves: dict[ast.AST, list[ast.AST]] = {}
        for name, tree in modules.items():
            self._link(name, tree)

    def of(self, *kinds: type[ast.AST], module: str | None = None) -> list[ast.AST]:
        """The nodes of these kinds, of one module or of all, in the order of `nodes`."""
        found = []
        for name in self.nodes if module is None else [module]:
            nodes, places = self.nodes[name], self._places[name]
            found += [nodes[at] for at in sorted(at for kind in kinds for at in places.get(kind, ()))]
        return found

    def module_of(self, node: ast.AST) -> str:
        """The name of the module that `node` is of."""
        while (scope := self.scope(node)) is not node:
            node = scope
        return self._module_of[node]

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class or module that `node` stands in; a module stands in itself."""
        return self._scope.get(node, node)

    def within(self, node: ast.AST) -> list[ast.AST]:
        """`node` and all below it, breadth first."""
        return within(node, lambda each: self._parts.get(each, ()))

    def leaves(self, node: ast.AST) -> list[ast.AST]:
        """Names, attributes, calls and literals in `node`, itself among them: what says where a value comes from."""
        if node not in self._leaves:
            self._leaves[node] = [each for each in self.within(node) if type(each) in _TELLING]
        return self._leaves[node]

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around `node`, innermost first."""
        while (node := self.parent.get(node)) is not None:
            yield node

    def _link(self, name: str, tree: ast.Module) -> None:
        nodes, places, parent, scope = [tree], defaultdict(list), self.parent, self._scope
        for at, node in enumerate(nodes):
            places[type(node)].append(at)
            if below := parts(node):
                self._parts[node] = below
                nodes += below
                own = node if type(node) in SCOPES else scope[node]
                for child in below:
                    parent[child], scope[child] = node, own
        self.nodes[name], self._places[name] = nodes, places
        self._module_of[tree] = name
