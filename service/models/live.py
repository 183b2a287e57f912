"""Live models: the newest whole version of each with its memory, swapped in one assignment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor

from engram.errors import EngineMissing
from engram.runtime import set_more_aside
from service.errors.problem_details import traceback_of
from service.lifecycle.device import serving_device
from service.metrics import Metrics
from service.models.loaded import HARMED, LoadedVersion, load, newest_whole
from service.models.soundness.answers import AnswersGuard
from service.models.soundness.problems import Problem, Trouble, unavailable
from service.settings import ServiceSettings
from vault import approval
from vault.commit_log import Commit
from vault.errors import UnknownModel, Unreadable, VaultError
from vault.models import Model
from vault.vault import Vault

log = logging.getLogger("engram.service")

_LIST_SECONDS = 5.0
"""Between two listings of all models; new ones are known before that by a notice, or when a request names them."""
_REFRESH_SECONDS = 5.0
"""How long a request waits until a model's log was read; then it is answered with what is in service."""
_STALE_SECONDS = 1.0
"""Since the last look at all logs, after which a log is read before a model is shown."""
_END_SECONDS = 1.0
"""How long the threads may take to end; the process ends without waiting for what hangs."""


class LiveModels:
    """The newest whole version of every model, in service.

    Logs are read when a notice of a new version comes, and every `poll_seconds` in case a notice was lost. A version is
    built in a thread of its own beside the one that answers; then one reference is replaced. While the head cannot be
    built, the version before goes on answering; a process that has none takes the newest that is whole. `problems` says
    what is wrong, and the head is tried again and again, so that it goes live once it is mended.
    """

    def __init__(self, vault: Vault, settings: ServiceSettings, metrics: Metrics) -> None:
        self._vault = vault
        self._settings = settings
        self._metrics = metrics
        self._guard = AnswersGuard(vault)
        self._device = serving_device(settings)
        self._live: dict[str, LoadedVersion] = {}
        self._older: OrderedDict[tuple[str, int], LoadedVersion] = OrderedDict()
        self._heads: dict[str, Commit] = {}
        """The newest version that was seen of each, which says what waits to be activated."""
        self._troubles: dict[str, Trouble] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._older_loader = ThreadPoolExecutor(1, thread_name_prefix="older-loader")
        self._tasks: list[asyncio.Task[None]] = []
        self._following: set[asyncio.Task[None]] = set()
        self._heard_since = math.inf
        """Since when notices are heard without a break; infinite while they are not."""
        self._known_since = -math.inf
        """When the last look at the logs of all known models began."""
        self._noticed: Counter[str] = Counter()
        """How many notices there are of each model that were not yet followed."""
        self.swept = False
        """Whether every stored model has been tried once."""

    def start(self) -> None:
        """Begin to watch; to be called inside the event loop."""
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._listen())]

    async def close(self) -> None:
        """Stop watching and let the threads end; one that hangs in the storage is left behind."""
        tasks = [*self._tasks, *self._following]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pools = (self._loader, self._older_loader)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        ends = [threading.Thread(target=pool.shutdown, daemon=True) for pool in pools]
        for end in ends:
            end.start()
        until = time.monotonic() + _END_SECONDS
        for end in ends:
            end.join(max(0.0, until - time.monotonic()))

    def current(self, name: str) -> LoadedVersion:
        """The version that answers now; raises UnknownModel when there is none."""
        try:
            return self._live[name]
        except KeyError:
            raise UnknownModel(name) from None

    def head(self, loaded: LoadedVersion) -> Commit:
        """The newest version of a model that was seen, which may wait to be activated."""
        head = self._heads.get(loaded.name, loaded.commit)
        return head if head.lineage == loaded.model.lineage else loaded.commit

    def models(self) -> list[LoadedVersion]:
        """All versions that answer now."""
        return list(self._live.values())

    @property
    def failing(self) -> bool:
        """Whether some model is there and cannot be loaded at all."""
        return any(name not in self._live for name in list(self._troubles))

    def troubled(self) -> set[str]:
        """The models whose newest version does not answer."""
        return set(self._troubles)

    def problems(self, name: str) -> list[Problem]:
        """Why the model's newest version does not answer; empty when it does."""
        trouble = self._troubles.get(name)
        return [] if trouble is None else [trouble.problem]

    async def get(self, name: str) -> LoadedVersion:
        """The live version, loaded now if this process does not know the model yet.

        Raises
        ------
        UnknownModel
        ModelUnavailable
            It is stored, but cannot be loaded; ArchitectureUnavailable where this replica lacks its architecture.
        """
        if name not in self._live:
            await asyncio.get_running_loop().run_in_executor(self._loader, self._refresh, name)
        loaded = self._live.get(name)
        if loaded is None:
            raise unavailable(name, self.problems(name))
        return loaded

    async def get_version(self, name: str, version: int) -> LoadedVersion:
        """A given version, which stays loaded for a while.

        Raises
        ------
        UnknownModel, UnknownVersion, ModelUnavailable
        Unreadable, NotFound
            Something of that version is damaged or missing.
        AnswersDiffer
            It gives other answers here than those certified.
        """
        live = await self.get(name)
        if version == live.version:
            return live
        key = (live.model.lineage, version)
        if (older := self._older.get(key)) is not None:
            self._older.move_to_end(key)
            return older
        loop = asyncio.get_running_loop()
        commit = await loop.run_in_executor(self._older_loader, self._vault.log.read, name, version)
        older = await loop.run_in_executor(self._older_loader, self._load_older, live, commit)
        older = self._older.setdefault(key, older)
        while len(self._older) > self._settings.older_versions:
            self._older.popitem(last=False)
        return older

    def _load_older(self, live: LoadedVersion, commit: Commit) -> LoadedVersion:
        loaded = load(self._vault, live.model, commit, live, self._device)
        self._guard.require(loaded)
        return loaded

    async def newest(self, name: str) -> LoadedVersion:
        """As `get`, of the newest version; its log is read where this process may not have been told of that.

        A version whose notice got lost is known a second later at the latest.

        Raises
        ------
        UnknownModel, ModelUnavailable
        """
        told = self._known_since > max(self._heard_since, time.monotonic() - _STALE_SECONDS)
        if not told or name in self._noticed or name in self._troubles or name not in self._live:
            await self.refresh(name)
        return await self.get(name)

    async def refresh(self, name: str) -> None:
        """Read one model's log now; where that takes long, or fails, what is in service stays for the time being."""
        refreshed = asyncio.get_running_loop().run_in_executor(self._loader, self._refresh, name)
        with contextlib.suppress(VaultError, TimeoutError):
            async with asyncio.timeout(_REFRESH_SECONDS):
                await refreshed

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        listed = -_LIST_SECONDS
        while True:
            began = time.monotonic()
            whole = began - listed >= _LIST_SECONDS
            try:
                await loop.run_in_executor(self._loader, self._sweep, whole)
                self._known_since = began
                if whole:
                    self.swept, listed = True, time.monotonic()
            except Exception as error:
                trace = traceback_of(error)
                log.error("the models cannot be listed; those in service go on answering: %s", error, exc_info=trace)
            await asyncio.sleep(self._settings.poll_seconds)

    def _hearing(self, heard: bool) -> None:
        self._heard_since = time.monotonic() if heard else math.inf

    async def _follow(self, name: str) -> None:
        """Bring a model up to date of which there is a notice, which stands until that has been done."""
        while True:
            try:
                with contextlib.suppress(UnknownModel):
                    await asyncio.get_running_loop().run_in_executor(self._loader, self._refresh, name)
                break
            except Exception as error:
                log.error("model %s: a notice cannot be followed: %s", name, error, exc_info=traceback_of(error))
                await asyncio.sleep(self._settings.poll_seconds)
        self._noticed -= Counter((name,))

    async def _listen(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(self._vault.events.versions(self._hearing)) as notices:
                    async for notice in notices:
                        self._noticed[notice.model] += 1
                        self._following.add(task := asyncio.create_task(self._follow(notice.model)))
                        task.add_done_callback(self._following.discard)
            except Exception as error:
                log.warning("no notices of new versions; the poll goes on: %s", error, exc_info=traceback_of(error))
            await asyncio.sleep(self._settings.poll_seconds)

    def _sweep(self, whole: bool) -> None:
        """Bring the models that are known up to date, when `whole` all that are stored."""
        names = {model.name for model in self._vault.models.list()} if whole else set(self._live) | set(self._troubles)
        for name in names | self._live.keys() | self._troubles.keys():
            try:
                self._refresh(name)
            except UnknownModel:
                continue
            except Exception as error:
                log.error("model %s: its log cannot be read: %s", name, error, exc_info=traceback_of(error))

    def _drop(self, name: str) -> None:
        self._clear(name)
        self._heads.pop(name, None)
        if self._live.pop(name, None) is not None:
            log.info("model %s is gone", name, extra={"model": name})
            self._metrics.forget(name)
        self._metrics.live.set(len(self._live))

    def _clear(self, name: str) -> None:
        if self._troubles.pop(name, None) is not None:
            log.info("model %s has no problem any more", name)

    def _note(self, name: str, problem: Problem, head: Commit | None) -> None:
        known = self._troubles.get(name)
        self._troubles[name] = Trouble(problem, head, time.monotonic())
        if known is None or known.problem != problem:
            log.error("model %s: %s", name, problem.detail)

    def _refresh(self, name: str) -> None:
        """Bring one model up to what its head says, in the loader's thread only; raises VaultError."""
        live = self._live.get(name)
        known = self._troubles.get(name)
        try:
            try:
                head = self._vault.log.head(name)
                if head is not None:
                    self._heads[name] = head
                    head = approval.answering(self._vault.log, name, head, live.commit if live else None)
            except Unreadable as error:
                if known is None or not known.recent(None):
                    self._note(name, Problem.of(error), None)
                    self._fall_back(self._vault.models.get(name), 10**8, live, error)
                return
            if head is None or (live is not None and head == live.commit):
                self._clear(name)
                return
            if known is not None and known.recent(head):
                return
            model = self._vault.models.get(name)
        except UnknownModel:
            self._drop(name)
            raise
        except Unreadable:
            return  # the model's own record, which is noted
        live = live if live and live.model == model else None
        try:
            self._swap(model, head, live)
        except Exception as error:
            if known is None or known.wanted != head:  # it is tried again and again
                trace = traceback_of(error)
                log.error("model %s: version %d cannot be loaded: %s", name, head.version, error, exc_info=trace)
            self._metrics.swaps.labels("failed").inc()
            self._note(name, Problem.of(error, head.version), head)
            if isinstance(error, HARMED):
                self._fall_back(model, head.version, live, error)
        else:
            self._clear(name)

    def _fall_back(self, model: Model, head: int, live: LoadedVersion | None, error: Exception) -> None:
        """Serve the newest version below `head` that is whole, unless it is in service already."""
        learned = isinstance(error, EngineMissing)  # a version without a task needs no engine, and would hide it
        loaded = newest_whole(self._vault, model, head, live, self._guard.require, self._device, learned=learned)
        if loaded is not None:
            self._enter(loaded)
            log.warning("model %s answers with version %d for the time being", model.name, loaded.version)

    def _swap(self, model: Model, head: Commit, live: LoadedVersion | None) -> None:
        began = time.perf_counter()
        loaded = load(self._vault, model, head, live, self._device)
        self._guard.require(loaded)
        self._enter(loaded)
        seconds = time.perf_counter() - began
        self._metrics.swaps.labels("done").inc()
        self._metrics.swap_seconds.observe(seconds)
        about = {"model": model.name, "version": head.version, "duration_seconds": round(seconds, 6)}
        log.info("model %s answers with version %d", model.name, head.version, extra=about)

    def _enter(self, loaded: LoadedVersion) -> None:
        self._live[loaded.name] = loaded
        set_more_aside()
        self._metrics.live.set(len(self._live))
        self._metrics.show(loaded.name, loaded.version, loaded.memory.capacity(), len(loaded.memory.tasks))
