"""The commons of a definition, by its recipe."""

from __future__ import annotations

from engram.config.definition import Definition
from engram.nn.commons.base import Commons
from engram.nn.commons.float_commons import FloatCommons
from engram.nn.commons.grid_commons import GridCommons


def commons_of(definition: Definition) -> Commons:
    """The commons that a model of this definition begins with."""
    if definition.recipe < 3:
        return FloatCommons(definition)
    wanted, shape = definition.commons, definition.input
    return GridCommons(shape, wanted.banks(shape), definition.seed, wanted.learned_from(shape))
