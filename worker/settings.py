"""Settings of a worker process, read from `ENGRAM_*` environment variables."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vault.certificates.settings import SigningSettings
from vault.settings import DataLimitSettings


class WorkerSettings(SigningSettings, DataLimitSettings):
    """Settings of one worker process; the environment name of `max_attempts` is `ENGRAM_MAX_ATTEMPTS`."""

    worker_threads: int = Field(default=1, ge=1, le=256)
    """Threads of PyTorch while learning."""
    torch_threads: int = Field(default=1, ge=1, le=256)
    """Threads of one inference in the services: certificates are made with as many, since bits depend on the number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What tasks are learned on; `auto` is a GPU where there is one. What is published is verified on the processor,
    which is what services answer with."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """Attempts that may break off before a job fails; those a worker gave up when it was told to stop do not count."""
    reconcile_seconds: float = Field(default=5.0, gt=0, le=3600)
    """How often open jobs that nobody works on are looked for."""
    deaf_seconds: float = Field(default=15.0, ge=5, le=3600)
    """How long an idle worker's consumer may be silent, though Redis answers new connections, before the worker ends
    with the status 75, to be started again."""
    sweep_seconds: float = Field(default=24 * 3600.0, gt=0)
    """How often what nobody needs any more is removed by age, by one of the workers."""
    progress_seconds: float = Field(default=0.5, gt=0, le=1)
    """Between two reports of progress."""
    cancel_seconds: float = Field(default=0.5, gt=0, le=60)
    """Between two looks at whether a job's cancelling was asked for."""
    checkpoint_seconds: float = Field(default=20.0, gt=0, le=30)
    """How much work a crash may cost: what was learned is written to the store so often."""
    job_seconds: float | None = Field(default=None, gt=0)
    """Wall-clock time after which a job fails as `job_timeout`, from its first attempt on; a task's option
    `max_seconds` can only shorten it. Without it jobs take as long as they take."""
    worker_memory_bytes: int = Field(default=0, ge=0)
    """Memory that the worker may take; a job that needs more fails as `job_out_of_memory`. 0 is all there is."""

    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where the worker offers `/metrics` to Prometheus; 0 is nowhere."""
    worker_metrics_host: str = "127.0.0.1"
    """The address that this port is opened on; in a container `0.0.0.0`."""
