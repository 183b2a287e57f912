"""Labelled images, their split into training and held-out parts, and mini-batches of indices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from engram.errors import ExamplesError, InvalidOptions, TooFewClasses, TooFewImages, require_type


@dataclass(frozen=True)
class ClassesNeeded:
    """How many classes a task has at least."""

    least: int = 2
    by: str = "a task"
    """What needs so many, for the sentence that refuses fewer."""

    @property
    def sentence(self) -> str:
        """Who needs how many, as the end of a sentence."""
        return f"{self.by} needs at least {'one' if self.least < 2 else 'two' if self.least < 3 else self.least}"


TWO_CLASSES = ClassesNeeded()


@dataclass(frozen=True)
class Examples:
    """Images with their labels.

    Parameters
    ----------
    images
        Tensor (N, C, H, W) of uint8.
    labels
        Tensor (N,) of int64; indices into `classes`.
    classes
        The names of the classes; any sequence of strings is taken, and stored as a tuple.
    held_out
        Images to judge by, of the very same classes, where the upload had some of its own.

    Raises
    ------
    ExamplesError
        Tensors of another shape or dtype, or classes that are no sequence of names. Whether the labels fit the classes
        is for `check` to say, as `Memory.learn` asks it.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    held_out: Examples | None = None

    def __post_init__(self) -> None:
        require_type("images", self.images, Tensor, ExamplesError)
        require_type("labels", self.labels, Tensor, ExamplesError)
        if self.images.ndim != 4:
            raise ExamplesError(f"images are (N, C, H, W), not {tuple(self.images.shape)}")
        if self.images.dtype != torch.uint8:
            raise ExamplesError(f"images are uint8, not {self.images.dtype}")
        if self.labels.dtype != torch.int64:
            raise ExamplesError(f"labels are int64, not {self.labels.dtype}")
        if self.labels.shape != self.images.shape[:1]:
            raise ExamplesError(f"labels are ({len(self.images)},), one for each image, not {tuple(self.labels.shape)}")
        object.__setattr__(self, "classes", _names(self.classes))
        if self.held_out is not None:
            require_type("held-out images", self.held_out, Examples, ExamplesError)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> Examples:
        """The examples at `indices` (int64), in that order, of the same classes and without a held-out part."""
        return Examples(self.images[indices], self.labels[indices], self.classes)

    def evenly(self, most: int) -> Examples:
        """At most so many examples, but one of each class at least: of every class as many, spread over it."""
        each = max(1, most // len(self.classes))
        members = [(self.labels == label).nonzero().flatten() for label in range(len(self.classes))]
        chosen = [own[torch.linspace(0, len(own) - 1, min(len(own), each)).long()] for own in members]
        return self.subset(torch.cat(chosen))

    def counts(self) -> tuple[int, ...]:
        """How many images each class has, in the order of `classes`.

        Raises
        ------
        ExamplesError
            A label out of range.
        """
        _check_range(self)
        return tuple(torch.bincount(self.labels, minlength=len(self.classes)).tolist())

    def digest(self) -> str:
        """SHA-256 of images, labels and classes, those of the held-out part included."""
        found = hashlib.sha256(json.dumps([self.classes, tuple(self.images.shape)]).encode())
        for tensor in (self.images, self.labels):
            for part in torch.split(tensor, 1024):
                found.update(part.cpu().contiguous().numpy().tobytes())
        return f"{found.hexdigest()}{'' if self.held_out is None else self.held_out.digest()}"

    def check(self, needed: ClassesNeeded = TWO_CLASSES) -> None:
        """Refuse examples that no classifier can be learned from.

        Raises
        ------
        TooFewClasses
            Fewer classes than are `needed`.
        TooFewImages
            A class with fewer than two images, or with none among the held-out images that were given.
        ExamplesError
            A label out of range, a name used twice, or held-out images of other classes or another size.
        """
        if len(self.classes) < needed.least:
            noun = "class" if needed.least == 1 else "classes"
            raise TooFewClasses(f"{needed.sentence} {noun}; there is {len(self.classes) or 'none'}")
        if len(set(self.classes)) != len(self.classes):
            raise ExamplesError("two classes have the same name")
        _check_range(self)
        _check_counts(self, least=2, kind="image")
        if self.held_out is not None:
            if self.held_out.classes != self.classes:
                raise ExamplesError("the held-out images are of other classes than the images to learn from")
            if self.held_out.images.shape[1:] != self.images.shape[1:]:
                raise ExamplesError("the held-out images are of another size than the images to learn from")
            _check_range(self.held_out)
            _check_counts(self.held_out, least=1, kind="held-out image")


LEAST_OF_SMALL = 3
"""Images that a small class holds out at least, where that is a quarter of it or less."""


def small_classes(examples: Examples) -> tuple[int, ...]:
    """The classes that have images, but fewer than half as many as the largest."""
    counts = examples.counts()
    return tuple(label for label, count in enumerate(counts) if 0 < 2 * count < max(counts))


def split(
    examples: Examples,
    held_out_fraction: float,
    seed: int,
    *,
    recipe: int = 1,
    needed: ClassesNeeded = TWO_CLASSES,
) -> tuple[Examples, Examples]:
    """Divide examples into a training part and a held-out part.

    Held-out images that came with the upload are taken as they are. Otherwise each class gives the same share of its
    images, at least one and never all, drawn by `seed`.

    Parameters
    ----------
    recipe
        Of the definition. Since 2, classes of which there are fewer than half as many images as of the largest hold out
        up to `LEAST_OF_SMALL`, but no more than a quarter for that.

    Returns
    -------
    The images to learn from and the held-out images, neither with a held-out part of its own.

    Raises
    ------
    InvalidOptions
        A share that does not lie between 0 and 1, or a seed that is no whole number.
    TooFewClasses, TooFewImages, ExamplesError
        As `Examples.check`.
    """
    if not _is_share(held_out_fraction):
        raise InvalidOptions(f"the held-out share lies between 0 and 1, not {held_out_fraction}")
    require_type("examples", examples, Examples, ExamplesError)
    examples.check(needed)
    if examples.held_out is not None:
        return Examples(examples.images, examples.labels, examples.classes), examples.held_out
    try:
        generator = torch.Generator().manual_seed(seed)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidOptions(f"the seed is a whole number of 64 bits, not {seed!r}") from error
    train: list[Tensor] = []
    held_out: list[Tensor] = []
    for label, share in enumerate(held_out_counts(examples, held_out_fraction, recipe)):
        members = (examples.labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        held_out.append(members[:share])
        train.append(members[share:])
    return (
        examples.subset(torch.cat(train).sort().values),
        examples.subset(torch.cat(held_out).sort().values),
    )


def held_out_counts(examples: Examples, held_out_fraction: float, recipe: int) -> tuple[int, ...]:
    """How many images of each class `split` holds out."""
    if examples.held_out is not None:
        return examples.held_out.counts()
    small = small_classes(examples) if recipe > 1 else ()
    found = []
    for label, count in enumerate(examples.counts()):
        share = min(max(round(count * held_out_fraction), 1), count - 1)
        found.append(max(share, min(LEAST_OF_SMALL, count // 4)) if label in small else share)
    return tuple(found)


def _names(classes: object) -> tuple[str, ...]:
    """The names of classes as a tuple."""
    # A string is a sequence of strings too, but never of the names that were meant; sets have no order.
    if isinstance(classes, str | bytes | Set | Mapping):
        raise ExamplesError(f"classes are a sequence of names, such as a tuple, not of type {type(classes).__name__}")
    try:
        names = tuple(cast("Iterable[object]", classes))
    except TypeError as error:
        raise ExamplesError(f"classes are a sequence of names, not of type {type(classes).__name__}") from error
    if not all(isinstance(name, str) for name in names):
        raise ExamplesError("the names of classes are strings")
    return cast("tuple[str, ...]", names)


def _is_share(share: float) -> bool:
    try:
        return bool(0 < share < 1)
    except TypeError:
        return False


def _check_range(examples: Examples) -> None:
    if len(examples) and not 0 <= int(examples.labels.min()) <= int(examples.labels.max()) < len(examples.classes):
        raise ExamplesError(f"labels must lie between 0 and {len(examples.classes) - 1}")


def _check_counts(examples: Examples, least: int, kind: str) -> None:
    for name, count in zip(examples.classes, examples.counts(), strict=True):
        if count < least:
            raise TooFewImages(f"class {name!r} has {count} {kind}{'' if count == 1 else 's'}; it needs {least}")


def batches(count: int, size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Index vectors of at most `size`, shuffled if a generator is given. A last batch of one joins the one before."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


EVALUATION_BATCH = 512
"""Images of a batch that nothing is learned from."""
