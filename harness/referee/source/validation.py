"""What a script does with validation: where it reads the shards, how many of their batches, which files.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import fnmatch
import re

from harness.referee.source.names import Names
from harness.referee.source.nodes import plain

_FILES = object()
_VALIDATION_FILES = re.compile(r"val[^/]*\.bin$|_val_|^val$|^validation$")
_EVALUATION = re.compile(r"(^|_)(eval|evaluate|evaluation|val|valid|validate|validation|last_step)(_|$)")
_SHARDS = ("fineweb_train_000001.bin", "fineweb_val_000000.bin")
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign)
_CUTTERS = {"builtins.range", "builtins.min", "itertools.islice"}
READ_CALLS = {"fromfile", "memmap", "from_file", "frombuffer", "readinto"}


def validation_facts(names: Names) -> dict:
    """`validation`: [where, line], where "evaluation", "training" or "elsewhere", for each read of validation data in
    the script; `val_share`: [how, module, line] wherever the number of validation batches is made smaller by a literal,
    or their loop left early; `globs`: [text, "both" or "train", module, line] of file patterns that cover train and
    validation shards, or that give validation a train shard."""
    return {"validation": _validation_reads(names), "val_share": _val_share(names), "globs": _globs(names)}


def _validation_reads(names: Names) -> list:
    """Where the script takes tokens from validation files, followed through the names that hold files and streams."""
    given = [pair for node in names.of(*_ASSIGNMENTS, module="") for pair in _assignments(node)]
    sources = [(set(_keys(names, target)), _held(names, value)) for target, value in given]
    stained = {_FILES}
    while fresh := {key for targets, held in sources if not held.isdisjoint(stained) for key in targets - stained}:
        stained |= fresh
    reads = []
    for node in names.of(ast.For, ast.comprehension, ast.Call, module=""):
        taken = node.iter if isinstance(node, (ast.For, ast.comprehension)) else node
        is_read = taken is not node or (isinstance(node, ast.Call) and _takes(node))
        if is_read and not _held(names, taken).isdisjoint(stained):
            reads.append((_where(names, taken), taken.lineno))
    return [list(each) for each in dict.fromkeys(reads)]


def _val_share(names: Names) -> list:
    """Where fewer validation batches are taken than `val_tokens` asks for: a literal that divides it, or what comes of
    it, and is no size that validation is read with; a loop over them that is left early."""
    given = [pair for node in names.of(*_ASSIGNMENTS) for pair in _assignments(node)]
    pairs = [(plain(target), value) for target, value in given if plain(target)]
    counts = {"val_tokens"}
    for _ in range(3):
        counts |= {name for name, value in pairs if not isinstance(value, ast.Call) and _mentions(names, value, counts)}
    found = []
    for node in names.of(ast.BinOp, ast.Call, ast.For):
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Div, ast.Mult, ast.Sub)):
            literal = names.value(node.right) if isinstance(node.right, (ast.Constant, ast.Name)) else ...
            shrinks = type(literal) in (int, float) and literal != 1 and _mentions(names, node.left, counts)
            if shrinks and literal not in _sizes(names):
                found.append([ast.unparse(node)[:60], names.module_of(node), node.lineno])
        elif isinstance(node, ast.Call) and _cuts(names, node, counts):
            found.append([ast.unparse(node)[:60], names.module_of(node), node.lineno])
        elif isinstance(node, ast.For) and _mentions(names, node.iter, counts) and any(map(_leaves, node.body)):
            found.append(["a loop over validation batches that is left early", names.module_of(node), node.lineno])
    return found


def _sizes(names: Names) -> list:
    """The values that calls are given: what a count is divided by to fit one of them leaves nothing out."""
    return [
        names.value(each)
        for node in names.of(ast.Call)
        if plain(node.func) != "range"
        for each in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(each, (ast.Constant, ast.Name))
    ]


def _cuts(names: Names, call: ast.Call, counts: set[str]) -> bool:
    """Whether a call makes less of a count: a range that starts late or strides, the smaller of two, a slice."""
    functions = names.resolve(call.func)
    if not functions & _CUTTERS:
        return False
    literals = [type(names.value(each)) is int and names.value(each) not in (0, 1) for each in call.args]
    return any(literals) and any(_mentions(names, each, counts) for each in call.args)


def _mentions(names: Names, node: ast.AST, keys: set[str]) -> bool:
    return any(isinstance(each, (ast.Name, ast.Attribute)) and plain(each) in keys for each in names.leaves(node))


def _leaves(statement: ast.AST) -> bool:
    return any(isinstance(each, (ast.Break, ast.Continue)) for each in ast.walk(statement))


def _globs(names: Names) -> list:
    """File patterns that take validation shards for training, or a train shard for validation."""
    found = []
    for node in names.of(ast.Constant, *_ASSIGNMENTS):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".bin"):
            pattern = node.value.rpartition("/")[2]
            if all(fnmatch.fnmatchcase(shard, pattern) for shard in _SHARDS):
                found.append([node.value, "both", names.module_of(node), node.lineno])
        for target, value in _assignments(node):
            text = names.value(value) if _EVALUATION.search(plain(target) or "") else None
            if isinstance(text, str) and "_train_" in text and text.endswith(".bin"):
                found.append([text, "train", names.module_of(node), node.lineno])
    return found


def _assignments(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """(target, value) pairs of an assignment, `a, b = c, d` taken apart."""
    if not isinstance(node, _ASSIGNMENTS) or node.value is None:
        return []
    pairs = []
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        tuples = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        if tuples and len(target.elts) == len(node.value.elts):
            pairs += zip(target.elts, node.value.elts, strict=True)
        else:
            pairs.append((target, node.value))
    return pairs


def _keys(names: Names, node: ast.AST) -> list:
    """What a variable is known by: a name with the scope that binds it, an attribute (or a field) by its name alone."""
    if isinstance(node, (ast.Tuple, ast.List)):
        return [key for each in node.elts for key in _keys(names, each)]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.Name):
        scope = names.binder(node)
        return [node.id] if isinstance(scope, ast.ClassDef) else [(scope, node.id)]
    return []


def _takes(call: ast.Call) -> bool:
    """Whether a call reads tokens: next(...), a read of a file, or a method like next_batch()."""
    name = plain(call.func) or ""
    return name in READ_CALLS or name in ("next", "send", "open_shard") or name.startswith(("next_", "_load", "load"))


def _held(names: Names, node: ast.AST) -> set:
    """What the variables in an expression are known by, and _FILES if it names files of validation data."""
    leaves = names.leaves(node)
    texts = [each.value for each in leaves if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    held = {_FILES} if any(map(_VALIDATION_FILES.search, texts)) else set()
    return held.union(*(_keys(names, each) for each in leaves if isinstance(each, (ast.Name, ast.Attribute))))


def _where(names: Names, node: ast.AST) -> str:
    """ "evaluation" inside a validation section, "training" beside a backward pass outside of one, else "elsewhere"."""
    around = list(names.ancestors(node))
    section = next((each for each in around if _is_evaluation(each, node, names)), None)
    if section is not None:
        return "training" if _trains(section) else "evaluation"
    block = next((each for each in around if isinstance(each, (ast.For, ast.While, ast.FunctionDef))), None)
    return "training" if block is not None and _trains(block) else "elsewhere"


def _is_evaluation(block: ast.AST, node: ast.AST, names: Names) -> bool:
    if isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return bool(_EVALUATION.search(block.name)) or any(map(_without_gradients, block.decorator_list))
    if isinstance(block, ast.With):
        return any(_without_gradients(item.context_expr) for item in block.items)
    if isinstance(block, ast.If) and not any(node is each for each in ast.walk(block.test)):
        held = [plain(each) or "" for each in ast.walk(block.test)]
        in_body = any(node is each for statement in block.body for each in ast.walk(statement))
        return in_body and any(_EVALUATION.search(name) for name in held)
    return False


def _without_gradients(node: ast.AST) -> bool:
    return any(plain(each) in ("no_grad", "inference_mode") for each in ast.walk(node))


def _trains(block: ast.AST) -> bool:
    return any(isinstance(each, ast.Call) and plain(each.func) == "backward" for each in ast.walk(block))
