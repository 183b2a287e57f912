"""Kill drill: clients that learn and predict while processes are killed, and invariants to check."""

from __future__ import annotations

import itertools
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx

from engram.certificate import Certificate, certify, compare
from engram.runtime import threads
from service.cli.validator import LearnerValidator
from testing.data.digits import SMALL_MODEL, archive, png
from testing.processes.processes import eventually
from testing.processes.supervised import Supervised
from vault.commit_log import Commit
from vault.errors import VaultError
from vault.maintenance.check import check
from vault.maintenance.sweep import SweepAges
from vault.vault import Vault
from worker.versions.publishing import load_memory

TASKS = {name: archive(digits) for name, digits in (("low", (0, 1)), ("mid", (2, 3)), ("high", (4, 5)))}
"""Tasks of every model, in this order."""

OPTIONS: dict[str, Any] = {"epochs": 8, "patience": 8, "batch_size": 16, "rounds": 2, "recovery_epochs": 3}
"""Training options with which a task takes a second or two, so that kills hit each of its phases."""

PHASES = ("loading", "training", "pruning", "recovering", "freezing", "recognising", "verifying", "publishing")
"""Phases of a job during which processes are killed."""

KINDS = ("worker", "service", "redis", "flushall", "worker and redis", "all")
"""Kinds of kills; `flushall` empties Redis without killing anything."""

Contents = tuple[tuple[str, ...], str | None, tuple[str, ...]]


def contents(head: Commit) -> Contents:
    """SHA-256 of all blobs of a model."""
    return head.engrams, head.recogniser, head.kept


class DrillClient:
    """HTTP client that retries broken connections and unavailable servers, and records every other failure."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures: list[str] = []
        self.broken = 0
        """Requests whose connection failed."""
        self.unavailable = 0
        """Requests answered with Retry-After."""
        self._http = httpx.Client(base_url=url, timeout=60)

    def try_once(self, method: str, path: str, **content: Any) -> httpx.Response | None:
        """The answer; None if a retry may succeed."""
        try:
            response = self._http.request(method, path, **content)
        except httpx.TransportError:
            self.broken += 1
            return None
        if response.status_code == 503 or _in_progress(response):
            assert "Retry-After" in response.headers, response.text
            self.unavailable += 1
            return None
        return response

    def retry(self, method: str, path: str, **content: Any) -> httpx.Response:
        """The answer, after as many tries as necessary."""
        deadline = time.monotonic() + 300
        while (response := self.try_once(method, path, **content)) is None:
            assert time.monotonic() < deadline, f"nobody answers {method} {path}"
            time.sleep(0.05)
        if not response.is_success:
            self.failures.append(f"{method} {path}: {response.status_code} {response.text}")
        return response

    def create(self, model: str) -> None:
        """Create a model; retries use one idempotency key."""
        headers = {"Idempotency-Key": model}
        self.retry("POST", "/v1/models", json={"name": model, **SMALL_MODEL}, headers=headers)

    def submit(self, model: str, task: str) -> str:
        """Submit a task; retries use one idempotency key. Returns the job's id."""
        headers = {"Idempotency-Key": f"{model}:{task}"}
        form = {"name": task, "options": json.dumps(OPTIONS)}
        files = {"data": ("data.zip", TASKS[task])}
        answer = self.retry("POST", f"/v1/models/{model}/tasks", data=form, files=files, headers=headers)
        job: str = answer.json()["job"]["id"]
        return job

    def finish(self, job: str, seconds: float = 1800) -> dict[str, Any]:
        """The job, once it is over."""
        deadline = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.retry("GET", f"/v1/jobs/{job}").json()
            if found["state"] in ("succeeded", "failed", "cancelled"):
                return found
            assert time.monotonic() < deadline, f"the job does not end: {found}"
            time.sleep(0.05)

    def logits(self, model: str, task: str) -> str | None:
        """The logits of a task for one image, as text; None if the service is not available."""
        path = f"/v1/models/{model}/predict?task={task}&logits=true"
        response = self.try_once("POST", path, content=png(3, 0), headers={"Content-Type": "image/png"})
        if response is None:
            return None
        if not response.is_success:
            self.failures.append(f"{path}: {response.status_code} {response.text}")
            return None
        return json.dumps(response.json()["predictions"][0]["logits"])

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _in_progress(response: httpx.Response) -> bool:
    return response.status_code == 409 and response.json()["code"] == "idempotency_in_progress"


@dataclass
class Workload:
    """Clients that learn one model after another and predict meanwhile, with an undisturbed model to compare."""

    client: DrillClient
    undisturbed: Contents
    answers: dict[str, str]
    """Logits of the undisturbed model by task."""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    """The job of each task, by model."""
    predictions: int = 0
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def prepare(cls, parts: Supervised, vault: Vault) -> Workload:
        """Learn the undisturbed model."""
        client = DrillClient(parts.url)
        client.create("undisturbed")
        for task in TASKS:
            assert client.finish(client.submit("undisturbed", task))["state"] == "succeeded"
        head = vault.log.head("undisturbed")
        assert head is not None
        path = "/v1/models/undisturbed"
        assert eventually(lambda: client.retry("GET", path).json()["version"] == head.version, 60), "it is not served"
        answers = {task: client.logits("undisturbed", task) for task in TASKS}
        assert not client.failures, client.failures
        return cls(client, contents(head), {task: str(answer) for task, answer in answers.items()})

    def learn(self, enough: threading.Event) -> None:
        """Learn one model after another, the current one to its end."""
        for number in itertools.count():
            if enough.is_set():
                return
            model = f"model-{number}"
            self.client.create(model)
            jobs = self.models.setdefault(model, {})
            for task in TASKS:
                jobs[task] = self.client.submit(model, task)
            for job in jobs.values():
                self.client.finish(job)

    def predict(self, enough: threading.Event) -> None:
        """Predict with the undisturbed model all the time."""
        client = DrillClient(self.client.url)
        for task in itertools.cycle(TASKS):
            if enough.is_set():
                break
            answer = client.logits("undisturbed", task)
            if answer is not None:
                self.predictions += 1
                if answer != self.answers[task]:
                    self.wrong.append(f"{task}: {answer}")
            time.sleep(0.02)
        client.close()
        self.client.broken += client.broken
        self.client.unavailable += client.unavailable
        self.client.failures += client.failures


@dataclass
class Killer:
    """Killer of processes at random moments; whatever is killed is restarted at once."""

    parts: Supervised
    vault: Vault
    random: random.Random
    longest: float
    """Seconds at most to wait for a phase."""
    report: Callable[[str], None] | None = None
    """Called with a line on each kill."""
    kinds: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    """Number of kills by the phase of the current job."""

    def kill_all(self, kinds: Sequence[str], seconds: float = math.inf) -> None:
        """Make the kills one after another, each at a random moment, and none after so many seconds."""
        deadline = time.monotonic() + seconds
        for kind in kinds:
            self._wait()
            if time.monotonic() > deadline:
                return
            self.phases[self._phase()] += 1
            self.kinds[kind] += 1
            if self.report:
                self.report(f"kill {self.kinds.total()}: {kind}")
            at_work = self._at_work()
            if kind == "flushall":
                self.vault.redis.flushall()
            if kind in ("redis", "worker and redis", "all"):
                self.parts.kill_redis()
            for _ in range(len(self.parts.workers) if kind == "all" else "worker" in kind):
                self.parts.kill_worker(at_work)
                at_work = None
            if kind in ("service", "all"):
                self.parts.kill_service()

    def _wait(self) -> None:
        """Wait for a random phase and a random moment in or after it; sometimes before the last kill is recovered."""
        wanted = self.random.choice(PHASES)
        if self.random.random() > 0.2:
            eventually(lambda: self._phase() in (*PHASES, "idle"), 60)
            deadline = time.monotonic() + self.longest
            while self._phase() != wanted and time.monotonic() < deadline:
                time.sleep(0.01)
        time.sleep(self.random.choice((0.0, 0.02, 0.2, 1.0)) * self.random.random())

    def _phase(self) -> str:
        """The phase of the current job, else why there is none."""
        try:
            jobs = self.vault.jobs.open_jobs()
        except VaultError:
            return "unknown"
        return next((job.phase or "starting" for job in jobs if job.state == "running"), "waiting" if jobs else "idle")

    def _at_work(self) -> int | None:
        """The process id of the worker that has a lease."""
        try:
            holders = self.vault.leases.holders(self.vault.jobs.open_models()).values()
        except VaultError:
            return None
        return next((int(holder.owner.rpartition(":")[2]) for holder in holders if holder), None)


def run_during(workload: Workload, kill: Callable[[], None]) -> None:
    """Run the workload until `kill` returns and the last model is learned."""
    enough = threading.Event()
    raised: list[BaseException] = []

    def guarded(run: Callable[[threading.Event], None]) -> None:
        try:
            run(enough)
        except BaseException as error:
            raised.append(error)
            enough.set()

    learning = threading.Thread(target=guarded, args=(workload.learn,))
    done = threading.Event()
    predicting = threading.Thread(target=lambda: workload.predict(done))
    learning.start()
    predicting.start()
    try:
        kill()
    finally:
        enough.set()
        learning.join()
        done.set()
        predicting.join()
    if raised:
        raise raised[0]


def faults(vault: Vault, workload: Workload) -> list[str]:
    """Violated invariants after the drill."""
    # A job is over when its result is written; what only an open one needs is removed afterwards.
    eventually(lambda: not vault.jobs.open_models(), 60)
    found = [*workload.client.failures, *(f"a wrong answer: {answer}" for answer in workload.wrong)]
    vault.complete_audit()
    for model, accepted in workload.models.items():
        found.extend(f"{model}: {fault}" for fault in _faults(vault, model, accepted, workload.undisturbed))
    if left := vault.jobs.open_models():
        found.append(f"jobs are still open: {left}")
    return found + _remains(vault)


def _remains(vault: Vault) -> list[str]:
    """Problems that a check of the whole store finds, and unneeded objects that a sweep leaves behind."""
    found = [str(problem) for problem in check(vault.objects, LearnerValidator(vault.objects)).problems]
    vault.sweep(SweepAges.all(timedelta(seconds=-1)))
    swept = check(vault.objects, LearnerValidator(vault.objects))
    found.extend(f"after a sweep: {problem}" for problem in swept.problems)
    for folder in ("jobs", "data", "open", "recent", "idempotency", "condemned"):
        found.extend(f"a sweep left {path}" for path in vault.objects.list(folder))
    if swept.orphans:
        found.append(f"a sweep left {swept.orphans} objects that nothing names")
    return found


def _faults(vault: Vault, model: str, accepted: dict[str, str], undisturbed: Contents) -> list[str]:
    found = []
    jobs = {job.id: job for job in vault.jobs.list(model)}
    if set(jobs) != set(accepted.values()):
        found.append(f"the jobs are {sorted(jobs)}, accepted were {sorted(accepted.values())}")
    found.extend(f"job {job.id} has {job.state}: {job.error}" for job in jobs.values() if job.state != "succeeded")
    numbers = vault.log.numbers(model)
    if numbers != [*range(len(TASKS) + 1)]:
        found.append(f"the log has the versions {numbers}")
    commits = vault.log.list(model)
    if [(commit.kind, commit.job) for commit in commits[1:]] != [("learn", accepted[task]) for task in TASKS]:
        found.append(f"the log tells {[(commit.kind, commit.job) for commit in commits]}")
    if [(job.result or {}).get("version") for job in sorted(jobs.values(), key=lambda job: job.id)] != numbers[1:]:
        found.append("the jobs' results name other versions than the log")
    told = sorted((entry.action, entry.job or "") for entry in vault.audit.list(model=model))
    if told != sorted([("create", ""), *(("learn", job) for job in accepted.values())]):
        found.append(f"the audit log tells {told}")
    if contents(commits[-1]) != undisturbed:
        found.append("it is made of other bytes than the undisturbed model")
    found.extend(
        f"the certificate of version {c.version} does not hold" for c in commits[1:] if not _holds(vault, c, model)
    )
    return found


def _holds(vault: Vault, commit: Commit, model: str) -> bool:
    """Whether a version's answers agree with its certificate."""
    assert commit.certificate is not None
    stored = Certificate.from_dict(json.loads(vault.objects.get_blob(commit.certificate)))
    with threads(1):
        now = certify(load_memory(vault, vault.models.get(model), commit))
    return list(stored.tasks) == [*TASKS][: commit.version] and not compare(stored, now)
