"""Backbone records in the store, by name: networks that users brought, whose weights are blobs."""

from __future__ import annotations

import logging
import re
from builtins import list as List
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vault.errors import AlreadyExists, BackboneExists, Damaged, InvalidName, NotFound, UnknownBackbone, Unreadable
from vault.models import is_model_name
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map
from vault.timestamps import now

log = logging.getLogger("engram.vault")

FOLDER = "backbones"
_PATH = re.compile(
    r"backbones/(?P<name>[a-z0-9][a-z0-9_-]{0,62})/(?!0{8})(?P<number>[0-9]{8})(?P<deleted>\.deleted)?\.json"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRIES = 20
"""Each failed try means that another process made or deleted one of the same name."""
_MOST = 10**8 - 1


@dataclass(frozen=True)
class BackboneRecord:
    """The record of one backbone; never changes."""

    name: str
    number: int
    """How many of this name there have been, from 1: the ones before it are deleted."""
    description: dict[str, Any]
    """Opaque to the vault."""
    weights: str
    """SHA-256 of the blob with its weights."""
    created_at: str
    """RFC 3339, UTC."""
    request: str | None = None
    """The request that made it, if it had an idempotency key: the id of its claim."""
    by: dict[str, Any] | None = None
    """Who added it (`vault.audit`); None where that was not recorded."""


class Backbones:
    """The backbones in the store; safe to use from any thread.

    `backbones/{name}/{number:08d}.json` creates a backbone and `{number:08d}.deleted.json` beside it deletes it;
    neither is ever removed. So the name may be used again, by the next number, and whoever was slow to delete the one
    before cannot delete the one after.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(
        self,
        name: str,
        description: Mapping[str, Any],
        weights: str,
        request: str | None = None,
        by: Mapping[str, Any] | None = None,
    ) -> BackboneRecord:
        """Create a backbone whose weights are stored already; the one that is there, if it is this very one.

        Raises
        ------
        InvalidName
        BackboneExists
            The name is taken by another.
        Unreadable
            What has the name cannot be read.
        """
        if not is_model_name(name):
            raise InvalidName(
                f"A backbone cannot be called {name[:120]!r}: 1 to 63 lower-case letters, digits, `_` and `-`,"
                " the first a letter or digit."
            )
        for _ in range(_TRIES):
            if (there := self.find(name, description, weights)) is not None:
                return there
            last, deleted = self._last(name)
            if last and not deleted:
                continue
            made = BackboneRecord(
                name, last + 1, dict(description), weights, now(), request, None if by is None else dict(by)
            )
            assert made.number <= _MOST, "a backbone's number has eight digits"
            try:
                self._objects.create_json(_path(name, made.number), asdict(made))
            except AlreadyExists:
                continue
            return made
        raise Damaged(_path(name, last + 1), "it can neither be made nor be read")

    def find(self, name: str, description: Mapping[str, Any], weights: str) -> BackboneRecord | None:
        """The backbone of this name, if it is this very one; None if the name is free.

        Raises
        ------
        BackboneExists
            The name is taken by another.
        Unreadable
            What has the name cannot be read.
        """
        try:
            there = self.get(name)
        except UnknownBackbone:
            return None
        if (there.description, there.weights) != (dict(description), weights):
            had, asked = {**there.description, "weights": there.weights}, {**description, "weights": weights}
            raise BackboneExists(name, sorted(key for key in had | asked if had.get(key) != asked.get(key)))
        return there

    def get(self, name: str) -> BackboneRecord:
        """A backbone by name; raises UnknownBackbone, also for what cannot be a name, and Unreadable."""
        last, deleted = self._last(name) if is_model_name(name) else (0, True)
        if deleted:
            raise UnknownBackbone(name)
        return self.read(_path(name, last))

    def list(self, after: str | None = None, limit: int | None = None) -> List[BackboneRecord]:
        """Backbones by name, ascending; those after the name `after`, `limit` at most. Damaged ones are skipped."""
        living = [path for path in self.paths() if after is None or path.split("/")[1] > after]
        found: List[BackboneRecord] = []
        while living and (limit is None or len(found) < limit):
            size = len(living) if limit is None else limit - len(found)
            found.extend(one for one in parallel_map(self._find, living[:size]) if one is not None)
            living = living[size:]
        return found

    def delete(self, record: BackboneRecord, by: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Delete a backbone, leaving its weights to a sweep; deleting it again changes nothing.

        Returns the record of the deletion: `deleted_at`, and `by` where that was recorded.
        """
        path = _deleted(_path(record.name, record.number))
        document = {"deleted_at": now()} | ({} if by is None else {"by": dict(by)})
        try:
            self._objects.create_json(path, document)
        except AlreadyExists:
            return self._objects.get_json(path)
        return document

    def paths(self) -> List[str]:
        """The paths of the records of all backbones, by name; those of deleted ones are left out."""
        newest = _newest(self._objects.list(FOLDER))
        return [_path(name, number) for name, (number, deleted) in sorted(newest.items()) if not deleted]

    def read(self, path: str) -> BackboneRecord:
        """The backbone whose record is at `path`; raises Unreadable, NotFound."""
        document = self._objects.get_json(path)
        try:
            known = {field: document[field] for field in BackboneRecord.__dataclass_fields__ if field != "by"}
            record = BackboneRecord(**known, by=document.get("by"))
        except KeyError as error:
            raise Damaged(path, f"it lacks {error}") from error
        if path != _path(str(record.name), record.number if isinstance(record.number, int) else 0):
            raise Damaged(path, "it is the backbone of another place")
        if not isinstance(record.description, dict) or not _SHA256.fullmatch(str(record.weights)):
            raise Damaged(path, "it is no backbone")
        return record

    def needed_weights(self, grace: timedelta) -> set[str]:
        """SHA-256 of the weights of all backbones, and of those that were deleted less than `grace` ago.

        Whoever is making a model of a backbone at the moment when that is deleted has so long to publish it.

        Raises
        ------
        Unreadable, NotFound
            A record cannot be read, so that the weights it names are unknown.
        """
        # Listed twice: a name damaged in transit would leave the weights unreferenced.
        written = self._objects.written(FOLDER) | self._objects.written(FOLDER)
        since = datetime.now(UTC) - grace
        records = [path for path in written if (match := _PATH.fullmatch(path)) and not match["deleted"]]
        kept = [path for path in records if (gone := written.get(_deleted(path))) is None or gone > since]
        return {self.read(path).weights for path in kept}

    def _last(self, name: str) -> tuple[int, bool]:
        """The newest number of a name, 0 without any, and whether that backbone is deleted."""
        return _newest(self._objects.list(f"{FOLDER}/{name}")).get(name, (0, True))

    def _find(self, path: str) -> BackboneRecord | None:
        try:
            return self.read(path)
        except (Unreadable, NotFound) as error:
            # It must not keep the others from being listed.
            log.error("a backbone is passed over: %s", error)
            return None


def _newest(paths: List[str]) -> dict[str, tuple[int, bool]]:
    """The newest number of each name, and whether that backbone is deleted."""
    found: dict[str, tuple[int, bool]] = {}
    for match in filter(None, map(_PATH.fullmatch, paths)):
        number, deleted = int(match["number"]), match["deleted"] is not None
        last, gone = found.get(match["name"], (0, False))
        if number >= last:
            found[match["name"]] = (number, deleted or (number == last and gone))
    return found


def _path(name: str, number: int) -> str:
    return f"{FOLDER}/{name}/{number:08d}.json"


def _deleted(path: str) -> str:
    """Path of the object that deletes the backbone whose record is at `path`."""
    return f"{path.removesuffix('.json')}.deleted.json"
