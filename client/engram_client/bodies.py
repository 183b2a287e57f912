"""Bodies of requests: JSON, one image, forms of images, uploads made while they are sent."""

from __future__ import annotations

import json
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Union

from engram_client.images import ImageSource
from engram_client.labelled.archives import CHUNK_BYTES, ZipMember, class_members, zipped
from engram_client.labelled.dataset import Dataset, is_dataset, read_dataset
from engram_client.labelled.parts import Purpose

TrainingData = Union[str, "os.PathLike[str]", Mapping[str, Sequence[ImageSource]], Dataset]
"""What a task is learned from: a folder or a table that `read_dataset` reads, or what it has read; a zip or tar, an
address that the workers can read (`s3://...`), or the images of each class."""

Sent = Callable[[int, int], None]
"""Called with the bytes sent so far, and with how many there will be about."""


@dataclass(frozen=True)
class Body:
    """A body that can be sent, and sent again: `chunks` begins anew each time."""

    content_type: str
    chunks: Callable[[], Iterator[bytes]]
    length: int | None
    """Bytes; None where it is only known at the end."""


def json_body(document: Any) -> Body:
    """A document as JSON."""
    return _plain("application/json", json.dumps(document).encode())


def image_body(image: bytes) -> Body:
    """One image alone, known to the service by its content."""
    return _plain("application/octet-stream", image)


def images_body(images: Sequence[bytes]) -> Body:
    """A form of images."""
    form = _Form()
    parts = [form.opening("image", file="image") + image + form.closing for image in images]
    return _plain(form.content_type, b"".join([*parts, form.end]))


def is_address(data: TrainingData) -> bool:
    """Whether training data lies where the workers read it themselves."""
    return isinstance(data, str) and "://" in data


def upload_body(task: str, options: Mapping[str, Any] | None, data: TrainingData, on_sent: Sent | None) -> Body:
    """The form that brings a task's name, its options and its archive.

    Raises
    ------
    OSError
        The data is not there, or cannot be read.
    ValueError
        A name in it cannot be sent.
    """
    texts = {"name": task} | ({"options": json.dumps(dict(options))} if options else {})
    return _sent_form(texts, "data", _archive(data, "learn"), on_sent)


def evaluation_body(texts: Mapping[str, str], data: TrainingData, on_sent: Sent | None) -> Body:
    """The form that brings labelled images to evaluate on; raises as `upload_body` does."""
    return _sent_form(texts, "data", _archive(data, "evaluate"), on_sent)


def weights_body(texts: Mapping[str, str], weights: str | os.PathLike[str], on_sent: Sent | None) -> Body:
    """The form that brings a network's weights, a file, and what it says of them; raises OSError."""
    path = Path(weights)
    return _sent_form(texts, "weights", _Pieces(lambda: _file_chunks(path), path.stat().st_size, exact=True), on_sent)


class _Pieces(NamedTuple):
    """What makes a file's bytes, how many there will be, and whether that is exact."""

    make: Callable[[], Iterator[bytes]]
    size: int
    exact: bool


def _sent_form(texts: Mapping[str, str], part: str, file: _Pieces, on_sent: Sent | None) -> Body:
    """A form of texts and of one file, which is made while it is sent."""
    form = _Form()
    head = b"".join(form.text(name, value) for name, value in texts.items()) + form.opening(part, file=part)
    tail = form.closing + form.end
    total = len(head) + file.size + len(tail)

    def chunks() -> Iterator[bytes]:
        sent = 0
        for chunk in _joined(head, file.make(), tail):
            yield chunk
            sent += len(chunk)
            if on_sent is not None:
                on_sent(sent, total)

    return Body(form.content_type, chunks, total if file.exact else None)


def _archive(data: TrainingData, purpose: Purpose) -> _Pieces:
    members: Sequence[ZipMember]
    if isinstance(data, Mapping):
        members = class_members({name: list(images) for name, images in data.items()})
    elif isinstance(data, Dataset):
        members = data.members
    elif is_dataset(path := Path(data)):
        found = read_dataset(path, purpose)
        for note in found.notes:
            warnings.warn(f"{path}: {note}", stacklevel=2)
        members = found.members
    else:
        return _Pieces(lambda: _file_chunks(path), path.stat().st_size, exact=True)
    return _Pieces(lambda: zipped(members), sum(one.size + one.overhead for one in members) + 22, exact=False)


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _joined(head: bytes, pieces: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from pieces
    yield tail


def _plain(content_type: str, content: bytes) -> Body:
    return Body(content_type, lambda: iter((content,)), len(content))


class _Form:
    """Pieces of a multipart form; nothing in them is quoted, since all names are our own."""

    closing = b"\r\n"

    def __init__(self) -> None:
        self._boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self.end = f"--{self._boundary}--\r\n".encode()

    def opening(self, name: str, file: str | None = None) -> bytes:
        """What stands before a part's content."""
        named = "" if file is None else f'; filename="{file}"\r\nContent-Type: application/octet-stream'
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()

    def text(self, name: str, value: str) -> bytes:
        """A part that is text."""
        return self.opening(name) + value.encode() + self.closing
