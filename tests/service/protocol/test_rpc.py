"""Tests of the Open Inference Protocol by gRPC, with a client made of the service's own reflection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from pydantic import ValidationError

from service.app import create_app
from service.server.server import Server, listen
from service.settings import ServiceSettings
from testing.data.digits import pixels, png
from testing.data.models import MODEL
from testing.servers.service import PATIENCE, Service, wait_until
from tests.service.protocol.bodies import INFER, KINDS, elements, outputs, pictures

grpc = pytest.importorskip("grpc")
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
messages = pytest.importorskip("service.protocol.rpc.messages")

DATA = [png(0, 100), png(3, 101), png(2, 100)]
SIZED = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": {"int64_param": 1}}}
TYPED = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": DATA[:1]}}


@pytest.fixture(scope="module")
def channel(served: Service) -> Iterator[Any]:
    assert served.server.rpc is not None
    with grpc.insecure_channel(served.server.rpc.address) as found:
        yield found


@pytest.fixture(scope="module")
def key(served: Service) -> tuple[tuple[str, str], ...]:
    return (("authorization", str(served.client.headers["Authorization"])),)


def ask(channel: Any, name: str, about: dict[str, Any], key: Any = ()) -> Any:
    """The answer to a call."""
    answer = messages.message_class(f"{name}Response").FromString
    call = channel.unary_unary(f"/{messages.SERVICE}/{name}", lambda one: one.SerializeToString(), answer)
    return call(messages.message_class(f"{name}Request")(**about), metadata=key)


def refusal(channel: Any, name: str, about: dict[str, Any], key: Any = ()) -> tuple[str, str]:
    """Status and code of a call that is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        ask(channel, name, about, key)
    behind = dict(refused.value.trailing_metadata())
    assert refused.value.details()
    assert behind["request-id"]
    return refused.value.code().name, behind["code"]


def given(*data: bytes, **more: Any) -> dict[str, Any]:
    """A request with encoded pictures."""
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [len(data)]}]
    return {"model_name": MODEL, "inputs": inputs, "raw_input_contents": [elements(*data)], **more}


def read(answer: Any) -> dict[str, Any]:
    """The outputs of an answer."""
    found = {}
    for one, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
        if one.datatype == "BYTES":
            texts, left = [], data
            while left:
                size = int.from_bytes(left[:4], "little")
                texts.append(left[4 : 4 + size].decode())
                left = left[4 + size :]
            found[one.name] = numpy.array(texts, object).reshape(one.shape)
        else:
            found[one.name] = numpy.frombuffer(data, KINDS[one.datatype]).reshape(one.shape)
    return found


def test_health_and_metadata(channel: Any, key: Any) -> None:
    assert ask(channel, "ServerLive", {}).live
    wait_until(lambda: ask(channel, "ServerReady", {}).ready)
    assert ask(channel, "ServerMetadata", {}).name == "engram"
    assert ask(channel, "ModelReady", {"name": MODEL, "version": "1"}, key).ready
    found = ask(channel, "ModelMetadata", {"name": MODEL}, key)
    assert (list(found.versions), [one.name for one in found.inputs]) == (["1", "2"], ["image", "pixels"])
    assert {one.name: list(one.shape) for one in found.outputs}["probabilities"] == [-1, 4]
    config = ask(channel, "ModelConfig", {"name": MODEL}, key).config
    assert (config.name, config.max_batch_size, config.input[0].data_type) == (MODEL, 0, 13)
    assert "digit-3" in config.parameters["classes"].string_value
    assert [one.state for one in ask(channel, "RepositoryIndex", {}, key).models] == ["READY"]
    checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=messages.SERVICE))
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


def test_the_answers_are_those_by_rest(served: Service, channel: Any, key: Any) -> None:
    expected = outputs(served.client.post(INFER, **pictures(*DATA)))
    answer = ask(channel, "ModelInfer", given(*DATA, id="7"), key)
    assert (answer.model_name, answer.model_version, answer.id) == (MODEL, "2", "7")
    found = read(answer)
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].tolist() == expected[name].tolist(), name
    typed = {"name": "image", "datatype": "BYTES", "shape": [3], "contents": {"bytes_contents": DATA}}
    same = ask(channel, "ModelInfer", {"model_name": MODEL, "inputs": [typed]}, key)
    assert list(same.raw_output_contents) == list(answer.raw_output_contents)
    raw = pixels(0, 100).ravel()
    shown = {"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 8, 1]}
    one = ask(channel, "ModelInfer", given(DATA[0]), key)
    for request in (
        {"inputs": [shown], "raw_input_contents": [raw.tobytes()]},
        {"inputs": [shown | {"contents": {"uint_contents": raw.tolist()}}]},
    ):
        again = ask(channel, "ModelInfer", {"model_name": MODEL, **request}, key)
        assert list(again.raw_output_contents) == list(one.raw_output_contents)


def test_outputs_parameters_and_versions(channel: Any, key: Any) -> None:
    best = [{"name": "probabilities", "parameters": {"classification": {"int64_param": 2}}}]
    parameters = {"task": {"string_param": "mid"}, "top_k": {"int64_param": 2}}
    answer = ask(channel, "ModelInfer", given(*DATA, outputs=best, parameters=parameters), key)
    (found,) = read(answer).values()
    assert {text.split(":")[2] for row in found.tolist() for text in row} == {"digit-2", "digit-3"}
    assert ask(channel, "ModelInfer", given(*DATA, model_version="1"), key).model_version == "1"


@pytest.mark.parametrize(
    ("about", "status", "code"),
    [
        (given(DATA[0], model_name="none"), "NOT_FOUND", "unknown_model"),
        (given(DATA[0], model_version="9"), "NOT_FOUND", "unknown_version"),
        (given(DATA[0], model_version="0"), "FAILED_PRECONDITION", "nothing_learned"),
        (given(b"no image"), "INVALID_ARGUMENT", "not_an_image"),
        (given(DATA[0], inputs=[]), "INVALID_ARGUMENT", "invalid_request"),
        (given(DATA[0], parameters={"odd": {"bool_param": True}}), "INVALID_ARGUMENT", "unknown_parameter"),
        (given(DATA[0], parameters={"task": {}}), "INVALID_ARGUMENT", "invalid_request"),
        (given(DATA[0], outputs=[{"name": "logits"}]), "INVALID_ARGUMENT", "unknown_parameter"),
        (given(DATA[0], raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "invalid_request"),
        (given(DATA[0], inputs=[TYPED]), "INVALID_ARGUMENT", "invalid_request"),
        (given(DATA[0], inputs=[SIZED]), "INVALID_ARGUMENT", "invalid_request"),
    ],
)
def test_what_is_refused(channel: Any, key: Any, about: dict[str, Any], status: str, code: str) -> None:
    assert refusal(channel, "ModelInfer", about, key) == (status, code)


def test_keys_and_limits(served: Service, channel: Any, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(channel, "ModelInfer", given(DATA[0])) == ("UNAUTHENTICATED", "unauthorized")
    wrong = (("authorization", "Bearer nobody"),)
    assert refusal(channel, "ModelMetadata", {"name": MODEL}, wrong) == ("UNAUTHENTICATED", "unauthorized")
    with pytest.raises(grpc.RpcError) as large:
        ask(channel, "ModelInfer", given(b"x" * 70000), key)
    assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    monkeypatch.setattr(served.runtime.limits.requests, "taken", served.runtime.settings.max_requests)
    with pytest.raises(grpc.RpcError) as full:
        ask(channel, "ModelInfer", given(DATA[0]), key)
    assert full.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(full.value.trailing_metadata())["retry-after"] == "1"
    monkeypatch.undo()
    assert served.runtime.limits.requests.taken == served.runtime.limits.bodies.memory.taken == 0
    assert ask(channel, "ModelInfer", given(DATA[0]), key).model_name == MODEL


def test_the_service_describes_itself(channel: Any) -> None:
    database = pytest.importorskip("grpc_reflection.v1alpha.proto_reflection_descriptor_database")
    from google.protobuf.descriptor_pool import DescriptorPool

    found = database.ProtoReflectionDescriptorDatabase(channel)
    assert {messages.SERVICE, "grpc.health.v1.Health"} <= set(found.get_services())
    service = DescriptorPool(found).FindServiceByName(messages.SERVICE)
    assert {method.name for method in service.methods} == set(messages.METHODS)


def test_a_port_that_is_taken_ends_the_start(learned_settings: ServiceSettings) -> None:
    with listen("127.0.0.1", 0) as taken, listen("127.0.0.1", 0) as own:
        settings = learned_settings.model_copy(update={"grpc_port": taken.getsockname()[1]})
        server = Server(create_app(settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [own]})
        thread.start()
        thread.join(PATIENCE)
        assert (thread.is_alive(), server.started, server.rpc) == (False, False, None)


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.settings.find_spec", lambda name: None)
    assert ServiceSettings().grpc_port is None
    with pytest.raises(ValidationError, match=r"engram-vision\[grpc\]"):
        ServiceSettings(grpc_port=8001)
