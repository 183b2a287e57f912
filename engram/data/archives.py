"""Archives of labelled images, `<class>/<image>`, read as examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.archiving.class_folders import SPLITS, FolderPlan, plan
from engram.data.archiving.left_out import NOTHING, LeftOut
from engram.data.containers import ArchiveEntry, ArchiveLimits, Content, recognise, walk
from engram.data.examples import TWO_CLASSES, ClassesNeeded, Examples
from engram.data.images import Decode, ImageLimits, decode
from engram.errors import (
    ArchiveTooLarge,
    Cancelled,
    ImageError,
    InputError,
    TooManyUnreadable,
    require_type,
)

LIMITS = ArchiveLimits()
IMAGE_LIMITS = ImageLimits()

PROBED = 32
"""About how many images are tried before an upload is accepted, if none of them can be used."""

CONSTANT = 0.1
"""Share of a class's images that may be of a single colour each before there is a warning."""


@dataclass(frozen=True)
class ArchiveSummary:
    """Kind, classes and sizes of an archive, by its entries' names alone."""

    kind: str
    """`zip`, `tar`, `tar.gz`, `tar.bz2` or `tar.xz`."""
    images: int
    """Files in class folders, held-out ones included; some may turn out to be unreadable."""
    held_out: int
    """Those under `val/`, `valid/` or `validation/`."""
    bytes: int
    """Unpacked length of these files."""
    classes: tuple[str, ...]
    """Names of the classes, sorted."""
    left_out: LeftOut = NOTHING
    """Files that will not be learned from."""


@dataclass(frozen=True)
class UnreadableImage:
    """An image that was left out: its path in the archive, the error's code and sentence."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True)
class ReadArchive:
    """The images of an archive, those that could not be read, and what else was found."""

    examples: Examples
    unreadable: tuple[UnreadableImage, ...]
    left_out: LeftOut = NOTHING
    """Files that are no images, or lie elsewhere than images do."""
    constant: tuple[tuple[str, int], ...] = ()
    """Classes with images of a single colour, as decoded, and how many; held-out ones are counted too."""
    warnings: tuple[str, ...] = ()
    """Sentences about what may be a mistake."""


def inspect(path: Path | str, limits: ArchiveLimits = LIMITS, needed: ClassesNeeded = TWO_CLASSES) -> ArchiveSummary:
    """Check an archive by its entries' names, sizes and, where a suffix says nothing, first bytes; no image is decoded.

    Parameters
    ----------
    path
        The archive; its kind is recognised by its content.
    limits
        What it may hold.
    needed
        The classes that it has to have.

    Raises
    ------
    ArchiveError
        NotAnArchive, UnsafePath, BadName, ArchiveLink, TooManyEntries, SuspiciousRatio, ArchiveTooLarge, BadLayout.
    TooFewClasses, TooFewImages
        The folders hold too little to learn from.
    InputError
        What is no path, or limits of another type.
    OSError
        The file cannot be opened.
    """
    planned = plan(path, limits, needed)
    return ArchiveSummary(
        kind=recognise(path),
        images=planned.sizes.total(),
        held_out=planned.sizes["val"],
        bytes=planned.bytes,
        classes=planned.classes,
        left_out=planned.left_out,
    )


def read(
    path: Path | str,
    shape: InputShape,
    limits: ArchiveLimits = LIMITS,
    max_unreadable: float = 0.05,
    cancel: Callable[[], bool] | None = None,
    progress: Callable[[float], None] | None = None,
    image_limits: ImageLimits = IMAGE_LIMITS,
    decoder: int | None = None,
    decode_image: Decode | None = None,
    needed: ClassesNeeded = TWO_CLASSES,
) -> ReadArchive:
    """Decode every image of an archive to `shape`.

    Images come in the order of their sorted paths, however the folder was packed. Nothing is written to disk.

    Parameters
    ----------
    max_unreadable
        Share of the images that may be left out because they cannot be read.
    cancel, progress
        Asked before every image, where true stops; called with the share of images read, at every hundredth.
    decoder, needed
        As of `engram.data.images.decode`, and of `inspect`.
    decode_image
        In place of `engram.data.images.decode`, by limits of its own.

    Raises
    ------
    ArchiveError, TooFewClasses, TooFewImages, InputError, OSError
        As `inspect`; the counts are checked again without the unreadable images, and other arguments' types.
    TooManyUnreadable
        More than `max_unreadable` of the images cannot be read.
    Cancelled
        `cancel` turned true.
    """
    decode_one = _decoding(decode_image, shape, image_limits, decoder)
    _check_share(max_unreadable)
    _check_callbacks(cancel=cancel, progress=progress)
    planned = plan(path, limits, needed)
    images, labels = _room(planned.sizes, shape, limits)
    count = planned.sizes.total()
    unreadable: list[UnreadableImage] = []
    constant: Counter[int] = Counter()
    for done, (entry, unpack) in enumerate(_images(planned, path, limits), 1):
        if cancel is not None and cancel():
            raise Cancelled("stopped while the images were read")
        part, label, index = planned.places[entry.path]
        try:
            images[part][index] = decode_one(unpack())
            labels[part][index] = label
            constant[label] += _is_constant(images[part][index])
        except ImageError as error:
            unreadable.append(UnreadableImage("/".join(entry.path), error.code, str(error)))
            if len(unreadable) > max_unreadable * count:
                raise TooManyUnreadable(_complaint(unreadable, count, max_unreadable)) from error
        if progress is not None and done * 100 // count > (done - 1) * 100 // count:
            progress(done / count)
    return _found(planned, _examples(planned, images, labels), unreadable, constant)


def probe(
    path: Path | str,
    shape: InputShape,
    limits: ArchiveLimits = LIMITS,
    image_limits: ImageLimits = IMAGE_LIMITS,
    decoder: int | None = None,
    decode_image: Decode | None = None,
    needed: ClassesNeeded = TWO_CLASSES,
) -> None:
    """Decode images from all over an archive that `inspect` has passed, until one can be used.

    This refuses an upload of the wrong kind throughout when it arrives, instead of when it is learned from.

    Raises
    ------
    ImageError
        What is wrong with the first image, which it names, when none of `PROBED` can be used.
    ArchiveError, TooFewClasses, TooFewImages, InputError, OSError
        As `inspect`, and for a shape or limits of another type.
    """
    decode_one = _decoding(decode_image, shape, image_limits, decoder)
    planned = plan(path, limits, needed)
    step = max(1, planned.sizes.total() // PROBED)
    first: ImageError | None = None
    for number, (entry, unpack) in enumerate(_images(planned, path, limits)):
        if number % step:
            continue
        try:
            decode_one(unpack())
        except ImageError as error:
            first = first or type(error)(f"{'/'.join(entry.path)!r}: {error}")
        else:
            return
    if first is not None:
        raise first


def _decoding(
    given: Decode | None, shape: InputShape, limits: ImageLimits, decoder: int | None
) -> Callable[[bytes], Tensor]:
    """What decodes an image to a shape: what was given, or `decode` by limits."""
    require_type("the shape of images", shape, InputShape, InputError)
    require_type("limits of images", limits, ImageLimits, InputError)
    number = shape.decoder if decoder is None else decoder
    if given is not None:
        return lambda data: given(data, shape, number)
    return lambda data: decode(data, shape, limits, number)


def _check_share(share: float) -> None:
    try:
        bool(share > 0)
    except TypeError as error:
        raise InputError(f"the share of unreadable images is a number, not of type {type(share).__name__}") from error


def _check_callbacks(**functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise InputError(f"{name} is a function, not of type {type(function).__name__}")


def _room(sizes: Counter[str], shape: InputShape, limits: ArchiveLimits) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Images (N, C, H, W) and labels (N,) of each split, to be filled."""
    count, sides = sizes.total(), (shape.channels, shape.height, shape.width)
    decoded = count * math.prod(sides)
    if decoded > limits.max_decoded_bytes:
        raise ArchiveTooLarge(f"{count} images take {decoded} bytes; {limits.max_decoded_bytes} are allowed")
    images = {part: torch.empty((sizes[part], *sides), dtype=torch.uint8) for part in SPLITS}
    labels = {part: torch.full((sizes[part],), -1, dtype=torch.int64) for part in SPLITS}
    return images, labels


def _found(
    planned: FolderPlan, examples: Examples, unreadable: list[UnreadableImage], constant: Counter[int]
) -> ReadArchive:
    counted = tuple((name, constant[label]) for label, name in enumerate(planned.classes) if constant[label])
    warnings = (*_test_warnings(planned), *_hidden_warnings(planned), *_constant_warnings(examples, constant))
    listed = tuple(sorted(unreadable, key=lambda one: one.name))
    return ReadArchive(examples, listed, planned.left_out, counted, warnings)


def _images(planned: FolderPlan, path: Path | str, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Content]]:
    """The entries that have a place, in the archive's own order."""
    places = planned.places
    return ((entry, unpack) for entry, unpack in walk(path, limits) if not entry.folder and entry.path in places)


def _is_constant(image: Tensor) -> bool:
    """Whether an image (C, H, W) of more than one pixel has a single colour."""
    return image[0].numel() > 1 and bool((image == image[:, :1, :1]).all())


def _test_warnings(planned: FolderPlan) -> Iterator[str]:
    if planned.tests:
        yield f"{planned.tests} images under test/ were not learned from: they are there to evaluate on"


def _hidden_warnings(planned: FolderPlan) -> Iterator[str]:
    for name in planned.hidden_classes:
        yield f"the folder {name!r} begins with a dot, and was learned as a class since it holds images"


def _constant_warnings(examples: Examples, constant: Counter[int]) -> Iterator[str]:
    totals = list(examples.counts())
    if examples.held_out is not None:
        totals = [ours + held_out for ours, held_out in zip(totals, examples.held_out.counts(), strict=True)]
    for label, name in enumerate(examples.classes):
        if constant[label] >= 2 and constant[label] > CONSTANT * totals[label]:
            yield (
                f"{constant[label]} of {totals[label]} images of class {name!r} are of a single colour each, as the "
                "model sees them; unless the class looks like that, they are damaged, or stored in a way that hides "
                "what they show"
            )


def _examples(planned: FolderPlan, images: dict[str, Tensor], labels: dict[str, Tensor]) -> Examples:
    train, held_out = (Examples(*_readable(images[part], labels[part]), planned.classes) for part in SPLITS)
    examples = Examples(train.images, train.labels, planned.classes, held_out if planned.sizes["val"] else None)
    examples.check(planned.needed)
    return examples


def _readable(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,) without those whose label was never set; moved up in place."""
    kept = (labels >= 0).nonzero().flatten().tolist()
    if len(kept) < len(labels):
        for to, origin in enumerate(kept):
            images[to] = images[origin]
    return images[: len(kept)], labels[labels >= 0]


def _complaint(unreadable: list[UnreadableImage], count: int, allowed: float) -> str:
    first = unreadable[0]
    return (
        f"{len(unreadable)} of {count} images cannot be read, more than {allowed:.1%}; "
        f"the first is {first.name!r}: {first.detail}"
    )
