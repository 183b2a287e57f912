"""Exceptions of the vault, as one tree.

    VaultError
      StoreUnavailable              the object storage cannot be reached, or its answer makes no sense
      RedisUnavailable              Redis cannot be reached
      UnsoundStore                  two writers can create the same object there
      UnsuitableRedis               a server that Celery cannot use: a cluster's node, or a Sentinel
      InvalidPath                   not a valid object path
      InvalidName                   not a valid name of a model or a key
      InvalidCursor                 not a cursor that a page returned
      InvalidBundle                 not a whole bundle file of an exported model
      NotFound                      no object of that path
        UnknownModel                no model of that name
        UnknownVersion              the model's log has no such number
        UnknownJob                  no job of that id
        UnknownKey                  no API key of that id
        UnknownBackbone             no backbone of that name
      AlreadyExists                 an object of that path exists, and objects are written once
        ModelExists                 the name is taken by another definition
        BackboneExists              the name is taken by another backbone
        KeyExists                   the request made its API key before
        JobExists                   the id is taken by another request
        Conflict                    another writer published that version first
      Unreadable                    a stored object cannot be understood; `path` names it
        Damaged                     its bytes are not what was written
        UnsupportedRecord           a later release wrote it
      BackboneInUse                 models have the backbone, so that it cannot be deleted
      CandidatesWaiting             versions wait to be activated, so that the model cannot be changed
      NotACandidate                 the version does not wait to be activated
      JobOver                       the job has a result already
      LeaseLost                     another owner holds the lease, or a later attempt has begun

Each has a stable `code`, which the HTTP interface repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from telemetry.metrics import count_failure


class VaultError(Exception):
    """Base of all errors of the vault."""

    code: ClassVar[str] = "vault_error"


class StoreUnavailable(VaultError):
    code = "store_unavailable"


class RedisUnavailable(VaultError):
    code = "redis_unavailable"


class UnsoundStore(VaultError):
    code = "unsound_store"


class UnsuitableRedis(VaultError):
    code = "unsuitable_redis"


class InvalidPath(VaultError):
    code = "invalid_path"


class InvalidName(VaultError):
    code = "invalid_name"


class InvalidCursor(VaultError):
    code = "invalid_cursor"


class InvalidBundle(VaultError):
    code = "invalid_bundle"


class NotFound(VaultError):
    """No object of that path, which `path` repeats where it is known."""

    code = "not_found"

    def __init__(self, detail: str, path: str | None = None) -> None:
        super().__init__(detail)
        self.path = path


class UnknownModel(NotFound):
    """There is no model of that name."""

    code = "unknown_model"

    def __init__(self, model: str) -> None:
        super().__init__(f"There is no model called {model[:120]!r}.")
        self.model = model


class UnknownVersion(NotFound):
    """The model has no version of that number."""

    code = "unknown_version"

    def __init__(self, model: str, version: int) -> None:
        super().__init__(f"The model {model} has no version {version}.")
        self.model = model
        self.version = version


class UnknownJob(NotFound):
    """There is no job of that id."""

    code = "unknown_job"

    def __init__(self, job: str) -> None:
        super().__init__(f"There is no job {job[:120]!r}.")
        self.job = job


class UnknownKey(NotFound):
    """There is no API key of that id."""

    code = "unknown_key"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no key {key[:120]!r}.")
        self.key = key


class UnknownBackbone(NotFound):
    """There is no backbone of that name."""

    code = "unknown_backbone"

    def __init__(self, backbone: str) -> None:
        super().__init__(f"There is no backbone called {backbone[:120]!r}.")
        self.backbone = backbone


class AlreadyExists(VaultError):
    code = "already_exists"


class ModelExists(AlreadyExists):
    """The name is taken by another model."""

    code = "model_exists"

    def __init__(self, model: str, why: str = "and its definition is another") -> None:
        super().__init__(f"There is a model called {model} already, {why}.")
        self.model = model


class BackboneExists(AlreadyExists):
    """The name is taken by another backbone."""

    code = "backbone_exists"

    def __init__(self, backbone: str, differing: Sequence[str] = ()) -> None:
        what = f", of other {', '.join(differing)}" if differing else ""
        super().__init__(f"There is a backbone called {backbone} already, and it is another{what}.")
        self.backbone = backbone


class KeyExists(AlreadyExists):
    """The request made its API key before, whose secret was shown then."""

    code = "key_exists"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"This request made the key {key} before, and was shown its secret then; revoke it if it is lost."
        )
        self.key = key


class JobExists(AlreadyExists):
    """The id is taken by a job that asks for something else."""

    code = "job_exists"

    def __init__(self, job: str) -> None:
        super().__init__(f"There is a job {job} already, and it asks for something else.")
        self.job = job


class Conflict(AlreadyExists):
    """Another writer published that version first."""

    code = "conflict"

    def __init__(self, model: str, version: int) -> None:
        super().__init__(f"Version {version} of the model {model} was published by another writer.")
        self.model = model
        self.version = version


class Unreadable(VaultError):
    """A stored object cannot be understood; `path` names it."""

    code = "unreadable"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(detail)
        self.path = path


class Damaged(Unreadable):
    """Stored bytes are not what was written."""

    code = "damaged"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, f"The object {path} is damaged: {reason}.")
        # Counted here, since damage is found and reported in many places.
        count_failure("store", "damaged")


class UnsupportedRecord(Unreadable):
    """A later release wrote the object."""

    code = "unsupported_format"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, f"The object {path} cannot be read by this release: {reason}.")


class BackboneInUse(VaultError):
    """Models have the backbone, so that it cannot be deleted."""

    code = "backbone_in_use"

    def __init__(self, backbone: str, models: Sequence[str]) -> None:
        named = ", ".join(models[:20]) + (f" and {len(models) - 20} more" if len(models) > 20 else "")
        super().__init__(f"The backbone {backbone} cannot be deleted: these models have it: {named}.")
        self.models = models


class CandidatesWaiting(VaultError):
    """Versions wait to be activated, so that the model cannot be changed."""

    code = "candidates_waiting"

    def __init__(self, candidates: Sequence[int]) -> None:
        named = ", ".join(map(str, candidates[:20])) + (", ..." if len(candidates) > 20 else "")
        super().__init__(f"Versions wait to be activated ({named}); activate or reject them first.")
        self.candidates = tuple(candidates)


class NotACandidate(VaultError):
    """The version does not wait to be activated."""

    code = "not_a_candidate"

    def __init__(self, model: str, version: int) -> None:
        super().__init__(f"Version {version} of the model {model} does not wait to be activated.")
        self.model = model
        self.version = version


class JobOver(VaultError):
    """The job has a result already."""

    code = "job_over"

    def __init__(self, job: str) -> None:
        super().__init__(f"The job {job} is over.")
        self.job = job


class LeaseLost(VaultError):
    """Another owner holds the lease, or a later attempt has begun."""

    code = "lease_lost"
