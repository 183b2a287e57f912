"""Networks that users bring: inspected, stored, and found again by the models that name them."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from engram.config.backbones import BackboneDescription
from engram.config.definition import Definition
from engram.errors import ArchitectureMissing, EngramError, UnknownArchitecture
from engram.explain.pretrained.offer import explains
from engram.nn.pretrained.architectures import architecture
from engram.nn.pretrained.backbone import Backbone
from engram.nn.pretrained.inspection import inspect
from vault import audit
from vault.backbones import BackboneRecord
from vault.errors import InvalidName, UnknownBackbone
from vault.jobs.idempotency import Claim
from vault.models import is_model_name
from vault.vault import Vault

log = logging.getLogger("engram.service")

_one_at_a_time = threading.Lock()
"""Of inspections, each of which may take several times the memory of the weights."""

ClassName = Annotated[str, Field(min_length=1, max_length=255)]


class BackboneForm(BaseModel):
    """What is said of a network beside its weights."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=63)]
    architecture: Annotated[str, Field(min_length=1, max_length=200)]
    """`torchvision/resnet18`, `timm/tf_efficientnet_lite0`, or the name of an entry point."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Where images are prepared otherwise than the library does: size, interpolation, crop, mean, std."""
    arguments: dict[str, bool | int] = Field(default_factory=dict)
    """What the architecture is built with, such as num_classes."""
    classes: Annotated[list[ClassName], Field(min_length=1, max_length=100_000)] | None = None
    """Names of the classifier's outputs, in their order."""
    licence: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Of the weights."""


def add(
    vault: Vault,
    form: BackboneForm,
    weights: Path,
    claim: Claim | None = None,
    by: Mapping[str, Any] | None = None,
) -> tuple[BackboneRecord, bool]:
    """Inspect a network and store it; returns its record, and whether this request made it.

    One that is there already, and is this very one, is left as it is, and its weights are stored anew if they are
    missing. Nothing is stored of one that is refused.

    Parameters
    ----------
    weights
        A safetensors file.
    claim
        The request that asks: where it made the backbone before, it made it.

    Raises
    ------
    InvalidName, InvalidBackbone
    BackboneExists
        The name is taken by another.
    """
    if not is_model_name(form.name):
        raise InvalidName(f"A backbone cannot be called {form.name!r}: it has the letters of a model's name.")
    with _one_at_a_time:
        found = inspect(
            weights,
            form.architecture,
            config=form.config,
            arguments=form.arguments,
            classes=form.classes,
            licence=form.licence,
        )
    description = _as_stored(vault, form.name, found.model_dump(mode="json"))
    vault.backbones.find(form.name, description, found.weights)
    stored = vault.objects.put_blob(weights)
    assert stored == found.weights, "the file is the one that was inspected"
    request = claim.id if claim else uuid.uuid4().hex
    record = vault.backbones.create(form.name, description, stored, request, by)
    made = record.request == request
    if made and record.by is not None:
        vault.audit.record(audit.of_backbone(record, record.by))
    return record, made


def _as_stored(vault: Vault, name: str, description: dict[str, Any]) -> dict[str, Any]:
    """A description, or the one that is there, if another version of the library is all that has changed."""
    try:
        there = vault.backbones.get(name).description
    except UnknownBackbone:
        return description
    return there if {**there, "library": ""} == {**description, "library": ""} else description


def brought(vault: Vault, names: Iterable[str]) -> dict[str, Backbone]:
    """The networks that models name, by name; their weights are read when they are needed.

    Raises
    ------
    UnknownBackbone
    Unreadable
        A record cannot be read.
    """
    records = {name: vault.backbones.get(name) for name in names}
    read = vault.objects.get_blob
    return {name: Backbone(described(one), partial(read, one.weights)) for name, one in records.items()}


def named(vault: Vault, definition: Definition) -> dict[str, Backbone]:
    """The networks of a model that is there already, by the names in its definition, which may be no one's by now."""
    read = vault.objects.get_blob
    # Of one network at several sizes the one that is as it was stored counts, which the others are made from.
    ordered = sorted(definition.pretrained, key=lambda part: part.size is None)
    parts = [(part.backbone, part.source) for part in ordered if part.source is not None]
    return {name: Backbone(source, partial(read, source.weights)) for name, source in parts}


def heatmaps_of(description: BackboneDescription) -> dict[str, Any] | None:
    """What heatmaps through a network are made by, and why; None where its architecture is not installed here."""
    try:
        return _offer(description.architecture, json.dumps(description.arguments), description.preprocessing.size)
    except (UnknownArchitecture, ArchitectureMissing):
        return None
    except EngramError as error:  # of somebody's own architecture; the rest can be shown all the same
        log.warning("it is not known how %s is explained: %s", description.architecture, error)
        return None


@lru_cache(maxsize=256)
def _offer(name: str, arguments: str, size: int) -> dict[str, Any]:
    with torch.device("meta"):  # operations tell, which weights do not change
        module = architecture(name).build(json.loads(arguments)).eval()
    return explains(module, size).shown()


def described(record: BackboneRecord) -> BackboneDescription:
    """What a record says of its network."""
    return BackboneDescription.model_validate(record.description)
