"""What compiled code reads though nothing has written it.

NVIDIA's assembler as Triton 3.6 and 3.7 have it (ptxas 12.8.93) can lose a number that was converted to 8 bits. If the
number is packed with its neighbours for one store and used for another as well, the second use may read some register
that no instruction has written: a quarter to a half of a tile is wrong then, part of it NaN. Such reads are looked for
here in the order of the text, which is that of the execution but for loops.
"""

import re

PTX_LINE = re.compile(r"^\s*(?:@!?%p\d+ )?([a-z][\w.:]*)\s+(.*);", re.MULTILINE)
PTX_REGISTER = re.compile(r"%(?:r|rs|rd|f|p|b)\d+\b")
SASS_LINE = re.compile(r"^\S*\t(?:@!?U?P\d+ )?([A-Z0-9_.]+) (.*);", re.MULTILINE)
SASS_REGISTER = re.compile(r"(?<!\w)R(\d+)")
WRITES_NOTHING = ("st", "red", "bar", "ST", "RED", "ISETP", "FSETP")
WIDTHS = ((r"\.128", 4), (r"\.64|WIDE|CS2R", 2), (r"LDSM\S*\.4", 4), (r"LDSM\S*\.2", 2))  # registers of a result
STACK = 1  # in machine code R1, which the hardware sets


def unwritten_in_ptx(ptx: str) -> list[str]:
    """Instructions of PTX that read a register which none before has written."""
    written, found = set(), []
    for operation, operands in PTX_LINE.findall(ptx):
        result = "" if operation.startswith(WRITES_NOTHING) else re.match(r"\{[^}]*\}|[^,]*", operands)[0]
        if not written.issuperset(PTX_REGISTER.findall(operands[len(result) :])):
            found.append(f"{operation} {operands}")
        written.update(PTX_REGISTER.findall(result))
    return found


def unwritten_in_sass(sass: str) -> list[str]:
    """The same of machine code. A half that PRMT 0x7632 takes over is shifted out behind it."""
    written, found = set(), []
    for operation, operands in SASS_LINE.findall(sass):
        result = re.match(r"(?:P\d, )*R(\d+)", operands) if not operation.startswith(WRITES_NOTHING) else None
        rest = operands[result.end() if result else 0 :].split(", 0x7632,")[0]
        read = set(map(int, SASS_REGISTER.findall(rest))) - ({STACK} if "[R1" in rest else set())
        if not written.issuperset(read):
            found.append(f"{operation} {operands}")
        if result and int(result[1]) != STACK:
            width = next((width for form, width in WIDTHS if re.search(form, operation)), 1)
            written.update(range(int(result[1]), int(result[1]) + width))
    return found


def lost_numbers(kernel) -> list[str]:
    """Of a kernel that Triton has compiled, and that makes numbers of 8 bits, the reads of nothing in its machine code
    if they are more than in Triton's own: there a byte to spare may come from anywhere. What multiplies matrices as
    well is not looked at: such instructions write more registers than they name."""
    ptx = kernel.asm["ptx"]
    if not re.search(r"cvt\S*\.e[45]m[23]x2", ptx) or "mma" in ptx:
        return []
    found = unwritten_in_sass(kernel.asm["sass"])
    return found if len(found) > len(unwritten_in_ptx(ptx)) else []
