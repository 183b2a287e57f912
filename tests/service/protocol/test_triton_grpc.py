"""Tests of Triton's own client, unmodified, by gRPC: the ordinary one and the asynchronous one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import numpy
import pytest

from testing.data.digits import pixels, png
from testing.data.models import MODEL
from testing.servers.service import Service, wait_until
from tests.service.protocol.bodies import INFER, outputs, pictures
from tests.service.protocol.test_triton_http import queued

triton = pytest.importorskip("tritonclient.grpc")
aio = pytest.importorskip("tritonclient.grpc.aio")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

DATA = [png(0, 100), png(3, 101), png(2, 100)]


def address(served: Service) -> str:
    assert served.server.rpc is not None
    return served.server.rpc.address


@pytest.fixture(scope="module")
def client(served: Service) -> Iterator[Any]:
    with triton.InferenceServerClient(address(served)) as found:
        yield found


@pytest.fixture(scope="module")
def key(served: Service) -> dict[str, str]:
    return {"authorization": str(served.client.headers["Authorization"])}


@pytest.fixture(scope="module")
def expected(served: Service) -> dict[str, Any]:
    return outputs(served.client.post(INFER, **pictures(*DATA)))


def images(module: Any) -> Any:
    found = module.InferInput("image", [len(DATA)], "BYTES")
    found.set_data_from_numpy(numpy.array(DATA, object))
    return found


def same(result: Any, expected: dict[str, Any]) -> None:
    for name, values in expected.items():
        found = result.as_numpy(name)
        if found.dtype == object:
            found = numpy.array([text.decode() for text in found.ravel()], object).reshape(found.shape)
        assert found.tolist() == values.tolist(), name


def test_health_and_metadata(client: Any, key: dict[str, str]) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL, headers=key)
    assert client.is_model_ready(MODEL, "1", headers=key)
    assert client.get_server_metadata().name == "engram"
    assert [one.name for one in client.get_model_metadata(MODEL, headers=key).inputs] == ["image", "pixels"]
    assert client.get_model_config(MODEL, headers=key).config.max_batch_size == 0
    assert client.get_model_repository_index(headers=key).models[0].state == "READY"
    assert client.get_inference_statistics(MODEL, headers=key).model_stats[0].name == MODEL


def test_pictures_pixels_classification_and_versions(
    client: Any, key: dict[str, str], expected: dict[str, Any]
) -> None:
    result = client.infer(MODEL, [images(triton)], request_id="7", headers=key)
    same(result, expected)
    assert result.get_response().id == "7"
    shown = triton.InferInput("pixels", [1, 8, 8, 1], "UINT8")
    shown.set_data_from_numpy(pixels(0, 100)[None, :, :, None])
    found = client.infer(MODEL, [shown], headers=key).as_numpy("probabilities")
    assert found.tolist() == expected["probabilities"][:1].tolist()
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    best = client.infer(MODEL, [shown], outputs=wanted, headers=key).as_numpy("probabilities")
    assert int(best[0, 0].split(b":")[1]) == int(found.argmax())
    assert client.infer(MODEL, [shown], model_version="1", headers=key).get_response().model_version == "1"
    parameters = {"task": "mid", "top_k": 2}
    told = client.infer(MODEL, [images(triton)], parameters=parameters, headers=key)
    assert set(told.as_numpy("task").ravel().tolist()) == {b"mid"}


@pytest.mark.parametrize(
    ("model", "options", "status", "text"),
    [
        ("none", {}, "StatusCode.NOT_FOUND", "none"),
        (MODEL, {"model_version": "9"}, "StatusCode.NOT_FOUND", "9"),
        (MODEL, {"model_version": "0"}, "StatusCode.FAILED_PRECONDITION", "learned"),
        (MODEL, {"sequence_id": 3}, "StatusCode.INVALID_ARGUMENT", "sequence_"),
        (MODEL, {"headers": {}}, "StatusCode.UNAUTHENTICATED", "key"),
    ],
)
def test_refusals(client: Any, key: dict[str, str], model: str, options: Any, status: str, text: str) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, [images(triton)], **{"headers": key, **options})
    assert refused.value.status() == status
    assert text in refused.value.message()


def test_a_full_queue(served: Service, client: Any, key: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    client.infer(MODEL, [images(triton)], headers=key)
    monkeypatch.setattr(served.runtime.inference._batchers[MODEL], "_bound", 1)
    go_on, answers = threading.Event(), Queue[Any]()
    served.runtime.inference._pool.submit(go_on.wait)  # what is asked next has to wait
    for _ in range(4):
        client.async_infer(
            MODEL, [images(triton)], lambda result, error: answers.put(error and error.status()), headers=key
        )
    wait_until(lambda: queued(served))
    go_on.set()
    statuses = {answers.get(timeout=60) for _ in range(4)}
    assert statuses == {None, "StatusCode.UNAVAILABLE"}


def test_the_asynchronous_client(served: Service, key: dict[str, str], expected: dict[str, Any]) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(address(served)) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(MODEL, headers=key)
            assert (await client.get_model_metadata(MODEL, headers=key)).name == MODEL
            for one in await asyncio.gather(*(client.infer(MODEL, [images(aio)], headers=key) for _ in range(4))):
                same(one, expected)
            with pytest.raises(InferenceServerException, match="none"):
                await client.infer("none", [images(aio)], headers=key)

    asyncio.run(ask())
