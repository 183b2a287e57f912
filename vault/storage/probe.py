"""Probe of a store: whether exactly one of racing creators of an object succeeds.

Publishing rests on that. Stores are known that ignore `If-None-Match`, or look first and write later.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from obstore.exceptions import PermissionDeniedError

from vault.errors import AlreadyExists, NotFound, StoreUnavailable, Unreadable, UnsoundStore
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.timestamps import now

log = logging.getLogger("engram.vault")

FOLDER = "probe"
"""Folder of what a probe writes: objects that are removed at its end, and the outcome for each address."""

_KEYS = 4
_WRITERS = 8
_TRIES = 3
"""Races for one object, should none of the writers be told that it won: an answer may get lost."""
_NOT_IMPLEMENTED = re.compile(r"\b501\b|NotImplemented")
"""What a store answers that refuses the header instead of ignoring it."""
_LEFT_OVER = timedelta(hours=1)
"""Age of objects that were left by a probe that was killed."""


class StoreProbe:
    """What is known of one store at one address; safe to use from any thread.

    A success is remembered in the store, under a name made of the address: a copy of the store elsewhere is probed
    again. A failure is remembered in this process only.
    """

    def __init__(self, objects: ObjectStore, settings: VaultSettings) -> None:
        self._objects = objects.unguarded()
        self._store = settings.store_url
        folder = settings.store_folder
        place = str(folder) if folder is not None else f"{settings.s3_endpoint or ''} {settings.store_url.rstrip('/')}"
        self._record = f"{FOLDER}/create-if-absent/{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
        self._lock = threading.Lock()
        self._proven = False
        self._failure: str | None = None

    def require(self) -> None:
        """Return at once where the store is known to be sound; otherwise find out.

        Raises
        ------
        UnsoundStore
        StoreUnavailable
        """
        if self._proven:
            return
        with self._lock:
            if self._failure is not None:
                raise UnsoundStore(self._failure)
            self._proven = self._proven or self._remembered() or self._probe()

    def repeat(self) -> bool:
        """Probe whatever is remembered; returns whether it could be done, which takes the right to write.

        Raises
        ------
        UnsoundStore
        StoreUnavailable
        """
        with self._lock:
            self._proven = self._probe()
            return self._proven

    def _remembered(self) -> bool:
        try:
            return self._objects.get_json(self._record).get("sound") is True
        except (NotFound, Unreadable):
            return False

    def _probe(self) -> bool:
        """Race, and remember that all was well; returns whether this process may write at all."""
        name = f"{FOLDER}/race/{uuid.uuid4().hex}"
        paths = [f"{name}/{number}" for number in range(_KEYS)]
        try:
            try:
                for path in paths:
                    self._race(path)
                self._objects.put_json(self._record, {"sound": True, "probed_at": now()})
            finally:
                self._clean(name, paths)
        except UnsoundStore as error:
            self._failure = str(error)
            with suppress(StoreUnavailable):
                self._objects.delete(self._record)
            raise
        except StoreUnavailable as error:
            if not _forbidden(error):
                raise
            log.info("the store is not probed, since it may not be written to: %s", error)
            return False
        log.info("the store creates objects only where there are none")
        return True

    def _race(self, path: str) -> None:
        """Let writers race for one object until one knows that it won, and write once more after that."""
        for attempt in range(_TRIES):
            written = [f"{uuid.uuid4().hex} of writer {writer}".encode() for writer in range(_WRITERS)]
            if self._winner(f"{path}-{attempt}", written) is not None:
                return
        if not self._objects.exists(f"{path}-{attempt}"):
            raise self._unsound(f"none of {_WRITERS} writers could create the object")
        raise StoreUnavailable(f"The store {self._store} cannot be probed: its answers get lost.")

    def _winner(self, path: str, written: list[bytes]) -> bytes | None:
        """What the one successful writer wrote; None if each was told that there is one already."""
        start = threading.Barrier(len(written))

        def create(data: bytes) -> bool:
            start.wait()
            try:
                self._objects.put_new(path, data)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(len(written), thread_name_prefix="probe") as pool:
            tries = [pool.submit(create, data) for data in written]
        won = [data for data, one in zip(written, tries, strict=True) if one.exception() is None and one.result()]
        if len(won) > 1:
            raise self._unsound(f"{len(won)} of {len(written)} racing writers were told that they had created it")
        for one in tries:
            error = one.exception()  # what kept a writer from finding out
            if isinstance(error, StoreUnavailable) and _NOT_IMPLEMENTED.search(str(error.__cause__)):
                raise self._unsound("it does not know conditional writes")
            one.result()
        if not won:
            return None
        with suppress(AlreadyExists):
            self._objects.put_new(path, b"a late writer")
            raise self._unsound("what exists was created once more")
        # What was damaged on its way is whole on the second read.
        if self._objects.get(path) != won[0] and self._objects.get(path) != won[0]:
            raise self._unsound("the object holds something else than what its only creator wrote")
        return won[0]

    def _unsound(self, why: str) -> UnsoundStore:
        return UnsoundStore(
            f"The store {self._store} does not keep racing writers apart: {why}. Nothing is published there, since"
            " versions of models could be lost. Use a store whose conditional writes (If-None-Match: *) are atomic."
        )

    def _clean(self, name: str, paths: list[str]) -> None:
        """Remove what was written here, and what probes left that were killed."""
        with suppress(StoreUnavailable):
            old = [
                path
                for path, written in self._objects.written(f"{FOLDER}/race").items()
                if path.startswith(f"{name}/") or datetime.now(UTC) - written > _LEFT_OVER
            ]
            for path in {*old, *(f"{path}-0" for path in paths)}:
                self._objects.delete(path)
            for folder in {path.rsplit("/", 1)[0] for path in (*old, *paths)}:
                self._objects.remove_folder(folder)
            self._objects.remove_folder(f"{FOLDER}/race")


def _forbidden(error: StoreUnavailable) -> bool:
    """Whether it was the right to write that was missing."""
    cause = error.__cause__
    if isinstance(cause, PermissionDeniedError):
        return True
    return isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
