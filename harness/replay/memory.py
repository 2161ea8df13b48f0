"""GPU memory: whether a record fits, and which setting to lower where it does not, with what that costs."""

import math
import re

from harness.archive.record import Record
from harness.archive.settings import Setting
from harness.errors import UserError
from harness.replay.fidelity import LABELS

# What a rank holds at once grows with these; those of validation alone do not make a training step fit.
LOWERED = re.compile(r"(?!val_).*(micro|batch|row_tokens|sequence)")


def check_memory(record: Record, settings: dict[str, Setting] | None, gpus: tuple) -> None:
    """Raise UserError if the record does not fit on the smallest of these GPUs, and say what to lower."""
    least = min((gpu.memory_gib for gpu in gpus), default=math.inf)
    if least >= record.gpu_memory_gib:
        return
    raise UserError(
        f"{record.label} needs {record.gpu_memory_gib:g} GiB of GPU memory and {gpus[0].name} has {least:.1f}: "
        f"{lower(settings, {})}"
    )


def lower(settings: dict[str, Setting] | None, overrides: dict[str, object]) -> str:
    """What to lower so that a run takes less memory, from what to what, and what the run is worth then."""
    cost = f"which leaves the record's fidelity (the run is then `shortened`: {LABELS['shortened'].proves} alone)"
    for name, setting in (settings or {}).items():
        value = overrides.get(name, setting.default)
        if LOWERED.match(name) and str(value).isdigit() and int(value) > 1:
            return f"lower {name} with --set {name}={int(value) // 2} (now {value}), {cost}"
    return f"lower its batch with --set, {cost}" if settings else "the script has no setting to lower"
