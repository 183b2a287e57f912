"""Descriptions of networks that users bring, and the key by which a process knows a loaded one."""

from __future__ import annotations

import json

from engram.config.backbones import BackboneDescription, Level, Preprocessing

__all__ = ["BackboneDescription", "Level", "Preprocessing", "loaded_as"]


def loaded_as(description: BackboneDescription) -> str:
    """The key of a loaded network: weights, architecture, arguments, preprocessing and levels.

    Licence and class names change nothing that it computes.
    """
    fields = {"architecture", "arguments", "weights", "preprocessing", "levels", "outputs"}
    return json.dumps(description.model_dump(mode="json", include=fields), sort_keys=True)
