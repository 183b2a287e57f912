"""A service and a job runner in one process, over a store that a test may damage."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.cli.validator import LearnerValidator
from service.settings import ServiceSettings
from testing.data.digits import QUICK, archive, png
from testing.data.models import MODEL, worker_settings
from testing.servers.service import Service, running, wait_until
from vault.maintenance.check import check
from vault.settings import VaultSettings
from worker.job_runner import JobRunner

PREDICT = f"/v1/models/{MODEL}/predict"
PNG = {"Content-Type": "image/png"}


class SystemUnderTest:
    """A service, and a job runner that polls for jobs, over one store."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = service.client
        self.vault = service.vault
        self.paused = False
        """Whether no jobs are worked on."""
        self._runner = JobRunner(self.vault, worker_settings(self.vault))
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._runner.stopping.wait(0.1):
            if not self.paused:
                self._runner.work(MODEL)

    def stop(self) -> None:
        """Stop the job runner."""
        self._runner.stopping.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def upload(self, task: str, digits: tuple[int, ...], count: int = 60) -> httpx.Response:
        """Submit a task with `count` images of each digit."""
        files = {"data": ("data.zip", archive(digits, count))}
        form = {"name": task, "options": json.dumps(QUICK)}
        return self.client.post(f"/v1/models/{MODEL}/tasks", data=form, files=files)

    def served_version(self) -> int:
        """The version that answers predictions; 0 while it has no task."""
        answer = self.client.post(PREDICT, content=png(0, 100), headers=PNG)
        if answer.status_code == 409:
            return 0
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])

    def wait_for_job(self, job: str, seconds: float = 300) -> dict[str, Any]:
        """The job once it is over; errors of the storage are tolerated until then."""
        answer: dict[str, Any] = {}

        def over() -> bool:
            nonlocal answer
            response = self.client.get(f"/v1/jobs/{job}")
            answer = response.json()
            assert response.status_code in (200, 503) or answer["code"] == "damaged", answer
            return answer.get("state") in ("succeeded", "failed", "cancelled")

        wait_until(over, seconds)
        return answer

    def assert_intact(self, versions: int) -> None:
        """Assert that the store has each version once, each as certified, and nothing damaged."""
        found = check(self.vault.objects, LearnerValidator(self.vault.objects), deep=True)
        assert found.problems == []
        assert (found.versions, found.certificates) == (versions + 1, versions)
        jobs = [commit.job for commit in self.vault.log.list(MODEL)]
        assert len(set(jobs)) == len(jobs)


@contextmanager
def system_under_test(settings: VaultSettings) -> Iterator[SystemUnderTest]:
    """A system over the store of the settings, which runs until the block ends."""
    changed = {"drain_seconds": 0, "poll_seconds": 0.2}
    with ExitStack() as parts:
        service = parts.enter_context(running(ServiceSettings(**(settings.model_dump() | changed))))
        system = SystemUnderTest(service)
        parts.callback(system.stop)
        yield system


def objects_by_kind(store: Path) -> dict[str, Path]:
    """One object of every kind in the folder of a model with a task, one job that is over and one that is open."""
    (open_job,) = [path.name for path in store.glob(f"open/{MODEL}/*")]
    over = [path.name for path in (store / "jobs").iterdir() if path.name != open_job]
    *_, newest = log = sorted(store.glob(f"models/{MODEL}/log/*/*.json"))
    commit = json.loads(newest.read_text())
    asked = json.loads((store / "jobs" / open_job / "request.json").read_text())
    blobs = {
        "commons": commit["engrams"][0],
        "engram": commit["engrams"][-1],
        "recogniser": commit["recogniser"],
        "kept": commit["kept"][-1],
        "certificate": commit["certificate"],
        # Of the last learned task, since an activation has none.
        "report": [sha for path in log if (sha := json.loads(path.read_text())["report"])][-1],
    }
    return {
        "model": store / "models" / MODEL / "model.json",
        "commit": newest,
        **{name: store / "blobs" / sha for name, sha in blobs.items()},
        "request": store / "jobs" / open_job / "request.json",
        "result": store / "jobs" / over[0] / "result.json",
        "attempt": store / "jobs" / over[0] / "attempts" / "0001.json",
        "decision": store / "jobs" / over[0] / "decisions" / "0001.json",
        "upload": store / "data" / asked["data"],
    }
