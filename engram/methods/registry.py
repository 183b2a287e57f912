"""Methods by name."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from engram.methods.method import Method

_CLASSES = {
    "eidetic": ("engram.methods.eidetic", "Eidetic"),
    "rnf": ("engram.methods.rnf", "Rnf"),
    "rerelrp": ("engram.methods.rerelrp", "Rerelrp"),
    "rmn": ("engram.methods.rmn", "Rmn"),
    "sharc": ("engram.methods.sharc", "Sharc"),
}


def method_of(name: str) -> type[Method]:
    """The class of a method, imported when it is first asked for: some need libraries that answering does not."""
    module, kind = _CLASSES[name]
    return cast(type[Method], getattr(import_module(module), kind))
