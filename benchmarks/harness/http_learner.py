"""Benchmark learner over HTTP: `engram serve` in a temporary folder, used like any client."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL import Image
from torch import Tensor

from benchmarks.harness.learners import BenchmarkPrediction
from engram import Definition, Examples, LearnOptions
from engram.checkpointing.progress import Progress
from engram.nn.pretrained.backbone import Backbone
from service.lifecycle.processes import spawn

IMAGES_PER_REQUEST = 32
CONNECTIONS = 4
MODEL = "benchmark"


def png(image: Tensor) -> bytes:
    """One (C, H, W) uint8 image as PNG."""
    array = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def archive(examples: Examples) -> bytes:
    """A zip of `<class>/<number>.png`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for number, (image, label) in enumerate(zip(examples.images, examples.labels.tolist(), strict=True)):
            file.writestr(f"{examples.classes[label]}/{number:06d}.png", png(image))
    return stream.getvalue()


class HttpMemory:
    """Learner that starts `engram serve` on a free port, and learns and predicts over HTTP.

    Parameters
    ----------
    definition
        Its fields alone where the service is to fill in the input.
    backbones
        Networks that the definition names, at their own configuration.
    """

    incremental = True

    def __init__(
        self,
        definition: Definition | Mapping[str, Any],
        options: LearnOptions,
        backbones: Mapping[str, Backbone] | None = None,
    ) -> None:
        self._options = options.model_dump_json(exclude_unset=True)
        self._folder = tempfile.TemporaryDirectory(prefix="engram-benchmark-")
        command = [sys.executable, "-m", "service", "serve", "--data", self._folder.name, "--port", "0"]
        self._process = spawn(command, os.environ, stdout=subprocess.PIPE)  # ends when this process does
        assert self._process.stdout is not None
        address = next(line.decode().split()[-1] for line in self._process.stdout if b"listening on" in line)
        self._client = httpx.Client(base_url=address, timeout=120)
        for name, backbone in (backbones or {}).items():
            about = {"name": name, "architecture": backbone.description.architecture}
            weights = {"weights": (f"{name}.safetensors", backbone.weights(), "application/octet-stream")}
            self._ask("POST", "/v1/backbones", data=about, files=weights)
        if isinstance(definition, Definition):
            definition = definition.model_dump(mode="json", exclude_unset=True)
        self._ask("POST", "/v1/models", json={"name": MODEL, **definition})

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        response = self._client.request(method, path, **options)
        if response.is_error:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json()

    def learn(self, task: str, examples: Examples, progress: Callable[[Progress], None]) -> dict[str, object]:
        """Upload a task, wait for its job and for its version to be served; returns the learning report."""
        return self.learn_archive(task, archive(examples), progress)

    def learn_archive(self, task: str, data: bytes, progress: Callable[[Progress], None]) -> dict[str, object]:
        """The same from a zip of `<class>/<file>`."""
        upload = {"data": ("task.zip", data, "application/zip")}
        form = {"name": task, "options": self._options}
        job = self._done(self._ask("POST", f"/v1/models/{MODEL}/tasks", data=form, files=upload)["job"], progress)
        while self._ask("GET", f"/v1/models/{MODEL}")["version"] < job["result"]["version"]:
            time.sleep(0.05)
        report: dict[str, object] = self._ask("GET", f"/v1/models/{MODEL}/tasks/{task}")["report"]
        return report

    def evaluate(self, data: bytes) -> dict[str, Any]:
        """What an evaluation of the version that answers finds on a zip of `<task>/<class>/<file>`."""
        upload = {"data": ("images.zip", data, "application/zip")}
        job = self._done(self._ask("POST", f"/v1/models/{MODEL}/evaluate", files=upload)["job"], lambda progress: None)
        found: dict[str, Any] = job["result"]["evaluation"]
        return found

    def _done(self, job: dict[str, Any], progress: Callable[[Progress], None]) -> dict[str, Any]:
        """A job that has succeeded."""
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = self._ask("GET", f"/v1/jobs/{job['id']}")
            if job["progress"]:
                progress(Progress(job["phase"] or job["state"], job["progress"].get("fraction") or 0.0))
        if job["state"] != "succeeded":
            raise RuntimeError(f"the job ended as {job}")
        return job

    def predict(self, examples: Examples, task: str | None) -> list[BenchmarkPrediction]:
        """The predictions for all images."""

        def ask(images: list[Tensor]) -> list[BenchmarkPrediction]:
            return self.answers([png(image) for image in images], task)

        def chunks() -> Iterator[list[Tensor]]:
            images = list(examples.images)
            for start in range(0, len(images), IMAGES_PER_REQUEST):
                yield images[start : start + IMAGES_PER_REQUEST]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return [row for rows in pool.map(ask, chunks()) for row in rows]

    def answers(self, files: Sequence[bytes], task: str | None = None) -> list[BenchmarkPrediction]:
        """The predictions for encoded images, by one request."""
        params = {} if task is None else {"task": task}
        parts = [("image", (str(number), file, "application/octet-stream")) for number, file in enumerate(files)]
        answered = self._ask("POST", f"/v1/models/{MODEL}/predict", params=params, files=parts)
        return [
            BenchmarkPrediction(
                row["task"], row["label"], row["probability"], row["novelty"], row["known"], row["passes"]
            )
            for row in answered["predictions"]
        ]

    @property
    def pid(self) -> int:
        """Of the process whose children the replicas and workers are."""
        return self._process.pid

    def free(self) -> float | None:
        layers = self._ask("GET", f"/v1/models/{MODEL}")["capacity"]
        return (
            float(sum(layer["free"] for layer in layers) / sum(layer["units"] for layer in layers)) if layers else None
        )

    def stored(self) -> None:
        """None, since the service does not report it; `PythonMemory` does."""

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(timeout=30)
        self._folder.cleanup()
