"""Bodies of requests that bring images: an image itself, a multipart form, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from service.errors.exceptions import (
    InvalidBase64,
    InvalidMultipart,
    InvalidRequest,
    ServiceError,
    TooManyImages,
    UnsupportedMediaType,
)
from service.errors.parameters import check, not_known, shown
from service.middleware.body_limits import parse_json
from service.models import base64_text
from service.models.forms import FormReader, TextPart
from service.models.request_fields import RequestFields

Source = bytes | ServiceError
"""An image's bytes, or why there are none."""

Fields = TypeVar("Fields", bound=RequestFields)

_MOST_FIELDS = 64
"""The most parts of a form that are no images."""


@dataclass(frozen=True)
class ImageBody(Generic[Fields]):
    """What a body says: its images, undecoded, in order, and its fields."""

    sources: list[Source]
    fields: Fields


def documented(fields: type[RequestFields], most: int | None = None) -> dict[str, Any]:
    """The bodies that `read` takes, for the document of the interface; with `most` images at most."""
    bounds = {"minItems": 1} | ({"maxItems": most} if most else {})
    more = fields.schema_properties()
    image = {"type": "array", **bounds, "items": {"type": "string", "format": "binary"}}
    instance = {
        "type": "object",
        "required": ["b64"],
        "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
        "additionalProperties": False,
    }
    form = {"required": ["image"], "properties": {"image": image, **more}}
    document = {
        "required": ["instances"],
        "properties": {"instances": {"type": "array", **bounds, "items": instance}, **more},
    }
    content = {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": {"type": "object", **form, "additionalProperties": False}},
        "application/json": {"schema": {"type": "object", **document, "additionalProperties": False}},
    }
    return {"requestBody": {"required": True, "content": content}}


async def read(request: Request, most: int, fields: type[Fields]) -> ImageBody[Fields]:
    """The images of `request`, at most so many, and what `fields` its body has.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest, UnknownParameter, InvalidJson, InvalidMultipart, TooManyImages
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        form = _ImageForm(most, frozenset(fields.model_fields))
        await form.read(request)
        return ImageBody(form.sources(), fields.from_form(form.texts))
    if media == "application/json":
        return _from_json(await _read_instances(request, most), most, fields)
    if media.startswith("image/") or media == "application/octet-stream":
        return ImageBody([await request.body()], fields.none())
    raise UnsupportedMediaType(
        f"{media or 'No content type'}: send image/*, application/octet-stream, multipart/form-data with image "
        "parts, or application/json with instances."
    )


class _ImageForm(FormReader):
    """Reader of a form with parts called `image`, whether or not they are called files, and fields that are text."""

    def __init__(self, most: int, known: frozenset[str]) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self._most = most
        self._known = known
        self._images: list[list[bytes]] = []
        self._names: list[str] = []
        """Of the parts that are no images."""
        self._image: list[bytes] | None = None
        self._text: TextPart | None = None

    def begin(self, name: str) -> None:
        self._image, self._text = None, None
        if name == "image":
            self._image = []
            self._images.append(self._image)
            _bound(len(self._images), self._most)
            return
        self._names.append(name)
        if len(self._names) > _MOST_FIELDS:
            raise InvalidMultipart(f"The form has more than {_MOST_FIELDS} parts that are no images.")
        if name in self._known:
            self._text = TextPart(name)

    def data(self, data: bytes) -> None:
        if self._image is not None:
            self._image.append(data)
        elif self._text is not None:
            self._text.add(data)

    def end(self) -> None:
        if self._text is not None:
            self.texts[self._names[-1]] = self._text.text()

    def sources(self) -> list[Source]:
        """The images; raises InvalidRequest or UnknownParameter where parts are missing or not known."""
        if not self._images:
            unknown = shown(name for name in self._names if name not in self._known)
            ending = f"; it has one called {unknown[0]!r}" if unknown else ""
            raise InvalidRequest(f"The form has no part called image{ending}.", not_known(unknown, ("body",)))
        given = ["image", *self._names]
        check(given, {"image", *self._known}, "part", ("body",))
        return [b"".join(image) for image in self._images]


async def _read_instances(request: Request, most: int) -> Any:
    """The body as JSON, unless it has far more in it than `most` instances: parsed, it would take 20 times its size."""
    text = await request.body()
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > 16 * (most + 1):
        raise TooManyImages(f"The body has far more in it than {most} instances.")
    return parse_json(text, "The body")


def _from_json(body: Any, most: int, fields: type[Fields]) -> ImageBody[Fields]:
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest('The body is not {"instances": [{"b64": "..."}, ...]} with at least one instance.')
    _bound(len(instances), most)
    check(body, {"instances", *fields.model_fields}, "field", ("body",))
    for number, instance in _objects(instances):
        check(instance, {"b64"}, "instance's field", ("body", "instances", str(number)))
    asked = fields.from_json({name: value for name, value in body.items() if name != "instances"})
    return ImageBody([_from_instance(instance) for instance in instances], asked)


def _objects(instances: list[Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((number, instance) for number, instance in enumerate(instances) if isinstance(instance, dict))


def _from_instance(instance: Any) -> Source:
    if not isinstance(instance, dict) or "b64" not in instance:
        return InvalidBase64('The instance has no b64 text; it is {"b64": "..."}.')
    try:
        return base64_text.decoded(instance["b64"])
    except InvalidBase64 as refusal:
        return refusal


def _bound(count: int, most: int) -> None:
    if count > most:
        raise TooManyImages(f"{count} images in one request; the most is {most}.")
