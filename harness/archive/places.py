"""Where data, runs and reports lie unless a command is told otherwise: in the repository, whatever folder one is in."""

from pathlib import Path

from harness.archive import find


def repository() -> Path:
    """The folder that holds `records/`; where the harness is installed, and there is none, the one that one is in."""
    root = Path(find.ROOT)
    return Path.cwd() if root.name == find.INSTALLED else root.parent


def runs_dir() -> Path:
    """Where replays are kept."""
    return Path(shown(repository() / "runs"))


def data_dir(corpus: str) -> Path:
    """Where the tokens of a corpus are kept."""
    return Path(shown(repository() / "data" / corpus))


def reports_dir() -> Path:
    """Where figures and pages are written."""
    return Path(shown(repository() / "reports" / "out"))


def shown(path: Path | str) -> str:
    """A path as short as it can be written from here."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
