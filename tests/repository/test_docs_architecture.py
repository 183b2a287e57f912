"""The packages, levels and routes that the documents describe, compared with the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.route import scopes
from service.app import create_app

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")

PACKAGES: dict[str, str] = dict(re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", ARCHITECTURE, re.MULTILINE))
LEVELS = [
    [name.strip() for name in level.split(",")]
    for level in re.findall(r"^```text\n(errors, [^`]*)\n```$", ARCHITECTURE, re.MULTILINE)[0].splitlines()
]


def imported(path: Path) -> Iterator[str]:
    """The names of modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def allowed(package: str) -> set[str]:
    """The packages that the table lets a package import."""
    text = PACKAGES[package]
    named = set(re.findall(r"`(\w+)`", text))
    return PACKAGES.keys() - named if text.startswith("all") else named


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_as_the_table_says(package: str) -> None:
    found = {name.partition(".")[0] for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    assert (found & PACKAGES.keys()) - {package} <= allowed(package)


def test_the_table_names_every_package() -> None:
    assert PACKAGES.keys() == {path.parent.name for path in ROOT.glob("*/*.py") if not path.parent.name.startswith(".")}


def part(module: str) -> str:
    """The module or subpackage of `engram` that a module belongs to."""
    return module.split(".")[1]


def test_the_learners_parts_import_from_levels_above_only() -> None:
    place = {name: number for number, level in enumerate(LEVELS) for name in level}
    there = {
        path.stem for path in (ROOT / "engram").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert place.keys() == there - {"__init__"}
    for path in (ROOT / "engram").rglob("*.py"):
        own = path.relative_to(ROOT / "engram").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imported(path):
            if module.startswith("engram.") and part(module) != own:
                assert place[part(module)] < place[own], f"{path}: {module}"


def test_every_part_of_the_learner_is_described() -> None:
    table = ARCHITECTURE.split("| module or package | what it holds |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(name for level in LEVELS for name in level)


def test_every_route_is_listed_with_its_scope() -> None:
    app = create_app()
    declared = scopes(app)
    assert declared
    operations = {
        (method.upper(), path): operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| (?:`(\w+)`|none) \|", HTTP, re.MULTILINE)
    listed = {(method, path): scope for method, path, scope in rows}
    assert len(listed) == len(rows)
    needed = {
        route: "".join(scope for option in operation.get("security", []) for scope in option.get("key", []))
        for route, operation in operations.items()
    }
    assert listed == needed
