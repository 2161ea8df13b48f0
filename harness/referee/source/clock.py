"""What a script does with its clock: which calls its times come from, and what they are multiplied with.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast

from harness.referee.source.flow import CHOOSERS, GIVING, SIGNS, Numbers, given_in, key_of, keys_within, printed_behind
from harness.referee.source.names import Names
from harness.referee.source.nodes import plain

CLOCKS = {
    f"time.{name}" for name in ("perf_counter", "time", "monotonic", "perf_counter_ns", "time_ns", "monotonic_ns")
}
_CLOCKS = {*CLOCKS, "time"}
_READS = {"elapsed_time"}  # of torch.cuda.Event, in milliseconds
UNITS = {0, 1, 1e3, 1e6, 1e9, 1e-3, 1e-6, 1e-9, 60}
_REPLACING = (ast.Name, ast.Attribute, ast.Subscript, ast.FunctionDef, ast.ClassDef, ast.Call)


def clock_facts(names: Names) -> dict:
    """What a script does with its clock.

    `replaced`: [what, module, line] wherever one of Python's clocks is given another value; `scaled`: [sign, number,
    module, line] wherever a time is multiplied with, divided by or moved by a number that is no unit of time, or held
    against one that is no time (None where the number is not told);
    `printed`: "clock" if the time that stands behind `train_time:` comes from a clock, "other" if from anything else,
    "" if there is none.
    """
    timed, numbers = _timed_names(names), Numbers(names)
    replaced, scaled, printed = [], [], set()
    for node in names.of(*_REPLACING):
        if type(getattr(node, "ctx", None)) is not ast.Load and (what := _replaces(names, node)):
            replaced.append([what, names.module_of(node), node.lineno])
    for node in names.of(ast.BinOp, ast.AugAssign, ast.Call):
        if found := _scales(names, node, timed, numbers):
            scaled.append([*found, names.module_of(node), node.lineno])
    for node in names.of(ast.JoinedStr):
        printed |= {_is_timed(names, value, timed) for value in printed_behind("train_time:", node)}
    source = "" if not printed else "clock" if printed == {True} else "other"
    return {"replaced": replaced, "scaled": scaled, "printed": source}


def _reads_clock(names: Names, node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return bool(names.resolve(node.func) & CLOCKS) or getattr(node.func, "attr", None) in _READS


def _timed_names(names: Names) -> set:
    """Names and attributes that hold times, followed through assignments and returned values."""
    pairs = [pair for node in names.of(*GIVING) for pair in given_in(names, node)]
    found = {key for key, value in pairs if _reads_within(names, value)}
    sources = [(key, keys_within(names, value)) for key, value in pairs]
    while fresh := {key for key, held in sources if key not in found and not held.isdisjoint(found)}:
        found |= fresh
    return found


def _is_timed(names: Names, value: ast.AST, timed: set) -> bool:
    """Whether a time goes into the value of an expression."""
    return not keys_within(names, value).isdisjoint(timed) or _reads_within(names, value)


def _reads_within(names: Names, value: ast.AST) -> bool:
    return any(_reads_clock(names, node) for node in names.leaves(value))


def _scales(names: Names, node: ast.AST, timed: set, numbers: Numbers) -> tuple[str, float | None] | None:
    """(sign, number) of what a time is multiplied with, divided by, moved by or held against; None if of nothing but
    times and their units."""
    if isinstance(node, ast.Call):
        return _chooses(names, node, timed, numbers)
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
    if type(node.op) not in SIGNS:
        return None
    for number, other in (sides, sides[::-1]):
        value = numbers.value(number)
        if isinstance(number, ast.Attribute) and isinstance(value, int):
            continue  # a field of the settings that counts something: an average is taken over it
        if value is not None and value not in UNITS and _is_time(names, other, timed):
            return SIGNS[type(node.op)], float(value)
    return None


def _chooses(names: Names, call: ast.Call, timed: set, numbers: Numbers) -> tuple[str, float | None] | None:
    """The same of a min() or max() of a time and of what is none; the number is None where it is not told."""
    chooser = next(iter(names.resolve(call.func) & CHOOSERS), "")
    if not chooser or not any(_is_time(names, each, timed) for each in call.args):
        return None
    others = [each for each in call.args if not _is_timed(names, each, timed)]
    values = [value for each in others if (value := numbers.value(each)) not in UNITS]
    return (f"in {chooser.removeprefix('builtins.')}() with", values[0]) if values else None


def _is_time(names: Names, node: ast.AST, timed: set) -> bool:
    """Whether an expression is a time itself, and not merely something that was chosen by one."""
    if isinstance(node, ast.BinOp):
        return _is_time(names, node.left, timed) or _is_time(names, node.right, timed)
    if isinstance(node, ast.Call):
        return _reads_clock(names, node) or ("def", plain(node.func)) in timed
    return isinstance(node, (ast.Name, ast.Attribute)) and key_of(names, node) in timed


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
