"""Method classes by name, imported when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from engram.methods.base import Method

_CLASSES = {
    "eidetic": ("engram.methods.eidetic.method", "Eidetic"),
    "rnf": ("engram.methods.rnf.method", "Rnf"),
    "rerelrp": ("engram.methods.rerelrp.method", "Rerelrp"),
    "rmn": ("engram.methods.rmn.method", "Rmn"),
    "sharc": ("engram.methods.sharc.method", "Sharc"),
}


def method_of(name: str) -> type[Method]:
    """The class of a method, imported when it is first asked for: some need libraries that answering does not."""
    module, kind = _CLASSES[name]
    return cast(type[Method], getattr(import_module(module), kind))
