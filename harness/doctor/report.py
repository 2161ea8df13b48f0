"""The doctor's facts as a report: JSON for programs, markdown for people, both of one measurement."""

import json
import re
from pathlib import Path

from harness.errors import UserError
from harness.files import write_whole

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def write(facts: dict, folder: Path) -> list[Path]:
    """`<machine>.json` and `<machine>.md` in `folder`, such as `2x-nvidia-h200`. Raises UserError if that cannot be."""
    name = slug(facts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [
            write_whole(folder / f"{name}.json", json.dumps(facts, indent=1) + "\n"),
            write_whole(folder / f"{name}.md", markdown(facts)),
        ]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; choose another place with --report") from None


def slug(facts: dict) -> str:
    """A file's name for this machine: how many of which GPU, or its processor."""
    machine = facts["machine"]
    name = f"{machine['gpus']}x {machine['gpu']}" if machine["gpu"] else f"cpu {machine['cpu']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]


def markdown(facts: dict) -> str:
    """The report as a page."""
    machine, versions = facts["machine"], facts["versions"]
    gpus = f"{machine['gpus']} × {machine['gpu']}" if machine["gpu"] else "no GPU"
    parts = [
        f"# {gpus}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['os']}, "
        f"driver {machine['driver']}; " + ", ".join(f"{name} {value}" for name, value in versions.items()) + ".",
        "Links: " + "; ".join(facts["topology"]["words"]) + ".",
    ]
    if facts["tricks"]:
        parts.append("## What pays here\n\n" + "\n".join(f"- {line}" for line in facts["tricks"]))
    for heading, columns, rows in [("Records", ("record", "here"), list(facts["records"].items())), *tables(facts)]:
        lines = [columns, ("---",) * len(columns), *rows]
        body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        parts.append(f"## {heading}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def tables(facts: dict) -> list[Table]:
    """The measured rows as tables: heading, columns, cells. None where nothing was measured."""
    if "kernels" not in facts:
        return []
    found = [("Kernels", ("kernel", "ms", "rate, or why not"), [_kernel(row) for row in facts["kernels"]])]
    links = facts["collectives"]
    calls = [row for row in links if "bus_gb_s" in row]
    if not calls:
        return [*found, ("Collectives", ("why not",), [("they take two GPUs or more",)])]
    columns = ("collective", "message", "size", "ms", "algorithm GB/s", "bus GB/s")
    heading = f"Collectives over {calls[0]['ranks']} ranks, {calls[0]['backend']}, bf16"
    found.append((heading, columns, [_call(row) for row in calls]))
    hidden = [row for row in links if "hidden" in row]
    columns = ("message", "size", "compute ms", "all_reduce ms", "together ms", "saved")
    return [*found, ("Communication behind computation", columns, [_overlap(row) for row in hidden])]


def _kernel(row: dict) -> tuple[str, ...]:
    if missing := row.get("unavailable"):
        return row["name"], "-", f"unavailable: {missing}"
    return row["name"], f"{row['ms']:.3f}", row["rate"]


def _call(row: dict) -> tuple[str, ...]:
    rates = (f"{row['ms']:.3f}", f"{row['algorithm_gb_s']:.2f}", f"{row['bus_gb_s']:.2f}")
    return row["name"], row["message"], size(row["bytes"]), *rates


def _overlap(row: dict) -> tuple[str, ...]:
    times = (f"{row[name]:.3f}" for name in ("compute_ms", "communication_ms", "together_ms"))
    return row["message"], size(row["bytes"]), *times, f"{row['hidden']:.0%}"


def size(number_of_bytes: int) -> str:
    """`8 KiB`, `73.7 MiB`."""
    unit, scale = next(pair for pair in (("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)) if number_of_bytes >= pair[1])
    return f"{number_of_bytes / scale:.3g} {unit}"
