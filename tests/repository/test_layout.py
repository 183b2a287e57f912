"""Tests of the layout: levels of parts, circles, sizes of folders, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.distribution import SHORT, TOGETHER, WAITING, order
from tests.repository.layout import (
    LEVELS,
    LONGEST_HEADING,
    MAY_IMPORT,
    METHODS,
    MOST_ENTRIES,
    REACHING,
    ROOT,
    inside,
    sources,
    tree_of,
)

PACKAGES = tuple(name for name in MAY_IMPORT if name not in ("tests", "examples"))


def module_of(path: Path) -> str:
    parts = inside(path.with_suffix(""))
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, ast.Module]:
    """Every module of the packages, parsed."""
    return {module_of(path): tree_of(path) for path in sources(*PACKAGES)}


def imports(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """The modules among `known` that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def graph() -> dict[str, set[str]]:
    """For each module the modules of ours that it imports."""
    known = set(modules())
    return {name: {one for one in imports(tree, known) if one in known} - {name} for name, tree in modules().items()}


def upward(package: str, edges: dict[str, set[str]]) -> list[str]:
    """Imports within a package that do not lead to a lower level."""
    level = {part: number for number, parts in enumerate(LEVELS[package]) for part in parts}
    found = []
    for name, imported in edges.items():
        if not name.startswith(f"{package}."):
            continue
        part = name.split(".")[1]
        for other in imported:
            inside = other.startswith(f"{package}.") and other.split(".")[1] != part
            if inside and level[other.split(".")[1]] >= level[part]:
                found.append(f"{name} imports {other}")
    return found


@pytest.mark.parametrize("package", LEVELS)
def test_parts_import_only_what_lies_below_them(package: str) -> None:
    assert upward(package, graph()) == []


def test_an_import_upward_would_be_found() -> None:
    assert upward("engram", {"engram.nn.layout": {"engram.training.trainer", "engram.errors"}}) == [
        "engram.nn.layout imports engram.training.trainer"
    ]
    assert upward("vault", {"vault.keys": {"vault.models"}}) == ["vault.keys imports vault.models"]


@pytest.mark.parametrize("package", LEVELS)
def test_every_part_has_a_level(package: str) -> None:
    parts = {name.split(".")[1] for name in modules() if name.startswith(f"{package}.")}
    assert parts == set().union(*LEVELS[package])


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(graph()).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def method_of(name: str) -> str:
    parts = name.split(".")
    return parts[2] if name.startswith("engram.methods.") and parts[2] in METHODS else ""


def test_methods_are_reached_through_their_base_only() -> None:
    reached = {
        (name, method_of(other))
        for name, imported in graph().items()
        if name.startswith(("engram.", "service.", "worker."))
        for other in imported
        if method_of(other) and method_of(other) != method_of(name)
    }
    assert reached == set(REACHING.items())


def test_no_folder_holds_too_much() -> None:
    entries: dict[str, set[str]] = defaultdict(set)
    for path in sources(*PACKAGES, "tests"):
        parts = inside(path)
        for depth in range(1, len(parts)):
            if parts[depth] != "__init__.py":
                entries["/".join(parts[:depth])].add(parts[depth])
    assert {folder: sorted(names) for folder, names in entries.items() if len(names) > MOST_ENTRIES} == {}
    assert max(len(names) for names in entries.values()) > MOST_ENTRIES // 2, "something was counted"


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", sources(*MAY_IMPORT), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_holds(path: Path) -> None:
    text = ast.get_docstring(tree_of(path))
    assert text, "a module begins with a docstring"
    first = text.splitlines()[0]
    assert len(first) <= LONGEST_HEADING
    assert first.endswith(".")
    assert first[0].isupper() or first[0] in "`", "a noun phrase, as a heading is"


def test_test_files_are_shared_out_whole_and_those_that_are_named_are_there() -> None:
    files = [str(path.relative_to(ROOT)) for path in sources("tests") if path.name.startswith("test_")]
    places = order(files)
    assert places.keys() == set(files)
    assert TOGETHER.keys() <= set(files)
    assert [folder for folder in (*WAITING, *SHORT) if not any(file.startswith(folder) for file in files)] == []
    assert max(files, key=places.__getitem__).startswith(SHORT)
