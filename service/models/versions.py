"""Versions that the service itself appends to a model's log: creation, changes, activation, rejection."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from engram.checkpointing.pieces import bytes_of, hash_of
from engram.config.definition import Definition
from engram.config.engines import FIRST_ENGINE, FIRST_PRECISION, ONNX_RUNTIME_2, OPENVINO
from engram.errors import InvalidDefinition
from engram.memory import Memory, dump
from service.errors.exceptions import EmptyVersion
from service.models.backbones import brought, named
from service.models.certificates import certified_again
from vault import approval
from vault.commit_log import Commit, Publish
from vault.errors import Conflict, ModelExists, NotFound, UnknownModel, Unreadable
from vault.jobs.idempotency import Claim
from vault.models import WITH_BACKBONES, WITH_ONNX_RUNTIME_2, WITH_OPENVINO, WITH_PRECISION, WITH_TOGETHER, Model
from vault.vault import Vault

_TRIES = 20
"""How often an append is tried while other writers are faster."""
_SERVED = ("engrams", "recogniser", "kept", "certificate", "tasks", "names", "decoding")
"""What an activation takes over."""
_EMPTY_VERSION = (
    "Version {version} has learned nothing, so that the model would answer no more; "
    "allow_empty=true activates it all the same."
)


Author = Mapping[str, Any]
"""Who asks (`vault.audit`)."""


def create(
    vault: Vault,
    name: str,
    definition: Definition,
    claim: Claim | None = None,
    *,
    publish: Publish | None = None,
    by: Author | None = None,
) -> bool:
    """Make a model and its version 0; one that is there with the same definition is left as it is.

    Returns whether this request made it: now or, where it has a claim, before it was made again.

    Parameters
    ----------
    claim
        The request that asks.
    publish
        Whether what is learned answers at once; by default it does, and what is there is left as it is.

    Raises
    ------
    InvalidDefinition, ModelExists, UnknownBackbone
    """
    networks = brought(vault, (part.backbone for part in definition.pretrained))
    # Which refuses what cannot be made, and says what its networks are.
    memory = Memory.create(definition, networks)
    definition = memory.definition
    weights = {network.description.weights for network in networks.values()}
    try:
        model = vault.models.create(name, definition.stored(), _format(definition))
    except ModelExists:
        # What an earlier version stored lacks the fields that came later.
        model = vault.models.get(name)
        there = _defined(model.definition)
        if there is None or (agreeing := definition.agreeing(there)) != there:
            raise
        if agreeing != definition:
            memory = Memory.create(agreeing, networks)
    if (there_is := vault.log.head(name)) is not None:
        return _made_by(vault, name, claim, there_is, publish)
    request, author = claim.id if claim else None, by and dict(by)
    about = {"request": request, "publish": publish or "auto", "by": author}
    first = Commit.first(model, **_stored(vault, memory, weights), **about)
    try:
        vault.log.append(name, first)
    except Conflict:  # another replica was asked the same
        return _made_by(vault, name, claim, vault.log.head(name) or first, publish)
    _announce(vault, name, first)
    return True


def _stored(vault: Vault, memory: Memory, weights: Collection[str]) -> dict[str, Any]:
    """Store a model that has learned nothing; what names it in its first commit.

    Parameters
    ----------
    weights
        SHA-256 of those of its networks: they are there, and stay for longer than this takes, also where a network is
        deleted now.
    """
    parts, put = dump(memory), vault.objects.put_blob
    engrams = [sha if (sha := hash_of(piece)) in weights else put(bytes_of(piece)) for piece in parts.engrams]
    return {
        "engrams": tuple(engrams),
        "backbones": tuple(sha for sha in engrams if sha in weights),
        "recogniser": put(parts.recogniser),
        "kept": tuple(put(bytes_of(piece)) for piece in parts.kept),
        "budget": parts.budget,
    }


def _format(definition: Definition) -> int:
    """The format of a model's record, which earlier releases refuse where they would misread it."""
    if any(part.together for part in definition.pretrained):
        return WITH_TOGETHER
    if definition.engine in (OPENVINO, ONNX_RUNTIME_2):
        return WITH_OPENVINO if definition.engine == OPENVINO else WITH_ONNX_RUNTIME_2
    if (definition.precision, definition.engine) != (FIRST_PRECISION, FIRST_ENGINE):
        return WITH_PRECISION
    return WITH_BACKBONES if definition.pretrained else 1


def _made_by(vault: Vault, name: str, claim: Claim | None, head: Commit, publish: Publish | None) -> bool:
    """Whether the request of `claim` made the model; no, where that cannot be told any more."""
    with suppress(NotFound, Unreadable):
        first = vault.log.read(name, 0)
        if claim is not None and first.request == claim.id:
            vault.audit.version(name, first)
            return True
    if publish not in (None, head.publish):
        raise ModelExists(name, f"and what it learns is published otherwise ({head.publish})")
    return False


def _announce(vault: Vault, name: str, commit: Commit, before: Commit | None = None) -> None:
    """Tell everybody of a version that was just made, and the audit log who asked for it."""
    vault.events.publish_version(name, commit.version)
    vault.audit.version(name, commit, before)


def _defined(stored: Mapping[str, Any]) -> Definition | None:
    try:
        return Definition.load(stored)
    except ValidationError:
        return None


def raise_budget(vault: Vault, name: str, budget: float | Mapping[str, int]) -> tuple[Commit, bool]:
    """Raise the budget; the version that has the new one, which answers as the one before, and whether it is new.

    Raises
    ------
    InvalidDefinition, UnknownModel
    """
    return change(vault, name, budget, {})


def change(
    vault: Vault,
    name: str,
    budget: float | Mapping[str, int] | None,
    decoding: Mapping[str, Any],
    publish: Publish | None = None,
    by: Author | None = None,
) -> tuple[Commit, bool]:
    """Raise the budget, decode images or publish otherwise from now on; the version that does, and whether it is new.

    Parameters
    ----------
    decoding
        What becomes of `Definition.decoding`; what is not in it stays, but decoder 1 has no background.

    Raises
    ------
    InvalidDefinition, UnknownModel
    CandidatesWaiting
        Versions wait to be activated, to which the change would not apply.
    Unreadable, NotFound
        The certificate, which is to name the new decoder, cannot be read.
    """
    model = vault.models.get(name)
    definition = Definition.load(model.definition)
    memory = None if budget is None else Memory.create(definition, named(vault, definition))

    def changed(head: Commit) -> Commit:
        if head.lineage != model.lineage:
            raise UnknownModel(name)
        changes: dict[str, Any] = {}
        if memory is not None and budget is not None:
            memory.method.budget = dict(head.budget)
            memory.raise_budget(budget)
            changes = {} if memory.budget == head.budget else {"budget": dict(memory.budget)}
        before = Definition.load(model.definition, head.decoding)
        after = _decoded_by(before, decoding)
        kind: Literal["budget", "publish"] = "budget" if changes else "publish"
        if publish not in (None, head.publish):
            changes["publish"] = publish
        about: dict[str, Any] = {"by": by and dict(by)}
        if after == before:
            return approval.changed(head, kind, **changes, **about) if changes else head
        # What the definition says need not be named, and earlier releases can then read it.
        changes["decoding"] = None if after.decoding == definition.decoding else after.decoding
        return approval.changed(head, "decoder", **changes, **about, **certified_again(vault, model, head, after))

    return append(vault, name, changed)


def _decoded_by(before: Definition, decoding: Mapping[str, Any]) -> Definition:
    no_background = {"background": None} if decoding.get("decoder") == 1 else {}
    try:
        return before.decoded_by({**before.decoding, **no_background, **decoding})
    except ValidationError as error:
        raise InvalidDefinition(error.errors()[0]["msg"]) from error


def decoding_of(model: Model, commit: Commit) -> dict[str, Any]:
    """The number of a version's decoder, and its background; both None where they are not known."""
    named = commit.decoding
    if named is None and (definition := _defined(model.definition)) is not None:
        named = definition.decoding
    return {name: (named or {}).get(name) for name in ("decoder", "background")}


def engine_of(model: Model) -> str | None:
    """The engine that a model's answers are computed by; None where its definition is not known."""
    definition = _defined(model.definition)
    return None if definition is None else definition.engine


def activate(
    vault: Vault,
    name: str,
    version: int,
    claim: Claim | None = None,
    *,
    allow_empty: bool = False,
    by: Author | None = None,
) -> tuple[Commit, bool]:
    """Serve what version `version` was; the version that does, and whether it is new: one may do so already.

    Candidates up to that one wait no longer. This is also the way out when the head is damaged: what is activated
    overrules it.

    Parameters
    ----------
    claim
        The request that asks; the version that it made before is answered with.
    allow_empty
        Whether a version without any task may take the place of one that has some.

    Raises
    ------
    UnknownModel, UnknownVersion, Unreadable, EmptyVersion
    """
    target = vault.log.read(name, version)
    ends_answers = not (target.tasks or allow_empty)
    content = {field: getattr(target, field) for field in _SERVED}
    about = {"request": claim.id if claim else None, "by": by and dict(by), "signature": target.signature}

    def repeated(head: Commit) -> Commit:
        raise_if_made(vault, name, head, claim)
        # A budget that was raised since then stays raised.
        serving = approval.answering(vault.log, name, head)
        if version not in head.candidates and content == {field: getattr(serving, field) for field in content}:
            raise _Answering(serving)
        if ends_answers and serving.tasks:
            raise EmptyVersion(_EMPTY_VERSION.format(version=version))
        return approval.activated(head, version, **about, **content)

    try:
        return append(vault, name, repeated)
    except _Answering as there:
        return there.commit, False
    except Made as there:
        return there.commit, True
    except Unreadable:
        if ends_answers:
            raise EmptyVersion(_EMPTY_VERSION.format(version=version)) from None
        return _overrule(vault, name, target, about)


def reject(
    vault: Vault, name: str, version: int, claim: Claim | None = None, *, by: Author | None = None
) -> tuple[Commit, bool]:
    """Have a candidate wait no longer, nor those that were learned on it; the version that says so, which is new.

    What answers stays as it is.

    Parameters
    ----------
    claim
        As `activate`.

    Raises
    ------
    UnknownModel, UnknownVersion, Unreadable
    NotACandidate
        It does not wait.
    """
    vault.log.read(name, version)
    about = {"request": claim.id if claim else None, "by": by and dict(by)}

    def without(head: Commit) -> Commit:
        raise_if_made(vault, name, head, claim)
        return approval.rejected(vault.log, name, head, version, **about)

    try:
        return append(vault, name, without)
    except Made as there:
        return there.commit, True


class Made(Exception):
    """Signal that the request has made its version already."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit


class _Answering(Made):
    """Signal that a version answers so already."""


def raise_if_made(vault: Vault, name: str, head: Commit, claim: Claim | None) -> None:
    """Raise the version that the request of `claim` made before.

    Asked of every head that a commit is to follow: so one of two that are at it sees what the other made.
    """
    if claim and (made := vault.log.find(name, claim.created_at, lambda one: one.request == claim.id, head.version)):
        vault.audit.version(name, made)
        raise Made(made)


def _overrule(vault: Vault, name: str, target: Commit, about: Mapping[str, Any]) -> tuple[Commit, bool]:
    """Append what `target` was behind records that cannot be read."""
    last = vault.log.numbers(name)[-1]
    known = approval.newest(vault.log, name) or target
    head = replace(target, version=last, publish=known.publish, candidates=known.candidates)
    after = approval.activated(head, target.version, **about)
    vault.log.append(name, after)
    _announce(vault, name, after)
    return after, True


def origin(vault: Vault, head: Commit, name: str, task: str) -> Commit | None:
    """The version that brought `task` as `head` has it; None when `head` does not have it.

    Raises
    ------
    UnknownModel
    Unreadable, NotFound
        The record of that version cannot be read, or is missing.
    """
    entry = next((one for one in head.tasks if one["name"] == task), None)
    if entry is None:
        return None
    after: int | None = None
    while page := vault.log.list(name, after, 100, newest_first=True, lenient=True):
        for commit in page:
            if commit.kind == "learn" and commit.task == task and commit.tasks[-1] == entry:
                return commit
        after = page[-1].version
    vault.log.list(name)  # names the record that was passed over
    return None


def report(vault: Vault, commit: Commit) -> dict[str, Any] | None:
    """The learning report of the task that `commit` brought."""
    return None if commit.report is None else _read(vault, commit.report)


def _read(vault: Vault, sha: str) -> dict[str, Any]:
    document = json.loads(vault.objects.get_blob(sha))
    assert isinstance(document, dict), "reports and certificates are JSON objects"
    return document


def append(vault: Vault, name: str, following: Callable[[Commit], Commit]) -> tuple[Commit, bool]:
    """Append what `following` makes of the head, of the next one when another writer was faster.

    Returns that and True, or the head and False when `following` leaves it as it is.
    """
    for attempt in range(_TRIES):
        head = vault.log.head(name)
        if head is None:
            raise UnknownModel(name)
        commit = following(head)
        if commit is head:
            return head, False
        try:
            vault.log.append(name, commit)
        except Conflict:
            if attempt == _TRIES - 1:
                raise
            continue
        _announce(vault, name, commit, head)
        return commit, True
    raise AssertionError("the last try returns or raises")
