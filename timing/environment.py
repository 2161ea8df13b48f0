"""Where and how a run ran: the facts that stand in a log between its source and its metrics."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from timing.text import printable

FIELD_LENGTH = 200
_MOST_OVERRIDES = 500
_MOST_GPUS = 64

# Every pattern is anchored at a line's start and has no nested or adjacent repetition of overlapping classes, so that
# a hostile text costs no more than its length.
_FACTS = {
    "python": r"^Running python (\d[^\s(]*)",
    "torch": r"^(?:Running (?:py)?torch|(?:py)?torch(?: version)?\s?[:=])\s?(\d\S*)",
    "cuda": r"^Running pytorch \S+ compiled for CUDA (\d\S*)",
    "triton": r"^Running Triton version (\d\S*)",
    "driver": r"^\|[^|\n]{0,60}(?:Driver|KMD) Version: ?(\d[\d.]*)",
    "seed": r"^(?:Using )?seed[=:] ?(\S+)",
    "manifest": r"^manifest[=:] ?(\S+)",
    "fidelity": r"^fidelity[=:] ?(\S+)",
    "run_id": r"^run_id[=:] ?(\S+)",
    "stop_step": r"^[^\n]{0,200}?\brun_stop_step=(\d{1,12})\b",
    "world_size": r"^[^\n]{0,200}?\bworld[_ ]size[=: ] ?(\d{1,6})\b",
    "device": r"^Running [^\n]{0,200}?(?:device_name=| on )(?!device_name)(\S[^\n]{0,60}?) with world_size",
}
_FACTS = {name: re.compile(pattern, re.MULTILINE | re.IGNORECASE) for name, pattern in _FACTS.items()}
_WORDS = {
    "triton": "running triton",
    "driver": " version:",
    "seed": "seed",
    "manifest": "manifest",
    "fidelity": "fidelity",
    "run_id": "run_id",
    "stop_step": "run_stop_step=",
    "world_size": "world",
    "device": " with world_size",
}
"""What a fact's line surely holds, in small letters: a text without it is not searched line by line."""
_STAMP = re.compile(r"^Run UTC timestamp=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?)", re.MULTILINE)
_BUILT = re.compile(
    r"^Running python [^\n(]{1,60}\([^\n,()]{1,60}, ([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d{4})\b",
    re.MULTILINE | re.IGNORECASE,
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_OVERRIDE = re.compile(r"^override ([A-Za-z_][\w.]{0,100})=([^\n]*)$", re.MULTILINE)
_SMI_DATE = re.compile(
    r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d:\d\d:\d\d)(?: [A-Z]{3,5})? (\d{4})\b",
    re.MULTILINE,
)
# One GPU of the nvidia-smi table: index, name and persistence mode in the first cell, the bus id in the second.
_SMI_ROW = re.compile(r"^\|([^|\n]{10,60})\| {1,5}([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)", re.MULTILINE)
_SMI_LIST = re.compile(r"^GPU (\d{1,3}): ([^\n(]{1,80}) \(UUID: ([^\s)]{1,60})\)", re.MULTILINE)
_NOTHING = {"none", "null", "n/a", ""}


@dataclass
class Environment:
    """Facts by the field names of `Run`, the line (from 1, within the text) of each, and what is odd about them."""

    facts: dict[str, str | int] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    line: dict[str, int] = field(default_factory=dict)
    odd: list[tuple[int, str]] = field(default_factory=list)


def read_environment(text: str) -> Environment:
    """The facts of an environment block (`text`: decoded, "\\n" line ends); what is not there is left out."""
    found, small = Environment(), text.lower()
    for name, pattern in _FACTS.items():
        match = pattern.search(text) if _WORDS.get(name, "") in small else None
        if match and match[1].lower() not in _NOTHING:
            _keep(found, text, name, match, match[1])
    for name in ("python", "torch", "cuda", "triton"):
        if name in found.facts:
            found.facts[name] = found.facts[name].rstrip(",;")
    for name in ("world_size", "stop_step"):
        if name in found.facts:
            found.facts[name] = int(found.facts[name])
    _read_date(text, found)
    _read_build(text, found)
    _read_gpus(text, found)
    for match in islice(_OVERRIDE.finditer(text), _MOST_OVERRIDES) if "override " in text else ():
        found.overrides[match[1]] = printable(match[2], FIELD_LENGTH)
        found.line[f"override {match[1]}"] = _line_of(text, match)
    return found


def _read_date(text: str, found: Environment) -> None:
    """When the run started, as ISO 8601: a UTC stamp, or the date over the nvidia-smi table, which names no zone."""
    match = _STAMP.search(text) if "Run UTC" in text else None
    if match:
        date = match[1]
    elif match := _SMI_DATE.search(text):
        date = f"{match[4]}-{_MONTHS.find(match[1]) // 3 + 1:02}-{int(match[2]):02}T{match[3]}"
    else:
        return
    try:
        datetime.fromisoformat(date)
    except ValueError:
        found.odd.append((_line_of(text, match), "the date is not one"))
    else:
        _keep(found, text, "date", match, date)


def _read_build(text: str, found: Environment) -> None:
    """The day on which the Python that ran was built, as ISO 8601."""
    match = _BUILT.search(text)
    if match:
        day = f"{match[3]}-{_MONTHS.find(match[1]) // 3 + 1:02}-{int(match[2]):02}"
        try:
            datetime.fromisoformat(day)
        except ValueError:
            return
        _keep(found, text, "python_built", match, day)


def _read_gpus(text: str, found: Environment) -> None:
    """Count and name of the GPUs, from the nvidia-smi table or from `nvidia-smi -L`; a bus id counts once."""
    names, first = {}, None
    for match in _SMI_ROW.finditer(text):
        cell = match[1].split()
        if len(cell) >= 3 and cell[0].isdecimal():
            names.setdefault(match[2].lower(), " ".join(cell[1:-1]))
            first = first or match
    if not names:
        for match in _SMI_LIST.finditer(text):
            names.setdefault(match[3], match[2].strip())
            first = first or match
    if not names:
        return
    kinds = list(dict.fromkeys(names.values()))
    _keep(found, text, "gpu", first, " + ".join(kinds))
    found.facts["gpus"] = len(names)
    found.facts["gpu_ids"] = ",".join(list(names)[:_MOST_GPUS])
    found.line["gpus"] = found.line["gpu"]
    if len(kinds) > 1:
        found.odd.append((found.line["gpu"], "the GPUs are not all of one kind"))


def _keep(found: Environment, text: str, name: str, match: re.Match, value: str) -> None:
    found.facts[name] = printable(value, FIELD_LENGTH)
    found.line[name] = _line_of(text, match)


def _line_of(text: str, match: re.Match) -> int:
    return text.count("\n", 0, match.start()) + 1
