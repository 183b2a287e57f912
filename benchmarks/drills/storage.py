"""Drill of failing storage: damaged objects, a faulty S3 server, a full disk.

    python -m benchmarks storage [--rounds 60] [--tasks 3] [--seed 0] [--out results.jsonl]

Three parts, each over a service and a job runner that learns:

- `objects`: in every round a task is submitted, one object of a random kind gets a bit flipped, is truncated or deleted
  (a model's record and its newest commit are not deleted: their absence means something else), and the object is
  restored at the end. The check must name the object, the running service must answer the same bytes all the time, a
  service that starts must serve the newest undamaged version and name the object, the job must end by itself or once
  the object is restored, and no version may be made of damaged objects.
- `s3`: through a proxy that makes one request in ten fail, one kind of fault after the other, tasks are learned while
  four connections predict. Every prediction must be answered, every accepted job must end, and every published version
  must be undamaged.
- `disk`: the program `testing.drills.full_disk`, on a file system of its own if one can be mounted.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.drills.record import parser, record
from service.cli.validator import LearnerValidator
from service.models import versions
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL, create, submit
from testing.data.planted_store import PNG, PREDICT, SystemUnderTest, objects_by_kind, system_under_test
from testing.servers.faulty_s3 import FaultyS3
from testing.servers.redis import RedisServer
from testing.servers.s3 import AWS, BUCKET, s3_server
from testing.servers.service import Service, running, wait_until
from vault.errors import VaultError
from vault.maintenance.check import check
from vault.settings import VaultSettings

FAULTS = ("error", "throttle", "cut", "lost", "hang", "flip")
LEARNED_FROM = ("model", "commons", "engram", "recogniser", "kept", "certificate", "upload")
"""Kinds of objects without which no task can be learned."""
NAMED_AT_START = ("model", "commit", "commons", "engram", "recogniser", "kept")
"""Kinds of objects whose damage a starting service reports."""
NEVER_DELETED = ("model", "commit")
"""Kinds that are not deleted: a model exists by its record, and without its newest commit the one before counts."""


def damage_file(path: Path, how: str, draw: random.Random) -> bytes:
    """Damage a file; returns its former content."""
    whole = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(whole[: draw.randrange(len(whole))])
    else:
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
    return whole


class ObjectDamage:
    """Rounds in which one object is damaged and restored."""

    def __init__(self, system: SystemUnderTest, store: Path, draw: random.Random) -> None:
        self._system = system
        self._store = store
        self._draw = draw
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def round(self, number: int) -> None:
        """Damage one object, observe the system, and restore it."""
        system = self._system
        system.paused = True
        job = submit(system.vault, f"task-{number}", (2, 3)).id
        there = objects_by_kind(self._store)
        kind = self._draw.choice(list(there))
        how = self._draw.choice(["flipped", "cut short"] + ["deleted"] * (kind not in NEVER_DELETED))
        path, before = there[kind], self._answer(system.service)
        name = str(path.relative_to(self._store))
        newest = system.vault.log.numbers(MODEL)[-1]
        whole = damage_file(path, how, self._draw)
        try:
            self._observe(kind, how, name, newest)
            system.paused = False
            # A job whose own record is damaged waits until that is restored.
            outcome = "waits" if kind == "request" else self._outcome(job, name, kind)
            self._expect(self._answer(system.service) == before or outcome == "succeeded", f"{kind} {how}: answers")
        finally:
            path.write_bytes(whole)
        outcome = outcome if outcome != "waits" else self._outcome(job, name, kind)
        # Commits never change, so a worker that has read one uses its copy.
        self._expect(outcome == ("failed" if kind in LEARNED_FROM else "succeeded"), f"{kind} {how}: job {outcome}")
        system.vault.log.head(MODEL)
        after = system.vault.log.numbers(MODEL)[-1]
        self._expect(after == newest + (outcome == "succeeded"), f"{kind} {how}: {after} versions")
        found = check(system.vault.objects, LearnerValidator(system.vault.objects))
        self._expect(found.whole, f"{kind} {how}: not whole afterwards: {found.problems}")
        # Activate the version with one task, so that rounds do not exhaust the model's capacity.
        versions.activate(system.vault, MODEL, 1)
        wait_until(lambda: not system.client.get(f"/v1/models/{MODEL}").json()["problems"], 30)
        self.done[f"{kind} {how}: job {outcome}"] += 1
        print(f"round {number}: {kind} {how}, job {outcome}", file=sys.stderr)

    def _observe(self, kind: str, how: str, name: str, newest: int) -> None:
        """Check what the integrity check, the running service and a starting one report of the damaged object."""
        system = self._system
        objects = system.vault.objects
        found = check(objects, LearnerValidator(objects))
        named = {problem.object for problem in found.problems}
        # A deleted record of a job leaves no trace, and the flipped bit may be in the key of the seal.
        if not (how == "deleted" and kind in ("attempt", "decision", "request", "result")):
            self._expect(name in named or self._is_readable(name), f"{kind} {how}: the check named {sorted(named)}")
        if kind not in NAMED_AT_START:
            return
        with self._starting_service() as service:
            wait_until(lambda: service.client.get("/readyz").json().get("reason") != "starting", 30)
            known = self._is_readable(name) or self._is_reported(service, name)
            self._expect(known, f"{kind} {how}: a service that starts does not name it")
            answer = service.client.post(PREDICT, content=png(0, 100), headers=PNG)
            age = "the newest" if answer.json().get("version") == newest else "an older"
            served = f"answers with {age} version" if answer.status_code == 200 else f"answers {answer.status_code}"
            self.done[f"{kind} harmed: a service that starts {served}"] += 1

    def _is_reported(self, service: Service, name: str) -> bool:
        """Whether a service reports an object as damaged; it reads what only learning needs after it has started."""

        def named() -> bool:
            answer = service.client.get(f"/v1/models/{MODEL}").json()
            args = [problem["object"] for problem in answer["problems"]] if "problems" in answer else [answer["detail"]]
            return any(name in one for one in args)

        with suppress(AssertionError):
            wait_until(named, 20)
        return named()

    def _is_readable(self, name: str) -> bool:
        """Whether a record still reads: the flipped bit was in the key of its seal."""
        try:
            self._system.vault.objects.get_json(name)
        except VaultError:
            return False
        return True

    @contextmanager
    def _starting_service(self) -> Iterator[Service]:
        settings = self._system.vault.settings.model_dump() | {"drain_seconds": 0, "poll_seconds": 0.2}
        with running(ServiceSettings(**settings)) as service:
            yield service

    def _answer(self, service: Service) -> Any:
        answers = [service.client.post(PREDICT, content=png(digit, 100), headers=PNG) for digit in (0, 1)]
        self.done["predictions"] += len(answers)
        self._expect(all(answer.status_code == 200 for answer in answers), "a prediction failed")
        return [answer.json().get("predictions") for answer in answers]

    def _outcome(self, job: str, name: str, kind: str) -> str:
        ended = self._system.wait_for_job(job)
        if ended["state"] == "failed":
            code, detail = ended["error"]["code"], ended["error"]["detail"]
            short = name.rsplit("/", 1)[-1]
            self._expect(
                code in ("damaged", "not_found", "unsupported_format") and short in detail, f"{kind}: {detail}"
            )
        return str(ended["state"])

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.faults.append(otherwise)


def damaged_objects(rounds: int, seed: int, redis_url: str) -> dict[str, Any]:
    """Run the part `objects`."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        with system_under_test(VaultSettings(store_url=str(store), redis_url=redis_url, lease_seconds=5)) as system:
            create(system.vault)
            system.wait_for_job(submit(system.vault, "low", (0, 1)).id)
            wait_until(lambda: system.served_version() == 1, 30)
            damage = ObjectDamage(system, store, random.Random(seed))
            for number in range(rounds):
                damage.round(number)
            system.paused = True
    return {"rounds": rounds, "what_came_of_it": dict(sorted(damage.done.items())), "faults": damage.faults}


def faulty_s3(tasks: int, seed: int, redis_url: str, endpoint: str) -> dict[str, Any]:
    """Run the part `s3`."""
    args: dict[str, Any] = {}
    faults: list[str] = []
    for fault in FAULTS:
        s3 = FaultyS3(endpoint, seed)
        url = f"s3://{BUCKET}/{fault}"
        settings = VaultSettings(store_url=url, redis_url=redis_url, s3_endpoint=s3.url, store_timeout_seconds=2)
        try:
            with system_under_test(settings) as system:
                create(system.vault)
                system.wait_for_job(submit(system.vault, "low", (0, 1)).id)
                wait_until(lambda system=system: system.served_version() == 1, 30)
                before = dict(s3.seen)
                began = time.monotonic()
                with s3.failing(**{fault: 0.1}), predicting(system.service) as answers:
                    states = Counter(learn(system, f"task-{number}") for number in range(tasks))
                args[fault] = {
                    "requests": s3.seen["passed"] - before["passed"],
                    "faults": s3.seen[fault],
                    "jobs": dict(states),
                    "predictions": dict(answers),
                    "seconds": round(time.monotonic() - began, 1),
                }
                print(f"{fault}: {args[fault]}", file=sys.stderr)
                found = check(system.vault.objects, LearnerValidator(system.vault.objects), deep=True)
                faults += [f"{fault}: {problem}" for problem in found.problems]
                if answers.keys() - {"200"}:
                    faults.append(f"{fault}: predictions were answered {dict(answers)}")
                if found.versions != 2 + states["succeeded"]:
                    faults.append(f"{fault}: {found.versions} versions of {states}")
                if fault != "flip" and states.keys() != {"succeeded"}:
                    faults.append(f"{fault}: {states}")
        finally:
            s3.close()
    return {"by_fault": args, "faults": faults}


def learn(system: SystemUnderTest, task: str) -> str:
    """Submit until the task is accepted, and wait for its job; returns the final state."""
    while (answer := system.upload(task, (2, 3))).status_code != 202:
        if answer.status_code == 409:  # the submission before was accepted and its answer lost
            jobs = system.vault.jobs.list(MODEL)
            return str(system.wait_for_job(next(job.id for job in jobs if job.task == task), 300)["state"])
    state = str(system.wait_for_job(answer.json()["job"]["id"], 300)["state"])
    return state


@contextmanager
def predicting(service: Service, connections: int = 4) -> Iterator[Counter[str]]:
    """Connections that predict all the time; yields the number of answers by status."""
    answers: Counter[str] = Counter()
    over, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            while not over.wait(0.02):
                try:
                    status = str(client.post(PREDICT, content=png(0, 100), headers=PNG).status_code)
                except httpx.HTTPError as error:
                    status = type(error).__name__
                with lock:
                    answers[status] += 1

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def full_disk(redis_url: str) -> dict[str, Any]:
    """Run the part `disk`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "testing.drills.full_disk", "limit", folder, redis_url]
        mount = ["unshare", "--user", "--map-root-user", "--mount"]
        if shutil.which("unshare") and subprocess.run([*mount, "true"], capture_output=True).returncode == 0:
            command[3] = "tmpfs"
            script = 'mount -t tmpfs -o size=4m engram "$1" && shift && exec "$@"'
            command = [*mount, "sh", "-c", script, "sh", folder, *command]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
    kind = "a file system of 4 MB" if "tmpfs" in command else "a limit on the size of files"
    faults = [done.stderr.strip().splitlines()[-1]] if done.returncode else []
    return {"kind": kind, "seconds": round(time.monotonic() - began, 1), "faults": faults}


def main() -> int:
    options = parser("storage", "Storage that fails")
    options.add_argument("--rounds", type=int, default=60, help="objects that are harmed")
    options.add_argument("--tasks", type=int, default=3, help="tasks learned under each kind of fault")
    args = options.parse_args()
    os.environ.update(AWS)
    redis = RedisServer()
    try:
        objects = damaged_objects(args.rounds, args.seed, redis.url)
        with s3_server() as endpoint:
            s3 = faulty_s3(args.tasks, args.seed, redis.url, endpoint)
        disk = full_disk(redis.url)
    finally:
        redis.remove()
    faults = [*objects.pop("faults"), *s3.pop("faults"), *disk.pop("faults")]
    record("storage", {"seed": args.seed, "objects": objects, "s3": s3, "disk": disk, "faults": faults}, args.out)
    return 1 if faults else 0
