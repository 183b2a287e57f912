"""Route of evaluations, `/evaluate`: one or two versions on labelled images, as a job."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from anyio import to_thread
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.api.jobs import AcceptedResponse, accepted
from service.api.openapi import ref
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import EvaluationRequest
from service.dependencies import Parts, Runtime
from service.errors.exceptions import InvalidRequest, UnsupportedMediaType
from service.errors.problem_details import invalid
from service.jobs import upload
from service.jobs.data_uris import allowed_uri
from service.jobs.submission import EvaluationSubmission
from service.middleware.body_limits import read_json
from service.middleware.idempotency import Key, body_fingerprint, fingerprint
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
    # Refused before data is read: what cannot be done now, and what is beyond a quota.
    await parts.live.get(model)
    await parts.submissions.reachable()
    if key is None:
        await parts.quotas.check_jobs(request)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    submitter = _Submitter(request, model, parts)
    if media == "multipart/form-data":
        with parts.uploads.held():
            return await submitter.from_multipart(key)
    if media == "application/json":
        asked = await body_fingerprint(request)
        return await parts.idempotency.once(request, key, asked, submitter.from_uri)
    raise UnsupportedMediaType(
        f"{media or 'No content type'}: send multipart/form-data with data, or application/json."
    )


@dataclass(frozen=True)
class _Submitter:
    """Submission of one request to have versions of `model` evaluated."""

    request: Request
    model: str
    parts: Runtime

    async def from_multipart(self, key: str | None) -> Response:
        async with upload.receive(self.request, "data", ("versions", "task")) as received:
            self.parts.metrics.uploads.inc(received.size)
            asked = fingerprint(self.request, {**received.fields, "data": received.digest.hexdigest()})
            run = partial(self._from_upload, received)
            return await self.parts.idempotency.once(self.request, key, asked, run)

    async def _from_upload(self, received: upload.Upload, claim: Claim | None) -> Response:
        if not received.has_file:
            raise InvalidRequest("The form has no part called data.")
        given = received.fields.get("versions")
        versions = None if given is None else _numbers(given)
        submission = await self._submission(versions, received.fields.get("task"), claim)
        return accepted(await self.parts.submissions.evaluate_file(submission, received.path))

    async def from_uri(self, claim: Claim | None) -> Response:
        try:
            body = EvaluationRequest.model_validate(await read_json(self.request))
        except ValidationError as error:
            raise invalid(error, "body") from error
        submission = await self._submission(body.versions, body.task, claim)
        uri = await to_thread.run_sync(allowed_uri, body.data.uri, self.parts.settings.data_uri_prefixes)
        return accepted(await self.parts.submissions.evaluate_uri(submission, uri))

    async def _submission(
        self, versions: list[int] | None, task: str | None, claim: Claim | None
    ) -> EvaluationSubmission:
        if versions is None:
            versions = [(await self.parts.live.newest(self.model)).version]
        if len(set(versions)) < len(versions):
            raise InvalidRequest("A version cannot be compared with itself.")
        if task == "":
            raise InvalidRequest("The task has no name; leave it out where folders say what images are of.")
        job_id = None if claim is None else claim.id
        # What was asked under a key before is not counted a second time.
        job_slot = partial(self.parts.quotas.job_slot, self.request, job_id)
        caller = self.request.state.caller
        return EvaluationSubmission(self.model, tuple(versions), task or "", caller, job_id, job_slot)


def _numbers(text: str) -> list[int]:
    """The numbers in `3` or `2,3`; raises InvalidRequest."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_VERSIONS or not all(part.isascii() and part.isdigit() and len(part) <= 8 for part in parts):
        raise InvalidRequest(f"versions is a version's number, or two with a comma between them, not {text[:64]!r}.")
    return [int(part) for part in parts]
