"""Adoption: the version in which a model answers what a network that the user brought always answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from engram.certificate import certify
from engram.checkpointing.pieces import Piece
from engram.config.backbones import BackboneDescription
from engram.config.definition import Definition
from engram.errors import InvalidDefinition
from engram.memory import dump, restore
from service.models.backbones import described
from vault.errors import Conflict, ModelExists, UnknownModel
from vault.vault import Vault


def check(vault: Vault, definition: Definition) -> None:
    """See that a model of this definition could adopt its first network; raises InvalidDefinition, UnknownBackbone."""
    part = next(iter(definition.pretrained), None)
    if part is None:
        raise InvalidDefinition("there is no network to adopt among the commons")
    _names_of(described(vault.backbones.get(part.backbone)))


def _names_of(source: BackboneDescription | None) -> tuple[str, ...]:
    if source is None or source.classes is None:
        raise InvalidDefinition(
            "a network is adopted with the names of its classes: send them as `classes` where it is stored"
        )
    return source.classes


def adopt(vault: Vault, name: str, task: str, by: Mapping[str, Any] | None = None) -> None:
    """Append the version that has the network's classifier as its task; nothing where that was done before.

    Raises
    ------
    InvalidDefinition
        The network has no classifier, or no names of its classes.
    ModelExists
        The model has versions already, and the first of them is another.
    UnknownModel, Unreadable
    """
    model, head = vault.models.get(name), vault.log.head(name)
    if head is None:
        raise UnknownModel(name)  # deleted since
    if head.version > 0:
        return _confirm(vault, name, task)
    definition = Definition.load(model.definition)
    read = vault.objects.get_blob
    engrams, kept = ([Piece(sha, partial(read, sha)) for sha in part] for part in (head.engrams, head.kept))
    assert head.recogniser is not None, "every version has a recogniser"
    memory = restore(definition, engrams, read(head.recogniser), kept, head.budget)
    memory.adopt(task, _names_of(next((part.source for part in definition.pretrained), None)))
    put = vault.objects.put_blob
    proof = replace(certify(memory), checked_in={task: head.version + 1}, baseline="first")
    for answers in proof.logits.values():
        vault.answers.put(model, answers)
    recogniser = put(dump(memory).recogniser)
    certificate = vault.certificates.document(proof.to_dict(), model, head, head.engrams, recogniser)
    commit = head.following(
        "adopt",
        task=task,
        recogniser=recogniser,
        certificate=put(certificate),
        signature=vault.certificates.sign(certificate),
        tasks=({"name": task, "classes": list(memory.tasks[0].classes)},),
        by=by and dict(by),
    )
    with suppress(Conflict):  # another replica may have been asked the same
        vault.log.append(name, commit)
    _confirm(vault, name, task)
    vault.events.publish_version(name, commit.version)


def _confirm(vault: Vault, name: str, task: str) -> None:
    """Raise ModelExists where a model's first version is not that which adopts its network under this name."""
    first = vault.log.read(name, 1)
    if (first.kind, first.task) != ("adopt", task):
        raise ModelExists(name, f"and its network was not adopted as {task!r} when it was new")
    vault.audit.version(name, first)
