"""Tasks of a staged model: networks and profiles, read when they are needed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from engram.checkpointing.pieces import Piece, bytes_of, hash_of
from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.nn.capacity import TaskInfo
from engram.nn.closures.engines import FIRST
from engram.nn.closures.plan import Engine
from engram.nn.layout import Layout
from engram.nn.network import Engram, Network
from engram.nn.serialization import dump_engram, load_engram
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.recogniser import KnownTask

_NO_NETWORK = "task without a network"
_LINEAR = "linear head"
"""Kinds of what may stand in an engram's place."""


def dump_linear(info: TaskInfo, linear: nn.Linear) -> bytes:
    """A linear head as bytes."""
    return pack(_LINEAR, {"task": info.name, "classes": list(info.classes)}, linear.state_dict())


def _load_linear(info: TaskInfo, data: bytes) -> nn.Linear:
    about, tensors = unpack(_LINEAR, data)
    try:
        if (about["task"], about["classes"]) != (info.name, list(info.classes)):
            raise DamagedSnapshot(f"the head of task {info.name!r} is not the one that its recogniser knows")
        with torch.device("meta"):
            linear = nn.Linear(tensors["weight"].shape[1], len(info.classes))
        linear.load_state_dict(tensors, assign=True)
    except (KeyError, RuntimeError, IndexError) as error:
        raise DamagedSnapshot(f"the head of task {info.name!r} lacks {error}") from error
    return linear.requires_grad_(False)


@dataclass
class StagedTask:
    """One task: what the recogniser knows of it, its engram and its profile, each read once, when first asked for."""

    known: KnownTask
    layout: Layout
    stored: tuple[bytes | Piece, bytes | Piece]
    """The engram and the profile."""
    _engram: Engram | None = None
    _linear: nn.Linear | None = None
    _profile: StagedProfile | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def learned(
        cls,
        known: KnownTask,
        layout: Layout,
        engram: Engram | None,
        profile: StagedProfile,
        linear: nn.Linear | None = None,
    ) -> StagedTask:
        """A task that was just learned; without an engram where it has a single class, or a linear head alone."""
        info = known.info
        about = {"task": info.name, "classes": list(info.classes)}
        if linear is not None:
            data = dump_linear(info, linear)
        else:
            data = pack(_NO_NETWORK, about, {}) if engram is None else dump_engram(engram)
        return cls(known, layout, (data, profile.dump()), engram, linear, profile)

    @property
    def name(self) -> str:
        return self.known.info.name

    @property
    def engram(self) -> Engram | None:
        """The engram; None for a task without a network. Raises DamagedSnapshot, UnsupportedFormat."""
        with self._lock:
            if self._engram is None and self.known.network:
                engram, info = load_engram(self.layout, bytes_of(self.stored[0])), self.known.info
                if (engram.task, engram.classes, engram.units) != (info.name, info.classes, info.units):
                    raise DamagedSnapshot(f"the engram of task {info.name!r} is not the one that its recogniser knows")
                self._engram = engram
            return self._engram

    @property
    def linear(self) -> nn.Linear | None:
        """The linear head of a task that has nothing else; raises DamagedSnapshot, UnsupportedFormat."""
        with self._lock:
            if self._linear is None and self.known.head == "linear":
                self._linear = _load_linear(self.known.info, bytes_of(self.stored[0]))
            return self._linear

    @property
    def profile(self) -> StagedProfile:
        """The profile; raises DamagedSnapshot, UnsupportedFormat."""
        with self._lock:
            if self._profile is None:
                profile = StagedProfile.load(bytes_of(self.stored[1]))
                if profile.task != self.name:
                    raise DamagedSnapshot(f"the profile of task {self.name!r} is that of {profile.task!r}")
                self._profile = profile
            return self._profile

    @property
    def loaded(self) -> bool:
        """Whether the engram was read, or there is none."""
        return self._engram is not None or not self.known.network

    def read_what_is_there(self) -> None:
        """Read what was given as bytes, so that damage shows at once; a piece is read when it is needed.

        Raises
        ------
        DamagedSnapshot, UnsupportedFormat
        """
        engram, profile = self.stored
        if isinstance(engram, bytes) and self.engram is None and self.linear is None:
            unpack(_NO_NETWORK, engram)
        if isinstance(profile, bytes):
            assert self.profile.task == self.name, "a profile of another task is refused"

    @property
    def hashes(self) -> tuple[str, str]:
        """Content hashes of the engram and the profile."""
        return hash_of(self.stored[0]), hash_of(self.stored[1])

    def sharing(self, other: StagedTask) -> StagedTask:
        """Itself, or another with the same content, which may have been read already."""
        return other if other.hashes == self.hashes and other.known == self.known else self


def network_of(layout: Layout, tasks: Sequence[StagedTask], names: Sequence[str], engine: Engine = FIRST) -> Network:
    """The network of some tasks and all that they read of others, in order; no other engram is read."""
    by_name: Mapping[str, StagedTask] = {task.name: task for task in tasks}
    wanted, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        engram = None if name in wanted else by_name[name].engram
        if engram is not None:
            wanted.add(name)
            waiting += [read.owner for read in engram.reads or ()]
    engrams = [engram for task in tasks if task.name in wanted and (engram := task.engram) is not None]
    return Network(layout, engrams, owned_by(layout, tasks), engine)


def owned_by(layout: Layout, tasks: Sequence[StagedTask]) -> dict[str, int]:
    """Units of all tasks together, in each layer."""
    return {layer: sum(task.known.info.units.get(layer, 0) for task in tasks) for layer in layout.layers}
