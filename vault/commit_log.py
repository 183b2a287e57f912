"""Commit and CommitLog: the versions of each model, one write-once record a version."""

from __future__ import annotations

import logging
import re
import threading
from builtins import list as List
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any, Literal, get_args

from vault import timestamps
from vault.errors import AlreadyExists, Conflict, Damaged, NotFound, UnknownModel, UnknownVersion, Unreadable
from vault.models import WITH_BACKBONES, WITH_CANDIDATES, WITH_NAMES, Model, Models
from vault.storage.documents import FIRST_FORMAT, unseal
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map
from vault.timestamps import now

log = logging.getLogger("engram.vault")

_CLOCK_SKEW = timedelta(hours=1)
_PAGE = 16
_RECORD = re.compile(r"[0-9]{8}\.json")
_CACHED_HEADS = 1024
"""Models whose heads are cached."""

Kind = Literal["create", "learn", "activate", "reject", "retire", "budget", "decoder", "publish", "adopt", "rename"]
Publish = Literal["auto", "manual"]
"""Whether what is learned answers at once, or waits as a candidate until somebody activates it."""

_LATER: dict[str, Any] = {"backbones": (), "publish": "auto", "candidates": ()}
_LATER |= dict.fromkeys(("decoding", "active", "by", "signature", "names", "renamed"))
"""Fields that records have only where they say something, by what says nothing."""
_OWN = ("task", "report", "target", "job", "token", "request", "by", "renamed")

_WITH_DECODING = 2
"""Format of a record that names a decoding: releases that know format 1 only would decode images otherwise."""


@dataclass(frozen=True)
class Commit:
    """One version of a model: which blobs it is made of, and why it was published.

    A commit describes everything that is served from it on; an `activate` repeats the content of its target.
    """

    version: int
    """0 for the first, then one more each."""
    kind: Kind
    lineage: str
    """The model's own (`Model.lineage`); the next commit carries it on."""
    engrams: tuple[str, ...] = ()
    """SHA-256 of each engram, the commons first, with the weights of networks that users brought behind them."""
    backbones: tuple[str, ...] = ()
    """Which of `engrams` are the weights of networks that users brought."""
    recogniser: str | None = None
    """SHA-256 of the recogniser."""
    kept: tuple[str, ...] = ()
    """SHA-256 of each part that only learning needs."""
    certificate: str | None = None
    """SHA-256 of the retention certificate (JSON)."""
    signature: dict[str, Any] | None = None
    """Of the certificate's bytes (`vault.certificates.signing`); None where it is not signed."""
    report: str | None = None
    """SHA-256 of the learning report (JSON) of the task this commit added."""
    task: str | None = None
    """The task this commit added or retired."""
    tasks: tuple[dict[str, Any], ...] = ()
    """The tasks served, in the order learned, each with at least `name` and `classes`; so a listing needs no blob."""
    names: dict[str, Any] | None = None
    """What is shown in the place of names that tasks and classes were learned under (`vault.classes.names`)."""
    renamed: dict[str, Any] | None = None
    """Of a `rename`: what is shown of the task otherwise than before, `from`, `to` and `labels`."""
    budget: dict[str, int] = field(default_factory=dict)
    """Units at most, by layer."""
    decoding: dict[str, Any] | None = None
    """How encoded images become pixels, opaque to the vault; None: as the model's definition says."""
    parent: int | None = None
    """The version before; None for the first."""
    target: int | None = None
    """Of an `activate`: the version whose content is served again."""
    job: str | None = None
    """The job that made it."""
    token: int | None = None
    """That job's attempt, which is the fencing token."""
    request: str | None = None
    """The request that asked for it, if it had an idempotency key: the id of its claim."""
    publish: Publish = "auto"
    """Of what is learned from it on."""
    active: int | None = None
    """The version that answers in the place of this one, which then does not; None: this one does."""
    candidates: tuple[int, ...] = ()
    """The versions that wait to be activated, ascending; this one may be among them."""
    by: dict[str, Any] | None = None
    """Who asked for it (`vault.audit`); None where a job made it, or where that was not recorded."""
    created_at: str = field(default_factory=now)
    """RFC 3339, UTC."""

    @classmethod
    def first(cls, model: Model, **content: Any) -> Commit:
        """Version 0 of a model; `content` are further fields, such as `engrams`, `recogniser` and `budget`."""
        return cls(version=0, kind="create", lineage=model.lineage, **content)

    def following(self, kind: Kind, **changes: Any) -> Commit:
        """The commit after this one: its content with `changes`, made now, naming this one as parent.

        What describes one commit only (`_OWN`) is empty unless given; so is `signature` with another certificate.
        """
        fresh: dict[str, Any] = dict.fromkeys(_OWN)
        if changes.get("certificate", self.certificate) != self.certificate:
            fresh["signature"] = None
        return replace(
            self,
            **{**fresh, "created_at": now(), **changes},
            kind=kind,
            version=self.version + 1,
            parent=self.version,
        )

    @property
    def format(self) -> int:
        """The format that a record of this commit is sealed as, so that no release misreads it."""
        if self.names is not None:
            return WITH_NAMES
        if self.publish == "manual" or self.active is not None or self.candidates:
            return WITH_CANDIDATES
        if self.backbones:
            return WITH_BACKBONES
        return FIRST_FORMAT if self.decoding is None else _WITH_DECODING

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object; the same as in earlier releases, unless it has something that these do not know."""
        return {key: value for key, value in asdict(self).items() if key not in _LATER or value != _LATER[key]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Commit:
        """From a JSON object; fields that later releases may add are passed over. Raises KeyError, TypeError."""
        known = {one.name for one in fields(cls)}
        content = {key: value for key, value in document.items() if key in known}
        if document.get("sums"):  # before tasks had sums of their own, one blob held those of all
            content["kept"] = [document["sums"]]
        blobs = {name: content.get(name, ()) for name in ("kept", "backbones")} | {"engrams": document["engrams"]}
        lists = blobs | {"tasks": document["tasks"], "candidates": content.get("candidates", ())}
        singles = (content.get(name) for name in ("recogniser", "certificate", "report"))
        if not all(isinstance(sha, str) for sha in (*chain.from_iterable(blobs.values()), *filter(None, singles))):
            raise TypeError("a blob is named by something else than its SHA-256")
        if not set(blobs["backbones"]) <= set(blobs["engrams"]):
            raise TypeError("the weights of a backbone are not among the engrams")
        objects = ("decoding", "by", "signature", "names", "renamed")
        if not all(isinstance(content.get(name), dict | None) for name in objects):
            raise TypeError(f"one of {', '.join(objects)} is no JSON object")
        if not all(isinstance(number, int) for number in (*lists["candidates"], content.get("active") or 0)):
            raise TypeError("a version is no number")
        if content.get("publish", "auto") not in get_args(Publish):
            raise TypeError("it is published in no known way")
        return cls(**content | {name: tuple(values) for name, values in lists.items()})


class CommitLog:
    """The commit logs of all models, `models/{model}/log/{lineage}/{version:08d}.json`; safe to use from any thread."""

    def __init__(self, objects: ObjectStore, models: Models) -> None:
        self._objects = objects
        self._models = models
        self._heads: dict[str, Commit] = {}
        """The highest commit seen, by model: the search for the head begins there."""
        self._lock = threading.Lock()

    def head(self, model: str) -> Commit | None:
        """The highest version, which says which one is served; None when the model has no commit yet.

        It may be polled: two small reads when nothing was published since the last call.

        Raises
        ------
        UnknownModel
        Unreadable
            There is a highest version, and its record cannot be read.
        """
        lineage = self._lineage(model)
        with self._lock:
            known = self._heads.get(model)
        head = known if known is not None and known.lineage == lineage else self._last(model, lineage)
        while (following := self._after(model, lineage, head)) is not None:
            head = following
        if head is not None:
            self._remember(model, head)
        return head

    def numbers(self, model: str) -> List[int]:
        """The numbers of all stored versions, ascending, whether they can be read or not; raises UnknownModel."""
        return self._numbers(model, self._lineage(model))

    def read(self, model: str, version: int) -> Commit:
        """One version.

        Raises
        ------
        UnknownModel, UnknownVersion
        NotFound
            There are later versions, but its record is missing.
        Unreadable
            Its record is damaged, of another place, or of a later release.
        """
        lineage = self._lineage(model)
        commit = self._find(model, lineage, version)
        if commit is not None:
            return commit
        if 0 <= version < max(self._numbers(model, lineage), default=0):
            return self._read_existing(model, lineage, version)  # it may have come since, and another after it
        raise UnknownVersion(model, version)

    def parse(self, model: Model, version: int, data: bytes) -> Commit:
        """The commit in the bytes of a version's record; raises Unreadable."""
        path = record_path(model.name, model.lineage, version)
        return _decode(path, unseal(path, data), version, model.lineage)

    def list(
        self,
        model: str,
        after: int | None = None,
        limit: int | None = None,
        *,
        newest_first: bool = False,
        lenient: bool = False,
    ) -> List[Commit]:
        """Versions in ascending order, those after the number `after`, `limit` at most.

        With `newest_first` in descending order, those before the number `after`. Fewer than `limit` come at the end
        only.

        Raises
        ------
        UnknownModel
        Unreadable, NotFound
            A record cannot be read, or is missing; with `lenient` it is skipped instead.
        """
        lineage = self._lineage(model)
        numbers = self._range(model, lineage, after, newest_first, lenient)
        found: List[Commit] = []
        find = partial(self._read_lenient if lenient else self._read_existing, model, lineage)
        while numbers and (limit is None or len(found) < limit):
            size = len(numbers) if limit is None else limit - len(found)
            found.extend(commit for commit in parallel_map(find, numbers[:size]) if commit is not None)
            numbers = numbers[size:]
        return found

    def find(
        self, model: str, since: str, wanted: Callable[[Commit], bool], through: int | None = None
    ) -> Commit | None:
        """The newest version that is `wanted`, of those made at the moment `since` or later.

        Clocks of different machines may be an hour apart. Records that cannot be read are skipped, as are versions
        after the number `through`.
        """
        oldest = timestamps.earlier(since, _CLOCK_SKEW)
        after = None if through is None else through + 1
        while page := self.list(model, after, _PAGE, newest_first=True, lenient=True):
            for commit in page:
                if wanted(commit):
                    return commit
                if commit.created_at < oldest:
                    return None
            after = page[-1].version
        return None

    def append(self, model: str, commit: Commit) -> None:
        """Publish a version; of any number of racing writers one succeeds. Blobs it names must be stored before.

        Raises
        ------
        Conflict
            That version is there already.
        UnknownModel
            The model is gone, or is another of the same name.
        UnknownVersion
            The version before is not there.
        """
        assert commit.parent == (commit.version - 1 if commit.version else None), "a commit's parent is the one before"
        if self._lineage(model) != commit.lineage:
            raise UnknownModel(model)
        # A version whose record is damaged exists: the next one may supersede it, none may replace it.
        with suppress(Unreadable):
            if commit.version and self._find(model, commit.lineage, commit.version - 1) is None:
                raise UnknownVersion(model, commit.version - 1)
        try:
            self._objects.create_json(
                record_path(model, commit.lineage, commit.version), commit.to_dict(), commit.format
            )
        except AlreadyExists:
            raise Conflict(model, commit.version) from None

    def restore(self, model: Model, commits: Iterable[Commit]) -> None:
        """Write the whole log of a model before its record (`Models.restore`); raises AlreadyExists."""
        for commit in commits:
            assert commit.lineage == model.lineage, "a log is of one lineage"
            path = record_path(model.name, model.lineage, commit.version)
            self._objects.create_json(path, commit.to_dict(), commit.format)

    def _lineage(self, model: str) -> str:
        try:
            return self._models.get(model).lineage
        except UnknownModel:
            with self._lock:
                self._heads.pop(model, None)
            raise

    def _remember(self, model: str, head: Commit) -> None:
        with self._lock:
            known = self._heads.get(model)
            if known is None or known.lineage != head.lineage or known.version < head.version:
                self._heads.pop(model, None)
                self._heads[model] = head
                while len(self._heads) > _CACHED_HEADS:
                    del self._heads[next(iter(self._heads))]

    def _range(self, model: str, lineage: str, after: int | None, newest_first: bool, lenient: bool) -> range:
        """The numbers to list."""
        try:
            head = self.head(model)
            last = head.version if head else -1
        except Unreadable:
            if not lenient:
                raise
            last = max(self._numbers(model, lineage), default=-1)
        if newest_first:
            return range(last if after is None else min(after - 1, last), -1, -1)
        return range(0 if after is None else max(after + 1, 0), last + 1)

    def _numbers(self, model: str, lineage: str) -> List[int]:
        names = [path.rsplit("/", 1)[1] for path in self._objects.list(f"models/{model}/log/{lineage}")]
        return [int(name.removesuffix(".json")) for name in names if _RECORD.fullmatch(name)]

    def _last(self, model: str, lineage: str) -> Commit | None:
        numbers = self._numbers(model, lineage)
        return self._find(model, lineage, numbers[-1]) if numbers else None

    def _after(self, model: str, lineage: str, head: Commit | None) -> Commit | None:
        """The next version; if its record cannot be read but there are later ones, the last of these."""
        number = head.version + 1 if head else 0
        try:
            return self._find(model, lineage, number)
        except Unreadable:
            last = self._last(model, lineage)
            if last is None or last.version <= number:
                raise
            return last

    def _find(self, model: str, lineage: str, version: int) -> Commit | None:
        """A version; None when it is not there."""
        if not 0 <= version < 10**8:
            return None
        path = record_path(model, lineage, version)
        try:
            return _decode(path, self._objects.get_json(path), version, lineage)
        except NotFound:
            return None

    def _read_existing(self, model: str, lineage: str, version: int) -> Commit:
        """A version whose record must exist; raises NotFound."""
        commit = self._find(model, lineage, version)
        if commit is None:
            raise self._missing(model, lineage, version)
        return commit

    def _missing(self, model: str, lineage: str, version: int) -> NotFound:
        """The error for a missing record: it was lost, or deleted with its model a moment ago."""
        if self._lineage(model) != lineage:
            return UnknownVersion(model, version)
        path = record_path(model, lineage, version)
        return NotFound(f"The object {path} is missing; it is version {version}, and there are later ones.", path)

    def _read_lenient(self, model: str, lineage: str, version: int) -> Commit | None:
        """A version; None also when its record cannot be read, which is logged."""
        try:
            return self._find(model, lineage, version)
        except Unreadable as error:
            log.error("version %d of model %s is passed over: %s", version, model, error)
            return None


def _decode(path: str, document: Mapping[str, Any], version: int, lineage: str) -> Commit:
    try:
        commit = Commit.from_dict(document)
    except (KeyError, TypeError) as error:
        raise Damaged(path, f"it is no commit ({error})") from error
    if (commit.version, commit.lineage) != (version, lineage):
        raise Damaged(path, "it is the commit of another place")
    return commit


def record_path(model: str, lineage: str, version: int) -> str:
    """Path of the object that holds the commit of a version."""
    return f"models/{model}/log/{lineage}/{version:08d}.json"
