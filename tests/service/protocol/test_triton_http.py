"""Tests of Triton's own client, unmodified, by HTTP: the ordinary one and the asynchronous one."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from service.settings import ServiceSettings
from testing.data.digits import pixels, png
from testing.data.models import MODEL
from testing.data.tokens import token
from testing.servers.service import Service, running, wait_until
from tests.repository.layout import ROOT
from tests.service.protocol.bodies import INFER, outputs, pictures

http = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

DATA = [png(0, 100), png(3, 101), png(2, 100)]
NAMES = ("label", "task", "probability", "novelty", "known", "probabilities")


@pytest.fixture(scope="module")
def triton(reader: Service) -> Iterator[Any]:
    with http.InferenceServerClient(reader.url.removeprefix("http://")) as client:
        yield client


def images(module: Any, binary: bool = True) -> Any:
    found = module.InferInput("image", [len(DATA)], "BYTES")
    data = numpy.array(DATA, object)
    if not binary:
        data = numpy.array([base64.b64encode(one) for one in DATA], object)
    return found.set_data_from_numpy(data, binary_data=binary)


def shown(module: Any) -> Any:
    found = module.InferInput("pixels", [1, 8, 8, 1], "UINT8")
    return found.set_data_from_numpy(pixels(0, 100)[None, :, :, None])


def same(result: Any, expected: dict[str, Any]) -> None:
    for name in NAMES:
        found = result.as_numpy(name)
        if found.dtype == object:
            found = numpy.array([text.decode() if isinstance(text, bytes) else text for text in found.ravel()], object)
        assert found.tolist() == expected[name].tolist(), name


@pytest.fixture(scope="module")
def expected(reader: Service) -> dict[str, Any]:
    return outputs(reader.client.post(INFER, **pictures(*DATA)))


def test_health_and_metadata(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(MODEL)
    assert triton.is_model_ready(MODEL, "1")
    assert not triton.is_model_ready(MODEL, "9")
    assert not triton.is_model_ready("none")
    assert triton.get_server_metadata()["name"] == "engram"
    assert [one["name"] for one in triton.get_model_metadata(MODEL)["inputs"]] == ["image", "pixels"]
    assert triton.get_model_config(MODEL)["max_batch_size"] == 0
    assert triton.get_model_repository_index()[0]["state"] == "READY"
    assert triton.get_inference_statistics(MODEL)["model_stats"][0]["name"] == MODEL


@pytest.mark.parametrize("binary", [True, False])
def test_pictures(triton: Any, expected: dict[str, Any], binary: bool) -> None:
    same(triton.infer(MODEL, [images(http, binary)]), expected)
    wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in NAMES]
    result = triton.infer(MODEL, [images(http, binary)], outputs=wanted, request_id="7")
    same(result, expected)
    assert result.get_response()["id"] == "7"


def test_pixels_classification_versions_and_parameters(triton: Any, expected: dict[str, Any]) -> None:
    found = triton.infer(MODEL, [shown(http)]).as_numpy("probabilities")
    assert found.tolist() == expected["probabilities"][:1].tolist()
    wanted = [http.InferRequestedOutput("probabilities", class_count=2)]
    best = triton.infer(MODEL, [shown(http)], outputs=wanted).as_numpy("probabilities")
    assert best.shape == (1, 2)
    assert int(best[0, 0].split(b":")[1]) == int(found.argmax())
    assert triton.infer(MODEL, [shown(http)], model_version="1").get_response()["model_version"] == "1"
    result = triton.infer(MODEL, [images(http)], parameters={"task": "mid", "top_k": 2}, timeout=10**6, priority=1)
    assert set(result.as_numpy("task").ravel().tolist()) == {b"mid"}


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_packed_requests(triton: Any, expected: dict[str, Any], packed: str) -> None:
    result = triton.infer(
        MODEL, [images(http)], request_compression_algorithm=packed, response_compression_algorithm=packed
    )
    same(result, expected)


def test_requests_side_by_side(reader: Service, expected: dict[str, Any]) -> None:
    with http.InferenceServerClient(reader.url.removeprefix("http://"), concurrency=4) as client:
        for asked in [client.async_infer(MODEL, [images(http)]) for _ in range(8)]:
            same(asked.get_result(), expected)


@pytest.mark.parametrize(
    ("model", "version", "options", "status", "text"),
    [
        ("none", "", {}, "404", "none"),
        (MODEL, "9", {}, "404", "9"),
        (MODEL, "0", {}, "409", "learned"),
        (MODEL, "", {"parameters": {"task": "none"}}, "404", "none"),
        (MODEL, "", {"sequence_id": 3}, "422", "sequence_id"),
    ],
)
def test_refusals_carry_their_text(
    triton: Any, model: str, version: str, options: dict[str, Any], status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        triton.infer(model, [images(http)], model_version=version, **options)
    assert refused.value.status() == status
    assert text in refused.value.message()


def test_an_image_among_others_that_is_none(triton: Any) -> None:
    wrong = http.InferInput("image", [2], "BYTES")
    wrong.set_data_from_numpy(numpy.array([DATA[0], b"no image"], object))
    with pytest.raises(InferenceServerException, match="Image 1: "):
        triton.infer(MODEL, [wrong])


def test_the_asynchronous_client(reader: Service, expected: dict[str, Any]) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(reader.url.removeprefix("http://")) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(MODEL)
            assert (await client.get_model_metadata(MODEL))["name"] == MODEL
            for one in await asyncio.gather(*(client.infer(MODEL, [images(aio)]) for _ in range(4))):
                same(one, expected)
            with pytest.raises(InferenceServerException, match="none"):
                await client.infer("none", [images(aio)])

    asyncio.run(ask())


def test_keys_and_overload(learned_settings: ServiceSettings) -> None:
    changes = {"keys": "required", "queue_images": 1, "requests_per_minute": 40}
    with running(learned_settings.model_copy(update=changes)) as service:
        host = service.url.removeprefix("http://")
        key = {"Authorization": f"Bearer {token(service.vault, 'predict')}"}
        with http.InferenceServerClient(host, concurrency=12) as client:
            assert client.is_server_live()
            assert not client.is_model_ready(MODEL)
            with pytest.raises(InferenceServerException) as refused:
                client.infer(MODEL, [images(http)])
            assert refused.value.status() == "401"
            assert client.is_model_ready(MODEL, headers=key)
            go_on = threading.Event()
            service.runtime.inference._pool.submit(go_on.wait)  # what is asked next has to wait
            asked = [client.async_infer(MODEL, [images(http)], headers=key) for _ in range(8)]
            letting_go = threading.Thread(target=_let_go, args=(service, go_on))
            letting_go.start()
            statuses = [status(one) for one in asked]
            letting_go.join()
            assert {"200", "503"} == set(statuses)
            with pytest.raises(InferenceServerException) as limited:
                _ = [client.get_model_metadata(MODEL, headers=key) for _ in range(40)]
            assert limited.value.status() == "429"


def _let_go(service: Service, go_on: threading.Event) -> None:
    wait_until(lambda: queued(service))
    go_on.set()


def queued(service: Service) -> bool:
    """Whether a request waits, and others were refused for that."""
    return b'engram_refused_requests_total{kind="predict"} ' in service.runtime.metrics.text()


def status(asked: Any) -> str:
    """Of an answer that comes later."""
    try:
        asked.get_result()
    except InferenceServerException as error:
        return str(error.status())
    return "200"


def test_the_program_of_the_page(reader: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "part.jpg").write_bytes(DATA[0])
    host = reader.url.removeprefix("http://")
    changes = {"127.0.0.1:8000": host, "part.jpg": str(tmp_path / "part.jpg"), '"parts"': repr(MODEL)}
    for before, after in changes.items():
        assert before in program
        program = program.replace(before, after)
    exec(program, {})
    assert capsys.readouterr().out.startswith("digit-0 ")
