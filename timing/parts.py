"""The parts of a log file other than its metrics, read back after the pass that found where they stand."""

from dataclasses import dataclass

from timing.blocks import BYTE_ORDER_MARK, open_log
from timing.environment import Environment, read_environment
from timing.layout import Banner, Layout, Part, find_layout, first_metric, split_helpers
from timing.run import Note
from timing.scan import Scan
from timing.text import printable

_LONGEST_SOURCE = 8 << 20
_LONGEST_ENVIRONMENT = 256 << 10


@dataclass(frozen=True)
class Parts:
    """A log's layout, the modules of its source block (none if it has no source) and its environment."""

    layout: Layout
    modules: tuple[Part, ...]
    environment: Environment  # lines counted from the file's first
    notes: tuple[Note, ...]

    @property
    def source(self) -> bytes:
        """The source block's bytes."""
        return b"".join(part.glue + part.content for part in self.modules)


def read_modules(path) -> tuple[Part, ...]:
    """The modules in the source block of a log: the script first, then its helpers; () if it has none.

    Raises LogError as `read_log` does.
    """
    with open_log(path) as file:
        scan = Scan(file, printable(str(path), 300))
        return read_parts(file, scan).modules


def read_parts(file, scan: Scan) -> Parts:
    """Source and environment of the log `file`, whose lines `scan` has seen."""
    start = len(BYTE_ORDER_MARK) if scan.tally.byte_order_mark else 0
    banners = [banner for banner in scan.banners if banner.offset < _LONGEST_SOURCE]
    head = _bytes_at(file, 0, banners[-1].offset + 4096) if banners else b""
    layout = find_layout(head, banners, start)
    source = head[layout.source_start : layout.source_end]
    modules = split_helpers(source) if source else ()
    environment = read_environment(_environment_text(file, layout))
    offset = layout.environment_line - 1
    environment.line = {name: line + offset for name, line in environment.line.items()}
    notes = [Note(line, text) for line, text in layout.odd]
    notes += [Note(line + offset, text) for line, text in environment.odd]
    notes += _source_notes(layout, modules, scan.banners, banners)
    return Parts(layout, modules, environment, tuple(notes))


def _environment_text(file, layout: Layout) -> str:
    """What stands between the source and the first metric line, as far as facts are looked for in it."""
    text = _bytes_at(file, layout.environment_start, _LONGEST_ENVIRONMENT)
    return text[: first_metric(text)].decode(errors="replace").replace("\r\n", "\n")


def _source_notes(layout: Layout, modules: tuple[Part, ...], banners: list[Banner], near: list[Banner]) -> list[Note]:
    if len(near) < len(banners) and not near:
        return [Note(banners[0].line, "a source of over 8 MiB is not kept")]
    if not modules:
        return [Note(0, "no source stands in this log")]
    notes = []
    try:
        b"".join(part.content for part in modules).decode()
    except UnicodeDecodeError as error:
        notes.append(Note(layout.source_line, f"the source is not UTF-8 text: {error.reason}"))
    names = [part.name for part in modules]
    if len(set(names)) < len(names):
        notes.append(Note(layout.source_line, "two helper modules have one name"))
    return notes


def _bytes_at(file, offset: int, size: int) -> bytes:
    file.seek(offset)
    pieces = []
    while size > 0 and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
