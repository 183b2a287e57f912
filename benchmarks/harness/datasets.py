"""Task sequences from MNIST and CIFAR, with training and test images.

MNIST is read from `mnist.npz` (arrays x_train, y_train, x_test and y_test), the CIFAR sets from `cifar10.tar.xz` and
`cifar100.tar.xz` (`train/<class>/<number>.jpg` and `test/<class>/<number>.jpg`), and EfficientNet-Lite0 from
`tf_efficientnet_lite0.safetensors`, whose tensors have timm's names. Nothing is written to disk:
an archive is unpacked and decoded in memory, in about fifteen seconds for the 60,000 images of CIFAR-10.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engram import Examples, InputShape
from engram.nn.pretrained.backbone import Backbone

DATA_SEED = 0
"""Seed of subsets, permutations and random class orders, so that the data is the same for every seed of a model."""

CIFAR10_ORDER = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DECODED_AT_ONCE = 2048
"""Compressed images that are held in memory for decoding."""


class MissingData(Exception):
    """The folder lacks a data set; the message is shown to the user."""


@dataclass(frozen=True)
class Sizes:
    """Number of images of each class; None for all of them."""

    train: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class Tasks:
    """A sequence of tasks.

    Parameters
    ----------
    shape
        Shape of all images.
    train, test
        Training and test images of each task in order, of the same classes.
    backbones
        Networks that a model's commons may name.
    """

    shape: InputShape
    train: tuple[Examples, ...]
    test: tuple[Examples, ...]
    backbones: Mapping[str, Backbone] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct class names, in the order in which they occur."""
        return tuple(dict.fromkeys(name for examples in self.train for name in examples.classes))


@dataclass(frozen=True)
class ImageDataset:
    """A data set: for each part, images (N, C, H, W) uint8 and labels (N,) int64 of `classes`."""

    classes: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def task(self, names: Sequence[str]) -> tuple[Examples, Examples]:
        """Training and test images of some classes."""
        numbers = [self.classes.index(name) for name in names]
        train, test = (_chosen(images, labels, numbers, names) for images, labels in (self.train, self.test))
        return train, test

    @property
    def shape(self) -> InputShape:
        channels, height, width = self.train[0].shape[1:]
        return InputShape.model_validate({"channels": channels, "height": height, "width": width})


def split_mnist(folder: Path, sizes: Sizes) -> Tasks:
    """Five tasks of two digits, in order: 0 and 1 first."""
    return _split(mnist(folder, sizes), _pairs([str(digit) for digit in range(10)]))


def single_mnist(folder: Path, sizes: Sizes) -> Tasks:
    """Ten tasks of one digit, in order."""
    return _split(mnist(folder, sizes), [[str(digit)] for digit in range(10)])


def permuted_mnist(folder: Path, sizes: Sizes, count: int = 10) -> Tasks:
    """All ten digits in every task, the pixels of each task in another fixed order; the first task's unchanged.

    The classes are named "0" to "9" in every task, since an image's class does not depend on the task.
    """
    dataset = mnist(folder, sizes)
    generator = torch.Generator().manual_seed(DATA_SEED)
    train, test = dataset.task(dataset.classes)
    size = train.images[0].numel()
    orders = [torch.arange(size), *(torch.randperm(size, generator=generator) for _ in range(count - 1))]
    return Tasks(
        dataset.shape,
        tuple(_permuted(train, order) for order in orders),
        tuple(_permuted(test, order) for order in orders),
    )


def split_cifar10(folder: Path, sizes: Sizes) -> Tasks:
    """Five tasks of two classes in the data set's own order: airplane and automobile first."""
    return _split(archive(folder / "cifar10.tar.xz", sizes, CIFAR10_ORDER), _pairs(CIFAR10_ORDER))


def split_cifar10_lite0(folder: Path, sizes: Sizes) -> Tasks:
    """The same five tasks, and a network that has seen ImageNet."""
    return replace(split_cifar10(folder, sizes), backbones={"lite0": lite0(folder)})


def single_cifar10_lite0(folder: Path, sizes: Sizes) -> Tasks:
    """Ten tasks of one class in the data set's own order, and a network that has seen ImageNet."""
    found = _split(archive(folder / "cifar10.tar.xz", sizes, CIFAR10_ORDER), [[name] for name in CIFAR10_ORDER])
    return replace(found, backbones={"lite0": lite0(folder)})


def split_cifar100(folder: Path, sizes: Sizes, count: int = 10) -> Tasks:
    """Ten tasks of ten classes each, drawn at random (once, for all seeds): RNF, section 4.3."""
    dataset = archive(folder / "cifar100.tar.xz", sizes)
    return _split(dataset, _drawn(dataset.classes, 10, count))


def rnf_cifar(folder: Path, sizes: Sizes) -> Tasks:
    """The whole of CIFAR-10 as the first task, then five of ten random classes of CIFAR-100: RNF, section 4.3."""
    first = _split(archive(folder / "cifar10.tar.xz", sizes, CIFAR10_ORDER), [CIFAR10_ORDER])
    rest = split_cifar100(folder, sizes, count=5)
    return Tasks(first.shape, first.train + rest.train, first.test + rest.test)


def rnf_digits(folder: Path, sizes: Sizes) -> Tasks:
    """The whole of CIFAR-10 as the first task, then ten digits five times, each time with permuted pixels."""
    first = _split(archive(folder / "cifar10.tar.xz", sizes, CIFAR10_ORDER), [CIFAR10_ORDER])
    rest = permuted_mnist(folder, sizes, count=5)
    train, test = (tuple(_framed(task, first.shape) for task in part) for part in (rest.train, rest.test))
    return Tasks(first.shape, first.train + train, first.test + test)


SEQUENCES: Mapping[str, Callable[[Path, Sizes], Tasks]] = {
    "split_mnist": split_mnist,
    "single_mnist": single_mnist,
    "permuted_mnist": permuted_mnist,
    "split_cifar10": split_cifar10,
    "split_cifar10_lite0": split_cifar10_lite0,
    "single_cifar10_lite0": single_cifar10_lite0,
    "split_cifar100": split_cifar100,
    "rnf_cifar": rnf_cifar,
    "rnf_digits": rnf_digits,
}
"""The functions by the names of the benchmarks."""


def mnist(folder: Path, sizes: Sizes) -> ImageDataset:
    """The ten digits.

    Raises
    ------
    MissingData
    """
    path = folder / "mnist.npz"
    if not path.exists():
        raise MissingData(f"{path} is missing: it should hold MNIST as x_train, y_train, x_test and y_test")
    parts = []
    with np.load(path, allow_pickle=False) as arrays:
        for part, count in (("train", sizes.train), ("test", sizes.test)):
            images = torch.from_numpy(arrays[f"x_{part}"])[:, None]  # (N, 1, H, W)
            labels = torch.from_numpy(arrays[f"y_{part}"]).long()
            parts.append(_some(images, labels, count))
    return ImageDataset(tuple(str(digit) for digit in range(10)), parts[0], parts[1])


def lite0(folder: Path) -> Backbone:
    """EfficientNet-Lite0, trained on ImageNet.

    Raises
    ------
    MissingData
    """
    path = folder / "tf_efficientnet_lite0.safetensors"
    if not path.exists():
        raise MissingData(f"{path} is missing: it should hold the weights of timm's tf_efficientnet_lite0")
    return Backbone.open(path, "timm/tf_efficientnet_lite0", licence="Apache-2.0")


def archive(path: Path, sizes: Sizes, order: Sequence[str] | None = None) -> ImageDataset:
    """Data set from a tar archive of `train/<class>/<number>.jpg` and `test/<class>/<number>.jpg`.

    Parameters
    ----------
    order
        The classes; by default those of the archive, by name.

    Raises
    ------
    MissingData
        for a missing file, or a class without images.
    """
    if not path.exists():
        raise MissingData(f"{path} is missing: it should hold train/<class>/<number>.jpg and test/<class>/<number>.jpg")
    found: dict[str, list[tuple[str, Tensor]]] = {"train": [], "test": []}
    with tarfile.open(path) as file, ThreadPoolExecutor(2) as pool:
        members = _members(file)
        while several := list(islice(members, DECODED_AT_ONCE)):
            for member, image in zip(several, pool.map(_decode, several), strict=True):
                found[member.part].append((member.name, image))
    classes = tuple(order or sorted({name for name, _ in found["train"]}))
    return ImageDataset(
        classes,
        _gathered(path, found["train"], classes, sizes.train),
        _gathered(path, found["test"], classes, sizes.test),
    )


def _gathered(
    path: Path, rows: Sequence[tuple[str, Tensor]], classes: Sequence[str], count: int | None
) -> tuple[Tensor, Tensor]:
    missing = set(classes) - {name for name, _ in rows}
    if missing or not classes:
        raise MissingData(f"{path} lacks images of {', '.join(sorted(missing)) or 'any class'}")
    number = {name: index for index, name in enumerate(classes)}
    wanted = [(image, number[name]) for name, image in rows if name in number]
    images = torch.stack([image for image, _ in wanted])  # (N, C, H, W)
    return _some(images, torch.tensor([label for _, label in wanted]), count)


@dataclass(frozen=True)
class _Member:
    """One compressed image: its part (`train` or `test`), the name of its class, its bytes."""

    part: str
    name: str
    data: bytes


def _members(file: tarfile.TarFile) -> Iterator[_Member]:
    """The images in the order of the archive, since seeking back in a compressed one starts over."""
    for member in file:
        stream = file.extractfile(member) if member.isfile() else None
        if stream is not None:
            part, name = Path(member.name).parts[-3:-1]
            yield _Member(part, name, stream.read())


def _decode(member: _Member) -> Tensor:
    """(3, H, W) uint8."""
    with Image.open(io.BytesIO(member.data)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def _some(images: Tensor, labels: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """At most `count` images of each class, drawn by `DATA_SEED`."""
    if count is None:
        return images, labels
    generator = torch.Generator().manual_seed(DATA_SEED)
    chosen = []
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    rows = torch.cat(chosen).sort().values
    return images[rows], labels[rows]


def _chosen(images: Tensor, labels: Tensor, numbers: Sequence[int], names: Sequence[str]) -> Examples:
    place = torch.full((int(labels.max()) + 1,), -1)
    place[list(numbers)] = torch.arange(len(numbers))
    mapped = place[labels]
    return Examples(images[mapped >= 0].contiguous(), mapped[mapped >= 0], tuple(names))


def _split(dataset: ImageDataset, groups: Sequence[Sequence[str]]) -> Tasks:
    parts = [dataset.task(names) for names in groups]
    return Tasks(dataset.shape, tuple(train for train, _ in parts), tuple(test for _, test in parts))


def _pairs(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + 2] for start in range(0, len(names), 2)]


def _drawn(names: Sequence[str], size: int, count: int) -> list[Sequence[str]]:
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(DATA_SEED)).tolist()
    return [[names[index] for index in order[start : start + size]] for start in range(0, size * count, size)]


def _permuted(examples: Examples, order: Tensor) -> Examples:
    images = examples.images.flatten(1)[:, order].reshape(examples.images.shape)
    return Examples(images, examples.labels, examples.classes)


def _framed(examples: Examples, shape: InputShape) -> Examples:
    """Grey images in the middle of black ones of three channels."""
    height, width = examples.images.shape[2:]
    top, left = (shape.height - height) // 2, (shape.width - width) // 2
    images = torch.zeros(len(examples.images), shape.channels, shape.height, shape.width, dtype=torch.uint8)
    images[:, :, top : top + height, left : left + width] = examples.images
    return Examples(images, examples.labels, examples.classes)
