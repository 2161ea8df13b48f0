"""Which files of a folder are logs."""

import contextlib
import os
from pathlib import Path

from timing.run import LogError
from timing.text import printable

_SUFFIXES = {".txt", ".log"}
_COPIES = {"stdout.txt", "stderr.txt"}  # beside a log.txt they repeat its metric lines


def log_files(path: str | os.PathLike) -> list[Path | LogError]:
    """The logs under `path`, sorted by name: itself if it is no folder, else its files named *.txt and *.log.

    In a folder, hidden entries and links to folders are passed over; a link to a file is a LogError in its place, for
    it may lead anywhere, and so is a folder that cannot be listed, or one without any log.
    """
    if not os.path.isdir(path):
        return [Path(path)]
    found: list[Path | LogError] = []

    def refuse(error: OSError) -> None:
        found.append(LogError(f"{printable(str(error.filename), 300)}: cannot be listed: {error.strerror}"))

    for folder, subfolders, names in os.walk(path, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if file.suffix.lower() not in _SUFFIXES or name.startswith(".") or _is_copy(name, names):
                continue
            found.append(_link_error(file) if file.is_symlink() else file)
    return found or [LogError(f"{printable(str(path), 300)}: holds no log (*.txt, *.log)")]


def total_size(files: list[Path | LogError]) -> int:
    """Bytes of all `files` that can be found."""
    sizes = 0
    for file in files:
        if isinstance(file, Path):
            with contextlib.suppress(OSError, ValueError):
                sizes += file.stat().st_size
    return sizes


def _is_copy(name: str, names: list[str]) -> bool:
    return name in _COPIES and "log.txt" in names


def _link_error(file: Path) -> LogError:
    return LogError(f"{printable(str(file), 300)}: is a link, which is not followed in a folder; name the file itself")
