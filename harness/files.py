"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path | str, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) beside `path`, then rename it into place, so that no reader ever sees half of it.

    Raises OSError as the file system gives it; the aside file is removed and `path` is left as it was.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return path
