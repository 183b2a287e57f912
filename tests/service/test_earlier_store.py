"""Tests of stores that earlier versions wrote: served, checked and learned on.

`files/store-1` was written by commit 05a0969: a model with two tasks, the two jobs that learned them, a third that
still waits, and what the model answered. `files/store-2` was written by commit 0ab2d93: the same, with a bundle of the
model, and jobs that name options as they were named then.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.cli.validator import LearnerValidator
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.learned_digests import machine
from testing.data.models import MODEL, worker_settings
from testing.servers.service import Service, running, wait_until
from vault.maintenance.check import check
from vault.maintenance.export import export_model, import_model
from vault.vault import Vault
from worker.job_runner import JobRunner

FILES = Path(__file__).parent / "files"
STORE_1 = FILES / "store-1"
STORE_2 = FILES / "store-2"
TASKS = {0: "low", 1: "low", 2: "mid", 3: "mid"}


@pytest.fixture
def earlier(settings: ServiceSettings) -> ServiceSettings:
    """Settings of a service over a copy of that store."""
    assert settings.store_folder is not None
    shutil.copytree(STORE_1 / "store", settings.store_folder)
    return settings


def predict(service: Service, digit: int, index: int, **params: Any) -> dict[str, Any]:
    headers = {"Content-Type": "image/png"}
    path = f"/v1/models/{MODEL}/predict"
    answer = service.client.post(path, content=png(digit, index), headers=headers, params=params).raise_for_status()
    prediction: dict[str, Any] = answer.json()["predictions"][0]
    return prediction


def compare_with_then(service: Service) -> None:
    """Assert that the first two tasks answer as they did."""
    for name, then in json.loads((STORE_1 / "answers.json").read_text()).items():
        digit, index = (int(part) for part in name.split("-"))
        given = predict(service, digit, index, task=TASKS[digit], logits=True)
        assert given["logits"] == pytest.approx(then["given"]["logits"], rel=1e-4, abs=1e-5)
        assert given["label"] == then["given"]["label"]


def test_it_is_served_as_it_was_and_the_job_that_waited_is_done(earlier: ServiceSettings) -> None:
    with running(earlier) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        compare_with_then(service)
        for name, then in json.loads((STORE_1 / "answers.json").read_text()).items():
            digit, index = (int(part) for part in name.split("-"))
            assert predict(service, digit, index)["label"] == then["free"]["label"]
        jobs = service.client.get("/v1/jobs").json()["jobs"]
        assert [job["state"] for job in jobs] == ["queued", "succeeded", "succeeded"]
        before = service.client.get(f"/v1/models/{MODEL}/versions/2/certificate").json()

        JobRunner(service.vault, worker_settings(service.vault)).work(MODEL)
        assert service.client.get("/v1/jobs").json()["jobs"][0]["state"] == "succeeded"
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["version"] == 3)
        compare_with_then(service)
        after = service.client.get(f"/v1/models/{MODEL}/versions/3/certificate").json()
        if after["environment"] == before["environment"]:
            assert after["tasks"][:2] == before["tasks"]


def test_it_is_whole_and_can_be_moved(earlier: ServiceSettings, tmp_path: Path) -> None:
    with Vault.connect(earlier) as vault:
        validator = LearnerValidator(vault.objects)
        found = check(vault.objects, validator, deep=True)
        assert found.problems == []
        assert (found.versions, found.certificates + found.elsewhere, found.jobs, found.uploads) == (3, 2, 3, 1)
        export_model(vault.objects, MODEL, tmp_path / "file")
        import_model(vault.objects, tmp_path / "file", validator, "twin")
        twins, originals = vault.log.list("twin"), vault.log.list(MODEL)
        assert [commit.engrams for commit in twins] == [commit.engrams for commit in originals]
        assert check(vault.objects, validator, "twin", deep=True).problems == []


@pytest.fixture
def later(settings: ServiceSettings) -> ServiceSettings:
    """Settings of a service over a copy of the store of 0ab2d93."""
    assert settings.store_folder is not None
    shutil.copytree(STORE_2 / "store", settings.store_folder)
    return settings


def test_the_store_of_0ab2d93_is_served_and_its_waiting_job_is_done(later: ServiceSettings) -> None:
    written = json.loads((STORE_2 / "answers.json").read_text())
    with running(later) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)

        def compare_again() -> None:
            for name, then in written["answers"].items():
                digit, index = (int(part) for part in name.split("-"))
                given = predict(service, digit, index, task=TASKS[digit], logits=True)
                assert given["logits"] == pytest.approx(then["given"]["logits"], rel=1e-4, abs=1e-5)
                assert given["logits"] == then["given"]["logits"] or machine() != written["machine"]
                assert given["label"] == then["given"]["label"]

        compare_again()
        for name, then in written["answers"].items():
            digit, index = (int(part) for part in name.split("-"))
            free = predict(service, digit, index, top_k=4)
            assert (free["label"], free["task"], free["known"]) == tuple(
                then["free"][field] for field in ("label", "task", "known")
            )
            assert free["probability"] == pytest.approx(then["free"]["probability"], rel=1e-3)
        JobRunner(service.vault, worker_settings(service.vault)).work(MODEL)
        assert [job["state"] for job in service.client.get("/v1/jobs").json()["jobs"]] == ["succeeded"] * 3
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["version"] == 3)
        compare_again()


def test_the_bundle_of_0ab2d93_is_imported(settings: ServiceSettings) -> None:
    with Vault.connect(settings) as vault:
        validator = LearnerValidator(vault.objects)
        import_model(vault.objects, STORE_2 / "digits.bundle", validator)
        assert [commit.task for commit in vault.log.list(MODEL)][1:] == ["low", "mid"]
        assert check(vault.objects, validator, MODEL, deep=True).problems == []
