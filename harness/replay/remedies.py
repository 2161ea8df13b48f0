"""What to change in a run that went wrong, one thing after the other: precision first, then the learning rate."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.archive.settings import Setting, as_text

# The next safer precision, in the order in which it is tried; a script that has none of these settings skips the rung.
PRECISIONS = (("fp8", "fp8 off"), ("bf16_activations", "float32 activations"), ("autocast", "float32 activations"))
RATE = re.compile(r"(?!final_)(\w+_)?learning_rate$")  # `final_learning_rate` is a fraction of the others
FACTORS = (0.5, 0.1, 0.01)


@dataclass(frozen=True)
class Remedy:
    """A change of settings, `name=value` each as `--set` takes them, and its name in words."""

    words: str
    assignments: tuple[str, ...]


def remedies(settings: dict[str, Setting] | None, overrides: dict[str, object]) -> Iterator[Remedy]:
    """What can be tried on a script with these settings, laid over `overrides`; each holds what the ones before did."""
    settings = settings or {}
    values = {name: overrides.get(name, setting.default) for name, setting in settings.items()}
    kept: tuple[str, ...] = ()
    for name, words in PRECISIONS:
        if name in settings and as_text(values[name]) == "true":
            kept += (f"{name}=false",)
            yield Remedy(words, kept)
    rates = {name: float(as_text(value)) for name, value in values.items() if RATE.match(name) and value is not None}
    for factor in FACTORS if rates else ():
        lowered = tuple(f"{name}={rate * factor:g}" for name, rate in rates.items())
        yield Remedy(f"learning rate x {factor:g}", (*kept, *lowered))
