"""Tests of both clients against a running service with a worker."""

from __future__ import annotations

import asyncio
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from engram_client import (
    AsyncClient,
    AsyncLearningJob,
    Client,
    DataRefused,
    ImageAnswer,
    ImageFailure,
    JobCancelled,
    JobFailed,
    LearningJob,
    StateRefused,
    UnknownName,
)
from PIL import Image

from testing.data.digits import QUICK, SMALL_MODEL, png
from testing.data.models import MODEL
from testing.data.networks import ARCHITECTURE, CLASSES, SIZE, weights
from testing.servers.service import Service
from tests.repository.layout import ROOT


@pytest.fixture
def client(learning: Service) -> Iterator[Client]:
    with Client(learning.url) as client:
        yield client


def folder(place: Path, *digits: int, count: int = 40) -> Path:
    """A folder of digits, a class each."""
    for digit in digits:
        (place / f"digit-{digit}").mkdir(parents=True)
        for number in range(count):
            (place / f"digit-{digit}" / f"{number}.png").write_bytes(png(digit, number))
    return place


def test_the_life_of_a_model(client: Client, tmp_path: Path) -> None:
    assert client.create_model("life", **SMALL_MODEL).version == 0
    job = client.learn("life", "low", folder(tmp_path / "low", 0, 1), options=QUICK)
    updates = list(job.follow())
    assert updates[-1].state == "succeeded"
    assert {"training", "verifying"} <= {update.phase for update in updates}
    assert job.result(0).version == 1
    images = {f"digit-{digit}": [png(digit, number) for number in range(40)] for digit in (2, 3)}
    assert client.learn("life", "mid", images, options=QUICK).result(100).version == 2

    assert [task.classes for task in client.tasks("life")] == [("digit-0", "digit-1"), ("digit-2", "digit-3")]
    report = client.task("life", "mid").report
    assert report is not None
    assert set(report["per_class"]) == {"digit-2", "digit-3"}
    assert {one.id for one in client.jobs("life")} >= {job.id}
    before, after = client.certificate("life", 1), client.certificate("life")
    assert before["tasks"][0]["logits_sha256"] == after["tasks"][0]["logits_sha256"]
    looked = client.evaluate("life", folder(tmp_path / "look", 1, 2, count=3), versions=[1, 2])
    found = looked.result(100).evaluation
    assert found is not None
    assert [(one["version"], one["images"]) for one in found["versions"]] == [(1, 3), (2, 6)]
    assert found["comparison"]["by"]["label"] >= 3
    assert (looked.record.kind, looked.record.version) == ("evaluate", None)
    assert client.activate("life", 1).version == 3
    assert [one.kind for one in client.versions("life")] == ["activate", "learn", "learn", "create"]
    assert client.version("life", 3).target == 1
    assert client.change_model("life", background="#ffffff").version == 4
    renamed = client.rename_task("life", "low", "small", labels={"digit-0": "zero"})
    assert (renamed.kind, renamed.task, renamed.renamed) == (
        "rename",
        "small",
        {"from": "low", "to": "small", "labels": {"digit-0": "zero"}},
    )
    learned = client.task("life", "low").learned_as
    assert learned is not None
    assert (learned.name, learned.classes) == ("low", ("digit-0", "digit-1"))
    assert client.rename_task("life", "low", labels={"zero": "nought"}).tasks[0].classes == ("nought", "digit-1")
    assert client.novelty("life").state == "known"
    assert "life" in {entry.name for entry in client.models()}
    client.delete_model("life")
    with pytest.raises(UnknownName, match="unknown_model"):
        client.model("life")


def test_answers_and_heatmaps(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(2, 70))
    answer = client.predict(MODEL, tmp_path / "a.png", top_k=2)
    assert (answer.task, answer.label, len(answer.top)) == ("mid", "digit-2", 2)
    assert answer.version == client.model(MODEL).version
    assert client.predict(MODEL, png(2, 70), task="mid", logits=True, version=2).logits is not None
    saved = client.explain(MODEL, str(tmp_path / "a.png")).save(tmp_path / "h.png")
    assert saved.read_bytes().startswith(b"\x89PNG")
    numbers = client.explain(MODEL, png(2, 70), format="json", target="digit-3").numbers
    assert numbers is not None
    assert numbers["label"] == "digit-3"
    earlier = client.explain(MODEL, png(2, 70), version=1)
    assert (earlier.version, earlier.task) == (1, "low")


def test_many_images_with_some_that_are_none(client: Client) -> None:
    good = png(0, 70)
    found = client.predict_many(MODEL, [good, b"none", Image.open(BytesIO(good)), b"", b"none"], batch=3)
    assert [isinstance(one, ImageAnswer) for one in found] == [True, False, True, False, False]
    assert [one.code for one in found if isinstance(one, ImageFailure)] == [
        "not_an_image",
        "empty_image",
        "not_an_image",
    ]
    assert client.predict_many(MODEL, []) == []
    with pytest.raises(DataRefused, match="not_an_image"):
        client.predict(MODEL, b"none")


def test_the_same_without_waiting_in_threads(learning: Service, tmp_path: Path) -> None:
    alike = {name: [png(1, number) for number in range(20)] for name in ("a", "b")}

    async def life() -> None:
        async with AsyncClient(learning.url) as client:
            assert (await client.health()).ready
            await client.create_model("loop", **SMALL_MODEL)
            job = await client.learn("loop", "low", folder(tmp_path, 4, 5), options=QUICK)
            states = [update.state async for update in job.follow()]
            assert states[-1] == "succeeded"
            assert (await job.result()).version == 1
            looked = await client.evaluate("loop", {"digit-4": [png(4, 70)]}, task="low")
            evaluation = (await looked.result()).evaluation
            assert evaluation is not None
            assert (evaluation["task"], evaluation["images"]) == ("low", 1)
            found = await client.predict_many("loop", [png(4, 70), b"none"])
            assert [isinstance(one, ImageAnswer) for one in found] == [True, False]
            assert (await client.explain("loop", png(4, 70))).content.startswith(b"\x89PNG")
            assert (await client.certificate("loop"))["tasks"]
            with pytest.raises(StateRefused, match="task_exists"):
                await client.learn("loop", "low", alike)
            failed = await client.learn("loop", "alike", alike, options=QUICK | {"min_accuracy": 1.0})
            with pytest.raises(JobFailed, match="accuracy_too_low"):
                await failed.result(100)
            await client.delete_model("loop")

    asyncio.run(life())


def test_a_job_that_is_cancelled_or_takes_too_long(client: Client, tmp_path: Path) -> None:
    client.create_model("slow", **SMALL_MODEL)
    job = client.learn(
        "slow", "low", folder(tmp_path, 6, 7), options=QUICK | {"epochs": 1000, "patience": 1000, "batch_size": 2}
    )
    with pytest.raises(TimeoutError, match="it goes on"):
        job.result(0.2)
    job.cancel()
    with pytest.raises(JobCancelled) as caught:
        client.job(job.id).result(100)
    assert (caught.value.code, caught.value.job_id) == ("cancelled", job.id)
    client.delete_model("slow")


def test_networks_that_users_bring(client: Client, learning: Service, tmp_path: Path) -> None:
    (file := tmp_path / "net.safetensors").write_bytes(weights())
    described: dict[str, Any] = {"config": {"size": SIZE}, "classes": CLASSES, "licence": "mit"}
    made = client.add_backbone("net", file, ARCHITECTURE, **described)
    assert (made.architecture, made.licence, made.raw["classes"]) == (ARCHITECTURE, "mit", list(CLASSES))

    async def again() -> None:
        async with AsyncClient(learning.url) as asking:
            assert await asking.add_backbone("net", str(file), ARCHITECTURE, **described) == made
            assert await asking.backbone("net") == made
            assert await asking.backbones() == [made]
            await asking.delete_backbone("net")

    asyncio.run(again())
    assert client.backbones() == []
    with pytest.raises(UnknownName, match="unknown_backbone"):
        client.backbone("net")


@pytest.mark.parametrize(("plain", "awaited"), [(Client, AsyncClient), (LearningJob, AsyncLearningJob)])
def test_both_clients_are_asked_alike(plain: type[Any], awaited: type[Any]) -> None:
    def asked(kind: type[Any]) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in methods if not name.startswith("_")}

    renamed = {"close" if name == "aclose" else name: parameters for name, parameters in asked(awaited).items()}
    assert renamed == asked(plain)


def test_the_readme_works(learning: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "client" / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    folder(tmp_path / "digits" / "zero-one", 0, 1)
    (tmp_path / "image.png").write_bytes(png(1, 70))
    # Another name, since the service has a model of that one, and small images, to learn in a second.
    for said, here in {"http://localhost:8000": learning.url, '"digits",': '"readme",', ": 28": ": 8"}.items():
        code = code.replace(said, here)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["answer"].label == "digit-1"
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    names["client"].delete_model("readme")
    names["client"].close()


def test_the_page_works(client: Client, learning: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    folder(tmp_path / "images" / "screws", 0, 1)
    (tmp_path / "part.png").write_bytes(png(1, 70))
    client.create_model("parts", **SMALL_MODEL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("http://localhost:8000", learning.url), "client.md", "exec"), {})
    assert (tmp_path / "heatmap.png").exists()
    client.delete_model("parts")


def test_what_is_built_asks_for_httpx_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client", tmp_path / "client", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(tmp_path / "client")], check=True)
    (wheel,) = tmp_path.glob("engram_vision_client-*.whl")
    with ZipFile(wheel) as packed:
        (metadata,) = (packed.read(name).decode() for name in packed.namelist() if name.endswith("/METADATA"))
        assert "engram_client/py.typed" in packed.namelist()
    assert re.findall(r"^Requires-Dist: ([\w-]+)", metadata, re.MULTILINE) == ["httpx"]


def test_it_needs_httpx_and_nothing_of_the_service() -> None:
    program = "import engram_client, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "numpy", "PIL", "pydantic", "engram", "service", "vault"} == set()
    assert "httpx" in loaded
