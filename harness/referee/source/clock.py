"""What a script does with its clock: which calls its times come from, and what they are multiplied with.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import re

from harness.referee.source.names import Names
from harness.referee.source.validation import plain

CLOCKS = {
    f"time.{name}" for name in ("perf_counter", "time", "monotonic", "perf_counter_ns", "time_ns", "monotonic_ns")
}
_CLOCKS = {*CLOCKS, "time"}
_READS = {"elapsed_time"}  # of torch.cuda.Event, in milliseconds
UNITS = {0, 1, 1e3, 1e6, 1e9, 1e-3, 1e-6, 1e-9, 60}
_SIGNS = {ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Add: "+", ast.Sub: "-", ast.Pow: "**", ast.Mod: "%"}
_GIVING = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.Return)
_REPLACING = (ast.Name, ast.Attribute, ast.Subscript, ast.FunctionDef, ast.ClassDef, ast.Call)
_PRINTED = re.compile(r"train_time:$")


def clock_facts(names: Names) -> dict:
    """What a script does with its clock.

    `replaced`: [what, module, line] wherever one of Python's clocks is given another value; `scaled`: [sign, number,
    module, line] wherever a time is multiplied with, divided by or moved by a number that is no unit of time;
    `printed`: "clock" if the time that stands behind `train_time:` comes from a clock, "other" if from anything else,
    "" if there is none.
    """
    timed = _timed_names(names)
    replaced, scaled, printed = [], [], set()
    for node in names.of(*_REPLACING):
        if type(getattr(node, "ctx", None)) is not ast.Load and (what := _replaces(names, node)):
            replaced.append([what, names.module_of(node), node.lineno])
    for node in names.of(ast.BinOp, ast.AugAssign):
        if (number := _scales(names, node, timed)) is not None:
            scaled.append([_SIGNS.get(type(node.op), "?"), number, names.module_of(node), node.lineno])
    for node in names.of(ast.JoinedStr):
        printed |= {_is_timed(names, value, timed) for value in _printed_times(node)}
    source = "" if not printed else "clock" if printed == {True} else "other"
    return {"replaced": replaced, "scaled": scaled, "printed": source}


def _reads_clock(names: Names, node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return bool(names.resolve(node.func) & CLOCKS) or getattr(node.func, "attr", None) in _READS


def _timed_names(names: Names) -> set:
    """Names and attributes that hold times, followed through assignments and returned values."""
    pairs = [pair for node in names.of(*_GIVING) for pair in _given(names, node)]
    found = {key for key, value in pairs if _reads_within(names, value)}
    sources = [(key, _keys_within(names, value)) for key, value in pairs]
    while fresh := {key for key, held in sources if key not in found and not held.isdisjoint(found)}:
        found |= fresh
    return found


def _given(names: Names, node: ast.AST) -> list[tuple[object, ast.AST]]:
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
    given = []
    for target, value in pairs:
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = (
                value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) else ()
            )
            given += [(_key(names, each), part) for each, part in zip(target.elts, parts, strict=False)]
        else:
            given.append((_key(names, target), value))
    return given


def _key(names: Names, node: ast.AST) -> object:
    """What a time is known by: a name with the scope that binds it, an attribute by its name alone."""
    if isinstance(node, ast.Name):
        return names.binder(node), node.id
    return getattr(node, "attr", None)


def _is_timed(names: Names, value: ast.AST, timed: set) -> bool:
    """Whether a time goes into the value of an expression."""
    return not _keys_within(names, value).isdisjoint(timed) or _reads_within(names, value)


def _reads_within(names: Names, value: ast.AST) -> bool:
    return any(_reads_clock(names, node) for node in names.leaves(value))


def _keys_within(names: Names, value: ast.AST) -> set:
    """What the names, attributes and called functions in an expression are known by."""
    called = {("def", plain(node.func)) for node in names.leaves(value) if isinstance(node, ast.Call)}
    return called | {_key(names, node) for node in names.leaves(value) if isinstance(node, (ast.Name, ast.Attribute))}


def _scales(names: Names, node: ast.AST, timed: set) -> float | None:
    """The number that a time is multiplied with, divided by or moved by, None if none or a unit of time."""
    if isinstance(node, ast.BinOp):
        sides, operation = (node.left, node.right), node.op
    elif isinstance(node, ast.AugAssign):
        sides, operation = (node.target, node.value), node.op
    else:
        return None
    if type(operation) not in _SIGNS:
        return None
    for number, other in (sides, sides[::-1]):
        value = names.value(number)
        if type(value) in (int, float) and value not in UNITS and _is_time(names, other, timed):
            return float(value)
    return None


def _is_time(names: Names, node: ast.AST, timed: set) -> bool:
    """Whether an expression is a time itself, and not merely something that was chosen by one."""
    if isinstance(node, ast.BinOp):
        return _is_time(names, node.left, timed) or _is_time(names, node.right, timed)
    if isinstance(node, ast.Call):
        return _reads_clock(names, node) or ("def", plain(node.func)) in timed
    return isinstance(node, (ast.Name, ast.Attribute)) and _key(names, node) in timed


def _replaces(names: Names, node: ast.AST) -> str:
    """The clock that an assignment or a call of setattr puts something else in the place of, "" if none."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        key = node.attr if isinstance(node, ast.Attribute) else names.value(node.slice)
        holders = {base.removesuffix(".__dict__") for base in names.resolve(node.value)}
        if "time" in holders or ("sys.modules" in holders and key == "time"):
            return f"time.{key}" if isinstance(key, str) else "an item of time"
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and names.resolve(node) & _CLOCKS:
        statement = names.parent[node]
        given = names.resolve(getattr(statement, "value", None))
        return "" if given & _CLOCKS else f"{node.id}, a clock by its import,"
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and names.bound_to(node) & _CLOCKS:
        return f"{node.name}, a clock by its import,"
    sets = isinstance(node, ast.Call) and names.resolve(node.func) & {"builtins.setattr", "builtins.delattr"}
    return "an attribute of time" if sets and node.args and "time" in names.resolve(node.args[0]) else ""


def _printed_times(text: ast.JoinedStr) -> list[ast.AST]:
    """What an f-string puts behind `train_time:`."""
    return [
        after.value
        for before, after in zip(text.values, text.values[1:], strict=False)
        if isinstance(after, ast.FormattedValue)
        and isinstance(before, ast.Constant)
        and _PRINTED.search(str(before.value))
    ]
