"""Cache of all API keys, read ahead of need so that no request waits for the store."""

from __future__ import annotations

import asyncio
import logging
import time

from anyio import to_thread

from service.lifecycle.background import Background
from vault.errors import Damaged, StoreUnavailable, UnknownKey, VaultError
from vault.keys import Key, Keys, parse

log = logging.getLogger("engram.service")

_SHORTEST_SECONDS = 0.5
"""Between two reads of the store, however many unknown keys are tried."""

_NO_KEY = Key("0" * 16, "nobody", "predict", "0" * 64, "")
"""Compared with where there is no such key, so that a wrong id takes as long as a wrong secret."""


class KeyCache(Background):
    """All keys in memory, read anew every `seconds`.

    A revoked key stops working within that time. A key is never changed, so each is fetched once and after that only
    listed. While the store cannot be reached, the keys that were known go on working; nothing here needs Redis.
    """

    def __init__(self, keys: Keys, seconds: float) -> None:
        self._keys = keys
        self._seconds = seconds
        self._known: dict[str, Key] = {}
        self._index: dict[str, bool] | None = None
        """Whether each key is revoked; None until the store was read for the first time."""
        self._began = -_SHORTEST_SECONDS
        self._reading = asyncio.Lock()

    async def any(self) -> bool:
        """Whether there is a key, or ever was one.

        Raises
        ------
        StoreUnavailable
            The store could not be read yet.
        """
        if self._index is None:
            await self._refresh()
        return bool(self._known_index())

    async def find(self, token: str) -> Key | None:
        """The key that a token belongs to, if it is valid.

        Raises
        ------
        StoreUnavailable
            The store could not be read yet.
        """
        key_id, secret = parse(token) or ("", "")
        if key_id and key_id not in self._known:
            await self._refresh()  # it may have been made a moment ago
        key = self._known.get(key_id, _NO_KEY)
        revoked = self._known_index().get(key_id, True)
        return key if key.opens_with(secret) and not revoked and not key.expired else None

    async def reread(self) -> None:
        """Read the store now; where that fails, those known stay."""
        await self._refresh()

    def _known_index(self) -> dict[str, bool]:
        if self._index is None:
            raise StoreUnavailable("The keys cannot be read; nobody is let in before that.")
        return self._index

    async def _run(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(self._seconds)

    async def _refresh(self) -> None:
        """Read the store, unless somebody began to after this was called."""
        called = time.monotonic()
        async with self._reading:
            if self._began >= called:
                return
            await asyncio.sleep(max(0.0, self._began + _SHORTEST_SECONDS - called))
            self._began = time.monotonic()
            try:
                await to_thread.run_sync(self._read, abandon_on_cancel=True)
            except VaultError as error:
                log.warning("the keys cannot be read, those known stay: %s", error)

    def _read(self) -> None:
        index = self._keys.index()
        for key_id in index.keys() - self._known.keys():
            try:
                self._known[key_id] = self._keys.get(key_id)
            except (Damaged, UnknownKey) as error:
                log.error("a key is passed over: %s", error)
        # Keys and revocations are for good: a store that shows fewer of them, say an empty folder where nothing is
        # mounted, must not let anybody in.
        for key_id, revoked in (self._index or {}).items():
            index[key_id] = index.get(key_id, False) or revoked
        self._index = index
