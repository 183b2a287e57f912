"""The commit log of a model: what its versions are made of."""

from __future__ import annotations

import threading
from builtins import list as List
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from vault.errors import AlreadyExists, Conflict, Damaged, NotFound, UnknownModel, UnknownVersion
from vault.models import Model, Models
from vault.moment import now
from vault.objects import Objects

Kind = Literal["create", "learn", "activate", "retire", "budget"]


@dataclass(frozen=True)
class Commit:
    """One version of a model: which blobs it is made of, and why it was published.

    A commit says everything about what is served from it on; an `activate` repeats the content of its target.
    """

    version: int
    """0 for the first, then one more each."""
    kind: Kind
    lineage: str
    """The model's own (`Model.lineage`); the next commit carries it on."""
    engrams: tuple[str, ...] = ()
    """SHA-256 of each engram, the commons first."""
    recogniser: str | None = None
    """SHA-256 of the recogniser."""
    kept: tuple[str, ...] = ()
    """SHA-256 of each part that only learning needs."""
    certificate: str | None = None
    """SHA-256 of the retention certificate (JSON)."""
    report: str | None = None
    """SHA-256 of the learning report (JSON) of the task this commit added."""
    task: str | None = None
    """The task this commit added or retired."""
    tasks: tuple[dict[str, Any], ...] = ()
    """The tasks served, in the order learned, each with at least `name` and `classes`; so a listing needs no blob."""
    budget: dict[str, int] = field(default_factory=dict)
    """Units at most, by layer."""
    parent: int | None = None
    """The version before; None for the first."""
    target: int | None = None
    """Of an `activate`: the version whose content is served again."""
    job: str | None = None
    """The job that made it."""
    token: int | None = None
    """That job's attempt, which is the fencing token."""
    created_at: str = field(default_factory=now)
    """RFC 3339, UTC."""

    @classmethod
    def first(cls, model: Model, **content: Any) -> Commit:
        """Version 0 of a model; `content` are further fields, such as `engrams`, `recogniser` and `budget`."""
        return cls(version=0, kind="create", lineage=model.lineage, **content)

    def following(self, kind: Kind, **changes: Any) -> Commit:
        """The commit after this one: its content with `changes`, made now, naming this one as parent.

        What tells of one commit only (`task`, `report`, `target`, `job`, `token`) is empty unless given.
        """
        fresh: dict[str, Any] = {"task": None, "report": None, "target": None, "job": None, "token": None}
        return replace(
            self,
            **{**fresh, "created_at": now(), **changes},
            kind=kind,
            version=self.version + 1,
            parent=self.version,
        )

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Commit:
        """From a JSON object; fields that later releases may add are passed over. Raises KeyError, TypeError."""
        known = {one.name for one in fields(cls)}
        content = {key: value for key, value in document.items() if key in known}
        if document.get("sums"):  # before tasks had sums of their own, one blob held those of all
            content["kept"] = [document["sums"]]
        lists = {"engrams": document["engrams"], "kept": content.get("kept", ()), "tasks": document["tasks"]}
        return cls(**content | {name: tuple(values) for name, values in lists.items()})


class CommitLog:
    """The commit logs of all models, `models/{model}/log/{lineage}/{version:08d}.json`; safe to use from any thread."""

    def __init__(self, objects: Objects, models: Models) -> None:
        self._objects = objects
        self._models = models
        self._heads: dict[str, Commit] = {}
        """The highest commit seen, by model; only where to begin to look."""
        self._lock = threading.Lock()

    def head(self, model: str) -> Commit | None:
        """The highest version, that which is served; None when the model has no commit yet.

        Two small reads when nothing has happened since the last call: fit to be polled.

        Raises
        ------
        UnknownModel
        """
        lineage = self._lineage(model)
        with self._lock:
            known = self._heads.get(model)
        head = known if known is not None and known.lineage == lineage else self._last(model, lineage)
        while (following := self._find(model, lineage, head.version + 1 if head else 0)) is not None:
            head = following
        if head is not None:
            self._remember(model, head)
        return head

    def read(self, model: str, version: int) -> Commit:
        """One version.

        Raises
        ------
        UnknownModel, UnknownVersion
        Damaged
            It is no commit of that number.
        """
        commit = self._find(model, self._lineage(model), version)
        if commit is None:
            raise UnknownVersion(model, version)
        return commit

    def list(
        self, model: str, after: int | None = None, limit: int | None = None, *, newest_first: bool = False
    ) -> List[Commit]:
        """Versions in ascending order, those after the number `after`, `limit` at most.

        With `newest_first` in descending order, those before the number `after`.

        Raises
        ------
        UnknownModel
        """
        head = self.head(model)
        if head is None:
            return []
        if newest_first:
            begin = head.version if after is None else min(after - 1, head.version)
            numbers = range(begin, -1, -1)[:limit]
        else:
            numbers = range(0 if after is None else max(after + 1, 0), head.version + 1)[:limit]
        with ThreadPoolExecutor(8, thread_name_prefix="log") as pool:
            found = pool.map(lambda number: self._find(model, head.lineage, number), numbers)
            return [commit for commit in found if commit is not None]

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
        if commit.version and self._find(model, commit.lineage, commit.version - 1) is None:
            raise UnknownVersion(model, commit.version - 1)
        try:
            self._objects.create_json(_path(model, commit.lineage, commit.version), commit.to_dict())
        except AlreadyExists:
            raise Conflict(model, commit.version) from None

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
                self._heads[model] = head

    def _last(self, model: str, lineage: str) -> Commit | None:
        paths = self._objects.list(f"models/{model}/log/{lineage}")
        if not paths:
            return None
        return self._find(model, lineage, int(paths[-1].rsplit("/", 1)[1].removesuffix(".json")))

    def _find(self, model: str, lineage: str, version: int) -> Commit | None:
        if not 0 <= version < 10**8:
            return None
        path = _path(model, lineage, version)
        try:
            commit = Commit.from_dict(self._objects.get_json(path))
        except NotFound:
            return None
        except (KeyError, TypeError) as error:
            raise Damaged(path, f"it is no commit ({error})") from error
        if (commit.version, commit.lineage) != (version, lineage):
            raise Damaged(path, "it is the commit of another place")
        return commit


def _path(model: str, lineage: str, version: int) -> str:
    return f"models/{model}/log/{lineage}/{version:08d}.json"
