"""Routes of backbones, `/backbones`: networks that users bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from anyio import to_thread
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.errors.exceptions import InvalidRequest, UnsupportedMediaType
from service.errors.problem_details import invalid
from service.jobs import upload
from service.middleware.body_limits import parse_json
from service.middleware.idempotency import Key, fingerprint
from service.models import backbones
from service.models.backbones import BackboneForm
from vault.backbones import BackboneRecord
from vault.jobs.idempotency import Claim

router = ScopedRouter("backbones")

_JSON_PARTS = ("config", "arguments", "classes")
_TEXT_PARTS = ("name", "architecture", "licence", *_JSON_PARTS)


class HeatmapOffer(BaseModel):
    """What heatmaps through a network are made by."""

    default: str
    composites: list[str]
    conserving: list[str]
    """Those whose relevance sums to what is explained."""
    why: str


class BackboneResponse(BaseModel):
    """One backbone: its name, and what its network is."""

    model_config = ConfigDict(extra="allow")

    name: str
    architecture: str
    weights: str
    """SHA-256 of the safetensors file."""
    bytes: int
    parameters: int
    licence: str | None
    created_at: str
    heatmaps: HeatmapOffer | None = None
    """What heatmaps through it are made by; null in lists, and where its architecture is not installed here."""


class BackbonePage(BaseModel):
    backbones: list[BackboneResponse]
    next: str | None


def _body() -> dict[str, Any]:
    schema = BackboneForm.model_json_schema()
    schema["properties"]["weights"] = {"type": "string", "format": "binary", "description": "A safetensors file."}
    schema["required"] = [*schema["required"], "weights"]
    encoding = {part: {"contentType": "application/json"} for part in _JSON_PARTS}
    content = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    return {"requestBody": {"required": True, "content": content}}


def answer(record: BackboneRecord) -> dict[str, Any]:
    """One backbone as JSON."""
    return {"name": record.name, **record.description, "weights": record.weights, "created_at": record.created_at}


def _whole(record: BackboneRecord) -> dict[str, Any]:
    return {**answer(record), "heatmaps": backbones.heatmaps_of(backbones.described(record))}


@router.post(
    "/v1/backbones",
    status_code=201,
    response_model=BackboneResponse,
    responses={200: {"model": BackboneResponse, "description": "There is this very one already; nothing was made."}},
    openapi_extra=_body(),
)
@requires_scope("admin", 409)
async def create(request: Request, parts: Parts, key: Key) -> Response:
    """Store a network, once it has been inspected; models name it as part of their commons.

    Storing it again changes nothing; another of its name is refused. No pickle is read, and no code of the file's.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "multipart/form-data":
        wanted = "send multipart/form-data with name, architecture and weights"
        raise UnsupportedMediaType(f"{media or 'No content type'}: {wanted}.")
    with parts.uploads.held():
        async with upload.receive(request, "weights", _TEXT_PARTS) as received:
            asked = fingerprint(request, {**received.fields, "weights": received.digest.hexdigest()})
            return await parts.idempotency.once(request, key, asked, partial(_add, parts, received, author(request)))


async def _add(parts: Runtime, received: upload.Upload, by: dict[str, Any], claim: Claim | None) -> Response:
    form = _form(received.fields)
    if not received.has_file:
        raise InvalidRequest("The form has no part called weights.")
    record, made = await to_thread.run_sync(backbones.add, parts.vault, form, received.path, claim, by)
    return JSONResponse(
        await to_thread.run_sync(_whole, record),
        201 if made else 200,
        headers={"Location": f"/v1/backbones/{record.name}"},
    )


def _form(fields: Mapping[str, str]) -> BackboneForm:
    given: dict[str, Any] = dict(fields)
    for part in _JSON_PARTS:
        if part in given:
            given[part] = parse_json(given[part], f"The part {part}")
    try:
        return BackboneForm.model_validate(given)
    except ValidationError as error:
        raise invalid(error, "body") from error


@router.get("/v1/backbones", response_model=BackbonePage)
@requires_scope("predict")
def index(page: Paging, parts: Parts) -> JSONResponse:
    """All backbones by name."""
    found, following = page.cut(parts.vault.backbones.list(page.position, page.fetch), lambda one: one.name)
    return JSONResponse({"backbones": [answer(one) for one in found], "next": following})


@router.get("/v1/backbones/{backbone}", response_model=BackboneResponse)
@requires_scope("predict")
def show(backbone: str, parts: Parts) -> JSONResponse:
    """One backbone, with what heatmaps through it are made by."""
    return JSONResponse(_whole(parts.vault.backbones.get(backbone)))


@router.delete("/v1/backbones/{backbone}", status_code=204)
@requires_scope("admin", 409)
async def delete(request: Request, backbone: str, parts: Parts) -> Response:
    """Delete a backbone that no model has; its name is free again."""
    await to_thread.run_sync(parts.vault.delete_backbone, backbone, author(request))
    return Response(status_code=204)
