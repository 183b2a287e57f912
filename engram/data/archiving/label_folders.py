"""The layout of an archive to evaluate on: which files are images, and the folders that label them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engram.data.archiving.class_folders import Folder, FoundFile, found_files, no_images
from engram.data.archiving.left_out import LeftOut, Reason, summarise
from engram.data.containers import ArchiveLimits
from engram.errors import BadLayout


@dataclass(frozen=True)
class LabelPlan:
    """The images of an archive, and the folders that say their labels."""

    images: frozenset[tuple[str, ...]]
    """Paths in the archive; some may turn out to be unreadable."""
    folders: tuple[Folder, ...]
    """Those with images, by path."""
    left_out: LeftOut


def plan_labels(path: Path | str, limits: ArchiveLimits) -> LabelPlan:
    """Go through all entries once and tell which are images; none is decoded.

    Files of hidden names, and those that are no images, are left out. What the folders are called is not judged: that
    of an image is its label, whatever lies above.

    Raises
    ------
    BadLayout
        There is no image, or one that lies in no folder.
    ArchiveError, InputError, OSError
    """
    files, _ = found_files(path, limits)
    images = [file for file in files if (file.image or file.doubtful) and not file.hidden]
    if not any(file.image for file in images):
        raise BadLayout(no_images(files))
    if bare := [file.path[0] for file in images if len(file.path) == 1]:
        raise BadLayout(f"{bare[0]!r} is not <label>/<image>: the folder of an image is its label")
    paths = frozenset(file.path for file in images)
    left_out = summarise((file.path, _reason(file), file.format) for file in files if file.path not in paths)
    return LabelPlan(paths, tuple(sorted({path[:-1] for path in paths})), left_out)


def _reason(file: FoundFile) -> Reason:
    return "hidden" if file.hidden else "not_an_image"
