"""Requests and answers of the gRPC service, made of the same parts as by REST."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram.config.input_shape import InputShape
from service.errors.exceptions import InvalidRequest
from service.errors.parameters import check
from service.protocol import tensors
from service.protocol.inference import Inferred
from service.protocol.requests import (
    ALL_BINARY,
    GivenInput,
    Infer,
    InferParameters,
    RequestedOutput,
    infer,
    named_outputs,
    requested,
    taken_content_type,
    taken_parameters,
)
from service.protocol.rpc.messages import message_class
from service.protocol.tensors import MOST_SHOWN, PIXELS


def read(message: Any, most: int, shape: InputShape) -> Infer:
    """What a `ModelInferRequest` asks; raises InvalidRequest, UnknownParameter, TooManyImages."""
    if len(message.inputs) != 1:
        raise InvalidRequest("inputs is not exactly one input.")
    parameters: InferParameters = taken_parameters(_values(message.parameters))
    given = _input(message.inputs[0], list(message.raw_input_contents))
    outputs = tuple(_output(one) for one in message.outputs) or ALL_BINARY
    named_outputs([one.name for one in outputs])
    return infer(message.id or None, parameters, outputs, given, most, shape)


def encoded(inferred: Inferred) -> Any:
    """A `ModelInferResponse`, all of whose tensors are raw: clients read typed numbers as empty."""
    return message_class("ModelInferResponse")(
        model_name=inferred.model,
        model_version=str(inferred.version),
        id=inferred.id or "",
        outputs=[
            {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape} for tensor in inferred.outputs
        ],
        raw_output_contents=[tensor.encoded() for tensor in inferred.outputs],
    )


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain values; raises InvalidRequest for one without a value."""
    found = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"The parameter {name[:MOST_SHOWN]!r} has no value.")
        found[name] = getattr(parameter, choice)
    return found


def _output(given: Any) -> RequestedOutput:
    about = _values(given.parameters)
    check(about, ("binary_data", "classification"), "output's parameter", ("outputs",))
    return requested(given.name, True, about.get("classification", 0))


def _input(given: Any, raw: list[bytes]) -> GivenInput:
    what = f"The input {given.name[:MOST_SHOWN]!r}"
    shape, about = tensors.counted(list(given.shape), what), _values(given.parameters)
    check(about, ("content_type", "binary_data_size"), "input's parameter", ("inputs",))
    kind = taken_content_type(about.get("content_type"))
    if raw:
        if given.HasField("contents"):
            raise InvalidRequest("The message has raw_input_contents and contents; it has one of both.")
        if len(raw) != 1:
            raise InvalidRequest("raw_input_contents is not one for each input.")
        if about.get("binary_data_size", len(raw[0])) != len(raw[0]):  # KServe's client says it here, too
            raise InvalidRequest(f"{what} says another binary_data_size than its raw contents have.")
        return GivenInput(given.name, given.datatype, shape, kind, raw=raw[0])
    contents = given.contents
    if given.name == PIXELS:
        return GivenInput(given.name, given.datatype, shape, kind, data=list(contents.uint_contents))
    return GivenInput(given.name, given.datatype, shape, kind, elements=list(contents.bytes_contents))
