"""Tests of `engram keys list`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from vault.keys import KeyLimits, Keys
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore

HEADS = ["ID", "SCOPE", "STATE", "CREATED", "EXPIRES", "REQUESTS/MIN", "IMAGES/DAY", "JOBS", "NAME"]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The keys in the store that `listed` lists."""
    return Keys(ObjectStore.connect(VaultSettings(store_url=str(tmp_path / "store"))))


def listed(folder: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["keys", "list", "--data", str(folder), *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_line_for_each_key_below_the_names_of_the_columns(keys: Keys, tmp_path: Path) -> None:
    plain, _ = keys.create("line 4, the left one", "predict")
    later = datetime(2999, 12, 31, 23, 59, 59, 7, UTC)
    bound, _ = keys.create("for 7 days", "learn", later, KeyLimits(600, 100_000, 2))
    over, _ = keys.create("old", "admin", datetime(2020, 1, 1, tzinfo=UTC))
    gone, _ = keys.create("gone", "admin")
    keys.revoke(gone.id)
    head, *lines = listed(tmp_path).splitlines()
    assert head.split() == HEADS
    rows = {line.split()[0]: line.split(maxsplit=len(HEADS) - 1)[1:] for line in lines}
    assert list(rows) == [plain.id, bound.id, over.id, gone.id]
    made = plain.created_at[:19] + "Z"
    assert rows[plain.id] == ["predict", "valid", made, "-", "-", "-", "-", "line 4, the left one"]
    assert rows[bound.id][3:] == ["2999-12-31T23:59:59Z", "600", "100000", "2", "for 7 days"]
    assert (rows[over.id][1], rows[over.id][3]) == ("expired", "2020-01-01T00:00:00Z")
    assert rows[gone.id][1] == "revoked"
    starts = [head.index(name) for name in HEADS]
    assert all(line[start - 1] == " " != line[start] for line in lines for start in starts[1:])


def test_without_keys_there_are_the_names_of_the_columns(keys: Keys, tmp_path: Path) -> None:
    assert keys.list() == []
    assert listed(tmp_path).split() == HEADS
    assert json.loads(listed(tmp_path, "--json")) == []


def test_programs_get_everything_but_what_opens(keys: Keys, tmp_path: Path) -> None:
    key, token = keys.create("für Łódź", "learn", datetime(2999, 1, 1, tzinfo=UTC), KeyLimits(open_jobs=3))
    (listed_key,) = json.loads(listed(tmp_path, "--json"))
    assert listed_key == {
        "id": key.id,
        "name": "für Łódź",
        "scope": "learn",
        "state": "valid",
        "created_at": key.created_at,
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "requests_per_minute": None,
        "images_per_day": None,
        "open_jobs": 3,
    }
    for text in (listed(tmp_path), listed(tmp_path, "--json")):
        assert token.split("_", 2)[2] not in text
        assert key.sha256 not in text
