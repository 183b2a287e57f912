"""Small learned models, made in the calling process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from engram.config.definition import Definition
from engram.data.examples import Examples
from service.models import versions
from testing.data.digits import QUICK, SMALL_MODEL, archive, pixels
from vault.jobs.job import Job
from vault.vault import Vault
from worker.attempt import run_attempt
from worker.settings import WorkerSettings

MODEL = "digits"
TASKS = {"low": (0, 1), "mid": (2, 3)}


def create(vault: Vault, model: str = MODEL, **changes: Any) -> None:
    """Create a small model without tasks."""
    versions.create(vault, model, Definition.model_validate(SMALL_MODEL | changes))


def submit(vault: Vault, task: str, digits: tuple[int, ...], model: str = MODEL, **options: Any) -> Job:
    """Submit a job with an upload of these digits."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(archive(digits))
        file.flush()
        data = vault.objects.put_file(Path(file.name))
    return vault.jobs.submit(model, task, data, QUICK | options, lineage=vault.models.get(model).lineage)


def learn(vault: Vault, task: str, digits: tuple[int, ...], model: str = MODEL, **options: Any) -> Job:
    """Submit a job and run its attempt; returns the job as it ended."""
    job = submit(vault, task, digits, model, **options)
    token = vault.jobs.start_attempt(job.id)
    return run_attempt(vault, job, token, lambda: False, worker_settings(vault))


def worker_settings(vault: Vault, **changes: Any) -> WorkerSettings:
    """Settings of a worker on the same vault."""
    return WorkerSettings(**(vault.settings.model_dump() | changes))


def examples(digits: tuple[int, ...], count: int = 60) -> Examples:
    """The images of an upload of these digits."""
    images = [torch.from_numpy(pixels(digit, index))[None] for digit in digits for index in range(count)]
    labels = torch.arange(len(digits)).repeat_interleave(count)
    return Examples(torch.stack(images), labels, tuple(f"digit-{digit}" for digit in digits))
