"""Task recogniser over relevance signatures: what is known of each task, and the chain of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.methods.rerelrp.detectors import DetectorChain
from engram.methods.rerelrp.signatures import Signatures
from engram.recognition.recogniser import TaskProfile
from engram.recognition.serialization import pack_profiles, unpack_profiles

COMMONS = "commons."
"""Before the names of the commons' tensors in a file."""


@dataclass(frozen=True)
class SignatureRecogniser:
    """A recogniser that judges by relevance signatures.

    Parameters
    ----------
    profiles
        For each task its classes, its density and the temperature of its head.
    columns
        For each task (features,) int64: the units of its sub-network, in the order of relevance vectors, whose
        relevance makes a signature.
    chain
        Detectors for all tasks but the newest.
    commons
        The state of the commons that densities are over; none in models that an earlier version saved, until they
        learn a task more.
    """

    profiles: tuple[TaskProfile, ...] = ()
    columns: tuple[Tensor, ...] = ()
    chain: DetectorChain = field(default_factory=DetectorChain)
    commons: Mapping[str, Tensor] = field(default_factory=dict)

    def log_probabilities(self, signatures: Sequence[Tensor], count: int) -> Tensor:
        """(B, T): log of the calibrated probability of each task, as `DetectorChain.log_probabilities`."""
        return self.chain.log_probabilities(signatures, count)

    def p_values(self, features: Sequence[Tensor], common: Tensor) -> Tensor:
        """(B, T): each task's conformal p-value, from its own features (B, F_t) or those of the commons (B, F)."""
        columns = []
        for profile, own in zip(self.profiles, features, strict=True):
            density = profile.density
            columns.append(density.p_value(density.distance(common if profile.over == "commons" else own)))
        return torch.stack(columns, 1)

    def check(self, signatures: Sequence[Signatures]) -> None:
        """Refuse signatures that are not those of these tasks; raises DamagedSnapshot."""
        features = [len(chosen) for chosen in self.columns]
        for number, piece in enumerate(signatures, 1):
            for rows in (piece.learned, piece.held_out):
                if [part.shape[1:] for part in rows] != [(count,) for count in features[:number]]:
                    raise DamagedSnapshot(f"the signatures of task {number} do not fit the recogniser")
        if len(signatures) != len(features):
            raise DamagedSnapshot("there are not as many signatures as tasks")

    def dump(self) -> bytes:
        """The recogniser as bytes."""
        about, tensors = pack_profiles(self.profiles)
        columns = {f"columns.{number}": chosen for number, chosen in enumerate(self.columns)}
        commons = {COMMONS + name: tensor for name, tensor in self.commons.items()}
        return pack("witness", about, {**tensors, **columns, **commons, **self.chain.tensors()})

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("witness", data)
        profiles = unpack_profiles(about, tensors)
        try:
            columns = tuple(tensors[f"columns.{number}"] for number in range(len(profiles)))
        except KeyError as error:
            raise DamagedSnapshot(f"the recogniser lacks {error}") from error
        commons = {name.removeprefix(COMMONS): tensor for name, tensor in tensors.items() if name.startswith(COMMONS)}
        return cls(
            profiles, columns, DetectorChain.from_tensors(tensors, [len(chosen) for chosen in columns[:-1]]), commons
        )
