"""Tests of the addresses that are listened on without keys."""

from __future__ import annotations

import socket

import pytest

from service.auth.exposure import UnsafeExposure, guarded, is_loopback
from service.settings import ServiceSettings
from vault.vault import Vault


def listen(host: str) -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def test_on_loopback_no_key_is_needed_but_this_machine_must_be_meant(settings: ServiceSettings) -> None:
    with listen("127.0.0.1") as listening:
        assert guarded(settings, listening) == settings.model_copy(update={"hosts": ("localhost",)})
        named = settings.model_copy(update={"hosts": ("engram.internal",)})
        assert guarded(named, listening) == named


def test_elsewhere_there_must_be_a_key(settings: ServiceSettings, vault: Vault) -> None:
    with listen("0.0.0.0") as listening:
        with pytest.raises(UnsafeExposure, match=r"engram keys create .* --without-keys \(ENGRAM_KEYS=off\)"):
            guarded(settings, listening)
        key, _ = vault.keys.create("first", "admin")
        assert guarded(settings, listening).keys == "required"
        vault.keys.revoke(key.id)  # no reason to let everybody in
        assert guarded(settings, listening).keys == "required"


def test_keys_may_be_asked_for_on_loopback_too(settings: ServiceSettings, vault: Vault) -> None:
    asking = settings.model_copy(update={"keys": "required"})
    with listen("127.0.0.1") as listening:
        with pytest.raises(UnsafeExposure):
            guarded(asking, listening)
        vault.keys.create("first", "admin")
        assert guarded(asking, listening) == asking


def test_doors_are_opened_by_name(settings: ServiceSettings) -> None:
    off = settings.model_copy(update={"keys": "off"})
    with listen("0.0.0.0") as listening:
        assert guarded(off, listening) == off
        assert guarded(settings, listening, without_keys=True) == off


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("engram.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected
