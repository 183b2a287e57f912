"""Method classes by name, imported when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from engram.config.definition import Definition
from engram.methods.base import Method

STAGED = ("engram.methods.eidetic.staged.method", "StagedEidetic")
"""The class of models of the method `eidetic` whose answers are staged."""

_CLASSES = {
    "eidetic": ("engram.methods.eidetic.method", "Eidetic"),
    "rnf": ("engram.methods.rnf.method", "Rnf"),
    "rerelrp": ("engram.methods.rerelrp.method", "Rerelrp"),
    "rmn": ("engram.methods.rmn.method", "Rmn"),
    "sharc": ("engram.methods.sharc.method", "Sharc"),
}


def method_of(definition: Definition) -> type[Method]:
    """The class of a model's method, imported when it is first asked for: some need libraries that others do not."""
    staged = definition.method == "eidetic" and definition.settings.get("reads", "all") != "all"
    module, kind = STAGED if staged else _CLASSES[definition.method]
    return cast(type[Method], getattr(import_module(module), kind))
