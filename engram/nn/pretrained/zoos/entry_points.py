"""Architectures of users, by entry points of distributions that the operator installed."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from engram.errors import ArchitectureMissing, InvalidBackbone
from engram.nn.pretrained.architecture import Architecture

GROUP = "engram.backbones"


def entry_point_names() -> tuple[str, ...]:
    """The names that distributions installed here offer, sorted."""
    return tuple(sorted({one.name for one in entry_points(group=GROUP)}))


def installed(name: str) -> Architecture:
    """The architecture that an entry point names: an `Architecture`, or what makes one when called without arguments.

    Raises
    ------
    ArchitectureMissing
        where no distribution installed here has such an entry point.
    InvalidBackbone
        where two have, or what it names is no architecture.
    """
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise ArchitectureMissing(f"no distribution installed here has an entry point {name!r} in {GROUP}")
    if len({one.value for one in found}) > 1:
        raise InvalidBackbone(f"several distributions have an entry point {name!r} in {GROUP}")
    offered = _loaded(found[0])
    offered.name = name
    return offered


def _loaded(point: EntryPoint) -> Architecture:
    try:
        loaded = point.load()
    except Exception as error:
        raise ArchitectureMissing(f"the entry point {point.name!r} cannot be imported: {error}") from error
    try:
        offered = loaded() if callable(loaded) and not isinstance(loaded, Architecture) else loaded
    except Exception as error:
        raise InvalidBackbone(f"what the entry point {point.name!r} names cannot be called: {error}") from error
    if not isinstance(offered, Architecture):
        raise InvalidBackbone(f"the entry point {point.name!r} gives no {Architecture.__name__}")
    offered.library = point.module if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return offered
