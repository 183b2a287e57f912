"""Every call of the interface: what is sent for it, and how its answer is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from engram_client.bodies import (
    Sent,
    TrainingData,
    evaluation_body,
    image_body,
    images_body,
    is_address,
    json_body,
    upload_body,
    weights_body,
)
from engram_client.delivery import Call, HttpAnswer
from engram_client.errors import DataRefused, UnexpectedAnswer
from engram_client.explanation import Explanation
from engram_client.images import ImageSource, encoded
from engram_client.reading import AnyRecord
from engram_client.records import (
    AuditRecord,
    BackboneInfo,
    ImageAnswer,
    ImageFailure,
    JobRecord,
    KeyInfo,
    LearnedTaskInfo,
    ListPage,
    ModelEntry,
    ModelInfo,
    NoveltyInfo,
    OwnKeyInfo,
    ServiceHealth,
    TaskEntry,
    VersionRecord,
)

PAGE = 200
"""Entries that are asked for at once."""

BATCH_BYTES = 8 * 2**20
"""The most bytes of several images that go into one request."""

Answers = list[ImageAnswer | ImageFailure]
Member = TypeVar("Member")


def models(after: str | None) -> Call[ListPage[ModelEntry]]:
    """A page of models."""
    return Call("GET", "/v1/models", _page("models", ModelEntry), {"limit": PAGE, "after": after})


def model(name: str) -> Call[ModelInfo]:
    """One model."""
    return Call("GET", _model(name), _record(ModelInfo))


def create_model(name: str, definition: Mapping[str, Any]) -> Call[ModelInfo]:
    """A model made, unless there is this very one."""
    body = json_body({"name": name, **definition})
    return Call("POST", "/v1/models", _record(ModelInfo), body=body, keyed=True)


def change_model(name: str, changes: Mapping[str, Any]) -> Call[ModelInfo]:
    """Another budget, decoder, background or way to publish."""
    return Call("PATCH", _model(name), _record(ModelInfo), body=json_body(dict(changes)))


def delete_model(name: str) -> Call[None]:
    """A model deleted with its history."""
    return Call("DELETE", _model(name), lambda answer: None, gone_is_done=True)


def learn(
    name: str, task: str, data: TrainingData, options: Mapping[str, Any] | None, on_sent: Sent | None
) -> Call[JobRecord]:
    """A task to be learned; its data is looked for now, and read when it is sent."""
    if is_address(data):
        body = json_body({"name": task, "data": {"uri": data}, "options": dict(options or {})})
    else:
        body = upload_body(task, options, data, on_sent)
    return Call("POST", f"{_model(name)}/tasks", _accepted, body=body, keyed=True)


def evaluate(
    name: str, data: TrainingData, versions: Sequence[int] | None, task: str | None, on_sent: Sent | None
) -> Call[JobRecord]:
    """Versions to be evaluated; the data is looked for now, and read when it is sent."""
    texts = {} if task is None else {"task": task}
    if is_address(data):
        numbers = {} if versions is None else {"versions": list(versions)}
        body = json_body({"data": {"uri": data}, **numbers, **texts})
    else:
        texts |= {} if versions is None else {"versions": ",".join(map(str, versions))}
        body = evaluation_body(texts, data, on_sent)
    return Call("POST", f"{_model(name)}/evaluate", _accepted, body=body, keyed=True)


def tasks(name: str, after: str | None) -> Call[ListPage[TaskEntry]]:
    """A page of the tasks of a model."""
    return Call("GET", f"{_model(name)}/tasks", _page("tasks", TaskEntry), {"limit": PAGE, "after": after})


def task(name: str, task_name: str) -> Call[LearnedTaskInfo]:
    """One task with its report."""
    return Call("GET", f"{_model(name)}/tasks/{quote(task_name, safe='')}", _record(LearnedTaskInfo))


def rename_task(
    name: str, task_name: str, new_name: str | None, labels: Mapping[str, str] | None
) -> Call[VersionRecord]:
    """A task, or its classes, shown by other names, in a new version."""
    given = {"name": new_name, "labels": None if labels is None else dict(labels)}
    body = json_body({field: value for field, value in given.items() if value is not None})
    path = f"{_model(name)}/tasks/{quote(task_name, safe='')}"
    return Call("PATCH", path, _record(VersionRecord), body=body, keyed=True)


def jobs(of: str | None, after: str | None) -> Call[ListPage[JobRecord]]:
    """A page of jobs, the newest first."""
    return Call("GET", "/v1/jobs", _page("jobs", JobRecord), {"limit": PAGE, "after": after, "model": of})


def job(job_id: str) -> Call[JobRecord]:
    """One job."""
    return Call("GET", f"/v1/jobs/{quote(job_id, safe='')}", _record(JobRecord))


def cancel_job(job_id: str) -> Call[JobRecord]:
    """A job to be ended."""
    return Call("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel", _record(JobRecord))


def events_path(job_id: str) -> str:
    """Where the events of a job are."""
    return f"/v1/jobs/{quote(job_id, safe='')}/events"


def predict(name: str, files: Sequence[bytes], asked: Mapping[str, Any]) -> Call[Answers]:
    """Answers for encoded images, in their order; refused where none of them can be read."""
    body = image_body(files[0]) if len(files) == 1 else images_body(files)
    return Call("POST", f"{_model(name)}/predict", _predictions, asked, body)


def batches(images: Iterable[ImageSource], most: int) -> Iterator[list[bytes]]:
    """The files of images, as many together as are to go into one request."""
    batch: list[bytes] = []
    for image in images:
        file = encoded(image)
        if batch and (len(batch) == most or sum(map(len, batch)) + len(file) > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def failure(error: DataRefused) -> ImageFailure:
    """The refusal of a request for one image, as what stands in its place among others."""
    return ImageFailure.read(error.problem)


def explain(name: str, image: ImageSource, asked: Mapping[str, Any]) -> Call[Explanation]:
    """The heatmap of one answer."""
    return Call("POST", f"{_model(name)}/explain", _explanation, asked, image_body(encoded(image)))


def versions(name: str, after: str | None) -> Call[ListPage[VersionRecord]]:
    """A page of a model's history, the newest first."""
    return Call("GET", f"{_model(name)}/versions", _page("versions", VersionRecord), {"limit": PAGE, "after": after})


def version(name: str, number: int) -> Call[VersionRecord]:
    """One version."""
    return Call("GET", f"{_model(name)}/versions/{number:d}", _record(VersionRecord))


def activate(name: str, number: int, allow_empty: bool) -> Call[VersionRecord]:
    """An earlier version served again, as a new one."""
    query = {"allow_empty": True} if allow_empty else {}
    path = f"{_model(name)}/versions/{number:d}/activate"
    return Call("POST", path, _record(VersionRecord), query, keyed=True)


def reject(name: str, number: int) -> Call[VersionRecord]:
    """A candidate that is to wait no longer."""
    return Call("POST", f"{_model(name)}/versions/{number:d}/reject", _record(VersionRecord), keyed=True)


def certificate(name: str, number: int) -> Call[dict[str, Any]]:
    """The retention certificate of a version."""
    return Call("GET", f"{_model(name)}/versions/{number:d}/certificate", _document)


def novelty(name: str) -> Call[NoveltyInfo]:
    """Whether what comes in is known."""
    return Call("GET", f"{_model(name)}/novelty", _record(NoveltyInfo))


def backbones(after: str | None) -> Call[ListPage[BackboneInfo]]:
    """A page of backbones."""
    return Call("GET", "/v1/backbones", _page("backbones", BackboneInfo), {"limit": PAGE, "after": after})


def backbone(name: str) -> Call[BackboneInfo]:
    """One backbone."""
    return Call("GET", f"/v1/backbones/{quote(name, safe='')}", _record(BackboneInfo))


def add_backbone(
    name: str,
    weights: str | os.PathLike[str],
    architecture: str,
    described: Mapping[str, Any],
    licence: str | None,
    on_sent: Sent | None,
) -> Call[BackboneInfo]:
    """A network stored, unless there is this very one; its weights are read when they are sent."""
    texts = {"name": name, "architecture": architecture} | ({} if licence is None else {"licence": licence})
    texts |= {part: json.dumps(value) for part, value in described.items() if value is not None}
    body = weights_body(texts, weights, on_sent)
    return Call("POST", "/v1/backbones", _record(BackboneInfo), body=body, keyed=True)


def delete_backbone(name: str) -> Call[None]:
    """A backbone deleted."""
    return Call("DELETE", f"/v1/backbones/{quote(name, safe='')}", lambda answer: None, gone_is_done=True)


def audit(asked: Mapping[str, Any], most: int, after: str | None) -> Call[ListPage[AuditRecord]]:
    """A page of the audit log, the newest entries first."""
    query = {**asked, "limit": min(PAGE, most), "after": after}
    return Call("GET", "/v1/audit", _page("entries", AuditRecord), query)


def keys(after: str | None) -> Call[ListPage[KeyInfo]]:
    """A page of API keys, the oldest first."""
    return Call("GET", "/v1/keys", _page("keys", KeyInfo), {"limit": PAGE, "after": after})


def own_key() -> Call[OwnKeyInfo]:
    """The key that asks."""
    return Call("GET", "/v1/keys/self", _record(OwnKeyInfo))


def create_key(name: str, scope: str, expires_at: datetime | None, limits: Mapping[str, int | None]) -> Call[KeyInfo]:
    """A key made; the answer alone has its token."""
    until = None if expires_at is None else expires_at.astimezone(timezone.utc).isoformat()
    given = {"name": name, "scope": scope, "expires_at": until, **limits}
    body = json_body({field: value for field, value in given.items() if value is not None})
    return Call("POST", "/v1/keys", _record(KeyInfo), body=body, keyed=True)


def revoke_key(key_id: str) -> Call[None]:
    """A key ended for good."""
    return Call("DELETE", f"/v1/keys/{quote(key_id, safe='')}", lambda answer: None)


def health() -> Call[ServiceHealth]:
    """Whether the service can answer."""
    return Call("GET", "/readyz", _health, accepts=(503,))


def _model(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def _record(kind: type[AnyRecord]) -> Callable[[HttpAnswer], AnyRecord]:
    return lambda answer: kind.read(answer.json())


def _document(answer: HttpAnswer) -> dict[str, Any]:
    found = answer.json()
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is no JSON object.", answer.status)
    return found


def _member(document: Mapping[str, Any], name: str, kind: type[Member]) -> Member:
    found = document.get(name)
    if not isinstance(found, kind):
        raise UnexpectedAnswer(f"The answer has no {name}.")
    return found


def _page(name: str, kind: type[AnyRecord]) -> Callable[[HttpAnswer], ListPage[AnyRecord]]:
    def read(answer: HttpAnswer) -> ListPage[AnyRecord]:
        document = _document(answer)
        items = _member(document, name, list)
        return ListPage(tuple(kind.read(item) for item in items), document.get("next"))

    return read


def _accepted(answer: HttpAnswer) -> JobRecord:
    return JobRecord.read(_document(answer).get("job"))


def _predictions(answer: HttpAnswer) -> Answers:
    document = _document(answer)
    where = {"model": document.get("model"), "version": document.get("version")}
    return [
        ImageFailure.read(one["error"]) if "error" in one else ImageAnswer.read({**one, **where})
        for one in _member(document, "predictions", list)
    ]


def _explanation(answer: HttpAnswer) -> Explanation:
    try:
        task_name, label = (unquote(answer.headers[f"x-engram-{name}"]) for name in ("task", "label"))
        number = int(answer.headers["x-engram-version"])
    except (KeyError, ValueError) as error:
        raise UnexpectedAnswer("The answer does not say what it explains.", answer.status) from error
    numbers = _document(answer) if "json" in answer.headers.get("content-type", "") else None
    return Explanation(task_name, label, number, answer.content, numbers)


def _health(answer: HttpAnswer) -> ServiceHealth:
    if answer.status == 200:
        return ServiceHealth.read({**_document(answer), "ready": True})
    problem = answer.error()
    if isinstance(problem, UnexpectedAnswer):
        raise problem
    return ServiceHealth.read({"ready": False, "models": 0, **problem.problem})
