"""Test that no source file deserialises code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.wakeup import WakeupSender
from tests.repository.layout import ROOT, sources, tree_of
from worker.celery_app import create_app

SOURCES = sources("engram", "engram_client", "telemetry", "vault", "service", "worker")

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}
TRUSTING = {
    "torch.load": ("weights_only", "True"),
    "numpy.load": ("allow_pickle", "False"),
    "np.load": ("allow_pickle", "False"),
}
"""Calls that unpickle depending on an argument, with the required value."""


def dangerous(tree: ast.AST) -> Iterator[str]:
    """Imports and calls of a module that could execute data as code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            name, value = TRUSTING.get(called, ("", ""))
            if called in CALLS or keywords.get("shell") == "True" or (name and keywords.get(name) != value):
                yield called


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles(path: Path) -> None:
    assert list(dangerous(tree_of(path))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(file, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_it_would_be_found(source: str) -> None:
    assert list(dangerous(ast.parse(source)))


@pytest.mark.parametrize("source", ["torch.load(path, weights_only=True)", "yaml.safe_load(text)", "re.compile(text)"])
def test_what_is_safe_is_not(source: str) -> None:
    assert not list(dangerous(ast.parse(source)))


def test_messages_are_json() -> None:
    wakeups = WakeupSender("redis://127.0.0.1:1/0")
    for app in (wakeups._sender(), create_app("redis://127.0.0.1:1/0")):
        assert list(app.conf.accept_content) == ["json"]
        assert app.conf.task_serializer == "json"
    wakeups.close()
