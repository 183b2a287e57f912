"""Labelled images of an archive to evaluate on, decoded one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from engram.config.definition import Definition
from engram.data.archives import PROBED, UnreadableImage
from engram.data.archiving.class_folders import Folder
from engram.data.archiving.label_folders import LabelPlan, plan_labels
from engram.data.containers import ArchiveLimits, walk
from engram.data.images import Decode
from engram.errors import Cancelled, ImageError, TooManyUnreadable


@dataclass(frozen=True)
class LabelledImage:
    """One image of an archive, as each of several versions decodes it."""

    path: str
    folder: Folder
    """The names of the folders that it lies in; the last one is its label."""
    pixels: tuple[Tensor, ...]
    """(C, H, W) uint8, for each version."""


class LabelledImages:
    """The images of an archive, in its own order, of which one at a time is in memory.

    Parameters
    ----------
    path
        The archive.
    definitions
        Of the versions that are to see the images.
    decode
        Makes an image of its bytes, by limits of its own.

    Raises
    ------
    ArchiveError, InputError, OSError
        As `plan_labels`.
    """

    def __init__(
        self, path: Path | str, limits: ArchiveLimits, definitions: Sequence[Definition], decode: Decode
    ) -> None:
        self._path = path
        self._limits = limits
        self._definitions = tuple(definitions)
        self._decode = decode
        self.plan: LabelPlan = plan_labels(path, limits)
        self.unreadable: list[UnreadableImage] = []
        """Those met so far that cannot be decoded, which are left out."""

    def __len__(self) -> int:
        return len(self.plan.images)

    def read(self, cancel: Callable[[], bool] = lambda: False) -> Iterator[LabelledImage]:
        """Every image that all versions can decode.

        Raises
        ------
        Cancelled
            `cancel`, asked before each image, turned true.
        TooManyUnreadable
            Not one of them could be decoded.
        ArchiveError, OSError
        """
        found = False
        for entry, unpack in walk(self._path, self._limits):
            if entry.folder or entry.path not in self.plan.images:
                continue
            if cancel():
                raise Cancelled("stopped while the images were read")
            name = "/".join(entry.path)
            try:
                pixels = self._decoded(unpack())
            except ImageError as error:
                self.unreadable.append(UnreadableImage(name, error.code, str(error)))
                continue
            found = True
            yield LabelledImage(name, entry.path[:-1], pixels)
        if not found:
            first = min(self.unreadable, key=lambda one: one.name)
            raise TooManyUnreadable(f"none of the images can be read; the first is {first.name!r}: {first.detail}")

    def probe(self) -> None:
        """Decode images from all over the archive, until one can be used.

        Raises
        ------
        ImageError
            What is wrong with the first of them, when none of about `PROBED` can be used.
        ArchiveError, OSError
        """
        step, number, first = max(1, len(self) // PROBED), -1, None
        for entry, unpack in walk(self._path, self._limits):
            if entry.folder or entry.path not in self.plan.images:
                continue
            number += 1
            if number % step:
                continue
            try:
                self._decoded(unpack())
            except ImageError as error:
                first = first or type(error)(f"{'/'.join(entry.path)!r}: {error}")
            else:
                return
        if first is not None:
            raise first

    def _decoded(self, data: bytes) -> tuple[Tensor, ...]:
        """An image as each version decodes it; once for all that decode alike."""
        found: dict[str, Tensor] = {}
        for definition in self._definitions:
            alike = str(definition.decoding)
            if alike not in found:
                found[alike] = self._decode(data, definition.input, definition.decoder)
        return tuple(found[str(definition.decoding)] for definition in self._definitions)
