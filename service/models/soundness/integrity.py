"""Background check of what models have stored for learning, of older versions, and of what waits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from anyio import CapacityLimiter, to_thread

from service.errors.problem_details import safe_message
from service.lifecycle.background import Background
from service.models.loaded import LoadedVersion
from service.models.soundness.problems import Problem
from vault.commit_log import Commit, record_path
from vault.errors import Damaged, NotFound, UnknownModel, Unreadable, VaultError
from vault.models import Model
from vault.vault import Vault

log = logging.getLogger("engram.service")

_PASS_SECONDS = 1.0
"""Between two passes over the versions that answer."""
_RETRY_SECONDS = 10.0
"""Until what was harmed is read again."""
_AGAIN_SECONDS = 86_400.0
"""Until what was whole is read again."""


@dataclass(frozen=True)
class _Part:
    """Stored object that a version needs, but not to answer."""

    path: str
    loaded: LoadedVersion
    """What answers now."""
    version: int
    """The one that needs it: that which answers, an older one, whose commit this is, or one that waits."""
    sha: str | None
    """Of a blob; None for a commit."""

    @property
    def older(self) -> bool:
        return self.version < self.loaded.version

    @property
    def waiting(self) -> bool:
        return self.version > self.loaded.version

    def describe(self, error: VaultError) -> str:
        """What is wrong with it, and what that keeps from being done."""
        if self.older:
            return (
                f"{safe_message(error)} Version {self.version} can be neither asked for nor activated; the others can."
            )
        if self.waiting:
            return (
                f"{safe_message(error)} Version {self.version}, which waits to be activated, is not whole: restore "
                "what it lacks, or reject it, since the next task would be learned on it."
            )
        return f"{safe_message(error)} It answers, but cannot be learned on."


@dataclass(frozen=True)
class _Read:
    """Result of reading one object."""

    when: float
    error: VaultError | None
    data: bytes | None = None
    """What was read, of a commit."""

    def due(self) -> bool:
        """Whether it is to be read again."""
        return time.monotonic() - self.when >= (_AGAIN_SECONDS if self.error is None else _RETRY_SECONDS)


class IntegrityChecker(Background):
    """Check that the live versions can be learned on and older ones be had, so that harm is known before it matters.

    None of it is needed to answer, so it is read beside everything else, one object at a time: what a version keeps for
    learning and the commits of its model up to its own, each when a version that needs it goes live, and once a day.
    Where versions wait to be activated, all is read that the newest of them is made of: the next task is learned on it.

    Parameters
    ----------
    models
        The versions that answer.
    head
        The newest version of the model of one that answers, which says what waits.
    vault
        Where the rest of them is stored.
    """

    def __init__(
        self, models: Callable[[], list[LoadedVersion]], head: Callable[[LoadedVersion], Commit], vault: Vault
    ) -> None:
        self._models = models
        self._head = head
        self._vault = vault
        self._read: dict[str, _Read] = {}
        """By path, of what live versions name."""
        self._candidates: dict[str, Commit] = {}
        """The newest version that waits, by lineage."""
        self._listed: list[tuple[LoadedVersion, Commit | None]] = []
        self._list: list[_Part] = []
        """Of those that are `_listed`."""
        self._limiter = CapacityLimiter(1)

    def problems(self, name: str) -> list[Problem]:
        """Why the version of a model that answers cannot be learned on, and which older ones cannot be had."""
        found = [(part, error) for part, error in self._harmed() if part.loaded.name == name]
        return [replace(Problem.of(error, part.version), detail=part.describe(error)) for part, error in found]

    def troubled(self) -> set[str]:
        """The models that cannot be learned on.

        Older versions do not count: nothing that is under way needs them, and one that is lost for good, or was given
        up, must not count as an emergency for ever.
        """
        return {part.loaded.name for part, _ in self._harmed() if not part.older}

    def _harmed(self) -> list[tuple[_Part, VaultError]]:
        errors = {path: read.error for path, read in list(self._read.items()) if read.error is not None}
        return [(part, errors[part.path]) for part in self._parts() if part.path in errors] if errors else []

    def _parts(self) -> list[_Part]:
        """The objects of all versions that answer now, and of those that wait.

        Kept, since with thousands of versions listing them takes time in the event loop.
        """
        listed = [(loaded, self._candidates.get(loaded.model.lineage)) for loaded in self._models()]
        if [(id(one), id(other)) for one, other in listed] != [(id(one), id(other)) for one, other in self._listed]:
            self._listed, self._list = listed, [part for both in listed for part in _parts(*both)]
        return self._list

    def _look_for_candidates(self) -> None:
        """Read which version of each model is the newest that waits, where that has changed."""
        found = {}
        for loaded in self._models():
            head, lineage = self._head(loaded), loaded.model.lineage
            if not head.candidates or (number := head.candidates[-1]) <= loaded.version:
                continue
            known = self._candidates.get(lineage)
            if known is None or known.version != number:
                try:
                    known = head if head.version == number else self._vault.log.read(loaded.name, number)
                except (Unreadable, NotFound):
                    continue
            found[lineage] = known
        self._candidates = found

    async def _run(self) -> None:
        while True:
            try:
                await self._check()
            except VaultError as error:
                log.warning("what learning and older versions need cannot be read for now: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            await asyncio.sleep(_PASS_SECONDS)

    async def _check(self) -> None:
        """Read what was not read yet, or long ago; raises VaultError for what says nothing of the object."""
        await to_thread.run_sync(self._look_for_candidates, limiter=self._limiter, abandon_on_cancel=True)
        parts = self._parts()
        for path in self._read.keys() - {part.path for part in parts}:
            del self._read[path]
        for part in parts:
            known = self._read.get(part.path)
            if known is None or known.due():
                read = await to_thread.run_sync(
                    self._read_part, part, known, limiter=self._limiter, abandon_on_cancel=True
                )
                if read.error is not None and (known is None or known.error is None):
                    name = part.loaded.name
                    log.error("model %s: %s", name, part.describe(read.error), extra={"model": name})
                self._read[part.path] = read

    def _read_part(self, part: _Part, known: _Read | None) -> _Read:
        data = None
        try:
            if part.sha is not None:
                self._vault.objects.get_blob(part.sha)
                return _Read(time.monotonic(), None)
            data = self._vault.objects.get(part.path)
            if known is not None and known.error is not None and data == known.data:
                # Not parsed again: what is found damaged is counted, and somebody is paged for the count.
                return replace(known, when=time.monotonic())
            try:
                self._vault.log.parse(part.loaded.model, part.version, data)
            except Damaged:
                # What was harmed only on its way is whole when it is read again.
                data = self._vault.objects.get(part.path)
                self._vault.log.parse(part.loaded.model, part.version, data)
        except (Unreadable, NotFound) as error:
            if not self._is_gone(part.loaded.model):
                return _Read(time.monotonic(), error, data)
        return _Read(time.monotonic(), None)

    def _is_gone(self, model: Model) -> bool:
        """Whether the model was deleted a moment ago, and its versions with it."""
        try:
            return self._vault.models.get(model.name).lineage != model.lineage
        except UnknownModel:
            return True
        except Unreadable:
            return False


def _parts(loaded: LoadedVersion, candidate: Commit | None) -> Iterator[_Part]:
    """The objects that only learning needs, and the model's commits up to the one that answers, the newest first.

    Before these what a candidate has and the one that answers has not, and its commit.
    """
    own = {*loaded.blobs, *loaded.commit.engrams, *loaded.commit.kept}
    if candidate is not None:
        recogniser = () if candidate.recogniser is None else (candidate.recogniser,)
        for sha in dict.fromkeys((*candidate.engrams, *recogniser, *candidate.kept)):
            if sha not in own:
                yield _Part(f"blobs/{sha}", loaded, candidate.version, sha)
        path = record_path(loaded.name, loaded.model.lineage, candidate.version)
        yield _Part(path, loaded, candidate.version, None)
    for sha in loaded.commit.kept:
        yield _Part(f"blobs/{sha}", loaded, loaded.version, sha)
    for version in range(loaded.version, -1, -1):
        yield _Part(record_path(loaded.name, loaded.model.lineage, version), loaded, version, None)
