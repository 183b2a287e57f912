"""Routes of tasks, `/tasks`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from anyio import to_thread
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from engram.config.options import LearnOptions
from engram.errors import UnknownTask
from service.api.jobs import AcceptedResponse, accepted
from service.api.openapi import ref
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import TaskPage, TaskRequest, TaskResponse, TaskSummary
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.errors.exceptions import InvalidRequest, UnsupportedMediaType
from service.errors.problem_details import invalid
from service.jobs import upload
from service.jobs.data_uris import allowed_uri
from service.jobs.submission import TASK_NAME, TaskSubmission, learn_options, task_name
from service.middleware.body_limits import parse_json, read_json
from service.middleware.idempotency import Key, body_fingerprint, fingerprint
from service.models import versions
from vault import approval
from vault.commit_log import Commit
from vault.errors import UnknownModel
from vault.jobs.idempotency import Claim
from vault.vault import Vault

router = ScopedRouter("tasks")

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", "data"],
                    "properties": {
                        "name": {"type": "string", "pattern": TASK_NAME},
                        "data": {"type": "string", "format": "binary", "description": "A zip or tar archive."},
                        "options": ref(LearnOptions),
                    },
                },
                "encoding": {"options": {"contentType": "application/json"}},
            },
            "application/json": {"schema": ref(TaskRequest)},
        },
    }
}


@router.post("/v1/models/{model}/tasks", status_code=202, response_model=AcceptedResponse, openapi_extra=_BODY)
@requires_scope("learn", 409)
async def submit(request: Request, model: str, parts: Parts, key: Key) -> Response:
    """Have a task learned from an upload, or from data at an allowed address."""
    # Refused before data is read: what cannot be learned now, and what is beyond a quota.
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
        f"{media or 'No content type'}: send multipart/form-data with name and data, or application/json."
    )


@dataclass(frozen=True)
class _Submitter:
    """Submission of one request to have a task of `model` learned."""

    request: Request
    model: str
    parts: Runtime

    async def from_multipart(self, key: str | None) -> Response:
        async with upload.receive(self.request, "data", ("name", "options")) as received:
            self.parts.metrics.uploads.inc(received.size)
            asked = fingerprint(self.request, {**received.fields, "data": received.digest.hexdigest()})
            run = partial(self._from_upload, received)
            return await self.parts.idempotency.once(self.request, key, asked, run)

    async def _from_upload(self, received: upload.Upload, claim: Claim | None) -> Response:
        if "name" not in received.fields or not received.has_file:
            missing = "data" if "name" in received.fields else "name"
            raise InvalidRequest(f"The form has no part called {missing}.")
        name = task_name(received.fields["name"])
        options = learn_options(parse_json(received.fields.get("options") or "{}", "The part options"))
        submission = self._submission(name, options, claim)
        return accepted(await self.parts.submissions.from_file(submission, received.path))

    async def from_uri(self, claim: Claim | None) -> Response:
        try:
            body = TaskRequest.model_validate(await read_json(self.request))
        except ValidationError as error:
            raise invalid(error, "body") from error
        submission = self._submission(task_name(body.name), learn_options(body.options), claim)
        uri = await to_thread.run_sync(allowed_uri, body.data.uri, self.parts.settings.data_uri_prefixes)
        return accepted(await self.parts.submissions.from_uri(submission, uri))

    def _submission(self, name: str, options: LearnOptions, claim: Claim | None) -> TaskSubmission:
        job_id = None if claim is None else claim.id
        # What was asked under a key before is not counted a second time.
        job_slot = partial(self.parts.quotas.job_slot, self.request, job_id)
        state = self.request.state
        return TaskSubmission(self.model, name, options, state.caller, job_id, job_slot, author(self.request))


@router.get("/v1/models/{model}/tasks", response_model=TaskPage)
@requires_scope("predict")
def index(model: str, page: Paging, parts: Parts) -> TaskPage:
    """The tasks a model has learned, in that order."""
    tasks = _head(parts.vault, model).tasks
    names = [task["name"] for task in tasks]
    start = names.index(page.position) + 1 if page.position in names else 0
    found, following = page.cut(list(tasks[start:]), lambda task: str(task["name"]))
    return TaskPage(tasks=[TaskSummary(name=t["name"], classes=t["classes"]) for t in found], next=following)


@router.get("/v1/models/{model}/tasks/{task}", response_model=TaskResponse)
@requires_scope("predict")
async def show(model: str, task: str, parts: Parts) -> TaskResponse:
    """One task with its classes and how it was learned."""
    return await to_thread.run_sync(_show, parts.vault, model, task)


def _show(vault: Vault, model: str, task: str) -> TaskResponse:
    head = _head(vault, model)
    commit = versions.origin(vault, head, model, task)
    if commit is None:
        raise UnknownTask(f"The model {model} has no task {task!r}.")
    classes = next(one["classes"] for one in head.tasks if one["name"] == task)
    report = versions.report(vault, commit)
    details = (report or {}).get("details", {})
    return TaskResponse(
        name=task,
        classes=classes,
        model=model,
        version=commit.version,
        reads=details.get("reads"),
        closure=details.get("closure"),
        report=report,
    )


def _head(vault: Vault, model: str) -> Commit:
    head = vault.log.head(model)
    if head is None:
        raise UnknownModel(model)
    return approval.answering(vault.log, model, head)
