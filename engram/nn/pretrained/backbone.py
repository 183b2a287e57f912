"""Backbone, a network from a file of its user: description and weights, for `Memory.create`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

from engram.config.backbones import BackboneDescription
from engram.nn.pretrained.inspection import inspect
from engram.nn.pretrained.network import PretrainedNetwork, network


class Backbone:
    """A network that a user brings: what it is, and where its weights are."""

    def __init__(self, description: BackboneDescription, weights: Callable[[], bytes]) -> None:
        self.description = description
        self._weights = weights

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        architecture: str,
        *,
        config: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        licence: str | None = None,
    ) -> Self:
        """The network of a safetensors file, inspected as `engram.nn.pretrained.inspection.inspect` says."""
        file = Path(path)
        found = inspect(file, architecture, config=config, arguments=arguments, classes=classes, licence=licence)
        return cls(found, file.read_bytes)

    def weights(self) -> bytes:
        """The safetensors file."""
        return self._weights()

    def network(self) -> PretrainedNetwork:
        """The network, loaded once a process."""
        return network(self.description, self._weights)
