"""API keys for tests, and HTTP clients that send them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from testing.servers.service import PATIENCE
from vault.keys import SCOPES, UNLIMITED, KeyLimits, Scope
from vault.vault import Vault


def token(vault: Vault, scope: Scope, limits: KeyLimits = UNLIMITED) -> str:
    """The token of a new key."""
    return vault.keys.create(f"a test's {scope}", scope, limits=limits)[1]


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def clients(vault: Vault, address: str) -> Iterator[dict[str, httpx.Client]]:
    """A client for each scope by its name, and `outsider` without a key."""
    with ExitStack() as stack:
        found = {"outsider": stack.enter_context(httpx.Client(base_url=address, timeout=PATIENCE))}
        for scope in SCOPES:
            client = httpx.Client(base_url=address, timeout=PATIENCE, headers=bearer(token(vault, scope)))
            found[scope] = stack.enter_context(client)
        yield found
