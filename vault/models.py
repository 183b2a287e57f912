"""Model records in the store, by name."""

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
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map
from vault.timestamps import now

log = logging.getLogger("engram.vault")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
WITH_BACKBONES = 3
"""Format of a model over networks that users brought, and of its commits: releases that know lower numbers only cannot
run these, and would take their weights for an engram."""

WITH_CANDIDATES = 4
"""Format of commits of a model whose versions wait for somebody to activate them: releases that know lower numbers only
would answer with what nobody approved."""

WITH_NAMES = 5
"""Format of commits that show tasks or classes by other names than they were learned under: releases that know lower
numbers only would go by the old ones, and drop the new ones from what is learned on."""

WITH_PRECISION = 6
"""Format of a model that computes in another precision than float32, or by another engine than PyTorch alone, of which
earlier releases know nothing."""

WITH_ONNX_RUNTIME_2 = 7
"""Format of a model whose tasks' networks ONNX Runtime computes, of which earlier releases know nothing."""

WITH_TOGETHER = 8
"""Format of a model in which one regression reads several networks, of which earlier releases know nothing."""

WITH_OPENVINO = 9
"""Format of a model whose tasks' networks OpenVINO computes, of which earlier releases know nothing."""

_TRIES = 20
"""Each failed try means that another process made the model and that it was deleted since."""


@dataclass(frozen=True)
class Model:
    """The record of one model; never changes."""

    name: str
    definition: dict[str, Any]
    """Opaque to the vault."""
    format_version: int
    """Of the definition; the record is sealed as it, so that earlier releases refuse what they would misread."""
    lineage: str
    """Random; distinguishes a model from a deleted one of the same name."""
    created_at: str
    """RFC 3339, UTC."""


class Models:
    """The models in the store.

    A model exists as long as `models/{name}/model.json` does. Its commit log lies below `models/{name}/log/{lineage}/`,
    so that neither remains of a deleted model nor a writer that has not yet noticed the deletion can get into a later
    model of the same name.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(self, name: str, definition: Mapping[str, Any], format_version: int = 1) -> Model:
        """Create a model without any commit; its creator must append version 0.

        Creating it again with the same definition returns the existing one, so that a creator that died in between can
        start over.

        Raises
        ------
        InvalidName
        ModelExists
            It exists with another definition.
        Damaged
            The object in the place of its record is no record.
        """
        if not is_model_name(name):
            raise InvalidName(
                f"A model cannot be called {name[:120]!r}: 1 to 63 lower-case letters, digits, `_` and `-`,"
                " the first a letter or digit."
            )
        for _ in range(_TRIES):
            model = Model(name, dict(definition), format_version, uuid.uuid4().hex, now())
            with suppress(AlreadyExists):
                self._objects.create_json(_path(name), asdict(model), format_version)
                return model
            with suppress(UnknownModel):  # deleted since
                there = self.get(name)
                if (there.definition, there.format_version) != (model.definition, format_version):
                    raise ModelExists(name)
                return there
        raise Damaged(_path(name), "it can neither be made nor be read")

    def restore(self, model: Model) -> None:
        """Create a model whose log exists already (`CommitLog.restore`); raises ModelExists."""
        try:
            self._objects.create_json(_path(model.name), asdict(model), model.format_version)
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
        """Models by name, ascending; those after the name `after`, `limit` at most. Damaged records are skipped."""
        names = [name for name in self._objects.list_folders("models", after) if is_model_name(name)]
        found: List[Model] = []
        while names and (limit is None or len(found) < limit):
            # Some of the folders may be those of deleted models.
            size = len(names) if limit is None else limit - len(found)
            found.extend(model for model in parallel_map(self._find, names[:size]) if model is not None)
            names = names[size:]
        return found

    def delete(self, name: str) -> Model:
        """Remove a model and its commit log, leaving its blobs to a sweep; returns the model.

        The model is gone once the first object is removed. No later model can see what a crash leaves of the log, and
        `remove_remains` removes that.

        Raises
        ------
        UnknownModel
        """
        model = self.get(name)
        self._objects.delete(_path(name))
        self._remove_log(name, model.lineage)
        return model

    def remove_remains(self, grace: timedelta = timedelta(0)) -> int:
        """Remove logs that an interrupted deletion or import left behind; returns how many there were.

        Those younger than `grace` stay: a model that is being imported has its log before its record.
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
    """Whether the text is a valid model name."""
    return _NAME.fullmatch(text) is not None


def _path(name: str) -> str:
    return f"models/{name}/model.json"
