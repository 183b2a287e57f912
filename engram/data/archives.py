"""Archives of labelled images, `<class>/<image>`, read as examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path

import torch
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.containers import ArchiveEntry, ArchiveLimits, Read, recognise, walk
from engram.data.examples import Examples
from engram.data.images import SUFFIXES, ImageLimits, decode
from engram.errors import (
    ArchiveTooLarge,
    BadLayout,
    Cancelled,
    ImageError,
    InputError,
    TooFewClasses,
    TooFewImages,
    TooManyUnreadable,
    require_type,
)

LIMITS = ArchiveLimits()
IMAGE_LIMITS = ImageLimits()

SPLITS = ("train", "val")
LONGEST_CLASS = 255

PROBED = 32
"""About how many images are tried before an upload is accepted, if none of them can be used."""

JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN"})
"""Names that file managers leave behind, besides everything that begins with a dot."""


@dataclass(frozen=True)
class ArchiveSummary:
    """Kind, classes and sizes of an archive, by its entries' names alone."""

    kind: str
    """`zip`, `tar`, `tar.gz`, `tar.bz2` or `tar.xz`."""
    images: int
    """Files in class folders, held-out ones included; some may turn out to be unreadable."""
    held_out: int
    """Those under `val/`."""
    bytes: int
    """Unpacked length of these files."""
    classes: tuple[str, ...]
    """Names of the classes, sorted."""


@dataclass(frozen=True)
class UnreadableImage:
    """An image that was left out: its path in the archive, the error's code and sentence."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True)
class ReadArchive:
    """The images of an archive and those that could not be read."""

    examples: Examples
    unreadable: tuple[UnreadableImage, ...]


@dataclass(frozen=True)
class _Plan:
    """Which file is which image: path in the archive -> (split, class, place in that split)."""

    classes: tuple[str, ...]
    places: dict[tuple[str, ...], tuple[str, int, int]]
    sizes: Counter[str]
    bytes: int


def inspect(path: Path | str, limits: ArchiveLimits = LIMITS) -> ArchiveSummary:
    """Check an archive by its entries' names and sizes, without decoding an image.

    Parameters
    ----------
    path
        The archive; its kind is recognised by its content.
    limits
        What it may hold.

    Raises
    ------
    ArchiveError
        NotAnArchive, UnsafePath, ArchiveLink, TooManyEntries, SuspiciousRatio, ArchiveTooLarge, BadLayout.
    TooFewClasses, TooFewImages
        The folders hold too little to learn from.
    InputError
        What is no path, or limits of another type.
    OSError
        The file cannot be opened.
    """
    plan = _plan(path, limits)
    return ArchiveSummary(
        kind=recognise(path),
        images=plan.sizes.total(),
        held_out=plan.sizes["val"],
        bytes=plan.bytes,
        classes=plan.classes,
    )


def read(
    path: Path | str,
    shape: InputShape,
    limits: ArchiveLimits = LIMITS,
    max_unreadable: float = 0.05,
    cancel: Callable[[], bool] | None = None,
    progress: Callable[[float], None] | None = None,
    image_limits: ImageLimits = IMAGE_LIMITS,
) -> ReadArchive:
    """Decode every image of an archive to `shape`.

    Images come in the order of their sorted paths, so that the same folder gives the same examples however it was
    packed. Nothing is written to disk.

    Parameters
    ----------
    max_unreadable
        Share of the images that may be left out because they cannot be read.
    cancel
        Asked before every image; true stops.
    progress
        Called with the share of images read, at every hundredth.

    Raises
    ------
    ArchiveError, TooFewClasses, TooFewImages, InputError, OSError
        As `inspect`; the counts are checked again without the unreadable images, and other arguments' types.
    TooManyUnreadable
        More than `max_unreadable` of the images cannot be read.
    Cancelled
        `cancel` turned true.
    """
    require_type("the shape of images", shape, InputShape, InputError)
    require_type("limits of images", image_limits, ImageLimits, InputError)
    _check_share(max_unreadable)
    _check_callbacks(cancel=cancel, progress=progress)
    plan = _plan(path, limits)
    count, sides = plan.sizes.total(), (shape.channels, shape.height, shape.width)
    decoded = count * math.prod(sides)
    if decoded > limits.max_decoded_bytes:
        raise ArchiveTooLarge(f"{count} images take {decoded} bytes; {limits.max_decoded_bytes} are allowed")
    images = {part: torch.empty((plan.sizes[part], *sides), dtype=torch.uint8) for part in SPLITS}  # (N, C, H, W) each
    labels = {part: torch.full((plan.sizes[part],), -1, dtype=torch.int64) for part in SPLITS}  # (N,) each
    unreadable: list[UnreadableImage] = []
    for done, (entry, unpack) in enumerate(_images(plan, path, limits), 1):
        if cancel is not None and cancel():
            raise Cancelled("stopped while the images were read")
        part, label, index = plan.places[entry.path]
        try:
            images[part][index] = decode(unpack(), shape, image_limits)
            labels[part][index] = label
        except ImageError as error:
            unreadable.append(UnreadableImage("/".join(entry.path), error.code, str(error)))
            if len(unreadable) > max_unreadable * count:
                raise TooManyUnreadable(_complaint(unreadable, count, max_unreadable)) from error
        if progress is not None and done * 100 // count > (done - 1) * 100 // count:
            progress(done / count)
    return ReadArchive(_examples(plan, images, labels), tuple(sorted(unreadable, key=lambda one: one.name)))


def probe(
    path: Path | str, shape: InputShape, limits: ArchiveLimits = LIMITS, image_limits: ImageLimits = IMAGE_LIMITS
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
    plan = _plan(path, limits)
    step = max(1, plan.sizes.total() // PROBED)
    first: ImageError | None = None
    for number, (entry, unpack) in enumerate(_images(plan, path, limits)):
        if number % step:
            continue
        try:
            decode(unpack(), shape, image_limits)
        except ImageError as error:
            first = first or type(error)(f"{'/'.join(entry.path)!r}: {error}")
        else:
            return
    if first is not None:
        raise first


def _check_share(share: float) -> None:
    try:
        bool(share > 0)
    except TypeError as error:
        raise InputError(f"the share of unreadable images is a number, not of type {type(share).__name__}") from error


def _check_callbacks(**functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise InputError(f"{name} is a function, not of type {type(function).__name__}")


def _images(plan: _Plan, path: Path | str, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Read]]:
    """The entries that have a place, in the archive's own order."""
    return ((entry, unpack) for entry, unpack in walk(path, limits) if not entry.folder and entry.path in plan.places)


def _examples(plan: _Plan, images: dict[str, Tensor], labels: dict[str, Tensor]) -> Examples:
    train, held_out = (Examples(*_readable(images[part], labels[part]), plan.classes) for part in SPLITS)
    examples = Examples(train.images, train.labels, plan.classes, held_out if plan.sizes["val"] else None)
    examples.check()
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


def _plan(path: Path | str, limits: ArchiveLimits) -> _Plan:
    """Go through all entries once, settle the layout and give every file in a class folder its place."""
    entries = [entry for entry, _ in walk(path, limits) if not _is_junk(entry)]
    files = [entry for entry in entries if not entry.folder]
    # Notes beside the class folders are no reason to refuse: only what claims to be an image decides on the layout.
    # As text: a `PurePath` interns every name, and ever new names wear out Python's table of interned strings.
    claims = [entry.path for entry in files if splitext(entry.path[-1])[1].lower() in SUFFIXES]
    paths = claims or [entry.path for entry in files]
    if not paths:
        raise BadLayout("the archive holds no images; they belong into one folder for each class")
    top = _common_top(paths)
    parted = _is_parted(paths, top)
    folders: dict[tuple[str, ...], tuple[str, str]] = {}
    for found in paths:
        if found[:-1] not in folders:
            folders[found[:-1]] = _folder(found, top, parted=parted)
    for folder in _empty_folders(entries, depth=len(paths[0]) - 1):
        folders.setdefault(folder, _folder((*folder, ""), top, parted=parted))
    members = sorted((entry for entry in files if entry.path[:-1] in folders), key=lambda entry: entry.path)
    classes = _classes(set(folders.values()), Counter(folders[entry.path[:-1]] for entry in members))
    labels = {name: label for label, name in enumerate(classes)}
    places: dict[tuple[str, ...], tuple[str, int, int]] = {}
    sizes: Counter[str] = Counter()
    for entry in members:
        part, name = folders[entry.path[:-1]]
        places[entry.path] = part, labels[name], sizes[part]
        sizes[part] += 1
    return _Plan(classes, places, sizes, sum(entry.size for entry in members))


def _is_junk(entry: ArchiveEntry) -> bool:
    return any(part.startswith(".") or part in JUNK for part in entry.path)


def _common_top(paths: list[tuple[str, ...]]) -> int:
    """1 if everything lies in one folder that is neither a class nor a split, else 0."""
    first = paths[0][0]
    return int(first not in SPLITS and all(len(found) >= 3 and found[0] == first for found in paths))


def _is_parted(paths: list[tuple[str, ...]], top: int) -> bool:
    return any(len(found) == top + 3 and found[top] in SPLITS for found in paths)


def _folder(path: tuple[str, ...], top: int, *, parted: bool) -> tuple[str, str]:
    """Split and class of the folder that the file at `path` lies in."""
    inner = path[top:]
    if parted and len(inner) == 3:
        part, name = inner[:2]
        if part not in SPLITS:
            raise BadLayout(f"beside train/ and val/ there is {part!r}/")
    elif not parted and len(inner) == 2:
        part, name = "train", inner[0]
    else:
        raise BadLayout(f"{'/'.join(path)!r} is not <class>/<image>, train/<class>/<image> or val/<class>/<image>")
    if len(name) > LONGEST_CLASS:
        raise BadLayout(f"the class name {name[:40]!r}... is longer than {LONGEST_CLASS} characters")
    return part, name


def _empty_folders(entries: list[ArchiveEntry], depth: int) -> set[tuple[str, ...]]:
    """Folders where classes are expected that hold nothing at all: forgotten images rather than no class."""
    filled = {entry.path[:depth] for entry in entries if len(entry.path) > depth}
    return {entry.path for entry in entries if entry.folder and len(entry.path) == depth} - filled


def _classes(folders: set[tuple[str, str]], counts: Counter[tuple[str, str]]) -> tuple[str, ...]:
    """The sorted names, once there is known to be enough of each."""
    names = {part: {name for where, name in folders if where == part} for part in SPLITS}
    if not names["train"]:
        raise BadLayout("there is val/ but no train/")
    if unknown := names["val"] - names["train"]:
        raise BadLayout(f"val/ has the class {min(unknown)!r}, which train/ has not")
    if len(names["train"]) < 2:
        raise TooFewClasses(f"there is one class only, {min(names['train'])!r}; a task needs at least two")
    for name in sorted(names["train"]):
        if (found := counts["train", name]) < 2:
            raise TooFewImages(f"class {name!r} has {found} image{'' if found == 1 else 's'}; it needs two")
        if names["val"] and not counts["val", name]:
            raise TooFewImages(f"class {name!r} has no image under val/")
    return tuple(sorted(names["train"]))
