"""Tests of live models and their swap."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import Any

import pytest

from engram.errors import EngineMissing
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.closures.closure import BlockOwner
from engram.nn.closures.engines import EagerEngine
from engram.nn.closures.plan import ClosurePlan, Run
from service.models import versions
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, png
from testing.data.models import MODEL, create, learn
from testing.servers.redis import RedisServer
from testing.servers.service import Service, running, wait_until
from vault.settings import VaultSettings
from vault.vault import Vault

PREDICT = f"/v1/models/{MODEL}/predict"


def predict(service: Service, digit: int = 0, **params: Any) -> dict[str, Any]:
    headers = {"Content-Type": "image/png"}
    response = service.client.post(PREDICT, content=png(digit, 100), headers=headers, params=params)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def version(service: Service) -> int:
    return int(predict(service)["version"])


def test_a_version_that_another_process_publishes_goes_live(service: Service) -> None:
    with Vault.connect(service.vault.settings) as elsewhere:
        assert version(service) == 2
        learn(elsewhere, "high", (8, 9))
        wait_until(lambda: version(service) == 3)
        assert {predict(service, digit)["predictions"][0]["task"] for digit in (0, 2, 8)} == {"low", "mid", "high"}


def test_a_lost_notice_is_made_up_for_by_the_poll(learned_settings: ServiceSettings, own_redis: RedisServer) -> None:
    with running(learned_settings.model_copy(update={"redis_url": own_redis.url})) as service:
        assert version(service) == 2
        own_redis.stop()
        assert version(service) == 2
        versions.activate(service.vault, MODEL, 1)
        wait_until(lambda: version(service) == 3)


def shown(service: Service) -> int:
    return int(service.client.get(f"/v1/models/{MODEL}").raise_for_status().json()["version"])


def test_a_model_is_shown_as_it_is_stored_where_notices_may_have_been_missed(
    learned_settings: ServiceSettings, own_redis: RedisServer
) -> None:
    slow = learned_settings.model_copy(update={"redis_url": own_redis.url, "poll_seconds": 60.0})
    with running(slow) as service:
        assert shown(service) == 2
        own_redis.stop()  # so that no notice comes, and no look at the logs for a minute
        versions.activate(service.vault, MODEL, 1)
        wait_until(lambda: math.isinf(service.runtime.live._heard_since))
        assert shown(service) == 3
        own_redis.start()
        wait_until(lambda: not math.isinf(service.runtime.live._heard_since))
        versions.activate(service.vault, MODEL, 2)
        assert shown(service) == 4


def test_a_version_that_is_replaced_is_freed_without_a_collection(service: Service) -> None:
    assert version(service) == 2
    before = service.runtime.live.current(MODEL)
    replaced = weakref.ref(before.memory)
    del before
    gc.disable()
    try:
        versions.raise_budget(service.vault, MODEL, 20.0)
        wait_until(lambda: version(service) == 3)
        wait_until(lambda: replaced() is None)
    finally:
        gc.enable()


def test_what_is_unchanged_is_shared_with_the_new_version(service: Service) -> None:
    assert version(service) == 2
    before = service.runtime.live.current(MODEL)
    versions.raise_budget(service.vault, MODEL, 20.0)
    wait_until(lambda: service.runtime.live.current(MODEL).version == 3)
    after = service.runtime.live.current(MODEL)
    assert after.memory is not before.memory
    old, new = before.memory.method, after.memory.method
    assert isinstance(old, StagedEidetic)
    assert isinstance(new, StagedEidetic)
    assert [one.engram is other.engram for one, other in zip(old.staged, new.staged, strict=True)] == [True, True]
    assert all(after.blobs[name] is before.blobs[name] for name in before.blobs)


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_version_that_cannot_be_loaded_leaves_the_one_before(service: Service, harm: str) -> None:
    head = service.vault.log.head(MODEL)
    assert head is not None
    assert service.vault.settings.store_folder is not None
    blob = service.vault.objects.put_blob(b"an engram")
    path = service.vault.settings.store_folder / "blobs" / blob
    path.unlink() if harm == "missing" else path.write_bytes(b"something else")
    service.vault.log.append(MODEL, head.following("learn", engrams=(*head.engrams, blob)))
    service.vault.events.publish_version(MODEL, 3)
    wait_until(lambda: 'engram_swaps_total{outcome="failed"}' in service.client.get("/metrics").text)
    assert version(service) == 2
    assert service.client.get("/readyz").status_code == 200
    versions.activate(service.vault, MODEL, 2)
    wait_until(lambda: version(service) == 4)


def without_engine(patch: pytest.MonkeyPatch, *tasks: str) -> None:
    true = EagerEngine.prepare

    def prepare(self: EagerEngine, plan: ClosurePlan, owner: BlockOwner) -> Run:
        if owner.task in tasks:
            raise EngineMissing("not on this processor")
        return true(self, plan, owner)

    patch.setattr(EagerEngine, "prepare", prepare)


def test_where_no_engine_runs_any_task_the_empty_version_does_not_hide_it(
    learned_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_engine(monkeypatch, "low", "mid")
    with running(learned_settings) as service:
        wait_until(lambda: "no_model_loads" in service.client.get("/readyz").text)
        answer = service.client.post(PREDICT, content=png(0, 100), headers={"Content-Type": "image/png"})
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
        assert "not on this processor" in answer.text


def test_a_version_with_a_network_that_no_engine_runs_here_leaves_the_one_before(
    learned_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_engine(monkeypatch, "mid")
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert version(service) == 1
        shown = service.client.get(f"/v1/models/{MODEL}").json()["problems"]
        assert [(one["code"], one["version"]) for one in shown] == [("engine_missing", 2)]


def test_deleted_models_disappear_and_others_of_their_name_are_new(service: Service) -> None:
    with Vault.connect(service.vault.settings) as elsewhere:
        elsewhere.models.delete(MODEL)
        wait_until(lambda: not service.runtime.live.models())
        assert service.client.get(f"/v1/models/{MODEL}").status_code == 404
        create(elsewhere, MODEL, seed=3)
        learn(elsewhere, "mid", (4, 5))
        learn(elsewhere, "low", (6, 7))
    wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json().get("version") == 2)
    assert predict(service, 6)["predictions"][0]["label"] in ("digit-6", "digit-7")


def test_a_model_made_elsewhere_is_met_when_it_is_named(empty: Service) -> None:
    with Vault.connect(empty.vault.settings) as elsewhere:
        create(elsewhere)
        assert empty.client.get(f"/v1/models/{MODEL}").status_code == 200


def test_older_versions_are_kept_for_a_while_only(learned_settings: ServiceSettings) -> None:
    with running(learned_settings.model_copy(update={"older_versions": 1})) as service:
        for wanted in (3, 4):
            versions.activate(service.vault, MODEL, wanted - 2)
        wait_until(lambda: version(service) == 4)
        for wanted in (1, 2, 3, 1, 4):
            assert predict(service, version=wanted)["version"] == wanted
        assert len(service.runtime.live._older) == 1


def test_no_request_fails_and_versions_only_rise_while_versions_change(service: Service) -> None:
    seen: list[list[int]] = [[], [], [], []]
    """By client."""
    failures: list[Exception] = []
    over = threading.Event()

    def ask(answers: list[int]) -> None:
        while not over.is_set():
            try:
                answers.append(version(service))
            except Exception as error:
                failures.append(error)

    def answered() -> int:
        return sum(map(len, seen)) + len(failures)

    clients = [threading.Thread(target=ask, args=(answers,)) for answers in seen]
    for client in clients:
        client.start()
    try:
        for number in range(3, 9):
            versions.activate(service.vault, MODEL, 2 - number % 2)
            enough = answered() + 10
            wait_until(lambda enough=enough: answered() >= enough)
        wait_until(lambda: all(answers[-1:] == [8] for answers in seen) or failures)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert failures == []
    assert all(answers == sorted(answers) for answers in seen)
    assert {number for answers in seen for number in answers} <= set(range(2, 9))


def test_models_are_found_at_the_start(vault_settings: VaultSettings, settings: ServiceSettings) -> None:
    with Vault.connect(vault_settings) as vault:
        for name in ("a", "b"):
            create(vault, name)
    with running(settings) as service:
        wait_until(lambda: len(service.runtime.live.models()) == 2)
        assert service.client.post("/v1/models", json={"name": "a", **SMALL_MODEL}).status_code == 200
