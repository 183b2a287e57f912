"""Small networks with random weights, as files that users would bring, and plain PyTorch beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engram.config.backbones import BackboneDescription, Preprocessing
from engram.nn.pretrained.architecture import NUM_CLASSES, Architecture, Place
from engram.nn.pretrained.architectures import architecture
from engram.nn.pretrained.inspection import inspect


def filled(module: nn.Module) -> nn.Module:
    """The module in eval mode with weights and batch statistics that make its outputs tell images apart."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            spread = torch.empty_like(tensor).uniform_(-1, 1, generator=generator)
            width = max(1, tensor[0].numel()) if tensor.dim() > 1 else 16
            tensor.copy_(1 + spread / 4 if name.endswith("running_var") else spread * (3 / width) ** 0.5)
    return module.eval()


@dataclass(frozen=True)
class Drawn:
    """A network with random weights: its file, its description, and the module that it was saved from."""

    file: bytes
    description: BackboneDescription
    module: nn.Module

    def plain_logits(self, image: Tensor) -> Tensor:
        """What plain PyTorch makes of an image, uint8 (1, 3, size, size), with attention by matrix products."""
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (self.description.preprocessing.mean, self.description.preprocessing.std)
        )
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = self.module((image.float() / 255 - mean) / std)
        return logits


def drawn(name: str, arguments: Mapping[str, Any], **config: Any) -> Drawn:
    """A network of an architecture, inspected."""
    return of_module(name, filled(architecture(name).build(arguments)), arguments, **config)


def of_module(name: str, module: nn.Module, arguments: Mapping[str, Any], **config: Any) -> Drawn:
    """A network that has weights already, in eval mode, inspected."""
    file = safetensors.torch.save({key: tensor.contiguous() for key, tensor in module.state_dict().items()})
    return Drawn(file, inspect(file, name, arguments=arguments, config=config), module)


class Tokens(nn.Module):
    """A transformer of one layer on patches of 8 pixels, with PyTorch's own attention, and a counter of images."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, size, size)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # (B, N, 16)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: Tensor = self.head(mixed.mean(1))
        return logits


class OwnArchitecture(Architecture):
    """What an operator's distribution would offer by an entry point."""

    def build(self, arguments: Mapping[str, Any]) -> nn.Module:
        """The transformer."""
        return Tokens(int(arguments.get(NUM_CLASSES, 4)))

    def places(self, module: nn.Module) -> tuple[Place, ...]:
        """The patches."""
        return (Place("patches"),)

    def classifier(self, module: nn.Module) -> str:
        """Its head."""
        return "head"

    def preprocessing(self, arguments: Mapping[str, Any]) -> Preprocessing:
        """Of 32 pixels."""
        return Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
