"""The settings of a train script, read from its source without running it."""

import ast
import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

CLASS = "Settings"
OWN_OPTIONS = {"data_dir": "data-dir", "log_file": "runs-dir", "seed": "seed", "telemetry_every": "telemetry"}
# Of these there is at least one; of others, such as warm-up steps, there may be none.
SIZES = re.compile(r"num_\w+|(\w+_)?(dim|size|heads|layers|tokens|rows|block|base)|\w+_per_step|val_loss_every")


def _tuple(text: str) -> tuple:
    """A tuple from its literal. Raises ValueError for one of anything else."""
    value = ast.literal_eval(text)
    if not isinstance(value, tuple):
        raise ValueError(text)
    return value


TYPES = {"int": int, "float": float, "tuple": _tuple}


@dataclass(frozen=True)
class Setting:
    """One field of the script's `Settings`: the name of its type, and its default if that is a literal, else None."""

    name: str
    kind: str
    default: object


def read_settings(script: Path) -> dict[str, Setting] | None:
    """Fields of the top-level dataclass `Settings` in `script`, None if it has none. Nothing of the script is executed.

    Raises UserError when the file cannot be read or is no Python.
    """
    try:
        tree = ast.parse(script.read_bytes(), str(script))
    except OSError as error:
        raise UserError(f"{script}: {error.strerror}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{script} is not a Python script: {error}".splitlines()[0]) from None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == CLASS:
            fields = [
                item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
            return {item.target.id: _setting(item) for item in fields}
    return None


def _setting(field: ast.AnnAssign) -> Setting:
    return Setting(field.target.id, ast.unparse(field.annotation), _literal(field.value))


def _literal(node: ast.expr | None) -> object:
    """The value of a literal, of arithmetic on numbers such as `8 * 1024`, or None."""
    if node is None:
        return None
    if isinstance(node, ast.BinOp):
        left, right = _literal(node.left), _literal(node.right)
        operation = ARITHMETIC.get(type(node.op))
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        return operation(left, right) if operation and numbers else None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


ARITHMETIC = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right if right else None,
    ast.FloorDiv: lambda left, right: left // right if right else None,
}


def parse_assignments(assignments: tuple[str, ...], settings: dict[str, Setting] | None) -> dict[str, str]:
    """`name=value` strings as a dict. UserError for anything else, and for names that `settings` does not know."""
    overrides = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UserError(f"--set {assignment!r}: write it as name=value")
        if name in OWN_OPTIONS:
            raise UserError(f"--set {assignment!r}: use --{OWN_OPTIONS[name]}")
        if settings is not None:
            check(name, value.strip(), settings)
        overrides[name] = value.strip()
    return overrides


def check(name: str, value: object, settings: dict[str, Setting]) -> None:
    """Raise UserError if there is no such setting, or the value is not of its type or makes no sense."""
    if name not in settings:
        close = difflib.get_close_matches(name, settings, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(settings)}"
        raise UserError(f"the script has no setting {name!r}; {hint}")
    kind = settings[name].kind
    if kind == "bool" and as_text(value) not in ("true", "false"):
        raise UserError(f"{name} is true or false, not {value!r}")
    if kind in TYPES:
        try:
            read = TYPES[kind](as_text(value))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            example = ", which is written as (3, 7) or (3,)" if kind == "tuple" else ""
            raise UserError(f"{name} is of type {kind}{example}: {value!r} is not") from None
        if why := _senseless(settings[name], read):
            raise UserError(f"{name} is {why}, not {value}")


def _senseless(setting: Setting, value: object) -> str:
    """What a value of the right type would have to be, "" if nothing speaks against it."""
    if setting.kind == "float" and not math.isfinite(value):
        return "a finite number"
    counts = setting.kind == "int" and isinstance(setting.default, int)
    if counts and setting.default > 0 and value < 1 and SIZES.fullmatch(setting.name):
        return "at least 1"
    if counts and setting.default >= 0 and value < 0:
        return "at least 0"
    if setting.kind == "int" and not -(2**63) <= value < 2**63:
        return "a number of 64 bits"
    return ""


def as_text(value: object) -> str:
    """A setting's value as it is written on the script's command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(_as_tuple(value))


def _as_tuple(value: object) -> object:
    """TOML's lists, also lists of lists, as the tuples that a script's settings hold."""
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value


def as_arguments(overrides: dict[str, object]) -> list[str]:
    """`--name value` pairs for the script's command line."""
    return [part for name, value in overrides.items() for part in (f"--{name}", as_text(value))]
