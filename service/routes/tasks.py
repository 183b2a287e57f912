"""Tasks: submitted to be learned, listed, shown."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from engram.errors import UnknownTask
from service import history, upload
from service.bodies import parse_json, read_json
from service.errors import InvalidRequest, UnsupportedMediaType, invalid
from service.routes.jobs import answer
from service.runtime import Paging, Parts, Runtime
from service.schemas import Accepted, TaskAnswer, TaskPage, TaskRequest, TaskSummary
from service.submission import allowed_uri, learn_options, task_name
from vault.errors import UnknownModel
from vault.jobs import Job
from vault.log import Commit
from vault.vault import Vault

router = APIRouter(tags=["tasks"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", "data"],
                    "properties": {
                        "name": {"type": "string"},
                        "data": {"type": "string", "format": "binary"},
                        "options": {"type": "string", "description": "JSON"},
                    },
                }
            },
            "application/json": {"schema": TaskRequest.model_json_schema()},
        },
    }
}


@router.post("/v1/models/{model}/tasks", status_code=202, response_model=Accepted, openapi_extra=_BODY)
async def submit(request: Request, model: str, parts: Parts) -> JSONResponse:
    """Have a task learned from an upload, or from data at an allowed address."""
    # A model that is not there is told before its data is read.
    await parts.live.get(model)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        job = await _from_upload(request, model, parts)
    elif media == "application/json":
        job = await _from_uri(request, model, parts)
    else:
        raise UnsupportedMediaType(
            f"{media or 'No content type'}: send multipart/form-data with name and data, or application/json."
        )
    return JSONResponse({"job": answer(job)}, 202, headers={"Location": f"/v1/jobs/{job.id}"})


async def _from_upload(request: Request, model: str, parts: Runtime) -> Job:
    async with upload.receive(request) as received:
        parts.metrics.uploads.inc(received.size)
        if "name" not in received.fields or not received.has_data:
            missing = "data" if "name" in received.fields else "name"
            raise InvalidRequest(f"The form has no part called {missing}.")
        name = task_name(received.fields["name"])
        options = learn_options(parse_json(received.fields.get("options") or "{}", "The part options"))
        return await parts.submissions.from_file(model, name, received.path, options)


async def _from_uri(request: Request, model: str, parts: Runtime) -> Job:
    try:
        body = TaskRequest.model_validate(await read_json(request))
    except ValidationError as error:
        raise invalid(error, "body") from error
    name = task_name(body.name)
    options = learn_options(body.options)
    uri = allowed_uri(body.data.uri, parts.settings.data_uri_prefixes)
    return await parts.submissions.from_uri(model, name, uri, options)


@router.get("/v1/models/{model}/tasks", response_model=TaskPage)
def index(model: str, page: Paging, parts: Parts) -> TaskPage:
    """The tasks a model has learned, in that order."""
    tasks = _head(parts.vault, model).tasks
    names = [task["name"] for task in tasks]
    start = names.index(page.position) + 1 if page.position in names else 0
    found, following = page.cut(list(tasks[start:]), lambda task: str(task["name"]))
    return TaskPage(tasks=[TaskSummary(name=t["name"], classes=t["classes"]) for t in found], next=following)


@router.get("/v1/models/{model}/tasks/{task}", response_model=TaskAnswer)
async def show(model: str, task: str, parts: Parts) -> TaskAnswer:
    """One task with its classes and how it was learned."""
    return await to_thread.run_sync(_show, parts.vault, model, task)


def _show(vault: Vault, model: str, task: str) -> TaskAnswer:
    head = _head(vault, model)
    commit = history.origin(vault, head, model, task)
    if commit is None:
        raise UnknownTask(f"The model {model} has no task {task!r}.")
    classes = next(one["classes"] for one in head.tasks if one["name"] == task)
    report = history.report(vault, commit)
    return TaskAnswer(name=task, classes=classes, model=model, version=commit.version, report=report)


def _head(vault: Vault, model: str) -> Commit:
    head = vault.log.head(model)
    if head is None:
        raise UnknownModel(model)
    return head
