"""Requests of the Open Inference Protocol: JSON, the binary extension, or an encoded picture alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import orjson
import torch
from pydantic import BeforeValidator, Field
from starlette.requests import Request
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.formats import HEAD, READ_FORMATS, image_format
from service.api.schemas import Contenders
from service.errors.exceptions import ConflictingParameter, InvalidBase64, InvalidJson, InvalidRequest, TooManyImages
from service.errors.parameters import check
from service.middleware.body_limits import parse_json
from service.models import base64_text
from service.models.image_bodies import Source
from service.models.request_fields import RequestFields, whole
from service.protocol import tensors
from service.protocol.tensors import DATATYPES, IMAGE, MOST_SHOWN, PIXELS, PROBABILITIES, USUAL

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Of a body or an answer in the binary extension: how many bytes of it are JSON, before the tensors."""

_LONGEST_LENGTH = 12
"""Digits."""
_MOST_MARKS = 4_000_000
"""Brackets and commas of a JSON body: parsed, each may take 70 bytes."""
_BASE64 = frozenset({"base64", "pillow_image"})
"""Content types of elements that are base64, as MLServer names them."""
_TOP = frozenset({"id", "parameters", "inputs", "outputs", "model_name"})
_OF_INPUT = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OF_INPUT_DATA = frozenset({"binary_data_size", "content_type"})


class InferParameters(RequestFields):
    """The parameters of a request."""

    task: str | None = None
    top_k: Annotated[int, Field(ge=1, le=100), BeforeValidator(whole)] = 1
    contenders: Contenders | None = None
    binary_data_output: bool = False
    priority: int = 0
    """Taken and not heeded, as is `timeout`: an answer is the same with and without."""
    timeout: int = 0


DEFAULT, BINARY = InferParameters(), InferParameters(binary_data_output=True)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that is asked for."""

    name: str
    binary: bool = False
    classification: int = 0
    """Instead of all probabilities, so many of the largest with their labels."""


@dataclass(slots=True)
class GivenInput:
    """One input as it came."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content_type: str | None
    """Of the elements of BYTES."""
    data: Any = None
    """Out of JSON, where it stands there."""
    raw: memoryview | bytes | None = None
    """As the binary extension has it, where it came so."""
    elements: Sequence[bytes] | None = None
    """Of BYTES, where they came apart."""


@dataclass(slots=True)
class Infer:
    """What is asked: encoded pictures, or pixels (N, C, H, W) uint8, and for which outputs."""

    id: str | None
    parameters: InferParameters
    outputs: tuple[RequestedOutput, ...]
    sources: Sequence[Source]
    pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sources) if self.pixels is None else len(self.pixels)

    def wants(self, name: str) -> bool:
        """Whether an output is asked for."""
        if self.outputs is ALL or self.outputs is ALL_BINARY:
            return name in USUAL
        return any(output.name == name for output in self.outputs)


ALL = tuple(RequestedOutput(name) for name in USUAL)
ALL_BINARY = tuple(RequestedOutput(name, True) for name in USUAL)


async def read(request: Request, most: int, shape: InputShape) -> Infer:
    """What a request asks, of at most so many images of the model's shape.

    The content type says nothing: clients send none, or one that they send with all bodies.

    Raises
    ------
    InvalidJson, InvalidRequest, ConflictingParameter, UnknownParameter, TooManyImages
    """
    body = await request.body()
    told = request.headers.get(LENGTH_HEADER)
    if told is None:
        if request.headers.get("content-type", "").startswith("image/"):
            return Infer(None, DEFAULT, ALL, [body])
        return _read(request, body, memoryview(b""), most, shape)
    if not told.isdecimal() or len(told) > _LONGEST_LENGTH or int(told) > len(body):
        raise InvalidRequest(f"{LENGTH_HEADER} is no number of bytes of the body, which has {len(body)}.")
    if (size := int(told)) == 0:
        return Infer(None, DEFAULT, ALL, [body])
    return _read(request, body[:size], memoryview(body)[size:], most, shape)


def _read(request: Request, text: bytes, rest: memoryview, most: int, shape: InputShape) -> Infer:
    if len(text) > _MOST_MARKS and sum(text.count(mark) for mark in (b"[", b"{", b",")) > _MOST_MARKS:
        raise TooManyImages("The body has too many numbers in JSON; send them in the binary extension.")
    try:
        body = orjson.loads(text)
    except ValueError as error:
        raise InvalidJson(f"The body is not JSON.{_instead(request, text)}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body is no JSON object.")
    if text.count(b":") > _names(body):
        parse_json(text, "The body")  # which refuses a field that is given twice
    if not body.keys() <= _TOP:
        check(body, _TOP, "field", ("body",))
    if body.get("model_name", model := request.path_params["model"]) != model:
        raise ConflictingParameter("model_name is another model than the path names.")
    identity, given = body.get("id"), body.get("inputs")
    if identity is not None and not isinstance(identity, str):
        raise InvalidRequest("id is not text.")
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        raise InvalidRequest(f"inputs is not a list of exactly one input, {IMAGE} or {PIXELS}.")
    parameters = taken_parameters(body.get("parameters"))
    found = _input(given[0], rest)
    outputs = _outputs(body.get("outputs"), parameters.binary_data_output)
    return infer(identity, parameters, outputs, found, most, shape)


def _instead(request: Request, body: bytes) -> str:
    """How to send what a body is that is no JSON, where that can be told."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        return " Forms are taken by /v1/models/{model}/predict; here a picture is the whole body."
    known = image_format(body[:HEAD])
    if known not in READ_FORMATS:
        return ""
    return f" It begins as {known}: a picture alone takes the header {LENGTH_HEADER}: 0, or Content-Type: image/*."


def infer(
    identity: str | None,
    parameters: InferParameters,
    outputs: tuple[RequestedOutput, ...],
    given: GivenInput,
    most: int,
    shape: InputShape,
) -> Infer:
    """What is asked about one input; raises InvalidRequest, TooManyImages."""
    if given.name == IMAGE and given.datatype == "BYTES":
        return Infer(identity, parameters, outputs, _sources(given, most))
    if given.name == PIXELS and given.datatype == "UINT8":
        return Infer(identity, parameters, outputs, (), _pixels(given, most, shape))
    raise InvalidRequest(
        f"The input is {given.name[:MOST_SHOWN]!r} of {given.datatype[:MOST_SHOWN]}; it is {IMAGE!r} of BYTES, encoded "
        f"pictures, or {PIXELS!r} of UINT8."
    )


def named_outputs(names: Sequence[str]) -> None:
    """Return if these are outputs, each named once; raises InvalidRequest, UnknownParameter."""
    check(names, DATATYPES, "output", ("body", "outputs"))


def _names(body: Mapping[str, Any]) -> int:
    """How many fields a body has that may be taken; colons beyond them stand in text, or in fields given twice."""
    found, parts = len(body), [body]
    for name in ("inputs", "outputs"):
        if isinstance(given := body.get(name), list):
            parts += given
            found += sum([len(one) for one in given if isinstance(one, dict)])
    inner = [one.get("parameters") for one in parts if isinstance(one, dict)]
    return found + sum([len(one) for one in inner if isinstance(one, dict)])


def taken_parameters(given: Any) -> InferParameters:
    """The parameters of a request; raises InvalidRequest, UnknownParameter."""
    if not given:
        return DEFAULT
    if given == {"binary_data_output": True}:
        return BINARY
    if not isinstance(given, dict):
        raise InvalidRequest("parameters is no object.")
    check(given, InferParameters.model_fields, "parameter", ("body", "parameters"))
    return InferParameters.from_json(given)


def _input(given: dict[str, Any], rest: memoryview) -> GivenInput:
    if not given.keys() <= _OF_INPUT:
        check(given, _OF_INPUT, "input's field", ("body", "inputs", "0"))
    name, datatype, about = given.get("name"), given.get("datatype"), given.get("parameters") or {}
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(about, dict):
        raise InvalidRequest("An input has a name and a datatype, which are text, and parameters, an object.")
    what = f"The input {name[:MOST_SHOWN]!r}"
    shape = tensors.counted(given.get("shape"), what)
    if not about.keys() <= _OF_INPUT_DATA:
        check(about, _OF_INPUT_DATA, "input's parameter", ("body", "inputs", "0", "parameters"))
    kind, size = about.get("content_type"), about.get("binary_data_size")
    kind = taken_content_type(kind)
    if size is None:
        if len(rest):
            raise InvalidRequest(f"{len(rest)} bytes follow the JSON, and no input says binary_data_size.")
        return GivenInput(name, datatype, shape, kind or "base64", data=given.get("data"))
    if "data" in given:
        raise InvalidRequest(f"{what} has data and binary_data_size; it has one of both.")
    if type(size) is not int or size != len(rest):
        raise InvalidRequest(f"{what} says another binary_data_size than the {len(rest)} bytes that follow the JSON.")
    return GivenInput(name, datatype, shape, kind, raw=rest)


def taken_content_type(given: Any) -> str | None:
    """What the elements of BYTES are; raises InvalidRequest for what is not read here."""
    if given is None:
        return None
    if not isinstance(given, str) or given not in _BASE64:
        shown = str(given)[:MOST_SHOWN]
        raise InvalidRequest(f"The content type of an input is base64 or pillow_image, not {shown!r}.")
    return given


def _outputs(given: Any, binary: bool) -> tuple[RequestedOutput, ...]:
    if not given:
        return ALL_BINARY if binary else ALL
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InvalidRequest("outputs is no list of objects.")
    found = tuple(_output(one, binary) for one in given)
    named_outputs([one.name for one in found])
    return found


def _output(given: dict[str, Any], binary: bool) -> RequestedOutput:
    check(given, ("name", "parameters"), "output's field", ("body", "outputs"))
    name, about = given.get("name"), given.get("parameters") or {}
    if not isinstance(name, str) or not isinstance(about, dict):
        raise InvalidRequest("An output has a name, which is text, and parameters, an object.")
    check(about, ("binary_data", "classification"), "output's parameter", ("body", "outputs"))
    return requested(name, about.get("binary_data", binary), about.get("classification", 0))


def requested(name: str, binary: Any, classification: Any) -> RequestedOutput:
    """An output as it is asked for; raises InvalidRequest."""
    if not isinstance(binary, bool):
        raise InvalidRequest("binary_data is neither true nor false.")
    if type(classification) is not int or classification < 0:
        raise InvalidRequest("classification is not a number of classes.")
    if classification and name != PROBABILITIES:
        raise InvalidRequest(f"classification is for the output {PROBABILITIES!r}, not for {name[:MOST_SHOWN]!r}.")
    return RequestedOutput(name, binary, classification)


def _sources(given: GivenInput, most: int) -> Sequence[Source]:
    count = prod(given.shape)
    if len(given.shape) > 1 and given.shape[1:] != (1,):
        raise InvalidRequest(f"The input {IMAGE!r} has the shape [N], or [N, 1]; not {list(given.shape)}.")
    _bound(count, most)
    what = f"The input {IMAGE!r}"
    if given.elements is not None or given.raw is not None:
        found = given.elements if given.elements is not None else tensors.split(given.raw or b"", count, what)
        if len(found) != count:
            raise InvalidRequest(f"{what} has {len(found)} elements; its shape takes {count}.")
        if given.content_type is None:
            return list(found)
        return [_from_base64(one.decode("latin-1")) for one in found]
    return [_from_base64(one) for one in tensors.texts(given.data, count, what)]


def _from_base64(given: Any) -> Source:
    try:
        return base64_text.decoded(given)
    except InvalidBase64 as refusal:
        return refusal


def _pixels(given: GivenInput, most: int, shape: InputShape) -> Tensor:
    size = (shape.height, shape.width, shape.channels)
    if len(given.shape) != 4 or given.shape[1:] != size:
        wanted = ", ".join(map(str, size))
        raise InvalidRequest(f"The input {PIXELS!r} has the shape [N, {wanted}], not {list(given.shape)}.")
    _bound(given.shape[0], most)
    what = f"The input {PIXELS!r}"
    if given.raw is not None:
        found = tensors.octets(given.raw, given.shape, what)
    else:
        found = tensors.numbers(given.data, given.shape, what)
    return torch.from_numpy(found.transpose(0, 3, 1, 2).copy())  # (N, C, H, W)


def _bound(count: int, most: int) -> None:
    if count > most:
        raise TooManyImages(f"{count} images in one request; the most is {most}.")
    if count < 1:
        raise InvalidRequest("The request has no image.")
