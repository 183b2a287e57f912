"""Tests of docs/errors.md: it has every code that can be answered, and no other."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import engram
import service
import vault
import worker
from engram.errors import EngramError
from service.errors import problem_details
from service.errors.exceptions import ServiceError
from tests.repository.layout import tree_of
from vault.errors import VaultError

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| `(\w+)` \| (\d{3}|-) \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
PACKAGES = (engram, vault, service, worker)
ERRORS = (EngramError, VaultError, ServiceError)

ABOVE = {"EngramError", "LearningFailed", "SnapshotError", "VaultError", "Unreadable", "ServiceError"}
"""Classes that only others are made of: `test_no_error_is_raised_that_is_only_a_base` holds them to that."""

INSIDE = {"not_found"}
"""Of an object in the store, 500, beside the 404 of a path: a sentence below the tables says so."""

JUDGING = {"isinstance", "issubclass", "suppress"}
"""Functions that take a class without making anything of it."""


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for one in kind.__subclasses__():
        yield from below(one)


@cache
def kinds() -> dict[str, type[Exception]]:
    """All our error classes by name, once every module that may define one is imported."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = tuple(f"{package.__name__}." for package in PACKAGES)
    return {one.__name__: one for root in ERRORS for one in below(root) if one.__module__.startswith(ours)}


def trees() -> tuple[ast.Module, ...]:
    paths = (path for package in PACKAGES for path in (ROOT / package.__name__).rglob("*.py"))
    return tuple(tree_of(path) for path in paths)


def name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def handed_on() -> set[str]:
    """Names that are raised, called, or passed to a function that may raise them."""
    found: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                found.add(name_of(node.exc))
            if isinstance(node, ast.Call) and name_of(node.func) not in JUDGING:
                found |= {name_of(node.func), *map(name_of, node.args), *(name_of(one.value) for one in node.keywords)}
    return found


def takes_code() -> dict[str, int]:
    """Functions and records that take a `code`, and the place it has among their arguments."""
    found: dict[str, int] = {}
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            elif isinstance(node, ast.ClassDef):
                names = [name_of(line.target) for line in node.body if isinstance(line, ast.AnnAssign)]
            else:
                continue
            if "code" in names:
                found[node.name] = names.index("code")
    return found


FINDINGS = {"Finding", "add", "_add", "warn"}
"""What `engram vault check` finds is no refusal, and has codes of its own."""


def codes_in_place() -> set[str]:
    """Codes that no class has: written where a problem is made of them."""
    places = {name: at for name, at in takes_code().items() if name not in FINDINGS}
    found: set[object] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (at := places.get(name_of(node.func))) is not None:
                given = [*node.args[at : at + 1], *(one.value for one in node.keywords if one.arg == "code")]
                found |= {one.value for one in given if isinstance(one, ast.Constant)}
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                        # {"code": "cancelled"}, and tables of the framework's own statuses: {405: "method_not_allowed"}
                        status = isinstance(key.value, int) and 400 <= key.value < 600
                        found |= {value.value} if status or key.value == "code" else set()
    # Beside tables of codes there are those of sentences, by the same statuses.
    return {one for one in found if isinstance(one, str) and re.fullmatch("[a-z_0-9]+", one)}


def code_of(kind: type[Exception]) -> str:
    return str(getattr(kind, "code", ""))


def status_of(kind: type[Exception]) -> str:
    """As the page has it: `-` of what only ends jobs."""
    if kind.__module__.startswith("worker."):
        return "-"
    return str(next(problem_details.STATUS[one] for one in kind.__mro__ if one in problem_details.STATUS))


def answered() -> dict[str, type[Exception]]:
    return {name: kind for name, kind in kinds().items() if name not in ABOVE}


def test_every_error_is_listed_with_its_status() -> None:
    listed = dict(ROWS)
    assert len(listed) == len(ROWS)
    wrong = {
        name: (code_of(kind), listed.get(code_of(kind)))
        for name, kind in answered().items()
        if code_of(kind) not in INSIDE and listed.get(code_of(kind)) != status_of(kind)
    }
    assert wrong == {}


def test_no_error_is_raised_that_is_only_a_base() -> None:
    assert set(kinds()) >= ABOVE
    assert handed_on() & ABOVE == set()


def test_no_code_is_missing_or_made_up() -> None:
    used = codes_in_place()
    assert {"headers_too_large", "not_ready", "job_timeout", "too_many_attempts", "method_not_allowed"} <= used
    assert {code for code, _ in ROWS} == used | set(map(code_of, answered().values()))


def test_each_class_says_its_own_code() -> None:
    """One that inherits it would be answered like the class above, and could not be told from it."""
    assert [name for name, kind in kinds().items() if "code" not in vars(kind)] == []


def test_what_is_searched_is_there() -> None:
    assert {"problem", "EndReason", "fail_job"} <= set(takes_code())
    assert len(kinds()) > 70
    assert inspect.getmodule(kinds()["ArchiveError"]) is not None
    assert {"ArchiveError", "require_type", "ExamplesError"} <= handed_on()
