"""A memory behind the HTTP interface: the embedded stack in a folder of its own, used as any client would."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL import Image
from torch import Tensor

from benchmarks.measuring import Prediction
from engram import Examples
from service.processes import spawn

IMAGES_PER_REQUEST = 32
CONNECTIONS = 4


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
    """Starts `engram serve` on a free port, and learns and predicts over HTTP."""

    def __init__(self, backbone: str, seed: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="engram-benchmark-")
        command = [sys.executable, "-m", "service", "serve", "--data", self._folder.name, "--port", "0"]
        self._process = spawn(command, os.environ, stdout=subprocess.PIPE)  # ends when this process does
        assert self._process.stdout is not None
        address = next(line.decode().split()[-1] for line in self._process.stdout if b"listening on" in line)
        self._client = httpx.Client(base_url=address, timeout=120)
        shape = {"channels": 1, "height": 28, "width": 28}
        self._ask("POST", "/v1/models", json={"name": "digits", "backbone": backbone, "input": shape, "seed": seed})

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        response = self._client.request(method, path, **options)
        if response.is_error:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json()

    def learn(self, task: str, examples: Examples) -> dict[str, object]:
        """Upload, wait for the job and for its version to serve; the learning report."""
        upload = {"data": ("task.zip", archive(examples), "application/zip")}
        job = self._ask("POST", "/v1/models/digits/tasks", data={"name": task}, files=upload)["job"]
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = self._ask("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "succeeded":
            raise RuntimeError(f"learning {task} ended as {job}")
        while self._ask("GET", "/v1/models/digits")["version"] < job["result"]["version"]:
            time.sleep(0.05)
        report: dict[str, object] = self._ask("GET", f"/v1/models/digits/tasks/{task}")["report"]
        return report

    def predict(self, examples: Examples, task: str | None) -> list[Prediction]:
        """The answer for every image."""
        params = {} if task is None else {"task": task}

        def ask(images: list[Tensor]) -> list[Prediction]:
            parts = [("image", (f"{number}.png", png(image), "image/png")) for number, image in enumerate(images)]
            answered = self._ask("POST", "/v1/models/digits/predict", params=params, files=parts)
            return [Prediction(row["task"], row["label"], row["probability"]) for row in answered["predictions"]]

        def chunks() -> Iterator[list[Tensor]]:
            images = list(examples.images)
            for start in range(0, len(images), IMAGES_PER_REQUEST):
                yield images[start : start + IMAGES_PER_REQUEST]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return [row for rows in pool.map(ask, chunks()) for row in rows]

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(timeout=30)
        self._folder.cleanup()
