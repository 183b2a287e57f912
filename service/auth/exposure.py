"""Check that only loopback is listened on without API keys, unless they are turned off by name."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

from service.lifecycle.signals import while_heeding
from service.settings import ServiceSettings
from vault.errors import StoreUnavailable
from vault.keys import Keys
from vault.storage.object_store import ObjectStore


class UnsafeExposure(Exception):
    """An address that nobody could use or everybody could; the text is for the person who tried."""


def guarded(settings: ServiceSettings, listening: socket.socket, *, without_keys: bool = False) -> ServiceSettings:
    """`settings` as they are to be on the address of `listening`.

    `without_keys` turns keys off by name, as `ENGRAM_KEYS=off` does. On loopback a request without a key must be meant
    for this machine. On any other address keys are required, unless they were turned off by name.

    Raises
    ------
    UnsafeExposure
        Keys are required there, and the store has never had one.
    Stopped
        A signal came while the store was asked (`service.lifecycle.signals`).
    """
    host = listening.getsockname()[0]
    if without_keys or settings.keys == "off":
        return settings.model_copy(update={"keys": "off"})
    if settings.keys == "auto" and is_loopback(host):
        return settings.model_copy(update={"hosts": settings.hosts or ("localhost",)})
    try:
        known = while_heeding(lambda: Keys(ObjectStore.connect(settings)).index())
    except StoreUnavailable:
        known = {"unknown": True}  # nobody is let in before the store can be read
    if not known:
        raise UnsafeExposure(
            f"There is no API key, so {host} is not listened on. Make one with `engram keys create NAME --scope admin`"
            " and the --data or ENGRAM_STORE_URL of this service, or say --without-keys (ENGRAM_KEYS=off) if everybody"
            " who can reach this address may do everything."
        )
    return settings.model_copy(update={"keys": "required"})


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own and reached from nowhere else."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
