"""Loaded networks that users brought: one a process, frozen, in float32."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from engram.config.backbones import BackboneDescription
from engram.errors import ArchitectureMissing, DamagedWeights, UnknownArchitecture
from engram.nn.pretrained.architecture import Architecture, Place
from engram.nn.pretrained.architectures import allowed_arguments, architecture
from engram.nn.pretrained.description import loaded_as
from engram.nn.pretrained.modes import DefinedAttention, OwnDraws
from engram.nn.pretrained.preprocessing import prepare
from engram.nn.pretrained.taps import Seen, Taps
from engram.nn.pretrained.weights import read_tensors

__all__ = ["PretrainedNetwork", "Seen", "assembled", "built_with", "network"]

CPU = torch.device("cpu")
_COUNTER = "num_batches_tracked"


class PretrainedNetwork:
    """A frozen network, which any number of threads may look through at once."""

    def __init__(self, description: BackboneDescription, module: nn.Module, classifier: str) -> None:
        self.description = description
        self.module = module
        """The bare network, to be read only; deep copies of it have no trace of what is read here."""
        self.classifier = classifier
        """Path of the module that reads the features and gives the logits."""
        places = [Place(level.name, level.layout, level.prefix) for level in description.levels]
        self._taps = Taps(module, places, classifier)
        self._attends: bool | None = None
        """Whether it has attention; None until that is known."""

    def look(self, images: Tensor) -> Seen:
        """What the network sees in images, uint8 (B, C, H, W) of 1 or 3 channels.

        Each image is a forward of its own, so that its bytes never depend on its neighbours.
        """
        if not len(images):
            none = self.look_together(images.new_zeros(1, *images.shape[1:]))  # not every network takes a batch of none
            return Seen(
                tuple(level[:0] for level in none.levels),
                none.features[:0],
                None if none.logits is None else none.logits[:0],
            )
        if len(images) == 1:
            return self.look_together(images)
        seen = [self.look_together(images[at : at + 1]) for at in range(len(images))]
        levels = tuple(torch.cat(level) for level in zip(*(one.levels for one in seen), strict=True))
        logits = [one.logits for one in seen if one.logits is not None]
        return Seen(levels, torch.cat([one.features for one in seen]), torch.cat(logits) if logits else None)

    def look_together(self, images: Tensor) -> Seen:
        """As `look`, by one forward of all images: the last bits may depend on how many there are."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            seen = self.seen_in(prepare(self.description.preprocessing, images))
        return seen if self.description.outputs else seen._replace(logits=None)

    def seen_in(self, prepared: Tensor) -> Seen:
        """What it sees in its input, float32 (B, 3, size, size).

        Each operation costs more under a mode, so where no attention is met there is none from the second forward on.
        """
        if self._attends is False:
            return self._taps.look(prepared)
        with DefinedAttention() as mode:
            seen = self._taps.look(prepared)
        self._attends = mode.met
        return seen


def built_with(description: BackboneDescription) -> dict[str, str]:
    """What the bits of a network's answers depend on besides PyTorch and the machine; the library as it is here, now.

    Raises
    ------
    ArchitectureMissing
    """
    return {
        "architecture": description.architecture,
        "library": _known(description).library,
        "weights": description.weights,
        "precision": "float32",
    }


def _known(description: BackboneDescription) -> Architecture:
    """The architecture of a network that was inspected; raises ArchitectureMissing, also where no library has it."""
    try:
        return architecture(description.architecture)
    except UnknownArchitecture as error:
        raise ArchitectureMissing(f"{description.library} had it: {error}") from error


def assembled(description: BackboneDescription, tensors: Mapping[str, Tensor]) -> PretrainedNetwork:
    """The network with these tensors, floats as float32; it keeps them.

    Raises
    ------
    ArchitectureMissing
        where the architecture is not to be had here, or is built otherwise than when the weights were inspected.
    """
    kind = _known(description)
    with OwnDraws(), torch.device("cpu"):
        module = kind.build(allowed_arguments(kind, description.arguments))  # which a bundle may say anything of
    complete, own = dict(tensors), module.state_dict()
    for name, tensor in own.items():
        if name.endswith(_COUNTER) and name not in complete:
            complete[name] = torch.zeros_like(tensor)
    expected = {name: tensor.shape for name, tensor in own.items()}
    there = {name for name, _ in module.named_modules()}
    read = {kind.classifier(module), *(level.name for level in description.levels)}
    if expected != {name: tensor.shape for name, tensor in complete.items()} or not read <= there:
        made = f"{kind.library} builds {kind.name} otherwise than {description.library}"
        raise ArchitectureMissing(f"{made}, which its weights were inspected with")
    module.load_state_dict(complete, assign=True)
    module.eval().requires_grad_(False)
    return PretrainedNetwork(description, module, kind.classifier(module))


_loaded: weakref.WeakValueDictionary[str, PretrainedNetwork] = weakref.WeakValueDictionary()
_loading: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def network(
    description: BackboneDescription, weights: Callable[[], bytes], device: torch.device = CPU
) -> PretrainedNetwork:
    """The network of a description on a device: the one that this process has, or one of the weights' bytes.

    It lives as long as somebody holds it; threads that ask for the same at once wait for the first.

    Raises
    ------
    DamagedWeights
        where the bytes are not those that the description is of.
    ArchitectureMissing
        where the architecture cannot be built here, or only otherwise than when it was inspected.
    """
    key = f"{loaded_as(description)} on {device}"
    with _guard:
        loading = _loading.setdefault(key, threading.Lock())
    with loading:
        found = _loaded.get(key)
        if found is None:
            _known(description)  # before so many bytes are read in vain
            given = weights()
            if hashlib.sha256(given).hexdigest() != description.weights:
                raise DamagedWeights("the weights are not those that were inspected: their hash is another")
            found = assembled(description, read_tensors(given))
            found.module.to(device)
            _loaded[key] = found
    return found
