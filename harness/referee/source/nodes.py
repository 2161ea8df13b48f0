"""The syntax trees of one script, walked once: which nodes there are of a kind, and where each of them stands.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
from collections.abc import Callable, Iterator

SCOPES = {ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.Module}
_TELLING = {ast.Name, ast.Attribute, ast.Call, ast.Constant}


def parts(node: ast.AST) -> list[ast.AST]:
    """The nodes right below `node`; what has no parts of its own (`pass`, `+`) is left out."""
    found = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [each for each in value if isinstance(each, ast.AST) and each._fields]
        elif isinstance(value, ast.AST) and value._fields:
            found.append(value)
    return found


def within(node: ast.AST, parts: Callable[[ast.AST], list[ast.AST]] = parts) -> list[ast.AST]:
    """`node` and all below it, breadth first."""
    nodes = [node]
    for each in nodes:
        nodes += parts(each)
    return nodes


class Nodes:
    """The nodes of all modules of one script: `modules` maps a module's name ("" for the script) to its tree, `nodes`
    to its nodes, breadth first."""

    def __init__(self, modules: dict[str, ast.Module]):
        self.modules = modules
        self.parent: dict[ast.AST, ast.AST] = {}
        self.module_of: dict[ast.AST, str] = {}
        self.nodes: dict[str, list[ast.AST]] = {}
        self._scope: dict[ast.AST, ast.AST] = {}
        self._parts: dict[ast.AST, list[ast.AST]] = {}
        self._leaves: dict[ast.AST, list[ast.AST]] = {}
        for name, tree in modules.items():
            self._link(name, tree)

    def of(self, *kinds: type[ast.AST], module: str | None = None) -> list[ast.AST]:
        """The nodes of these kinds, of one module or of all, in the order of `nodes`."""
        searched = self.nodes.values() if module is None else [self.nodes[module]]
        wanted = set(kinds)
        return [node for nodes in searched for node in nodes if type(node) in wanted]

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class or module that `node` stands in; a module stands in itself."""
        return self._scope.get(node, node)

    def within(self, node: ast.AST) -> list[ast.AST]:
        """`node` and all below it, breadth first."""
        return within(node, self._parts.__getitem__)

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
        nodes, parent, scope = [tree], self.parent, self._scope
        for node in nodes:
            own, first = scope.get(node, node), len(nodes)
            for child in parts(node):
                parent[child], scope[child] = node, node if type(node) in SCOPES else own
                nodes.append(child)
            self._parts[node] = nodes[first:]
        self.nodes[name] = nodes
        self.module_of |= dict.fromkeys(nodes, name)
