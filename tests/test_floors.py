"""The house stands: an import goes down a floor or stays in its room, never up, and rooms form no circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    {"harness.cli"},
    {"harness.commands"},
    {"harness.audit", "harness.history", "harness.doctor", "harness.importing"},
    {"harness.replay"},
    {"harness.referee", "harness.diff"},
    {"harness.archive", "harness.tokens"},
    {"harness.errors", "harness.files", "harness.machine", "harness.terminal", "harness.version"},
    {"timing", "reports"},
)
# The figures are drawn from frames that only the history makes, and by it alone.
ALLOWED_TO_DRAW = {"harness.history"}


def room_of(module: str) -> str | None:
    """The room a module of ours belongs to: `harness.diff` for `harness.diff.words`; None for other people's."""
    parts = module.split(".")
    if parts[0] == "harness":
        return ".".join(parts[:2]) if len(parts) > 1 else None
    return parts[0] if parts[0] in ("timing", "reports", "records", "tests") else None


def floor_of(room: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if room in floor)


def imports(path: Path, name: str):
    """(module, names) for each import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports by dots"
            yield node.module, tuple(alias.name for alias in node.names)


def modules(root: Path) -> dict[str, Path]:
    """Our modules by dotted name."""
    files = [path for room in ("harness", "timing", "reports") for path in sorted((root / room).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def arrows(root: Path) -> set[tuple[str, str]]:
    """(module, module that it imports), both ours. `from room import module` counts as the module."""
    ours, found = modules(root), set()
    for name, path in ours.items():
        for module, names in imports(path, name):
            targets = {f"{module}.{each}" for each in names if f"{module}.{each}" in ours} or {module}
            found |= {(name, target) for target in targets if room_of(target)}
    return found


def upward(root: Path) -> list[str]:
    """Arrows that break the plan, in words."""
    wrong = []
    for name, target in sorted(arrows(root)):
        here, there = room_of(name), room_of(target)
        if here is None or here == there:
            continue
        if there in ("records", "tests"):
            wrong.append(f"{name} imports {target}: nothing imports a record or a test")
        elif floor_of(there) < floor_of(here):
            wrong.append(f"{name} imports {target}, a floor above it")
        elif floor_of(there) == floor_of(here) and floor_of(here) >= floor_of("timing"):
            wrong.append(f"{name} imports {target}: timing and reports do not know each other")
        elif there == "reports" and here not in ALLOWED_TO_DRAW:
            wrong.append(f"{name} imports {target}: only {', '.join(ALLOWED_TO_DRAW)} draws")
    return wrong


def circle(edges: set[tuple[str, str]]) -> list[str]:
    """The first circle among these arrows, as the names on it; [] if there is none."""
    targets: dict[str, set[str]] = {}
    for name, target in edges:
        if name != target:
            targets.setdefault(name, set()).add(target)
    finished: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return trail[trail.index(name) :]
        if name in finished:
            return []
        for target in sorted(targets.get(name, ())):
            if found := walk(target, [*trail, name]):
                return found
        finished.add(name)
        return []

    return next((found for name in sorted(targets) if (found := walk(name, []))), [])


def test_no_import_goes_up():
    assert upward(ROOT) == []


def test_no_circle_of_modules_or_of_rooms():
    edges = arrows(ROOT)
    assert circle(edges) == []
    assert circle({(room_of(a), room_of(b)) for a, b in edges if room_of(a) and room_of(b)}) == []


def test_every_room_says_what_it_is_for():
    for folder in (ROOT / "harness").rglob("*/"):
        if any(folder.glob("*.py")):
            doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            assert doc and len(doc.splitlines()) == 1, folder


@pytest.mark.parametrize(
    "path, line, said",
    [
        ("harness/referee/planted.py", "from harness.replay import runs", "a floor above"),
        ("timing/planted.py", "import reports.charts", "do not know each other"),
        ("harness/diff/planted.py", "from reports import charts", "only harness.history draws"),
        ("reports/planted.py", "def late():\n    from harness.errors import UserError", "a floor above"),
    ],
)
def test_a_planted_arrow_is_found(tmp_path, path, line, said):
    for module in ("harness/replay/runs.py", "harness/errors.py", "reports/charts.py", path):
        target = tmp_path / module
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("")
    (tmp_path / path).write_text(line + "\n")
    (wrong,) = upward(tmp_path)
    assert said in wrong


def test_a_planted_circle_is_found(tmp_path):
    (tmp_path / "timing").mkdir()
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / "timing" / f"{name}.py").write_text(f"from timing import {other}\n")
    assert circle(arrows(tmp_path)) == ["timing.a", "timing.b", "timing.c"]
