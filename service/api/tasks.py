"""Routes of tasks, `/tasks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from engram.config.options import LearnOptions
from engram.errors import UnknownTask
from service.api.jobs import AcceptedResponse, JobRequest
from service.api.openapi import ref
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import TaskPage, TaskRequest, TaskResponse, TaskSummary
from service.auth.access import author
from service.dependencies import Paging, Parts
from service.jobs.submission import TASK_NAME, TaskSubmission, learn_options, task_name
from service.middleware.body_limits import parse_json
from service.middleware.idempotency import Key
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
