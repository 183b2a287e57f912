"""Test that whoever decodes images for a model says which decoder the model has."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.repository.layout import ROOT, sources, tree_of

DECODING = {
    ("engram.data.images", "decode"),
    ("engram.data.pictures", "pixels"),
    ("engram.data.pictures", "checked_pixels"),
    ("engram.data.archives", "read"),
    ("engram.data.archives", "probe"),
}
"""Functions that take the number of a decoder, which is that of new models where nothing is said."""


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls of these functions, by the names under which a module imports them."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in DECODING
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in names or any(called == f"{module.rpartition('.')[2]}.{name}" for module, name in DECODING):
                yield node


def test_services_workers_and_examples_pass_the_number_of_the_model() -> None:
    found = 0
    for path in sources("service", "worker", "examples", "benchmarks"):
        for call in calls(tree_of(path)):
            found += 1
            given = [*call.args, *(word.value for word in call.keywords)]
            assert any(ast.unparse(one).split(".")[-1] == "decoder" for one in given), (
                f"{path.relative_to(ROOT)}:{call.lineno} decodes with the decoder of new models"
            )
    assert found >= 4
