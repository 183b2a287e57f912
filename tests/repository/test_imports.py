"""Tests of the directions of imports, and of the lengths of files and functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.layout import (
    ELSEWHERE,
    LONGEST_FILE,
    LONGEST_FUNCTION,
    MAY_IMPORT,
    MAY_NOT_IMPORT,
    ROOT,
    inside,
    sources,
    tree_of,
)

SOURCES = sources(*MAY_IMPORT)


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names of all that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read here"
            assert node.module is not None
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield ast.unparse(node.args[0]).strip("'\"").partition(".")[0]


def wrong(package: str, tree: ast.AST) -> set[str]:
    """Forbidden imports of a module of `package`."""
    names = set(imported(tree))
    ours = names & MAY_IMPORT.keys() - {package}
    return ours - MAY_IMPORT[package] | names & MAY_NOT_IMPORT.get(package, set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way_and_nothing_is_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = tree_of(path)
    assert wrong(inside(path)[0], tree) == set()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, node.name


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("engram", "import vault", {"vault"}),
        ("vault", "def f():\n    from torch import nn", {"torch"}),
        ("vault", "from telemetry import logs", set()),
        ("telemetry", "import vault", {"vault"}),
        ("service", "from worker.celery_app import wake", {"worker"}),
        ("engram_client", "from engram.errors import EngramError", {"engram"}),
        ("worker", "import importlib\nimportlib.import_module('service.app')", {"service"}),
        ("service", "from engram.memory import Memory\nimport vault.vault", set()),
    ],
)
def test_a_wrong_import_would_be_found(package: str, source: str, found: set[str]) -> None:
    assert wrong(package, ast.parse(source)) == found


def test_every_package_was_looked_at() -> None:
    assert {inside(path)[0] for path in SOURCES} == MAY_IMPORT.keys()
    there = {path.parent.name for place in ("*/*.py", "client/*/*.py") for path in ROOT.glob(place)}
    assert there - {".venv"} == MAY_IMPORT.keys()
    assert all(place.is_dir() for place in ELSEWHERE.values())
