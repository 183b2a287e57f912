"""Networks that are served, and the images that their tasks are learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.growth.command import BUDGET
from benchmarks.growth.tasks import GROWTH_TASKS, dataset
from benchmarks.harness.datasets import ImageDataset, MissingData, lite0
from benchmarks.serving.peers.network import PeerPlan
from engram import Definition, Examples
from engram.config.engines import FIRST_ENGINE, FIRST_PRECISION, EngineName, Precision
from engram.nn.backbones import layout_of
from engram.nn.pretrained.backbone import Backbone

TEST_SHARE = 4
"""One of so many digits is not learned from, but asked about."""
BROUGHT = "lite0"
BROUGHT_SIDE = 128
"""Pixels of a side of images that EfficientNet-Lite0 is given."""
TINTS = np.linspace(0.4, 1.0, 3)
"""Of the colours of a digit."""


@dataclass(frozen=True)
class ServedNetwork:
    """One network: for each task of Engram's, and once for the peers."""

    name: str
    backbone: str
    colour: bool
    """32 x 32 pixels of three colours, sent as JPEG, else 28 x 28 of one, sent as PNG."""
    task_width: float = 1.0
    peer_width: float = 1.0
    over_brought: bool = False
    """Whether it stands over EfficientNet-Lite0, with images of `BROUGHT_SIDE`."""
    precision: Precision = FIRST_PRECISION
    engine: EngineName = FIRST_ENGINE
    """Of Engram's models, as their definitions name them."""
    brought: Backbone | None = None
    weights: Path | None = None
    """Of EfficientNet-Lite0."""

    def over(self, data: Path | None) -> ServedNetwork:
        """The same with what it stands over, from a folder; raises MissingData."""
        if not self.over_brought:
            return self
        if data is None:
            raise MissingData(f"{self.name} needs --data DIR with tf_efficientnet_lite0.safetensors")
        return replace(self, brought=lite0(data), weights=data.resolve() / "tf_efficientnet_lite0.safetensors")

    @property
    def backbones(self) -> dict[str, Backbone]:
        """Networks that its definition names."""
        return {} if self.brought is None else {BROUGHT: self.brought}

    @property
    def side(self) -> int:
        """Pixels of a side of its images."""
        return BROUGHT_SIDE if self.over_brought else 32 if self.colour else 28

    def definition(self, width: float) -> Definition:
        """Of a model of this network."""
        channels = 3 if self.colour else 1
        fields: dict[str, Any] = {"backbone": self.backbone, "width": width, "budget": BUDGET}
        if self.over_brought:
            fields["commons"] = {"kind": "pretrained", "backbone": BROUGHT, "size": BROUGHT_SIDE}
        if self.precision != FIRST_PRECISION:
            fields["precision"] = self.precision
        if self.engine != FIRST_ENGINE:
            fields["engine"] = self.engine
        shape = {"channels": channels, "height": self.side, "width": self.side}
        return Definition.model_validate({**fields, "input": shape})

    @property
    def kind(self) -> str:
        """Media type of the images."""
        return "image/jpeg" if self.colour else "image/png"

    def plan(self, labels: tuple[str, ...], port: int, threads: int, workers: int) -> PeerPlan:
        """What a peer serves: the backbone at its width, with one head for all classes."""
        if self.brought is not None:
            return self._plan_over(self.brought, labels, port, threads, workers)
        layout = layout_of(self.definition(self.peer_width))
        nodes: list[Mapping[str, Any]] = [
            {
                **asdict(node),
                "incoming": layout.incoming(node, layout.widths) if node.mixing else 0,
                "units": layout.widths[node.layer],
            }
            for node in layout.nodes
        ]
        features = layout.widths[layout.features.layer] * layout.features.per_unit
        return PeerPlan(port, tuple(nodes), 3 if self.colour else 1, features, labels, threads, workers)

    def _plan_over(self, brought: Backbone, labels: tuple[str, ...], port: int, threads: int, workers: int) -> PeerPlan:
        about = brought.description.preprocessing
        told = {
            "architecture": brought.description.architecture.partition("/")[2],
            "weights": str(self.weights),
            "side": BROUGHT_SIDE,
            "mean": about.mean,
            "std": about.std,
        }
        return PeerPlan(port, (), 3, brought.description.features, labels, threads, workers, brought=told)


NETWORKS = {
    network.name: network
    for network in (
        ServedNetwork("mlp28", "mlp", colour=False),
        ServedNetwork("cnn28", "cnn", colour=False),
        ServedNetwork("cnn32", "cnn", colour=True),
        ServedNetwork("resnet18", "resnet18", colour=True, task_width=0.25),
        ServedNetwork("resnet18-quarter", "resnet18", colour=True, task_width=0.25, peer_width=0.25),
        ServedNetwork("resnet18-whole", "resnet18", colour=True),
        ServedNetwork("lite0", "adapter", colour=True, over_brought=True),
    )
}
"""By name; a task of `resnet18` has a quarter of the width that the peers' whole network has."""


def learned_from(network: ServedNetwork, data: Path | None) -> ImageDataset:
    """MNIST or CIFAR-10 in a folder, else scikit-learn's digits, enlarged and perhaps tinted; raises MissingData."""
    return digits(network.colour) if data is None else dataset(data, network.colour)


def digits(colour: bool) -> ImageDataset:
    """The 1,797 digits that come with scikit-learn, in the size of MNIST, or of CIFAR-10 in colour."""
    images, labels = load_digits(return_X_y=True)
    side = 32 if colour else 28
    grey = np.stack([_enlarged(row.reshape(8, 8), side) for row in images])[:, None]  # (N, 1, side, side)
    whole = (grey * TINTS[:, None, None]).astype(np.uint8) if colour else grey
    pixels, targets = torch.from_numpy(whole), torch.from_numpy(labels).long()
    kept = torch.arange(len(targets)) % TEST_SHARE == 0
    names = tuple(str(digit) for digit in range(10))
    return ImageDataset(names, (pixels[~kept], targets[~kept]), (pixels[kept], targets[kept]))


def _enlarged(values: np.ndarray[Any, np.dtype[np.float64]], side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    small = Image.fromarray((values * (255 / 16)).round().astype(np.uint8))
    return np.array(small.resize((side, side), Image.Resampling.BICUBIC))


def sized(examples: Examples, side: int) -> Examples:
    """Examples with images (N, C, side, side), enlarged where they are smaller."""
    if examples.images.shape[2] == side:
        return examples
    large = F.interpolate(examples.images.float(), (side, side), mode="bicubic", antialias=True)
    return Examples(large.round().clamp(0, 255).to(torch.uint8), examples.labels, examples.classes)


def labels(data: ImageDataset, tasks: int) -> tuple[str, ...]:
    """The classes of the first tasks."""
    return tuple(name for task in GROWTH_TASKS[:tasks] for name in task.classes(data.classes))
