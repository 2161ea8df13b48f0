"""What a script does with its data, as far as its text tells: how many validation tokens, where validation shards are
read, which functions make the token stream.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import re
import sys

from harness.referee.source.fingerprint import fingerprint
from harness.referee.source.names import Names

_VALIDATION_FILES = re.compile(r"val[^/]*\.bin$|_val_|^val$|^validation$")
_EVALUATION = re.compile(r"(^|_)(eval|evaluate|evaluation|val|valid|validate|validation|last_step)(_|$)")
_READERS = re.compile(r"(^|_)(load|shards?|batch(es)?|data|tokens?|documents?|stream|generator)(_|$)|Loader|BOS")
_READ_CALLS = {"fromfile", "memmap", "from_file", "frombuffer", "readinto"}
_KNOWN_PACKAGES = {
    "torch",
    "numpy",
    "triton",
    "kernels",
    "flash_attn",
    "flash_attn_interface",
    "huggingface_hub",
    "tqdm",
}


def data_facts(names: Names) -> dict:
    """Facts of the whole script, as a plain dictionary:

    `prints_metrics`: it holds the text of a validation line; `val_tokens`: [value or None, module, line] wherever the
    setting is given; `validation`: [where, line], where "evaluation", "training" or "elsewhere", for each read of
    validation data in the script; `loader`: digest of each data-loading function's code, by name; `imports`: modules
    that are neither known packages nor part of the log.
    """
    nodes = [node for nodes in names.nodes.values() for node in nodes]
    return {
        "prints_metrics": any(isinstance(node, ast.Constant) and "val_loss" in str(node.value) for node in nodes),
        "val_tokens": _val_tokens(names, nodes),
        "validation": _validation_reads(names),
        "loader": _loader(names),
        "imports": _foreign_imports(names, nodes),
    }


def _val_tokens(names: Names, nodes: list[ast.AST]) -> list:
    found = []
    for node in nodes:
        given = []
        if isinstance(node, ast.Assign):
            given = [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            given = [(node.target, node.value)]
        elif isinstance(node, ast.keyword):
            given = [(node, node.value)]
        for target, value in given:
            name = getattr(target, "id", None) or getattr(target, "attr", None) or getattr(target, "arg", None)
            if name == "val_tokens" and not isinstance(node, ast.AugAssign):
                found.append([_integer(value), names.module_of[node], value.lineno])
            elif name == "val_tokens":
                found.append([None, names.module_of[node], value.lineno])
    return found


def _integer(node: ast.AST, depth: int = 0) -> int | None:
    """The value of whole-number arithmetic on literals, None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.BinOp) and depth < 20:
        left, right = _integer(node.left, depth + 1), _integer(node.right, depth + 1)
        if left is not None and right is not None:
            if isinstance(node.op, ast.Mult) and max(abs(left), abs(right)) < 1 << 60:
                return left * right
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.FloorDiv) and right:
                return left // right
            if isinstance(node.op, (ast.Pow, ast.LShift)) and 0 <= right <= 64 and abs(left) < 1 << 16:
                return left**right if isinstance(node.op, ast.Pow) else left << right
    return None


def _validation_reads(names: Names) -> list:
    """Where the script takes tokens from validation files, followed through the names that hold files and streams."""
    nodes = names.nodes[""]
    stained: set = set()
    grown = True
    while grown:
        before = len(stained)
        for node in nodes:
            for target, value in _assignments(node):
                if _touches(names, value, stained):
                    stained |= set(_keys(names, target))
        grown = len(stained) > before
    reads = []
    for node in nodes:
        taken = node.iter if isinstance(node, (ast.For, ast.comprehension)) else node
        is_read = taken is not node or (isinstance(node, ast.Call) and _takes(node))
        if is_read and _touches(names, taken, stained):
            reads.append((_where(names, taken), taken.lineno))
    return [list(each) for each in dict.fromkeys(reads)]


def _assignments(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """(target, value) pairs of an assignment, `a, b = c, d` taken apart."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
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
    name = _plain(call.func) or ""
    return name in _READ_CALLS or name in ("next", "send", "open_shard") or name.startswith(("next_", "_load", "load"))


def _touches(names: Names, node: ast.AST, stained: set) -> bool:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and _VALIDATION_FILES.search(each.value):
            return True
        if isinstance(each, (ast.Name, ast.Attribute)) and not stained.isdisjoint(_keys(names, each)):
            return True
    return False


def _plain(node: ast.AST) -> str | None:
    return getattr(node, "id", None) or getattr(node, "attr", None)


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
        held = [_plain(each) or "" for each in ast.walk(block.test)]
        in_body = any(node is each for statement in block.body for each in ast.walk(statement))
        return in_body and any(_EVALUATION.search(name) for name in held)
    return False


def _without_gradients(node: ast.AST) -> bool:
    return any(_plain(each) in ("no_grad", "inference_mode") for each in ast.walk(node))


def _trains(block: ast.AST) -> bool:
    return any(isinstance(each, ast.Call) and _plain(each.func) == "backward" for each in ast.walk(block))


def _loader(names: Names) -> dict[str, str]:
    """Digest by name of the functions and classes that read shards or build batches: their code, less its annotations,
    docstrings and comments. Definitions inside others belong to them."""
    found = {}
    for module, tree in names.modules.items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (_READERS.search(node.name) or _reads(node)):
                found[f"{module}:{node.name}" if module else node.name] = fingerprint(node)
    return found


def _reads(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Call) and _plain(each.func) in _READ_CALLS for each in ast.walk(node))


def _foreign_imports(names: Names, nodes: list[ast.AST]) -> list:
    known = _KNOWN_PACKAGES | set(sys.stdlib_module_names) | set(names.modules)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [node.module or "."]
        else:
            continue
        found += [[name, node.lineno] for name in wanted if name.split(".")[0] not in known]
    return found
