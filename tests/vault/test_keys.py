"""Tests of API keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from vault.errors import Damaged, InvalidName, UnknownKey
from vault.keys import SCOPES, Key, KeyLimits, Scope, parse
from vault.settings import VaultSettings
from vault.vault import Vault


def test_a_key_opens_with_its_own_secret_only(vault: Vault) -> None:
    key, token = vault.keys.create("line 4", "learn")
    other, other_token = vault.keys.create("line 4", "learn")
    found, others = parse(token), parse(other_token)
    assert found is not None
    assert others is not None
    assert (found[0], others[0]) == (key.id, other.id)
    assert key.opens_with(found[1])
    assert not key.opens_with(others[1])
    assert not key.opens_with("")
    assert not key.opens_with(key.sha256)
    assert vault.keys.get(key.id) == key


def test_what_is_stored_does_not_hold_the_secret(vault: Vault, vault_settings: VaultSettings) -> None:
    _, token = vault.keys.create("ops", "admin")
    found = parse(token)
    assert found is not None
    assert len(found[1]) == 43  # 256 bits in base64
    folder = vault_settings.store_folder
    assert folder is not None
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert found[0].encode() in stored
    assert found[1].encode() not in stored


@pytest.mark.parametrize(("has", "wants"), [*product(SCOPES, SCOPES)])
def test_a_scope_holds_those_below_it(has: Scope, wants: Scope) -> None:
    key = Key("0" * 16, "x", has, "", "")
    allowed = {"predict": {"predict"}, "learn": {"predict", "learn"}, "admin": {"predict", "learn", "admin"}}
    assert key.may(wants) == (wants in allowed[has])


def test_a_revoked_key_stays_listed_and_revoked(vault: Vault) -> None:
    first, _ = vault.keys.create("first", "predict")
    second, _ = vault.keys.create("second", "admin", limits=KeyLimits(60, None, 2))
    vault.keys.revoke(first.id)
    vault.keys.revoke(first.id)
    assert vault.keys.index() == {first.id: True, second.id: False}
    assert vault.keys.list() == [(first, True), (second, False)]


def test_keys_outlive_redis(vault: Vault) -> None:
    key, _ = vault.keys.create("first", "predict")
    vault.redis.flushall()
    assert vault.keys.list() == [(key, False)]


def test_keys_expire(vault: Vault) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    assert not vault.keys.create("later", "predict", later)[0].expired
    assert vault.keys.create("before", "predict", later - timedelta(hours=2))[0].expired
    assert not vault.keys.create("never", "predict")[0].expired


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "two\nlines", "bell\a", " before"])
def test_names_are_for_reading(vault: Vault, name: str) -> None:
    with pytest.raises(InvalidName):
        vault.keys.create(name, "predict")
    assert vault.keys.index() == {}


@pytest.mark.parametrize("key_id", ["", "0" * 16, "../../models", "A" * 16, "0" * 17])
def test_what_is_no_key(vault: Vault, key_id: str) -> None:
    with pytest.raises(UnknownKey):
        vault.keys.get(key_id)
    with pytest.raises(UnknownKey):
        vault.keys.revoke(key_id)


@pytest.mark.parametrize(
    "changes", [{"scope": "root"}, {"sha256": None}, {"format": 2}, {"id": "0" * 16}, {"limits": {"coffee": 3}}]
)
def test_a_key_that_was_tampered_with_is_damaged(vault: Vault, changes: dict[str, object]) -> None:
    key, _ = vault.keys.create("first", "predict")
    path = f"keys/{key.id}/key.json"
    vault.objects.put(path, json.dumps(vault.objects.get_json(path) | changes).encode())
    other, _ = vault.keys.create("second", "predict")
    with pytest.raises(Damaged, match=key.id):
        vault.keys.get(key.id)
    assert vault.keys.list() == [(other, False)]
    vault.keys.revoke(key.id)
    assert vault.keys.index() == {key.id: True, other.id: False}


@pytest.mark.parametrize(
    "text",
    ["", "engram_", "engram_0_0", f"engram_{'0' * 16}_{'a' * 42}", f"engram_{'0' * 16}_{'a' * 43}\n", "Bearer x"],
)
def test_what_is_no_token(text: str) -> None:
    assert parse(text) is None
