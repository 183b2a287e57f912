"""Digests of what tasks answer where they are served, by engine and environment, created once each."""

from __future__ import annotations

import logging
from builtins import list as List
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vault.commit_log import Commit
from vault.errors import AlreadyExists, Damaged, NotFound, Unreadable
from vault.models import Model
from vault.storage.documents import digest
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map
from vault.timestamps import now

log = logging.getLogger("engram.vault")


@dataclass(frozen=True)
class ServedDigest:
    """Digest of one task's answers to the probes, by an engine in an environment other than the certified one."""

    task: str
    identity: str
    """As `identity_of` gives it."""
    engine: str
    environment: dict[str, Any]
    logits_sha256: str
    baseline: Literal["close", "new"]
    """What the first of these answers were compared with: the certified ones, within a bound, or nothing."""
    reason: str
    """A sentence: what computes differently there than where the task was certified."""
    version: int
    """The version that was about to be served when it was made."""
    shapes: dict[str, str] = field(default_factory=dict)
    """By the number of images that are computed together, where the task was asked in all of them."""
    created_at: str = field(default_factory=now)
    """RFC 3339, UTC."""

    @property
    def key(self) -> str:
        """Name of the engine and the environment together, 32 hex digits."""
        return key_of(self.engine, self.environment)


def identity_of(commit: Commit, task: str, certified: str, *, exact: bool) -> str:
    """What stays the same for a task of a version as long as its answers must.

    The job that made it, where answers are exact and the commit names it, else the certified digest of its answers.
    """
    job = next((entry.get("job") for entry in commit.tasks if entry["name"] == task), None)
    return f"job {job}" if job and exact else certified


def key_of(engine: str, environment: Mapping[str, Any]) -> str:
    """As `ServedDigest.key`."""
    return digest({"engine": engine, "environment": environment})[:32]


class ServedDigests:
    """The digests of all models, `models/{model}/log/{lineage}/digests/{key}/{identity}.json`.

    Of any number of processes of one kind of machine, which make them at the same time, one creates the object; the
    others compare theirs with it.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def get(self, model: Model, key: str, identity: str) -> ServedDigest | None:
        """The digest of a task there; None where there is none, or none that can be read."""
        path = f"{_folder(model)}/{key}/{digest({'identity': identity})[:32]}.json"
        try:
            document = self._objects.get_json(path)
            return _read(path, document)
        except NotFound:
            return None
        except Unreadable as error:
            log.error("the digest of a task is passed over: %s", error)
            return None

    def create(self, model: Model, made: ServedDigest) -> ServedDigest | None:
        """Create a digest, the first of its kind; the one that counts: this one, or that of whoever was faster.

        None where that cannot be told, since the one that is there cannot be read.
        """
        path = f"{_folder(model)}/{made.key}/{digest({'identity': made.identity})[:32]}.json"
        try:
            self._objects.create_json(path, asdict(made))
        except AlreadyExists:
            return self.get(model, made.key, made.identity)
        return made

    def list(self, model: Model) -> List[ServedDigest]:
        """All digests of a model, the oldest first; those that cannot be read are logged and left out."""

        def find(path: str) -> ServedDigest | None:
            try:
                return _read(path, self._objects.get_json(path))
            except (NotFound, Unreadable) as error:
                log.error("the digest of a task is passed over: %s", error)
                return None

        found = parallel_map(find, [path for path in self._objects.list(_folder(model)) if path.endswith(".json")])
        return sorted((one for one in found if one is not None), key=lambda one: one.created_at)


def _folder(model: Model) -> str:
    return f"models/{model.name}/log/{model.lineage}/digests"


def _read(path: str, document: Mapping[str, Any]) -> ServedDigest:
    known = ServedDigest.__dataclass_fields__.keys()
    try:
        found = ServedDigest(**{name: value for name, value in document.items() if name in known})
    except TypeError as error:
        raise Damaged(path, f"it is no digest ({error})") from error
    if not isinstance(found.environment, dict) or not isinstance(found.shapes, dict):
        raise Damaged(path, "it is no digest")
    return found
