"""The house has floors: who imports whom, read from the code. A floor uses those below it, and no files go round in circles."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ginit"
#: From the top to the ground. Files that stand together in a line don't use each other.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"supervisor"},
    {"runit"},
    {"services"},
    {"processes"},
    {"output"},
    {"settings", "patching"},
    {"restart", "patience", "text"},
)


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str) -> Iterator[str]:
    """The modules of ginit's own that one imports, wherever in it, but for what it needs for types alone."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    for_types = [node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"]
    not_counted = {inner for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node not in not_counted
            and (node.level or (node.module or "").startswith("ginit"))
        ):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source


def floor(name: str) -> int:
    """How far down a module stands."""
    room = name.split(".")[1]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "ginit"])
def test_a_module_uses_its_own_floor_and_those_below(name):
    for used in imports(name):
        if used != "ginit" and used.split(".")[1] != name.split(".")[1]:
            assert floor(used) > floor(name), f"{name} uses {used}"


def test_no_files_use_each_other_in_a_circle():
    left = {name: set(imports(name)) - {name} for name in MODULES}
    while left:
        free = {name for name, used in left.items() if not used & left.keys()}
        assert free, f"in a circle, or above one: {', '.join(sorted(left))}"
        left = {name: used for name, used in left.items() if name not in free}


def test_standing_in_for_runit_is_imported_by_those_alone_who_do():
    for name, path in MODULES.items():
        at_the_start = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert name.startswith("ginit.runit") or not any("runit" in (node.module or "") for node in at_the_start), name
