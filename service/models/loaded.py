"""Loaded versions: a commit, and the model that it is of, ready to answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.errors import AnswersDiffer, SnapshotError
from engram.memory import Memory, restore
from vault.commit_log import Commit
from vault.errors import NotFound, UnknownModel, Unreadable
from vault.models import Model
from vault.vault import Vault

log = logging.getLogger("engram.service")

HARMED = (Unreadable, NotFound, SnapshotError, AnswersDiffer)
"""Errors of a version, and not of the way to its bytes."""

_MOST_DIFFERING = 2


@dataclass(frozen=True)
class LoadedVersion:
    """Version and its memory; neither changes."""

    model: Model
    commit: Commit
    memory: Memory
    blobs: Mapping[str, bytes] = field(repr=False)
    """The stored bytes by hash, so that the next version fetches only what is new."""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def version(self) -> int:
        return self.commit.version


def load(vault: Vault, model: Model, commit: Commit, beside: LoadedVersion | None = None) -> LoadedVersion:
    """Fetch, check, build and warm up the version of `commit`; what `beside` holds already is shared.

    Raises
    ------
    VaultError, SnapshotError
        The version cannot be had.
    """
    assert commit.recogniser is not None, "every commit names its recogniser"
    known = beside.blobs if beside else {}
    # Networks that users brought are read once a process, by whoever needs them first.
    hashes = [name for name in (*commit.engrams, commit.recogniser) if name not in commit.backbones]
    get = vault.objects.get_blob
    blobs = {name: known[name] if name in known else get(name) for name in hashes}
    memory = restore(
        Definition.load(model.definition, commit.decoding),
        [Piece(name, partial(blobs.__getitem__ if name in blobs else get, name)) for name in commit.engrams],
        blobs[commit.recogniser],
        None,
        dict(commit.budget),
        reuse=beside.memory if beside else None,
    )
    if memory.tasks:
        shape = memory.definition.input
        # Of all tasks, so that the first requests find them built.
        memory.predict(torch.zeros(1, shape.channels, shape.height, shape.width, dtype=torch.uint8), contenders="all")
    return LoadedVersion(model, commit, memory, blobs)


def newest_whole(
    vault: Vault, model: Model, head: int, beside: LoadedVersion | None, require: Callable[[LoadedVersion], None]
) -> LoadedVersion | None:
    """The newest version below `head`, and above `beside`, that can be loaded; None when there is none.

    Where `_MOST_DIFFERING` answer otherwise than certified, the machine is to blame, and no more are tried.

    Parameters
    ----------
    require
        Raises AnswersDiffer for a version that must not answer here.

    Raises
    ------
    VaultError
        The storage cannot be asked.
    """
    harmed: set[str] = set()
    differing = 0
    for number in reversed(vault.log.numbers(model.name)):
        if beside is not None and number <= beside.version:
            break
        if number >= head:
            continue
        try:
            commit = vault.log.read(model.name, number)
            if commit.active is not None:  # nobody activated it
                continue
            if harmed.isdisjoint(f"blobs/{sha}" for sha in (*commit.engrams, commit.recogniser)):
                loaded = load(vault, model, commit, beside)
                require(loaded)
                return loaded
        except UnknownModel:
            raise
        except HARMED as error:
            harmed.add(getattr(error, "path", None) or "")
            log.error("model %s: version %d cannot be loaded either: %s", model.name, number, error)
            differing += isinstance(error, AnswersDiffer)
            if differing >= _MOST_DIFFERING:
                break
    return None
