"""A service and a workshop in one process, over a store that a test may harm."""

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


class Plant:
    """A service, and a workshop that looks for jobs, over one store."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = service.client
        self.vault = service.vault
        self.resting = False
        """Whether jobs are left alone."""
        self._workshop = JobRunner(self.vault, worker_settings(self.vault))
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._workshop.stopping.wait(0.1):
            if not self.resting:
                self._workshop.work(MODEL)

    def stop(self) -> None:
        """Let the workshop end."""
        self._workshop.stopping.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def upload(self, task: str, digits: tuple[int, ...], count: int = 60) -> httpx.Response:
        """Ask for a task of `count` images each."""
        files = {"data": ("data.zip", archive(digits, count))}
        form = {"name": task, "options": json.dumps(QUICK)}
        return self.client.post(f"/v1/models/{MODEL}/tasks", data=form, files=files)

    def version(self) -> int:
        """What answers; 0 while that has learned nothing."""
        answer = self.client.post(PREDICT, content=png(0, 100), headers=PNG)
        if answer.status_code == 409:
            return 0
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])

    def finished(self, job: str, seconds: float = 300) -> dict[str, Any]:
        """A job once it is over, whatever is answered until then."""
        answer: dict[str, Any] = {}

        def over() -> bool:
            nonlocal answer
            response = self.client.get(f"/v1/jobs/{job}")
            answer = response.json()
            assert response.status_code in (200, 503) or answer["code"] == "damaged", answer
            return answer.get("state") in ("succeeded", "failed", "cancelled")

        wait_until(over, seconds)
        return answer

    def assert_whole(self, versions: int) -> None:
        """Assert that the store has all its versions once, each as certified, and nothing damaged."""
        found = check(self.vault.objects, LearnerValidator(self.vault.objects), deep=True)
        assert found.problems == []
        assert (found.versions, found.certificates) == (versions + 1, versions)
        jobs = [commit.job for commit in self.vault.log.list(MODEL)]
        assert len(set(jobs)) == len(jobs)


@contextmanager
def planted(settings: VaultSettings) -> Iterator[Plant]:
    """All of it, until the block ends."""
    changed = {"drain_seconds": 0, "poll_seconds": 0.2}
    with ExitStack() as parts:
        service = parts.enter_context(running(ServiceSettings(**(settings.model_dump() | changed))))
        plant = Plant(service)
        parts.callback(plant.stop)
        yield plant


def kinds(store: Path) -> dict[str, Path]:
    """One object of every kind in a folder whose model has learned, with one job over and one open."""
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
        # Of the last task learned: an activation has none.
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
