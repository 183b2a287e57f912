"""Blobs of a model as one job reads and writes them, counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from engram.checkpointing.pieces import Piece, bytes_of, hash_of
from vault.commit_log import Commit
from vault.storage.object_store import ObjectStore
from worker import metrics

Role = Literal["engram", "recogniser", "kept", "certificate", "report"]


@dataclass(frozen=True)
class NewBlob:
    """A blob that a version names and the one before did not."""

    role: Role
    sha256: str
    bytes: int


class JobBlobs:
    """Reader and writer of the blobs of the version that a job learns on and of the one that it makes."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._remembered: dict[str, bytes] = {}
        self.bytes_read = 0
        self.new: list[NewBlob] = []

    @property
    def bytes_written(self) -> int:
        """Bytes of the new blobs."""
        return sum(blob.bytes for blob in self.new)

    def get(self, sha: str, *, remember: bool = False) -> bytes:
        """A blob's bytes; what is remembered is read once.

        Raises
        ------
        NotFound, Damaged, StoreUnavailable
        """
        if sha in self._remembered:
            return self._remembered[sha]
        data = self._objects.get_blob(sha)
        self.bytes_read += len(data)
        metrics.blob_bytes.labels("read").inc(len(data))
        if remember:
            self._remembered[sha] = data
        return data

    def piece(self, sha: str, *, remember: bool = False) -> Piece:
        """A blob that is read when it is needed."""
        return Piece(sha, partial(self.get, sha, remember=remember))

    def put(self, role: Role, piece: bytes | Piece, head: Commit) -> str:
        """The name of a blob of the version after `head`, stored unless `head` names it; then it is not even read."""
        sha = hash_of(piece)
        if sha not in (*head.engrams, *head.kept):
            data = bytes_of(piece)
            self._objects.put_blob(data)
            self.new.append(NewBlob(role, sha, len(data)))
            metrics.blob_bytes.labels("written").inc(len(data))
        return sha

    def figures(self) -> dict[str, Any]:
        """What was read and written so far, for the learning report, which is no part of it."""
        return {
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "new_blobs": [vars(blob) for blob in self.new],
        }
