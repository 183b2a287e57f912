"""The commons of a definition, by its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from engram.checkpointing.pieces import Piece, bytes_of
from engram.config.commons import MOST_TOGETHER, CommonsPart, PretrainedDefinition, regressions
from engram.config.definition import Definition
from engram.errors import InvalidDefinition
from engram.nn.commons.base import Commons
from engram.nn.commons.float_commons import FloatCommons
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.commons.joined_commons import JoinedCommons
from engram.nn.commons.pretrained_commons import PretrainedCommons
from engram.nn.commons.readings import Readings


def commons_of(definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Commons:
    """The commons that a model of this definition begins with.

    Parameters
    ----------
    weights
        Of each network among them, in order.

    Raises
    ------
    InvalidDefinition
        where it is not known yet which network a name means, and where networks together have too many features.
    """
    if definition.recipe < 3:
        return FloatCommons(definition)
    given = iter(weights)
    parts = [_part(definition, part, given) for part in definition.parts]
    if len(parts) == 1:
        return parts[0]
    found = JoinedCommons(parts, regressions(definition.parts))
    for count, width in zip(found.regressions, found.widths, strict=True):
        # Known by now: what a classifier reads is always there, however few features are asked for.
        if count > 1 and width > MOST_TOGETHER:
            raise InvalidDefinition(f"networks together have at most {MOST_TOGETHER} features, and these {width}")
    return found


def _part(definition: Definition, part: CommonsPart, weights: Iterator[bytes | Piece]) -> Commons:
    if not isinstance(part, PretrainedDefinition):
        shape = definition.input
        return GridCommons(shape, part.banks(shape), definition.seed, part.learned_from(shape))
    readings = readings_of(part)
    return pretrained(definition, part, readings, next(weights))


def readings_of(part: PretrainedDefinition) -> Readings:
    """What a new model reads of a network; raises InvalidDefinition."""
    if part.source is None:
        raise InvalidDefinition(f"it is not known what network {part.backbone!r} is")
    return Readings.of(part.source, part.levels, part.features)


def pretrained(
    definition: Definition, part: PretrainedDefinition, readings: Readings, weights: bytes | Piece
) -> PretrainedCommons:
    """The commons of a network; raises InvalidDefinition."""
    if part.source is None:
        raise InvalidDefinition(f"it is not known what network {part.backbone!r} is")
    adapters, engine = definition.backbone == "adapter", definition.engine
    return PretrainedCommons(part.source, readings, partial(bytes_of, weights), adapters=adapters, engine=engine)
