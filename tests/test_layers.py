"""Imports point downwards only: a part may use the foundation, never another part; the foundation uses no part."""

import ast
from pathlib import Path

import pytest

import kdutils

PACKAGE = Path(kdutils.__file__).parent
FOUNDATION = {"evidence", "data", "models", "measure", "live", "training", "command"}
PARTS = sorted(
    place.name for place in PACKAGE.iterdir() if (place / "__init__.py").exists() and place.name not in FOUNDATION
)
ABOVE_ALL = {"practice"}  # may use every part


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("kdutils.")}


def parts_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path)} & set(PARTS)


def test_the_parts_are_found():
    assert {"distill", "transfer"} <= set(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_no_other_part(part):
    for path in (PACKAGE / part).rglob("*.py"):
        others = parts_used(path) - {part}
        assert part in ABOVE_ALL or not others, f"{path.relative_to(PACKAGE)} imports {others}"


def topics(part: str) -> list[str]:
    """The topics of a part: its modules, and its folders with a file for each method."""
    places = (PACKAGE / part).iterdir()
    return sorted({place.stem for place in places if place.stem[0].isalpha() and place.suffix in ("", ".py")})


def files_of(part: str, topic: str) -> list[Path]:
    place = PACKAGE / part / topic
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@pytest.mark.parametrize("part", PARTS)
def test_a_chapters_code_imports_no_other_chapters(part):
    for topic in topics(part):
        others = {f"kdutils.{part}.{other}" for other in topics(part) if other != topic}
        for path in files_of(part, topic):
            used = {".".join(name.split(".")[:3]) for name in imported(path)}
            assert not used & others, path.relative_to(PACKAGE)


def test_the_foundation_imports_no_part():
    for path in PACKAGE.rglob("*.py"):
        top = path.relative_to(PACKAGE).parts[0]
        if top not in PARTS and path.name != "__init__.py":
            assert not parts_used(path), f"{path.relative_to(PACKAGE)} imports {parts_used(path)}"


@pytest.mark.parametrize("part", PARTS)
def test_each_module_of_a_part_has_its_tests(part):
    for topic in topics(part):
        for path in files_of(part, topic):
            if path.stem[0].isalpha():
                inside = path.relative_to(PACKAGE)
                tests = PACKAGE.parent / "tests" / inside.parent / f"test_{inside.name}"
                assert tests.exists(), f"{inside} has no tests"


LAYERS = (
    ("checks", "describe", "files", "precision"),
    *(("evidence",), ("plot",), ("data",), ("models",), ("measure",), ("live",), ("training",)),
    (*PARTS, "command"),
)
"""From low to high; an import points downwards, or stays in its room."""

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


class Imports(ast.NodeVisitor):
    """The modules of the package that a module imports when it runs, wherever in it; not those for type checkers."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        for child in node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else ast.iter_child_nodes(node):
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        self.found |= {name if name in MODULES else str(node.module) for name in names}


def running_imports(name: str) -> set[str]:
    visitor = Imports()
    visitor.visit(ast.parse(MODULES[name].read_text(encoding="utf-8")))
    return {found for found in visitor.found if found in MODULES} - {name, "kdutils"}  # which passes names on


def test_no_modules_import_each_other_in_a_circle():
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> None:
        assert name not in path, " imports ".join([*path[path.index(name) :], name])
        if name not in done:
            for below in sorted(running_imports(name)):
                follow(below, [*path, name])
            done.add(name)

    for name in sorted(MODULES):
        follow(name, [])


def test_imports_between_rooms_point_downwards():
    level = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
    for name in MODULES:
        room = name.split(".")[1] if "." in name else ""
        for below in running_imports(name):
            other = below.split(".")[1]
            if room in level and other in level and room != other:
                assert level[other] < level[room] or {room, other} <= set(LAYERS[0]) | {"command"}, f"{name}: {below}"


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_functions_classes_and_modules_are_short():
    classes, modules = set(), set()
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 300:
            modules.add(path.relative_to(PACKAGE).as_posix())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert length(node) <= 60, f"{path.name}: {node.name} has {length(node)} lines"
            elif isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno + 1 > 150:
                classes.add(node.name)
    assert classes == set()
    assert modules == set()
