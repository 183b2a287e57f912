"""Route of evaluations, `/evaluate`: one or two versions on labelled images, as a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api.jobs import AcceptedResponse, JobRequest
from service.api.openapi import ref
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import EvaluationRequest
from service.dependencies import Parts
from service.errors.exceptions import InvalidRequest
from service.jobs.submission import EvaluationSubmission
from service.middleware.idempotency import Key
from vault.jobs.idempotency import Claim

router = ScopedRouter("evaluations")

MOST_VERSIONS = 2

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": {"type": "string", "format": "binary", "description": "A zip or tar archive."},
                        "versions": {
                            "type": "string",
                            "pattern": r"^\d{1,8}(,\d{1,8})?$",
                            "description": "One, or two to be compared; by default the one that answers.",
                        },
                        "task": {
                            "type": "string",
                            "description": "The task that all images are of; by default their folders say it.",
                        },
                    },
                },
            },
            "application/json": {"schema": ref(EvaluationRequest)},
        },
    }
}


@router.post("/v1/models/{model}/evaluate", status_code=202, response_model=AcceptedResponse, openapi_extra=_BODY)
@requires_scope("learn", 409)
async def evaluate(request: Request, model: str, parts: Parts, key: Key) -> Response:
    """Have one or two versions answer labelled images, and their answers counted and compared; nothing is changed."""
    return await VersionsRequest(request, model, parts).answer(key)


class VersionsRequest(JobRequest):
    """Request to have versions evaluated."""

    texts = ("versions", "task")

    async def of_form(self, fields: Mapping[str, str], claim: Claim | None) -> EvaluationSubmission:
        given = fields.get("versions")
        return await self._submission(None if given is None else _numbers(given), fields.get("task"), claim)

    async def of_json(self, document: Any, claim: Claim | None) -> tuple[EvaluationSubmission, str]:
        body = self.read(EvaluationRequest, document)
        return await self._submission(body.versions, body.task, claim), body.data.uri

    async def _submission(
        self, versions: list[int] | None, task: str | None, claim: Claim | None
    ) -> EvaluationSubmission:
        if versions is None:
            versions = [(await self.parts.live.newest(self.model)).version]
        if len(set(versions)) < len(versions):
            raise InvalidRequest("A version cannot be compared with itself.")
        if task == "":
            raise InvalidRequest("The task has no name; leave it out where folders say what images are of.")
        return EvaluationSubmission(self.model, tuple(versions), task or "", *self.owner(claim))


def _numbers(text: str) -> list[int]:
    """The numbers in `3` or `2,3`; raises InvalidRequest."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_VERSIONS or not all(part.isascii() and part.isdigit() and len(part) <= 8 for part in parts):
        raise InvalidRequest(f"versions is a version's number, or two with a comma between them, not {text[:64]!r}.")
    return [int(part) for part in parts]
