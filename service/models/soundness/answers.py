"""Comparison of a version's answers on this machine with the certified ones, before it is served."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from engram.certificate import Certificate, digest, disagreement, logit_bytes, probe_logits
from engram.errors import AnswersDiffer, EngramError
from engram.memory import Memory
from engram.runtime import environment_difference
from service.models.loaded import LoadedVersion
from vault.certificates.digests import ServedDigest, identity_of, key_of
from vault.errors import StoreUnavailable, VaultError
from vault.vault import Vault

log = logging.getLogger("engram.service")

ROTATED = 2
"""Tasks that were compared before and are compared again with every version, those first that were not for longest."""

SECONDS = 2.0
"""After which no further tasks are asked, beyond the newest: a version shall not wait long until it answers."""

_TOGETHER = 4
"""Tasks that are asked together, after the newest: what they read of the commons is computed once for all."""

_MOST_MODELS = 1024
"""Models whose compared tasks are remembered."""


@dataclass(frozen=True)
class _Answered:
    """What one task answers here."""

    task: str
    logits: bytes
    shapes: dict[str, str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.logits).hexdigest()

    def agrees(self, sha256: str, shapes: dict[str, str]) -> bool:
        """Whether these are the answers with such digests; shapes that only one of both has are not compared."""
        return self.sha256 == sha256 and all(shapes.get(shape, one) == one for shape, one in self.shapes.items())


class AnswersGuard:
    """Guard that lets a version answer only if its tasks answer here as certified; safe to use from any thread.

    Of each model the tasks are asked that this process has not compared yet, the newest first, and that in every shape,
    and `ROTATED` others. In the environment that the version was certified in, and with its engine, the bytes must be
    the certified ones. Elsewhere they must be those of the first process of this kind of machine that served the task
    (`vault.certificates.digests`); the first of all has to come near the certified answers, where these are kept.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._lock = threading.Lock()
        self._compared: dict[str, dict[str, float]] = {}
        """When which task was compared, by lineage and by the task's identity."""

    def require(self, loaded: LoadedVersion) -> None:
        """Compare some of a version's answers, all of its newest task's among them.

        Raises
        ------
        AnswersDiffer, StoreUnavailable
        """
        certified = self._certificate(loaded)
        if certified is None:
            return
        comparison = _Comparison(self._vault, loaded, certified)
        until = time.monotonic() + SECONDS
        for number, tasks in enumerate(self._asked(loaded, comparison)):
            if number and time.monotonic() > until:
                break
            for here in _answered(loaded.learned, tasks, every_shape=not number):
                comparison.compare(here)
                self._note(loaded, comparison.identity(here.task))

    def _certificate(self, loaded: LoadedVersion) -> Certificate | None:
        """What is certified of a version; None where that is nothing, or cannot be read, which others complain of."""
        sha = loaded.commit.certificate
        if sha is None or not loaded.memory.tasks:
            return None
        try:
            return Certificate.from_dict(json.loads(self._vault.objects.get_blob(sha)))
        except StoreUnavailable:
            raise
        except (VaultError, EngramError, ValueError, KeyError) as error:
            name, version = loaded.name, loaded.version
            log.warning("model %s: what version %d answers cannot be compared: %s", name, version, error)
            return None

    def _asked(self, loaded: LoadedVersion, comparison: _Comparison) -> list[list[str]]:
        """The tasks to ask, each list together: the newest, others that were not compared yet, and `ROTATED`."""
        tasks = comparison.tasks
        with self._lock:
            known = dict(self._compared.get(loaded.model.lineage, {}))
        when = {task: known.get(comparison.identity(task)) for task in tasks}
        new = [task for task in reversed(tasks) if when[task] is None]
        again = sorted((task for task in tasks if when[task] is not None), key=lambda task: when[task] or 0.0)
        asked = [*new, *again[:ROTATED]]
        return [asked[:1], *(asked[first : first + _TOGETHER] for first in range(1, len(asked), _TOGETHER))]

    def _note(self, loaded: LoadedVersion, identity: str) -> None:
        with self._lock:
            compared = self._compared.pop(loaded.model.lineage, {})
            compared[identity] = time.monotonic()
            self._compared[loaded.model.lineage] = compared
            while len(self._compared) > _MOST_MODELS:
                del self._compared[next(iter(self._compared))]


class _Comparison:
    """Comparison of one version with its certificate."""

    def __init__(self, vault: Vault, loaded: LoadedVersion, certified: Certificate) -> None:
        self._vault = vault
        self._loaded = loaded
        self._certified = certified
        self._engine = loaded.memory.definition.engine
        self._here = loaded.memory.method.environment()
        self._difference = environment_difference(certified.environment, self._here)
        if certified.engine != self._engine:
            self._difference = f"engine {self._engine} instead of {certified.engine}"

    @property
    def tasks(self) -> list[str]:
        """Those that the certificate says something of, oldest first."""
        return [info.name for info in self._loaded.learned.tasks if info.name in self._certified.tasks]

    def identity(self, task: str) -> str:
        """What stays the same for a task as long as its answers must."""
        certified = self._certified
        return identity_of(self._loaded.commit, task, certified.tasks[task], exact=certified.exact)

    def compare(self, here: _Answered) -> None:
        """Raise AnswersDiffer where a task answers otherwise than it must."""
        certified, difference = self._certified, self._difference
        if difference is None:
            if here.agrees(certified.tasks[here.task], certified.shapes.get(here.task, {})):
                return
            if "processor" in certified.environment:
                raise self._differs(here.task, "than certified in this environment")
            difference = "the certificate does not name its processor"
        key = key_of(self._engine, self._here)
        there = self._vault.digests.get(self._loaded.model, key, self.identity(here.task))
        if there is None:
            there = self._first(here, difference)
        if there is not None and not here.agrees(there.logits_sha256, there.shapes):
            raise self._differs(here.task, f"than version {there.version} did on this kind of machine")

    def _first(self, here: _Answered, difference: str) -> ServedDigest | None:
        """The digest of a task that is served for the first time on this kind of machine; None if it cannot be kept."""
        model, certified = self._loaded.model, self._certified
        reason = f"Version {self._loaded.version} was certified in another environment: {difference}."
        kept = self._vault.answers.get(model, certified.tasks[here.task])
        precision = self._loaded.memory.definition.precision
        wrong = None if kept is None or not certified.exact else disagreement(kept, here.logits, precision)
        if wrong is not None:
            raise self._differs(here.task, f"than certified in another environment ({difference}): {wrong}")
        made = ServedDigest(
            here.task,
            self.identity(here.task),
            self._engine,
            dict(self._here),
            here.sha256,
            "new" if kept is None else "close",
            reason if kept is not None else f"{reason} The certified answers themselves are not kept.",
            self._loaded.version,
            here.shapes,
        )
        with suppress(VaultError):
            return self._vault.digests.create(model, made)
        log.warning("model %s: the digest of task %s on this kind of machine cannot be kept", model.name, here.task)
        return None

    def _differs(self, task: str, how: str) -> AnswersDiffer:
        version = self._loaded.version
        return AnswersDiffer(f"Task {task!r} answers otherwise {how}: version {version} does not answer here.")


def _answered(memory: Memory, tasks: Sequence[str], *, every_shape: bool) -> Iterator[_Answered]:
    for name, logits, by_shape in probe_logits(memory, tasks, every_shape=every_shape):
        yield _Answered(name, logit_bytes(logits), {str(shape): digest(one) for shape, one in by_shape.items()})
