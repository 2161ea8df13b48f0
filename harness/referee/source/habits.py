"""What else of a script a referee wants to know: weights from a disk, seeds, settings from outside, planned steps.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast
import re

from harness.referee.source.data import READERS, whole_number
from harness.referee.source.names import Names

_WEIGHTS = {
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.hub.download_url_to_file",
    "torch.distributed.checkpoint.load",
    "numpy.load",
    "numpy.loadtxt",
    "numpy.genfromtxt",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "huggingface_hub.hf_hub_download",
    "huggingface_hub.snapshot_download",
    "urllib.request.urlopen",
    "urllib.request.urlretrieve",
}
_WEIGHT_MODULES = ("safetensors", "requests", "httpx", "h5py", "transformers")
_WEIGHT_METHODS = {"from_pretrained", "load_file", "read_bytes"}
_RAW_READS = {"numpy.fromfile", "numpy.memmap", "torch.from_file", "torch.UntypedStorage.from_file", "numpy.frombuffer"}
_RAW_READS |= {"torch.frombuffer", "mmap.mmap"}
_SEED_METHODS = {"manual_seed", "manual_seed_all"}
_SEEDS = {f"torch.{place}{name}" for place in ("", "cuda.", "random.") for name in _SEED_METHODS}
LONGEST_LITERAL = 20_000  # characters: no script needs a longer one, and weights fit into one
LAUNCH_VARIABLES = re.compile(
    r"RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_(ADDR|PORT)|CUDA_\w+|NCCL_\w+|OMP_NUM_THREADS|TORCHELASTIC_\w+"
    r"|DATA_(PATH|DIR)|RUN_(ID|NAME)|LOG_DIR|HOME|USER|HOSTNAME|PATH|TMPDIR|DISABLE_FP8|HF_\w+|SLURM_\w+"
)
"""Variables that say where a run runs, reads and writes, and the one with which public scripts switch FP8 off."""
_STEPS = {"num_iterations", "num_scheduled_iterations", "train_steps", "num_steps", "max_steps"}
_WIDTHS = {"model_dim", "n_embd", "d_model", "hidden_size"}
_EXTENSION = re.compile(r"extension|extend|extra")


def habit_facts(names: Names) -> dict:
    """`weights`: [how, module, line] wherever something other than tokens is read from a disk or the net; `seeds`:
    likewise, the global generator's fixed seeds; `outside`: environment variables that settings come from; `steps`:
    {name: values} of the planned steps and their extensions, None for a value that is no literal; `widths`: [number,
    module, line] of the model's width, wherever a literal gives it."""
    weights, seeds, outside, widths = [], [], [], []
    steps: dict[str, list] = {}
    for node in names.of(ast.Call, ast.Constant):
        if how := _loads_weights(names, node) if isinstance(node, ast.Call) else _long_literal(node):
            weights.append([how, *_place(names, node)])
    for node in names.of(ast.Call):
        if (seed := _fixed_seed(names, node)) is not None:
            seeds.append([seed, *_place(names, node)])
    for node in names.of(ast.Call, ast.Subscript):
        if (variable := _variable_read(names, node)) is not None and not LAUNCH_VARIABLES.fullmatch(variable):
            outside.append([variable, *_place(names, node)])
    for node in names.of(ast.Assign, ast.AnnAssign, ast.keyword):
        for name, value in _set_by(node):
            if name in _WIDTHS and (width := whole_number(value)) is not None:
                widths.append([width, *_place(names, node)])
            elif name in _STEPS or (_EXTENSION.search(name) and ("iteration" in name or "step" in name)):
                steps.setdefault(name, []).append(whole_number(value))
    return {"weights": weights, "seeds": seeds, "outside": outside, "steps": steps, "widths": widths}


def _place(names: Names, node: ast.AST) -> tuple[str, int]:
    return names.module_of(node), node.lineno


def _long_literal(node: ast.Constant) -> str:
    """What is said of a literal that weights would fit into, "" of any other."""
    if isinstance(node.value, (str, bytes)) and len(node.value) > LONGEST_LITERAL:
        return f"a literal of {len(node.value):,} characters"
    return ""


def _loads_weights(names: Names, call: ast.Call) -> str:
    """How a call reads what may be weights, "" if it does not."""
    functions = names.resolve(call.func)
    for function in sorted(functions):
        if function in _WEIGHTS or function.split(".")[0] in _WEIGHT_MODULES:
            return function
        if function in _RAW_READS and not _in_reader(names, call):
            return function
    if "builtins.open" in functions and "b" in str(_mode(names, call)) and not _in_reader(names, call):
        return "a binary file"
    method = getattr(call.func, "attr", "")
    return f".{method}()" if method in _WEIGHT_METHODS and not functions and not _in_reader(names, call) else ""


def _mode(names: Names, call: ast.Call):
    """The mode that open() is called with, "r" where none is given."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[1:2]
    return names.value(given[0]) if given else "r"


def _in_reader(names: Names, node: ast.AST) -> bool:
    """Whether a node stands in a function or class that loads data, by its name."""
    holders = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(each, holders) and READERS.search(each.name) for each in names.ancestors(node))


def _fixed_seed(names: Names, call: ast.Call) -> int | None:
    """The literal that the global generator is seeded with, whatever a rank adds to it; None if it is chosen anew."""
    if not call.args or not (names.resolve(call.func) & _SEEDS or getattr(call.func, "attr", "") in _SEED_METHODS):
        return None
    seed = call.args[0]
    if isinstance(seed, ast.BinOp) and isinstance(seed.op, (ast.Add, ast.Mult)):
        for literal, other in ((seed.left, seed.right), (seed.right, seed.left)):
            if all("rank" in node.id.lower() for node in ast.walk(other) if isinstance(node, ast.Name)):
                seed = literal
                break
    value = names.value(seed)
    return value if type(value) is int else None


def _variable_read(names: Names, node: ast.AST) -> str | None:
    """The environment variable that a node reads, "?" if it is chosen at run time; None if it reads none."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        if "os.environ" not in names.resolve(node.value):
            return None
        key = names.value(node.slice)
    elif isinstance(node, ast.Call) and names.resolve(node.func) & {"os.getenv", "os.environ.get", "os.environ.pop"}:
        key = names.value(node.args[0]) if node.args else ...
    else:
        return None
    return key if isinstance(key, str) else "?"


def _set_by(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """(name, value) of what a statement or keyword argument sets."""
    if isinstance(node, ast.Assign):
        given = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        given = [(node.target, node.value)]
    elif isinstance(node, ast.keyword):
        return [(node.arg or "", node.value)]
    else:
        return []
    return [(getattr(target, "id", None) or getattr(target, "attr", None) or "", value) for target, value in given]
