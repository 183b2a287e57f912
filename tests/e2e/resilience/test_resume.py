"""Test of resumed learning after a worker is killed."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from testing.data.digits import archive
from testing.drills.killing import DrillClient, contents
from testing.processes.processes import eventually
from testing.processes.supervised import supervised
from vault.vault import Vault

OPTIONS: dict[str, Any] = {"epochs": 200, "patience": 200, "batch_size": 16, "rounds": 2, "recovery_epochs": 2}
"""Options of a task that takes several seconds, most of them in training."""


def learn(client: DrillClient, model: str) -> str:
    client.create(model)
    form = {"name": "low", "options": json.dumps(OPTIONS)}
    headers, files = {"Idempotency-Key": f"{model}:low"}, {"data": ("data.zip", archive((0, 1)))}
    answer = client.retry("POST", f"/v1/models/{model}/tasks", data=form, files=files, headers=headers)
    job: str = answer.json()["job"]["id"]
    return job


def past(vault: Vault, job: str, epoch: int) -> bool:
    """Whether the training has reached an epoch, or is over."""
    now = vault.jobs.get(job)
    if now.phase in (None, "loading"):
        return False
    return now.phase != "training" or int(now.progress.get("epoch") or 0) >= epoch


def checkpoint(vault: Vault, job: str) -> str:
    """The newest checkpoint; they sort by attempt, then by number."""
    return max((path for path in vault.objects.list(f"jobs/{job}/checkpoint") if path.endswith(".json")), default="")


def reported_epochs(client: DrillClient, job: str) -> list[int]:
    """The training epochs in the job's events, in their order."""
    lines = client.retry("GET", f"/v1/jobs/{job}/events").text.splitlines()
    events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:") and "{" in line]
    return [event["epoch"] for event in events if event.get("phase") == "training" and event.get("epoch")]


def test_a_killed_worker_s_work_is_taken_over_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    often = {"ENGRAM_CHECKPOINT_SECONDS": "0.2", "ENGRAM_PROGRESS_SECONDS": "0.1"}
    with supervised(tmp_path, 1, **often) as (parts, vault), closing(DrillClient(parts.url)) as client:
        assert client.finish(learn(client, "undisturbed"))["state"] == "succeeded"
        job = learn(client, "disturbed")
        for attempt, epoch in ((1, 10), (2, 25)):
            assert eventually(lambda epoch=epoch: past(vault, job, epoch), 180), parts.log  # type: ignore[misc]
            # Reported progress may be an earlier attempt's and newer than any checkpoint: wait for one of this attempt.
            own = max(checkpoint(vault, job), f"jobs/{job}/checkpoint/{attempt:04d}/")
            assert eventually(lambda own=own: checkpoint(vault, job) > own, 180), parts.log  # type: ignore[misc]
            parts.kill_worker()
        done = client.finish(job)
        assert done["state"] == "succeeded", done
        assert done["attempts"] == 3
        assert done["result"]["report"]["resumed"] == 2
        epochs = reported_epochs(client, job)
        half_way = next(place for place, one in enumerate(epochs) if one >= 10)
        assert min(epochs[half_way:]) >= 10, f"an attempt began at the beginning: {epochs}"
        disturbed, undisturbed = vault.log.head("disturbed"), vault.log.head("undisturbed")
        assert disturbed is not None
        assert undisturbed is not None
        assert contents(disturbed) == contents(undisturbed)
        # They are removed when the result has been written.
        assert eventually(lambda: vault.objects.list(f"jobs/{job}/checkpoint") == [], 60)
