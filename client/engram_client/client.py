"""Client of an Engram service for programs that wait for each answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from engram_client import calls
from engram_client.bodies import Sent, TrainingData
from engram_client.errors import DataRefused
from engram_client.exchange import CallExchange
from engram_client.explanation import Explanation
from engram_client.images import ImageSource, encoded
from engram_client.jobs import LearningJob
from engram_client.records import (
    AuditRecord,
    BackboneInfo,
    ImageAnswer,
    JobRecord,
    KeyInfo,
    LearnedTaskInfo,
    ModelEntry,
    ModelInfo,
    NoveltyInfo,
    OwnKeyInfo,
    ServiceHealth,
    TaskEntry,
    VersionRecord,
)

Result = TypeVar("Result")
Item = TypeVar("Item")


class Client(CallExchange):
    """Client of one service; a context manager, which closes its connections at the end.

    Requests that may be made again are made again by themselves while the service is busy or cannot be reached, those
    that change something under an idempotency key, so that nothing is ever done twice.

    Parameters
    ----------
    url
        Address of the service, also below a path; by default that of the variable ENGRAM_URL, else
        `http://127.0.0.1:8000`.
    key
        API key; by default that of the variable ENGRAM_API_KEY, else none.
    timeout
        Seconds that a connection may be silent for.
    patience
        How long a call is tried again.
    transport
        In place of the network, for proxies, certificates or tests.

    Raises
    ------
    ValueError
        The address or the key cannot be one.

    Every call raises `Refused` with the service's `code`, `Unreachable`, or `UnexpectedAnswer`.
    """

    def health(self) -> ServiceHealth:
        """Whether the service can answer, and if not, why."""
        return self.run(calls.health())

    def models(self) -> list[ModelEntry]:
        """All models by name."""
        return self._all(calls.models)

    def model(self, name: str) -> ModelInfo:
        """One model."""
        return self.run(calls.model(name))

    def create_model(self, name: str, **definition: Any) -> ModelInfo:
        """Make a model; one that is there already, equal in every field, is answered as it is.

        Parameters
        ----------
        definition
            The fields of a definition, such as `backbone="cnn"` and
            `input={"channels": 3, "height": 64, "width": 64}`.
        """
        return self.run(calls.create_model(name, definition))

    def change_model(self, name: str, **changes: Any) -> ModelInfo:
        """Give a model another `budget`, `decoder`, `background` or `publish`, by a new version."""
        return self.run(calls.change_model(name, changes))

    def delete_model(self, name: str) -> None:
        """Delete a model with its history; its open jobs are cancelled."""
        self.run(calls.delete_model(name))

    def learn(
        self,
        model: str,
        task: str,
        data: TrainingData,
        *,
        options: Mapping[str, Any] | None = None,
        on_sent: Sent | None = None,
        idempotency_key: str | None = None,
    ) -> LearningJob:
        """Have a task learned.

        Parameters
        ----------
        data
            A folder of `<class>/<image>`, which is zipped while it is sent; a zip or tar; an address that the workers
            can read (`s3://...`); or the images of each class.
        options
            Options of learning, such as `{"min_accuracy": 0.9}`.
        on_sent
            Called with the bytes sent so far, and how many there will be about.
        idempotency_key
            In place of a random one, for a program that may be started again and must not submit twice.

        Raises
        ------
        OSError, ValueError
            The data is not there, or cannot be read; a class cannot be called so.
        """
        record = self.run(calls.learn(model, task, data, options, on_sent), idempotency_key)
        return LearningJob(self, record)

    def evaluate(
        self,
        model: str,
        data: TrainingData,
        *,
        versions: Sequence[int] | None = None,
        task: str | None = None,
        on_sent: Sent | None = None,
        idempotency_key: str | None = None,
    ) -> LearningJob:
        """Have versions answer labelled images; `evaluation` of the job's record is what was found.

        Parameters
        ----------
        data
            As of `learn`; the folder of an image is its label, or `<task>/<label>` where several tasks have it.
        versions
            One, or two to be compared; by default the one that answers.
        task
            The task that all images are of.
        """
        record = self.run(calls.evaluate(model, data, versions, task, on_sent), idempotency_key)
        return LearningJob(self, record)

    def tasks(self, model: str) -> list[TaskEntry]:
        """The tasks that a model has learned, the oldest first."""
        return self._all(lambda after: calls.tasks(model, after))

    def task(self, model: str, task: str) -> LearnedTaskInfo:
        """One task, with the report of its learning."""
        return self.run(calls.task(model, task))

    def rename_task(
        self, model: str, task: str, name: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> VersionRecord:
        """Show a task, or its classes, by other names; the version that does.

        Parameters
        ----------
        name
            The task's name from now on; without it that stays.
        labels
            New labels by those that are shown, or that were learned.
        """
        return self.run(calls.rename_task(model, task, name, labels))

    def jobs(self, model: str | None = None) -> list[JobRecord]:
        """Jobs, the newest first, of all models or of one."""
        return self._all(lambda after: calls.jobs(model, after))

    def job(self, job_id: str) -> LearningJob:
        """One job, to be followed, waited for or cancelled."""
        return LearningJob(self, self.run(calls.job(job_id)))

    def predict(
        self,
        model: str,
        image: ImageSource,
        *,
        top_k: int | None = None,
        task: str | None = None,
        version: int | None = None,
        logits: bool | None = None,
        contenders: int | str | None = None,
    ) -> ImageAnswer:
        """The answer for one image; raises Refused where it cannot be read."""
        asked = {"top_k": top_k, "task": task, "version": version, "logits": logits, "contenders": contenders}
        (answer,) = self.run(calls.predict(model, [encoded(image)], asked))
        assert isinstance(answer, ImageAnswer), "a request whose only image fails is refused"
        return answer

    def predict_many(
        self,
        model: str,
        images: Iterable[ImageSource],
        *,
        top_k: int | None = None,
        task: str | None = None,
        version: int | None = None,
        batch: int = 64,
    ) -> calls.Answers:
        """The answers for images, in their order, with an ImageFailure in the place of one that cannot be read.

        Parameters
        ----------
        batch
            The most images of one request; different requests may be answered by different versions.
        """
        asked = {"top_k": top_k, "task": task, "version": version}
        found: calls.Answers = []
        for files in calls.batches(images, batch):
            found += self._answers(model, files, asked)
        return found

    def explain(
        self,
        model: str,
        image: ImageSource,
        *,
        format: str = "overlay",
        target: str | None = None,
        task: str | None = None,
        version: int | None = None,
        composite: str | None = None,
    ) -> Explanation:
        """The heatmap of an answer, of the predicted label or of `target`: `overlay`, `heatmap` alone, or `json`."""
        asked = {"format": format, "target": target, "task": task, "version": version, "composite": composite}
        return self.run(calls.explain(model, image, asked))

    def versions(self, model: str) -> list[VersionRecord]:
        """A model's history, the newest first."""
        return self._all(lambda after: calls.versions(model, after))

    def version(self, model: str, version: int) -> VersionRecord:
        """One version."""
        return self.run(calls.version(model, version))

    def activate(self, model: str, version: int, *, allow_empty: bool = False) -> VersionRecord:
        """Serve what a candidate is, or an earlier version was, as a new version, which is returned."""
        return self.run(calls.activate(model, version, allow_empty))

    def reject(self, model: str, version: int) -> VersionRecord:
        """Have a candidate wait no longer, nor those that were learned on it; what answers stays as it is."""
        return self.run(calls.reject(model, version))

    def certificate(self, model: str, version: int | None = None) -> dict[str, Any]:
        """The retention certificate of a version, by default of the one that answers."""
        number = self.model(model).version if version is None else version
        return self.run(calls.certificate(model, number))

    def novelty(self, model: str) -> NoveltyInfo:
        """Whether the images that come in are of tasks that the model knows."""
        return self.run(calls.novelty(model))

    def backbones(self) -> list[BackboneInfo]:
        """All networks that users brought, by name."""
        return self._all(calls.backbones)

    def backbone(self, name: str) -> BackboneInfo:
        """One of them."""
        return self.run(calls.backbone(name))

    def add_backbone(
        self,
        name: str,
        weights: str | os.PathLike[str],
        architecture: str,
        *,
        config: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        licence: str | None = None,
        on_sent: Sent | None = None,
    ) -> BackboneInfo:
        """Have a network inspected and stored, for models to read; one that is there already is left as it is.

        Parameters
        ----------
        weights
            A safetensors file; raises OSError where it is not there.
        architecture
            Such as `torchvision/resnet18`.
        config
            Size, interpolation, crop, mean and std of its images.
        """
        described = {"config": config, "arguments": arguments, "classes": classes}
        return self.run(calls.add_backbone(name, weights, architecture, described, licence, on_sent))

    def delete_backbone(self, name: str) -> None:
        """Delete a backbone that no model has."""
        self.run(calls.delete_backbone(name))

    def audit(
        self,
        *,
        model: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> list[AuditRecord]:
        """Who changed what, the newest first: of one model, of one action, since a moment; `limit` entries at most."""
        asked = {"model": model, "action": action, "since": since and since.astimezone(timezone.utc).isoformat()}
        return self._all(lambda after: calls.audit(asked, limit, after), limit)

    def keys(self) -> list[KeyInfo]:
        """All API keys there ever were, the oldest first."""
        return self._all(calls.keys)

    def own_key(self) -> OwnKeyInfo:
        """What the client's own key may do."""
        return self.run(calls.own_key())

    def create_key(self, name: str, scope: str, *, expires_at: datetime | None = None, **limits: int | None) -> KeyInfo:
        """Make an API key, whose `token` is in this answer and nowhere else.

        Parameters
        ----------
        scope
            `predict`, `learn` or `admin`.
        limits
            `requests_per_minute`, `images_per_day`, `open_jobs`.
        """
        return self.run(calls.create_key(name, scope, expires_at, limits))

    def revoke_key(self, key_id: str) -> None:
        """End an API key for good."""
        self.run(calls.revoke_key(key_id))

    def _answers(self, model: str, files: list[bytes], asked: Mapping[str, Any]) -> calls.Answers:
        """Answers for the images of one request, each by itself where none of them can be read."""
        try:
            return self.run(calls.predict(model, files, asked))
        except DataRefused as error:
            if len(files) == 1:
                return [calls.failure(error)]
        return [answer for file in files for answer in self._answers(model, [file], asked)]
