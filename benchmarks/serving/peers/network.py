"""Network, decoding and answers of a peer: plain PyTorch, Pillow and nothing of the product."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

IMAGE = "image"
"""The source of a node that is no node."""


@dataclass(frozen=True)
class PeerPlan:
    """What a peer serves and how, as it is told on its command line."""

    port: int
    nodes: tuple[Mapping[str, Any], ...]
    """Operations in order: the fields of a layout's node, and `incoming` and `units` of those that have weights."""
    channels: int
    features: int
    """Values that the head reads."""
    labels: tuple[str, ...]
    threads: int
    """Of PyTorch, in each process that runs the network."""
    workers: int = 1
    """Processes that run the network."""
    batch: int = 32
    """Requests that are computed together at most."""
    brought: Mapping[str, Any] | None = None
    """In place of nodes a network of timm: `architecture`, file of `weights`, `side`, `mean` and `std`."""

    def written(self) -> str:
        """The plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> PeerPlan:
        """The plan that was written."""
        fields = json.loads(text)
        return cls(**{**fields, "nodes": tuple(fields["nodes"]), "labels": tuple(fields["labels"])})


def operation(node: Mapping[str, Any]) -> nn.Module:
    """The module of one node."""
    match node["operation"]:
        case "dense":
            return nn.Sequential(nn.Flatten(), nn.Linear(node["incoming"], node["units"]), nn.ReLU())
        case "conv":
            shape = node["incoming"], node["units"], node["kernel"], node["stride"], node["padding"]
            parts: list[nn.Module] = [nn.Conv2d(*shape, bias=False), nn.BatchNorm2d(node["units"])]
            return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if node["rectify"] else []))
        case "max_pool":
            return nn.MaxPool2d(node["kernel"], node["stride"], node["padding"])
        case "global_average":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case "flatten":
            return nn.Flatten()
        case "add":
            return ResidualSum()
        case other:
            raise ValueError(f"no operation is called {other}")


class ResidualSum(nn.Module):
    """The rectified sum of two inputs of one shape."""

    def forward(self, trunk: Tensor, branch: Tensor) -> Tensor:
        return torch.relu(trunk + branch)


class PlainNetwork(nn.Module):
    """One backbone with one head for all classes: (B, C, H, W) uint8 -> logits (B, classes)."""

    def __init__(self, plan: PeerPlan) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleDict({node["name"]: operation(node) for node in plan.nodes})
        self.head = nn.Linear(plan.features, len(plan.labels))
        self._sources = {node["name"]: tuple(node["sources"]) for node in plan.nodes}

    def forward(self, images: Tensor) -> Tensor:
        values = {IMAGE: images.to(torch.float32) / 255.0}
        for name, block in self.blocks.items():
            values[name] = block(*(values[source] for source in self._sources[name]))
        logits: Tensor = self.head(values[name])
        return logits


_declared: list[torch.library.Library] = []


def _timm() -> Any:
    """timm, imported when it is needed; torchvision's wheel looks for operators that it lacks beside PyTorch's own."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]  # torch leaves it untyped
        _declared.append(library)
    return import_module("timm")


class BroughtNetwork(nn.Module):
    """A network of timm with one head for all classes: (B, C, H, W) uint8 -> logits (B, classes)."""

    def __init__(self, plan: PeerPlan) -> None:
        super().__init__()
        about = plan.brought
        assert about is not None, "there is a network that was brought"
        torch.manual_seed(0)
        self.network = _timm().create_model(about["architecture"], num_classes=len(plan.labels))
        weights = {name: value for name, value in load_file(about["weights"]).items() if "classifier" not in name}
        self.network.load_state_dict(weights, strict=False)
        self._side = about["side"]
        self._mean, self._std = (torch.tensor(about[name]).view(1, 3, 1, 1) for name in ("mean", "std"))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.prepared(images))
        return logits

    def prepared(self, images: Tensor) -> Tensor:
        """(B, 3, side, side) float32: what the network is given."""
        pixels = images.to(torch.float32)
        if tuple(images.shape[2:]) != (self._side, self._side):
            pixels = F.interpolate(pixels, (self._side, self._side), mode="bicubic", antialias=True).clamp(0, 255)
        return (pixels / 255 - self._mean) / self._std


def network_of(plan: PeerPlan) -> nn.Module:
    """The network of a plan, which answers only."""
    return (PlainNetwork(plan) if plan.brought is None else BroughtNetwork(plan)).eval()


class PeerClassifier:
    """A network that answers, with the number of threads that its plan says."""

    def __init__(self, plan: PeerPlan) -> None:
        torch.set_num_threads(plan.threads)
        self._labels = plan.labels
        self._mode = "L" if plan.channels == 1 else "RGB"
        self._network = network_of(plan)

    def decode(self, data: bytes) -> Tensor:
        """(C, H, W) uint8 from the bytes of an image file."""
        with Image.open(io.BytesIO(data)) as image:
            pixels = torch.from_numpy(np.array(image.convert(self._mode)))
        return pixels[None] if self._mode == "L" else pixels.permute(2, 0, 1)

    @torch.inference_mode()
    def answer(self, images: Tensor) -> list[dict[str, Any]]:
        """The likeliest label of each of (B, C, H, W) uint8 images."""
        best = self._network(images).softmax(1).max(1)
        pairs: Sequence[tuple[float, int]] = list(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        return [{"label": self._labels[number], "probability": probability} for probability, number in pairs]
