"""Where the service is, and the key for it: given, or from ENGRAM_URL and ENGRAM_API_KEY."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from engram_client.delivery import Patience

URL_NAME = "ENGRAM_URL"
KEY_NAME = "ENGRAM_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
"""Where `engram serve` listens if nothing else is said."""
VERSION = "0.1.0"

STREAM_SECONDS = 60.0
"""Without a word of an event stream, until it counts as dead: the service pings every 15 seconds."""


@dataclass(frozen=True)
class ClientSettings:
    """What every call of a client has in common."""

    url: str
    key: str | None = field(repr=False)
    timeout: float
    patience: Patience

    @classmethod
    def given(cls, url: str | None, key: str | None, timeout: float, patience: Patience | None) -> ClientSettings:
        """What is not given comes from the environment; raises ValueError where it cannot be."""
        url = url or os.environ.get(URL_NAME) or DEFAULT_URL
        parts = urlsplit(url)
        if "@" in parts.netloc:  # it would be shown wherever the address is
            raise ValueError("An address holds no name and no password; the key is given beside it.")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address such as {DEFAULT_URL}.")
        key = (key or os.environ.get(KEY_NAME) or "").strip() or None
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("The key has characters that no key has.")
        return cls(url.rstrip("/"), key, timeout, patience or Patience())

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        authorization = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return {"User-Agent": f"engram-client/{VERSION}", "Accept": "application/json, */*"} | authorization

    @property
    def timeouts(self) -> httpx.Timeout:
        """Timeouts of every request."""
        return httpx.Timeout(self.timeout, connect=min(5.0, self.timeout))

    @property
    def stream_timeouts(self) -> httpx.Timeout:
        """Timeouts of event streams."""
        return httpx.Timeout(STREAM_SECONDS, connect=min(5.0, self.timeout))
