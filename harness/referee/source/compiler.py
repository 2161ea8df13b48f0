"""What a script tells the compiler, and what about it cannot be read from its text: facts found by `ast` alone.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
from dataclasses import asdict, dataclass

from harness.referee.source.names import CONFIG_MODULES, Names
from harness.referee.source.words import (
    ATTRIBUTE_CALLS,
    COMPILE,
    COMPILE_KEYWORDS,
    COMPILERS,
    GUARDED,
    HARMLESS_CALLS,
    HIDING_ATTRIBUTES,
    HIDING_MODULES,
    LOOKERS,
    READS_CONFIG,
    RUNS_PREFIXES,
    RUNS_TEXT,
)

_READ = (ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.AugAssign, ast.ImportFrom)
_COMPILER_PARTS = {"_inductor", "_dynamo", "_functorch"}


@dataclass(frozen=True)
class Fact:
    """One finding. `kind`: "setting" (of a configuration module), "argument" (of torch.compile), "environment" (a
    variable) or "undecided" (a construct that hides what it does). `name` is dotted; `value` the literal given, as
    text, "" if it is none; `module` is "" for the script itself, else the helper's file; `line` counts within it."""

    kind: str
    name: str
    value: str
    module: str
    line: int


def compiler_facts(names: Names) -> list[dict]:
    """All facts about compiler settings in the modules of `names`, as plain dictionaries."""
    found = [] if names.settled else [Fact("undecided", "aliases of aliases without end", "", "", 1)]
    for module in names.nodes:
        reader = _Reader(names, module)
        for node in names.of(*_READ, module=module):
            reader.read(node)
        found += reader.found
    return [asdict(fact) for fact in dict.fromkeys(found)]


class _Reader:
    def __init__(self, names: Names, module: str):
        self.names, self.module, self.found = names, module, []

    def note(self, kind: str, name: str, node: ast.AST, value=...) -> None:
        text = "" if value is ... else repr(value)[:200]
        self.found.append(Fact(kind, str(name)[:200], text, self.module, getattr(node, "lineno", 0)))

    def read(self, node: ast.AST) -> None:
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            self.place(node)
        elif isinstance(node, ast.Call):
            self.call(node)
        elif isinstance(node, ast.AugAssign) and "os.environ" in self.names.resolve(node.target):
            self.environment(node, node.value)
        elif isinstance(node, ast.ImportFrom) and _everything_of_torch(node):
            self.note("undecided", f"from {node.module} import *", node)

    def place(self, node: ast.Name | ast.Attribute | ast.Subscript) -> None:
        """A name, an attribute or an item, given a value or read."""
        is_read = isinstance(node.ctx, ast.Load)
        if not is_read and not isinstance(node, ast.Name):
            self.store(node)
        if isinstance(node, ast.Attribute) and node.attr in HIDING_ATTRIBUTES:
            self.note("undecided", f".{node.attr}", node)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            for holder in self.names.resolve(node.value) & {"os.environ", "os.environb"}:
                self.note("undecided", f"{holder}.{node.attr}", node)
        if is_read:
            self.escape(node)

    def store(self, node: ast.Attribute | ast.Subscript) -> None:
        """An assignment to an attribute or an item."""
        key = node.attr if isinstance(node, ast.Attribute) else self.names.value(node.slice)
        bases = self.names.resolve(node.value)
        if not bases and (hidden := _COMPILER_PARTS & set(_chain(node.value))):
            self.note("undecided", f"something of {min(hidden)} is replaced", node)
        for base in bases:
            holder = base.removesuffix(".__dict__")
            if base == "os.environ":
                self.variable(key, node, self.assigned(node))
            elif not isinstance(key, str):
                if holder in GUARDED or base == "os.environb":
                    self.note("undecided", f"an item of {base} chosen at run time", node)
            elif holder.startswith(CONFIG_MODULES):
                self.note("setting", f"{holder}.{key}", node, self.assigned(node))
            elif f"{holder}.{key}" in GUARDED or holder in ("torch._inductor", "torch._dynamo"):
                self.note("undecided", f"{holder}.{key} is replaced", node)

    def assigned(self, target: ast.AST):
        """The literal that is assigned to `target`, if it is one."""
        statement = self.names.parent.get(target)
        return self.names.value(statement.value) if isinstance(statement, (ast.Assign, ast.AnnAssign)) else ...

    def variable(self, key, node: ast.AST, value) -> None:
        if isinstance(key, str):
            self.note("environment", key, node, value)
        else:
            self.note("undecided", "an environment variable chosen at run time", node)

    def call(self, node: ast.Call) -> None:
        """A call of something whose origin is known, or of a method that can only be a module's `compile`."""
        functions = self.names.resolve(node.func)
        for function in functions:
            owner, _, method = function.rpartition(".")
            config = owner.removesuffix(".__dict__")
            if hidden := self.hides(function, owner, node):
                self.note("undecided", hidden, node)
            elif function in COMPILERS:
                self.arguments(node, function)
            elif function == "functools.partial" and node.args and COMPILE in self.names.resolve(node.args[0]):
                self.arguments(node, COMPILE)
            elif function == "torch.compiler.set_stance":
                self.note("setting", function, node, self.argument(node, 0))
            elif owner == "os.environ":
                self.environment_call(method, node)
            elif config.startswith(CONFIG_MODULES):
                self.config_call(config, method, node)
            elif function in ATTRIBUTE_CALLS:
                self.attribute_call(function, node)
        is_method = isinstance(node.func, ast.Attribute) and node.func.attr == "compile"
        of_torch = all(function.startswith("torch.") and function not in COMPILERS for function in functions)
        if is_method and of_torch and {keyword.arg for keyword in node.keywords} & COMPILE_KEYWORDS:
            self.arguments(node, COMPILE)

    def hides(self, function: str, owner: str, node: ast.Call) -> str:
        """Why a call cannot be followed, "" if it can."""
        if function in RUNS_TEXT or function.startswith(RUNS_PREFIXES):
            return function.removeprefix("builtins.")
        if owner.split(".")[0] in HIDING_MODULES and function not in HARMLESS_CALLS:
            return function
        if owner == "sys.modules" and not (function == "sys.modules.get" and isinstance(self.argument(node, 0), str)):
            return f"{function}()"
        if owner == "subprocess" and any(keyword.arg == "env" for keyword in node.keywords):
            return f"{function} with an environment of its own"
        if function in ("importlib.import_module", "builtins.__import__"):
            return "" if isinstance(self.argument(node, 0), str) else "a module chosen at run time is imported"
        if function.startswith("unittest.mock") and "torch" in str(self.argument(node, 0)):
            return function
        return ""

    def argument(self, node: ast.Call, at: int):
        """The literal given as positional argument `at`, `...` if it is none."""
        return self.names.value(node.args[at]) if len(node.args) > at else ...

    def arguments(self, node: ast.Call, function: str) -> None:
        """The keywords of a call that compiles."""
        for keyword in node.keywords:
            if keyword.arg is not None:
                self.note("argument", keyword.arg, node, self.names.value(keyword.value))
                continue
            unpacked = self.names.value(keyword.value)
            if isinstance(unpacked, dict) and all(isinstance(key, str) for key in unpacked):
                for key, value in unpacked.items():
                    self.note("argument", key, node, value)
            else:
                self.note("undecided", f"arguments of {function} chosen at run time", node)
        if function != COMPILE:
            self.note("undecided", function, node)

    def environment_call(self, method: str, node: ast.Call) -> None:
        if method in ("setdefault", "__setitem__"):
            self.variable(self.argument(node, 0), node, self.argument(node, 1))
        elif method in ("update", "__ior__"):
            for keyword in node.keywords:
                if keyword.arg:
                    self.variable(keyword.arg, node, self.names.value(keyword.value))
            for each in [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg is None)]:
                self.environment(node, each)

    def environment(self, node: ast.AST, added: ast.AST) -> None:
        """Variables added together, as a dictionary."""
        table = self.names.value(added)
        if isinstance(table, dict):
            for key, value in table.items():
                self.variable(key, node, value)
        elif isinstance(added, ast.Dict) and all(added.keys):
            for key, value in zip(added.keys, added.values, strict=True):
                self.variable(self.names.value(key), node, self.names.value(value))
        else:
            self.variable(..., node, ...)

    def config_call(self, config: str, method: str, node: ast.Call) -> None:
        """A method of a configuration module: `patch` and its like."""
        if method in ("patch", "update"):
            for keyword in node.keywords:
                if keyword.arg:
                    self.note("setting", f"{config}.{keyword.arg}", node, self.names.value(keyword.value))
            tables = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg is None)]
            for table in map(self.names.value, tables):
                if isinstance(table, str):
                    table = {table: self.argument(node, 1)}
                if isinstance(table, dict) and all(isinstance(key, str) for key in table):
                    for key, value in table.items():
                        self.note("setting", f"{config}.{key}", node, value)
                else:
                    self.note("undecided", f"{config}.{method} of settings chosen at run time", node)
        elif method in ("__setattr__", "__setitem__", "setdefault", "__delattr__"):
            self.chosen(config, node, 0)
        elif method not in READS_CONFIG and config in CONFIG_MODULES:
            self.note("undecided", f"{config}.{method}()", node)

    def attribute_call(self, function: str, node: ast.Call) -> None:
        """getattr and setattr on something of torch."""
        looks, key = function.endswith("getattr"), self.argument(node, 1)
        for base in self.names.resolve(node.args[0]) if node.args else ():
            if base.startswith(CONFIG_MODULES) and not looks:
                self.chosen(base, node, 1)
            elif base in GUARDED and not isinstance(key, str):
                self.note("undecided", f"an attribute of {base} chosen at run time", node)
            elif base in GUARDED and not looks:
                self.note("undecided", f"{base}.{key} is replaced", node)

    def chosen(self, config: str, node: ast.Call, at: int) -> None:
        """A setting named by the argument at position `at`, with its value after it."""
        key = self.argument(node, at)
        if isinstance(key, str):
            self.note("setting", f"{config}.{key}", node, self.argument(node, at + 1))
        else:
            self.note("undecided", f"a setting of {config} chosen at run time", node)

    def escape(self, node: ast.AST) -> None:
        """A guarded object that is handed on to where names no longer tell what it is."""
        guarded = self.names.resolve(node) & GUARDED
        if guarded and not self.stays(node):
            self.note("undecided", f"{min(guarded)} is handed on", node)

    def stays(self, node: ast.AST) -> bool:
        parent = self.names.parent[node]
        while isinstance(parent, (ast.IfExp, ast.BoolOp, ast.NamedExpr)) and node is not getattr(parent, "test", None):
            node, parent = parent, self.names.parent[parent]
        if isinstance(parent, (ast.Attribute, ast.Expr, ast.Compare, ast.If, ast.IfExp, ast.Delete)):
            return True
        if isinstance(parent, ast.Subscript):
            return parent.value is node
        if isinstance(parent, ast.Call):
            return parent.func is node or bool(self.names.resolve(parent.func) & LOOKERS)
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return node in parent.decorator_list
        if isinstance(parent, (ast.Assign, ast.AnnAssign)):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            return all(isinstance(each, ast.Name) for each in targets) and not isinstance(
                self.names.scope(parent), ast.ClassDef
            )
        pair = self.names.parent.get(parent)
        return isinstance(parent, ast.Tuple) and isinstance(pair, ast.Assign) and isinstance(pair.targets[0], ast.Tuple)


def _chain(node: ast.AST):
    """The attributes that an expression goes through, last first."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        node = node.func if isinstance(node, ast.Call) else node.value


def _everything_of_torch(node: ast.ImportFrom) -> bool:
    return (node.module or "").split(".")[0] == "torch" and any(alias.name == "*" for alias in node.names)
