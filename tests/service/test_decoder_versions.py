"""Tests that each version decodes by its own decoder, from the store of an earlier release on."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy
import pytest
from PIL import Image

from service.cli.validator import LearnerValidator
from service.models import versions
from service.settings import ServiceSettings
from testing.data.digits import QUICK, pixels
from testing.data.models import MODEL, create, learn, worker_settings
from testing.servers.service import Service, running, wait_until
from vault.maintenance.export import export_model, import_model
from vault.vault import Vault
from worker.attempt import run_attempt
from worker.job_runner import JobRunner

STORE = Path(__file__).parent / "files" / "store-2" / "store"
"""Written by commit 0ab2d93: a model with two tasks in version 2."""
PATH = f"/v1/models/{MODEL}"


def encoded(image: Any, opacity: Any = None) -> bytes:
    """A grey PNG, with an alpha channel where `opacity` is given."""
    file = BytesIO()
    samples = Image.fromarray(image) if opacity is None else Image.fromarray(numpy.dstack([image, opacity]), "LA")
    samples.save(file, "PNG")
    return file.getvalue()


DIGIT = pixels(2, 100)
STROKE = ((DIGIT > 0) * 255).astype(numpy.uint8)
TRANSPARENT = encoded(DIGIT, STROKE)
"""A digit whose surroundings are transparent."""
OVER = {grey: encoded(numpy.where(DIGIT > 0, DIGIT, grey).astype(numpy.uint8)) for grey in (0, 128, 255)}
"""The same over black, grey and white."""


@pytest.fixture
def service(settings: ServiceSettings) -> Iterator[Service]:
    """A service over a copy of that store."""
    assert settings.store_folder is not None
    shutil.copytree(STORE, settings.store_folder)
    with running(settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        yield service


def answer(service: Service, image: bytes, model: str = MODEL, **params: Any) -> tuple[int, Any]:
    """The version that answers, and all it says of the task `mid`."""
    found = service.client.post(
        f"/v1/models/{model}/predict",
        content=image,
        headers={"Content-Type": "image/png"},
        params={"task": "mid", "logits": True, **params},
    )
    body = found.raise_for_status().json()
    return body["version"], body["predictions"][0]


def heatmap(service: Service, image: bytes) -> Any:
    found = service.client.post(
        f"{PATH}/explain", content=image, headers={"Content-Type": "image/png"}, params={"format": "json"}
    )
    return found.raise_for_status().json()["relevance"]


def test_a_version_of_an_earlier_release_answers_as_it_did_whatever_comes_after_it(service: Service) -> None:
    model = service.client.get(PATH).json()
    assert (model["version"], model["decoder"]) == (2, 1)
    as_before = answer(service, TRANSPARENT)[1]
    assert as_before == answer(service, OVER[0])[1]
    assert heatmap(service, TRANSPARENT) == heatmap(service, OVER[0])

    service.client.patch(PATH, json={"decoder": 2}).raise_for_status()
    assert answer(service, TRANSPARENT) == (3, answer(service, OVER[255])[1])
    assert heatmap(service, TRANSPARENT) == heatmap(service, OVER[255])
    assert answer(service, TRANSPARENT)[1] != as_before
    assert answer(service, TRANSPARENT, version=2) == (2, as_before)
    service.client.patch(PATH, json={"background": "#808080"}).raise_for_status()
    assert answer(service, TRANSPARENT) == (4, answer(service, OVER[128])[1])
    assert answer(service, TRANSPARENT, version=3) == (3, answer(service, OVER[255])[1])

    service.client.post(f"{PATH}/versions/2/activate").raise_for_status()
    assert answer(service, TRANSPARENT) == (5, as_before)
    # What is as the definition says is written as the earlier release would, which goes on from there.
    assert service.vault.settings.store_folder is not None
    records = sorted(service.vault.settings.store_folder.glob(f"models/{MODEL}/log/*/*.json"))
    assert [json.loads(record.read_bytes())["seal"]["format"] for record in records] == [1, 1, 1, 2, 2, 1]


def test_a_task_is_learned_by_the_decoder_of_the_version_that_it_is_learned_on(service: Service) -> None:
    as_before = answer(service, TRANSPARENT)[1]
    service.client.patch(PATH, json={"decoder": 2}).raise_for_status()
    JobRunner(service.vault, worker_settings(service.vault)).work(MODEL)  # what has waited since
    wait_until(lambda: service.client.get(PATH).json()["version"] == 4)
    model = service.client.get(PATH).json()
    assert (model["decoder"], len(model["tasks"])) == (2, 3)
    assert answer(service, TRANSPARENT) == (4, answer(service, OVER[255])[1])
    assert answer(service, TRANSPARENT, version=2) == (2, as_before)
    first, second, third = (service.client.get(f"{PATH}/versions/{number}/certificate").json() for number in (2, 3, 4))
    assert "decoder" not in first
    assert (second["decoder"]["number"], second["tasks"]) == (2, first["tasks"])
    assert third["decoder"] == second["decoder"]


def upload(grey: int | None) -> bytes:
    """A zip of two digits, transparent around them, or over some grey."""
    file = BytesIO()
    with ZipFile(file, "w") as packed:
        for digit in (8, 9):
            for index in range(40):
                image = pixels(digit, index)
                over = numpy.where(image > 0, image, grey or 0).astype(numpy.uint8)
                opacity = ((image > 0) * 255).astype(numpy.uint8) if grey is None else None
                packed.writestr(ZipInfo(f"{digit}/{index}.png"), encoded(over, opacity))
    return file.getvalue()


@pytest.mark.parametrize(("decoder", "grey"), [(1, 0), (2, 255)])
def test_transparent_images_are_learned_as_they_are_answered(vault: Vault, decoder: int, grey: int) -> None:
    made = []
    for number, archive in enumerate((upload(None), upload(grey))):
        name = f"model-{number}"
        create(vault, name, decoder=3 - decoder)
        versions.change(vault, name, None, {"decoder": decoder})
        with tempfile.NamedTemporaryFile() as file:
            file.write(archive)
            file.flush()
            data = vault.objects.put_file(Path(file.name))
        job = vault.jobs.submit(name, "task", data, QUICK)
        done = run_attempt(vault, job, vault.jobs.start_attempt(job.id), lambda: False, worker_settings(vault))
        assert (done.state, done.error) == ("succeeded", None)
        commit = vault.log.head(name)
        assert commit is not None
        made.append((commit.engrams, commit.recogniser))
    assert made[0] == made[1]


def test_a_moved_model_decodes_as_where_it_came_from(service: Service, tmp_path: Path) -> None:
    service.client.patch(PATH, json={"decoder": 2}).raise_for_status()
    learn(service.vault, "more", (8, 9))
    export_model(service.vault.objects, MODEL, tmp_path / "file")
    import_model(service.vault.objects, tmp_path / "file", LearnerValidator(service.vault.objects), "twin")
    for version in (2, 3, 4):
        assert answer(service, TRANSPARENT, "twin", version=version) == answer(service, TRANSPARENT, version=version)
    assert answer(service, TRANSPARENT, "twin") == (4, answer(service, OVER[255])[1])
