"""File names from a stranger's log, as names that stay inside a folder on any system."""

import re
from itertools import count

_LONGEST_PART = 80
_MOST_PARTS = 6
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_DEVICES = {"con", "prn", "aux", "nul", "clock$"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def is_safe(name: str) -> bool:
    """Whether `name` ("ops/kernels.py") is a plain relative path: nothing hidden, absolute, upward or reserved."""
    parts = name.split("/")
    return len(parts) <= _MOST_PARTS and all(map(_is_safe_part, parts))


def file_name(text: str, fallback: str = "log") -> str:
    """The safe name nearest to `text`: other characters become "-", and what remains is cut to length."""
    cleaned = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text[:1000]).strip("-.+")[:_LONGEST_PART].rstrip("-.+")
    return cleaned if _is_safe_part(cleaned) else f"{fallback}-{cleaned}"[:_LONGEST_PART].rstrip("-.+")


def place_all(names: list[str], taken: set[str]) -> list[str]:
    """A path for each of the module names: its own if it is safe and free, else `module_<n>.py` with the next free n.

    Names that differ only in case count as one, and so do a file and a folder of one name. `taken` lists what the
    folder holds already.
    """
    files, folders = {name.casefold() for name in taken}, set()
    placed = []
    for name in names:
        above = {name[:end].casefold() for end, letter in enumerate(name) if letter == "/"}
        if not is_safe(name) or name.casefold() in files | folders or above & files:
            name, above = next(free for free in map("module_{}.py".format, count(1)) if free not in files), set()
        files.add(name.casefold())
        folders |= above
        placed.append(name)
    return placed


def _is_safe_part(part: str) -> bool:
    stem = part.split(".")[0].casefold()
    return bool(_PART.fullmatch(part)) and len(part) <= _LONGEST_PART and stem not in _DEVICES and part[-1] != "."
