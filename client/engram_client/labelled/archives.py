"""Zips of training data that are made while they are sent, in memory of one chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from engram_client.images import ImageSource, encoded

LEFT_BEHIND = frozenset({".DS_Store", ".git", ".ipynb_checkpoints", "@eaDir", "Thumbs.db", "__MACOSX", "desktop.ini"})
"""What systems and programs leave in folders; the service would pass over it."""

CHUNK_BYTES = 2**17

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every entry's time, so that the same images are the same bytes whenever they are sent again."""


@dataclass(frozen=True)
class ZipMember:
    """A file of an archive, or a folder without files, whose name ends with a slash."""

    name: str
    size: int
    """Bytes, as far as they are known before it is read."""
    open: Callable[[], IO[bytes]] | None

    @property
    def overhead(self) -> int:
        """Bytes that the archive takes for it beside its own: both headers and the sizes behind it."""
        return 92 + 2 * len(self.name.encode())


def folder_members(folder: Path, prefix: str = "") -> list[ZipMember]:
    """All files below a folder, in the order of their names, which begin with `prefix`.

    Links are followed, since data sets are often made of them, but not back to a folder that they lie in. Folders
    without any file are members of their own, since the service must hear of classes that have no image.

    Raises
    ------
    OSError
        A folder cannot be listed, or a file is not there.
    ValueError
        A name is not Unicode.
    """
    return list(_below(folder, prefix, (folder.resolve(),)))


def class_members(classes: Mapping[str, Sequence[ImageSource]]) -> list[ZipMember]:
    """The images of each class, as `<class>/<number>` in their order.

    Raises
    ------
    ValueError
        The name of a class cannot be that of a folder.
    """
    found: list[ZipMember] = []
    for name, images in classes.items():
        check_class(name)
        if not images:
            found.append(ZipMember(f"{name}/", 0, None))
        found += [_image_member(f"{name}/{number:06d}", image) for number, image in enumerate(images)]
    return found


def check_class(name: str) -> None:
    """Raise ValueError where the name of a class cannot be that of a folder."""
    if not name or name in (".", "..") or any(letter in "/\\" or ord(letter) < 32 for letter in name):
        raise ValueError(f"A class cannot be called {name!r}.")


def file_member(name: str, path: Path) -> ZipMember:
    """A file as a member of this name; raises OSError, and ValueError for a name that is not Unicode."""
    _check_name(name)
    return _file_member(name, path)


def zipped(members: Sequence[ZipMember]) -> Iterator[bytes]:
    """The bytes of a zip of these members, uncompressed, made as they are asked for."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as archive:
        for member in members:
            entry = ZipInfo(member.name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            if member.open is None:
                archive.writestr(entry, b"")
                continue
            entry.file_size = member.size
            with member.open() as source, archive.open(entry, "w") as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    if sink.pending >= CHUNK_BYTES:
                        yield sink.take()
            if sink.pending >= CHUNK_BYTES:
                yield sink.take()
    yield sink.take()


class _Sink(BytesIO):
    """What the zip is written into; it cannot seek, so that sizes are written behind each entry."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = 0

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError("The archive is sent while it is made.")

    def write(self, data: object) -> int:
        written = super().write(data)  # type: ignore[arg-type]  # as bytes-like as what it is given
        self.pending += written
        return written

    def take(self) -> bytes:
        """What was written since the last call."""
        found = self.getvalue()
        super().seek(0)
        self.truncate(0)
        self.pending = 0
        return found


def _below(folder: Path, prefix: str, inside: tuple[Path, ...]) -> Iterator[ZipMember]:
    entries = sorted(entry for entry in os.listdir(folder) if entry not in LEFT_BEHIND)
    if not entries and prefix:
        yield ZipMember(prefix, 0, None)
    for entry in entries:
        path, name = folder / entry, prefix + entry
        _check_name(name)
        if path.is_dir():
            real = path.resolve()
            if real not in inside:
                yield from _below(path, f"{name}/", (*inside, real))
        elif path.is_file():
            yield _file_member(name, path)
        elif not path.exists():
            raise FileNotFoundError(f"{path} leads to nothing.")


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The name {name!r} is not Unicode, and would be learned wrong.") from error


def _file_member(name: str, path: Path) -> ZipMember:
    return ZipMember(name, path.stat().st_size, lambda: path.open("rb"))


def _image_member(name: str, image: ImageSource) -> ZipMember:
    if isinstance(image, str | os.PathLike):
        return _file_member(name + Path(image).suffix.lower(), Path(image))
    data = encoded(image)
    return ZipMember(name, len(data), lambda: BytesIO(data))
