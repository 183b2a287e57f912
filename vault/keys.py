"""API keys in the store: scopes, limits, and hashes of the secrets."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from builtins import list as List
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from vault.errors import AlreadyExists, Damaged, InvalidName, KeyExists, NotFound, UnknownKey, Unreadable
from vault.storage.object_store import ObjectStore
from vault.timestamps import now

log = logging.getLogger("engram.vault")

Scope = Literal["predict", "learn", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""In ascending order: each scope includes those before it."""

FORMAT = 1
"""Version of a key's record; a key of any other version counts as damaged and grants nothing."""

_TOKEN = re.compile(r"engram_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST_NAME = 100


@dataclass(frozen=True)
class KeyLimits:
    """Limits of one key; None means no limit of its own."""

    requests_per_minute: int | None = None
    images_per_day: int | None = None
    """Predicted or explained."""
    open_jobs: int | None = None
    """Queued or running at the same time."""


UNLIMITED = KeyLimits()


@dataclass(frozen=True)
class Key:
    """One stored key; its record never changes."""

    id: str
    """16 hexadecimal digits, which are not secret."""
    name: str
    """Chosen by whoever created it."""
    scope: Scope
    sha256: str
    """Of the secret, which is 256 random bits. A fast hash suffices for these; slow hashes are for passwords that
    people choose."""
    created_at: str
    """RFC 3339, UTC."""
    expires_at: str | None = None
    """RFC 3339, UTC, like every timestamp here, so that they compare as text."""
    limits: KeyLimits = UNLIMITED
    by: dict[str, Any] | None = None
    """Who made it (`vault.audit`); None where that was not recorded."""

    @property
    def expired(self) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and self.expires_at <= now()

    def opens_with(self, secret: str) -> bool:
        """Whether `secret` is this key's; the comparison takes constant time."""
        return hmac.compare_digest(_sha256(secret), self.sha256)

    def shown(self, revoked: bool) -> dict[str, Any]:
        """As JSON, without the secret's hash."""
        state = "revoked" if revoked else "expired" if self.expired else "valid"
        public = {"id": self.id, "name": self.name, "scope": self.scope, "state": state}
        return public | {"created_at": self.created_at, "expires_at": self.expires_at} | asdict(self.limits)

    def may(self, scope: Scope) -> bool:
        """Whether its scope includes `scope`."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


@dataclass(frozen=True)
class Revocation:
    """The end of a key."""

    key: str
    at: str
    """RFC 3339, UTC."""
    by: dict[str, Any] | None = None
    """Who revoked it (`vault.audit`); None where that was not recorded."""


class Keys:
    """The keys in the store; safe to use from any thread.

    `keys/{id}/key.json` creates a key and `keys/{id}/revoked.json` revokes it. Neither is ever removed, so a store that
    once had a key never again counts as open to all. Nothing about keys is in Redis.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(
        self,
        name: str,
        scope: Scope,
        expires_at: datetime | None = None,
        limits: KeyLimits = UNLIMITED,
        *,
        key_id: str | None = None,
        by: Mapping[str, Any] | None = None,
    ) -> tuple[Key, str]:
        """Create a key; returns it and its token, which is stored nowhere.

        Parameters
        ----------
        key_id
            Chosen by the caller (`key_id_of`), so that a request that is made again does not make another.
        by
            Who asks (`vault.audit`).

        Raises
        ------
        InvalidName
            The name is empty, too long or not printable.
        KeyExists
            There is a key of this id.
        """
        if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
            raise InvalidName(f"A key's name has 1 to {_LONGEST_NAME} printable characters: {name[:120]!r}.")
        key_id, secret = key_id or secrets.token_hex(8), secrets.token_urlsafe(32)
        until = None if expires_at is None else _text(expires_at)
        key = Key(key_id, name, scope, _sha256(secret), now(), until, limits, None if by is None else dict(by))
        try:
            self._objects.create_json(_path(key_id, "key"), {"format": FORMAT, **asdict(key)})
        except AlreadyExists:
            raise KeyExists(key_id) from None
        return key, f"engram_{key_id}_{secret}"

    def get(self, key_id: str) -> Key:
        """A key by id, revoked or not.

        Raises
        ------
        UnknownKey, Damaged
        """
        if _ID.fullmatch(key_id) is None:
            raise UnknownKey(key_id)
        path = _path(key_id, "key")
        try:
            document = self._objects.get_json(path)
        except NotFound:
            raise UnknownKey(key_id) from None
        return _read(path, document)

    def revoke(self, key_id: str, by: Mapping[str, Any] | None = None) -> Revocation:
        """Revoke a key, also one whose record is damaged; revoking it again changes nothing.

        Returns the revocation that stands, which is the first. Raises UnknownKey.
        """
        with suppress(Unreadable):
            self.get(key_id)
        revocation = Revocation(key_id, now(), None if by is None else dict(by))
        with suppress(AlreadyExists):
            document = {"revoked_at": revocation.at} | ({} if by is None else {"by": revocation.by})
            self._objects.create_json(_path(key_id, "revoked"), document)
            return revocation
        return self.revocation(key_id) or revocation

    def revocation(self, key_id: str) -> Revocation | None:
        """The revocation of a key; None where there is none, or it cannot be read."""
        try:
            document = self._objects.get_json(_path(key_id, "revoked"))
            return Revocation(key_id, str(document["revoked_at"]), document.get("by"))
        except (NotFound, Unreadable, KeyError):
            return None

    def index(self) -> dict[str, bool]:
        """The ids of all keys ever created, and whether each is revoked; it takes one listing."""
        found: dict[str, bool] = {}
        for path in self._objects.list("keys"):
            key_id, _, kind = path.removeprefix("keys/").partition("/")
            if _ID.fullmatch(key_id):
                found[key_id] = found.get(key_id, False) or kind == "revoked.json"
        return found

    def list(self) -> List[tuple[Key, bool]]:
        """All keys, the oldest first, and whether each is revoked; damaged ones are logged and left out."""
        found = []
        for key_id, revoked in self.index().items():
            try:
                found.append((self.get(key_id), revoked))
            except Unreadable as error:
                log.error("the key %s is passed over: %s", key_id, error)
        return sorted(found, key=lambda pair: pair[0].created_at)


def key_id_of(request: str) -> str:
    """The id of the key that a request makes, by the id of its claim (`vault.jobs.idempotency`)."""
    return _sha256(request)[:16]


def parse(token: str) -> tuple[str, str] | None:
    """The id and the secret in a token; None if the text is no token."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], match[2])


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _path(key_id: str, name: str) -> str:
    return f"keys/{key_id}/{name}.json"


def _read(path: str, document: Mapping[str, Any]) -> Key:
    try:
        fields = {name: document[name] for name in ("id", "name", "scope", "sha256", "created_at", "expires_at")}
        key = Key(**fields, limits=KeyLimits(**document["limits"]), by=document.get("by"))
    except (KeyError, TypeError) as error:
        raise Damaged(path, f"it lacks {error}") from error
    if (
        document.get("format") != FORMAT
        or key.scope not in SCOPES
        or not isinstance(key.sha256, str)
        or path != _path(str(key.id), "key")
    ):
        raise Damaged(path, "it is no key, or another's")
    return key
