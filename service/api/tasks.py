"""Routes of tasks, `/tasks`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engram.config.options import LearnOptions
from engram.errors import UnknownTask
from service.api.jobs import AcceptedResponse, JobRequest
from service.api.openapi import ref
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import TaskChangeRequest, TaskPage, TaskRequest, TaskResponse
from service.api.versions import VersionResponse, made
from service.auth.access import author
from service.dependencies import Paging, Parts
from service.jobs.submission import TASK_NAME, TaskSubmission, label_name, learn_options, task_name
from service.middleware.body_limits import parse_json
from service.middleware.idempotency import Key, body_fingerprint
from service.models import versions
from service.models.changes import renaming
from service.models.changes.renaming import Renaming
from vault import approval
from vault.classes.names import find, named, named_tasks
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
    return await LearnRequest(request, model, parts).answer(key)


class LearnRequest(JobRequest):
    """Request to have a task learned."""

    required = ("name",)
    texts = ("name", "options")

    async def of_form(self, fields: Mapping[str, str], claim: Claim | None) -> TaskSubmission:
        name = task_name(fields["name"])
        return self._submission(name, parse_json(fields.get("options") or "{}", "The part options"), claim)

    async def of_json(self, document: Any, claim: Claim | None) -> tuple[TaskSubmission, str]:
        body = self.read(TaskRequest, document)
        return self._submission(task_name(body.name), body.options, claim), body.data.uri

    def _submission(self, name: str, options: Any, claim: Claim | None) -> TaskSubmission:
        return TaskSubmission(self.model, name, learn_options(options), *self.owner(claim), author(self.request))


@router.get("/v1/models/{model}/tasks", response_model=TaskPage)
@requires_scope("predict")
def index(model: str, page: Paging, parts: Parts) -> JSONResponse:
    """The tasks a model has learned, in that order."""
    tasks = named_tasks(_head(parts.vault, model))
    # By what they were learned under, so that a page goes on where it ended when a task was renamed meanwhile.
    names = [task.learned_name for task in tasks]
    start = names.index(page.position) + 1 if page.position in names else 0
    found, following = page.cut(list(tasks[start:]), lambda task: task.learned_name)
    return JSONResponse({"tasks": [task.to_dict() for task in found], "next": following})


@router.patch(
    "/v1/models/{model}/tasks/{task}",
    status_code=201,
    response_model=VersionResponse,
    responses={200: {"model": VersionResponse, "description": "It is called that already; nothing was made."}},
)
@requires_scope("admin", 409)
async def rename(request: Request, model: str, task: str, body: TaskChangeRequest, parts: Parts, key: Key) -> Response:
    """Show a task, or its classes, by other names, as a new version; the answer names it.

    Everything else of its answers stays the same. Under `publish: manual` the version waits to be activated.
    """
    name = None if body.name is None else task_name(body.name)
    labels = {given: label_name(label) for given, label in body.labels.items()}

    async def run(claim: Claim | None) -> Response:
        rename = partial(renaming.rename, parts.vault, model, Renaming(task, name, labels), claim, by=author(request))
        return await made(parts, model, *await to_thread.run_sync(rename))

    return await parts.idempotency.once(request, key, await body_fingerprint(request), run)


@router.get("/v1/models/{model}/tasks/{task}", response_model=TaskResponse, response_model_exclude_unset=True)
@requires_scope("predict")
async def show(model: str, task: str, parts: Parts) -> TaskResponse:
    """One task with its classes and how it was learned."""
    return await to_thread.run_sync(_show, parts.vault, model, task)


def _show(vault: Vault, model: str, task: str) -> TaskResponse:
    head = _head(vault, model)
    found = find(named_tasks(head), task)
    commit = None if found is None else versions.origin(vault, head, model, found.learned_name)
    if found is None or commit is None:
        raise UnknownTask(f"The model {model} has no task {task!r}.")
    report = versions.report(vault, commit)
    details = (report or {}).get("details", {})
    reads = details.get("reads")
    return TaskResponse(
        **found.to_dict(),
        model=model,
        version=commit.version,
        reads=reads and {named(head, earlier): layers for earlier, layers in reads.items()},
        closure=details.get("closure"),
        report=report,
    )


def _head(vault: Vault, model: str) -> Commit:
    head = vault.log.head(model)
    if head is None:
        raise UnknownModel(model)
    return approval.answering(vault.log, model, head)
