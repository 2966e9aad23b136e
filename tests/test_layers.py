"""Imports point downwards only: a part may use the foundation, never another part; the foundation uses no part."""

import ast
from pathlib import Path

import pytest

import kdutils

PACKAGE = Path(kdutils.__file__).parent
FOUNDATION = {"evidence", "data", "models", "measure", "training", "command"}
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


@pytest.mark.parametrize("part", PARTS)
def test_a_chapters_module_imports_no_other_chapters(part):
    own = {f"kdutils.{part}.{path.stem}" for path in (PACKAGE / part).glob("[a-z]*.py")}
    for path in (PACKAGE / part).glob("[a-z]*.py"):
        assert not imported(path) & (own - {f"kdutils.{part}.{path.stem}"}), path.name


def test_the_foundation_imports_no_part():
    for path in PACKAGE.rglob("*.py"):
        top = path.relative_to(PACKAGE).parts[0]
        if top not in PARTS and path.name != "__init__.py":
            assert not parts_used(path), f"{path.relative_to(PACKAGE)} imports {parts_used(path)}"


@pytest.mark.parametrize("part", PARTS)
def test_each_module_of_a_part_has_its_tests(part):
    for path in (PACKAGE / part).glob("[a-z]*.py"):
        assert (PACKAGE.parent / "tests" / part / f"test_{path.name}").exists(), f"{part}/{path.name} has no tests"
