"""Loaded versions: a commit, and the model that it is of, ready to answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.data.images import check_image
from engram.errors import AnswersDiffer, EngineMissing, NoNetwork, SnapshotError, TaskExists
from engram.explain.explainer import Heatmap
from engram.memory import Memory, restore
from engram.nn.capacity import LayerCapacity, TaskInfo
from engram.recognition.naming import Naming
from engram.recognition.predictions import Observation, explained
from vault.classes import names
from vault.classes.names import NamedTask
from vault.commit_log import Commit
from vault.errors import NotFound, UnknownModel, Unreadable
from vault.models import Model
from vault.vault import Vault

log = logging.getLogger("engram.service")

HARMED = (Unreadable, NotFound, SnapshotError, AnswersDiffer, EngineMissing)
"""Errors of a version, and not of the way to its bytes."""

CPU = torch.device("cpu")
_MOST_REFUSED = 2


class NamedMemory(Memory):
    """A memory that answers by the names that a version shows, and is asked by these or those it learned under."""

    def __init__(self, memory: Memory, naming: Naming) -> None:
        super().__init__(memory.method.joining(naming.shown))
        self._naming = naming

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return self._naming.shown

    def admit(self, task: str) -> None:
        super().admit(task)
        pairs = zip(self._naming.learned, self._naming.shown, strict=True)
        if any(shown.name == task != learned.name for learned, shown in pairs):
            raise TaskExists(f"the model already has a task {task!r}, which was learned under another name")

    def observe(
        self, images: Tensor, task: str | None = None, contenders: int | Literal["all"] | None = None
    ) -> Observation:
        learned = None if task is None else self._naming.task(task)
        return self._naming.named(super().observe(images, learned, contenders))

    def explain(
        self, image: Tensor, *, target: str | None = None, task: str | None = None, composite: str | None = None
    ) -> Heatmap:
        naming = self._naming
        check_image(image, self.definition.input)
        owner = None if task is None else naming.shown_task(task)
        label = None if target is None else naming.shown_label(target, owner)
        number, place = explained(naming.shown, lambda only: self.observe(image[None], only), label, owner)
        info, named = naming.learned[number], naming.shown[number]
        try:
            found = super().explain(image, target=info.classes[place], task=info.name, composite=composite)
        except NoNetwork as error:
            raise NoNetwork(str(error).replace(repr(info.name), repr(named.name))) from error
        return replace(found, task=named.name, label=named.classes[place])

    def capacity(self) -> list[LayerCapacity]:
        name_of = self._naming.of_learned
        return [
            replace(layer, owned={name_of(task).name: units for task, units in layer.owned.items()})
            for layer in super().capacity()
        ]


@dataclass(frozen=True)
class LoadedVersion:
    """Version and its memory; neither changes."""

    model: Model
    commit: Commit
    memory: Memory
    """By the names that are shown."""
    blobs: Mapping[str, bytes] = field(repr=False)
    """The stored bytes by hash, so that the next version fetches only what is new."""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def version(self) -> int:
        return self.commit.version

    @property
    def learned(self) -> Memory:
        """The same memory by the names that its tasks were learned under, which all that is stored goes by."""
        return Memory(self.memory.method)

    @property
    def tasks(self) -> tuple[NamedTask, ...]:
        """The tasks, oldest first, as they are shown and as they were learned."""
        named = {one.learned_name: one for one in names.named_tasks(self.commit)}
        return tuple(named[info.name] for info in self.learned.tasks)


def load(
    vault: Vault, model: Model, commit: Commit, beside: LoadedVersion | None = None, device: torch.device = CPU
) -> LoadedVersion:
    """Fetch, check, build and warm up the version of `commit`; what `beside` holds already is shared.

    Parameters
    ----------
    device
        What it is to answer on, if its method can.

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
    if memory.method.moves and memory.device.type != device.type:
        memory.to(device)
    if commit.names is not None:
        memory = NamedMemory(memory, Naming.of(memory.tasks, names.shown(commit)))
    if memory.tasks:
        shape = memory.definition.input
        # Of all tasks, so that the first requests find them built.
        memory.predict(torch.zeros(1, shape.channels, shape.height, shape.width, dtype=torch.uint8), contenders="all")
        memory.method.prepare()
    return LoadedVersion(model, commit, memory, blobs)


def newest_whole(
    vault: Vault,
    model: Model,
    head: int,
    beside: LoadedVersion | None,
    require: Callable[[LoadedVersion], None],
    device: torch.device = CPU,
    *,
    learned: bool = False,
) -> LoadedVersion | None:
    """The newest version below `head`, and above `beside`, that can be loaded; None when there is none.

    Where `_MOST_REFUSED` answer otherwise than certified, or have no engine, the machine is to blame, and no more are
    tried.

    Parameters
    ----------
    require
        Raises AnswersDiffer for a version that must not answer here.
    learned
        Whether a version without a task is none: it hides that the machine is to blame.

    Raises
    ------
    VaultError
        The storage cannot be asked.
    """
    harmed: set[str] = set()
    refused = 0
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
                loaded = load(vault, model, commit, beside, device)
                if learned and not loaded.memory.tasks:
                    break
                require(loaded)
                return loaded
        except UnknownModel:
            raise
        except HARMED as error:
            harmed.add(getattr(error, "path", None) or "")
            log.error("model %s: version %d cannot be loaded either: %s", model.name, number, error)
            refused += isinstance(error, AnswersDiffer | EngineMissing)
            if refused >= _MOST_REFUSED:
                break
    return None
