"""Models: their names and what they were made as."""

from __future__ import annotations

import logging
import re
import uuid
from builtins import list as List
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vault.errors import AlreadyExists, Damaged, InvalidName, ModelExists, NotFound, UnknownModel, Unreadable
from vault.parallel import each
from vault.storage.object_store import ObjectStore
from vault.timestamps import now

log = logging.getLogger("engram.vault")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TRIES = 20
"""Each that is in vain means that another made the model, and that it was deleted."""


@dataclass(frozen=True)
class Model:
    """What a model was made as; never changes."""

    name: str
    definition: dict[str, Any]
    """Opaque here."""
    format_version: int
    """Of the definition and of all that is stored for the model."""
    lineage: str
    """Random; tells a model from one of the same name that was deleted before it was made."""
    created_at: str
    """RFC 3339, UTC."""


class Models:
    """The models in the store.

    `models/{name}/model.json` is the model: it exists as long as that does. Its commit log lies below
    `models/{name}/log/{lineage}/`, so nothing of a deleted model, and no writer late to learn of its end, can get into
    one of the same name that is made later.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(self, name: str, definition: Mapping[str, Any], format_version: int = 1) -> Model:
        """Make a model; it has no commit yet, and its maker is to append version 0.

        Making it again with the same definition answers with the one that is there, so a maker that died in between
        can start over.

        Raises
        ------
        InvalidName
        ModelExists
            It is there with another definition.
        Damaged
            What lies in the place of its record is none.
        """
        if not is_model_name(name):
            raise InvalidName(
                f"A model cannot be called {name[:120]!r}: 1 to 63 lower-case letters, digits, `_` and `-`,"
                " the first a letter or digit."
            )
        for _ in range(_TRIES):
            model = Model(name, dict(definition), format_version, uuid.uuid4().hex, now())
            with suppress(AlreadyExists):
                self._objects.create_json(_path(name), asdict(model))
                return model
            with suppress(UnknownModel):  # deleted since
                there = self.get(name)
                if (there.definition, there.format_version) != (model.definition, format_version):
                    raise ModelExists(name)
                return there
        raise Damaged(_path(name), "it can neither be made nor be read")

    def restore(self, model: Model) -> None:
        """Make a model whose log is there already (`CommitLog.restore`); raises ModelExists."""
        try:
            self._objects.create_json(_path(model.name), asdict(model))
        except AlreadyExists:
            self._remove_log(model.name, model.lineage)
            raise ModelExists(model.name) from None

    def get(self, name: str) -> Model:
        """A model by name; raises UnknownModel, also for what cannot be a name."""
        if not is_model_name(name):
            raise UnknownModel(name)
        try:
            document = self._objects.get_json(_path(name))
        except NotFound:
            raise UnknownModel(name) from None
        try:
            return Model(
                name, document["definition"], document["format_version"], document["lineage"], document["created_at"]
            )
        except KeyError as error:
            raise Damaged(_path(name), f"it lacks {error}") from error

    def list(self, after: str | None = None, limit: int | None = None) -> List[Model]:
        """Models by name, ascending; those after the name `after`, `limit` at most. Damaged records are passed over."""
        names = [name for name in self._objects.list_folders("models", after) if is_model_name(name)]
        found: List[Model] = []
        while names and (limit is None or len(found) < limit):
            # Some of the folders may be those of deleted models.
            size = len(names) if limit is None else limit - len(found)
            found.extend(model for model in each(self._find, names[:size]) if model is not None)
            names = names[size:]
        return found

    def delete(self, name: str) -> Model:
        """Remove a model and its commit log, its blobs being left to a sweep; the model it was.

        The model is gone with the first object removed. What a crash leaves of the log no later model can see, and
        `remove_remains` removes it.

        Raises
        ------
        UnknownModel
        """
        model = self.get(name)
        self._objects.delete(_path(name))
        self._remove_log(name, model.lineage)
        return model

    def remove_remains(self, grace: timedelta = timedelta(0)) -> int:
        """Remove logs of deleted models that a crash left behind, and of imports that were not; how many there were.

        Those younger than `grace` are spared: a model that is being imported has its log before it has its record.
        """
        count = 0
        for name in self._objects.list_folders("models"):
            # In this order: a lineage that exists before the model is read, and is not the model's, is dead.
            lineages = self._objects.list_folders(f"models/{name}/log")
            try:
                living = self.get(name).lineage
            except UnknownModel:
                living = None
            for lineage in lineages:
                if lineage != living and not self._is_young(name, lineage, grace):
                    count += bool(self._remove_log(name, lineage))
        return count

    def _is_young(self, name: str, lineage: str, grace: timedelta) -> bool:
        first = self._objects.list(f"models/{name}/log/{lineage}", limit=1)
        written = self._objects.written_at(first[0]) if first else None
        return written is not None and datetime.now(UTC) - written < grace

    def _remove_log(self, name: str, lineage: str) -> int:
        paths = self._objects.list(f"models/{name}/log/{lineage}")
        for path in paths:
            self._objects.delete(path)
        return len(paths)

    def _find(self, name: str) -> Model | None:
        try:
            return self.get(name)
        except UnknownModel:
            return None
        except Unreadable as error:
            # It must not keep the others from being served.
            log.error("model %s is passed over: %s", name, error)
            return None


def is_model_name(text: str) -> bool:
    """Whether a model can be called so."""
    return _NAME.fullmatch(text) is not None


def _path(name: str) -> str:
    return f"models/{name}/model.json"
