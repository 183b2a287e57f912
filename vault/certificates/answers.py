"""Answers to the probes as they were certified: the logits themselves, by their SHA-256."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress

from vault.errors import AlreadyExists, NotFound, Unreadable
from vault.models import Model
from vault.storage.object_store import ObjectStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


class CertifiedAnswers:
    """What tasks answered when they were certified, `models/{model}/log/{lineage}/answers/{sha256}`.

    Certificates hold digests, which tell whether answers are the same, and nothing else. With the answers themselves
    another machine, whose last bits are others, can tell whether its own are near. They lie beside the log, so that
    they go with the model, and are no blobs, since earlier releases sweep blobs that no commit names.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, model: Model, data: bytes) -> None:
        """Keep the answers of one task; once they are there, nothing happens."""
        with suppress(AlreadyExists):
            self._objects.put_new(_path(model, hashlib.sha256(data).hexdigest()), data)

    def get(self, model: Model, sha: str) -> bytes | None:
        """The answers with this digest; None where they are not kept, or not whole."""
        if _SHA256.fullmatch(sha) is None:
            return None
        with suppress(NotFound, Unreadable):
            data = self._objects.get(_path(model, sha))
            return data if hashlib.sha256(data).hexdigest() == sha else None
        return None


def _path(model: Model, sha: str) -> str:
    return f"models/{model.name}/log/{model.lineage}/answers/{sha}"
