"""Storage that fails: objects harmed at random, S3 that fails in every way, a disk that is full during commits.

    python -m benchmarks storage [--rounds 60] [--tasks 3] [--seed 0] [--out results.jsonl]

Three parts, each over a service and a workshop that learns:

- `objects`: in every round a task is submitted, one object of a random kind gets a bit flipped, is cut short or deleted
  (a model's record and its newest commit are not deleted: their absence means something else), and the object is put
  back at the end. The check must name the object, the running service must answer the same bytes all the time, a
  service that starts must serve the newest version that is whole and name the object, the job must end by itself or be
  done once the object is back, and no version may be made of what is damaged.
- `s3`: through a proxy that lets one request in ten fail, one kind of fault after the other, tasks are learned while
  four connections predict. Every prediction must be answered, whatever is accepted must end, and all that was published
  must be whole.
- `disk`: the program `testing.drills.full_disk`, on a file system of its own where one may be mounted.
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
from testing.data.planted_store import PNG, PREDICT, Plant, kinds, planted
from testing.servers.faulty_s3 import FaultyS3
from testing.servers.redis import RedisServer
from testing.servers.s3 import AWS, BUCKET, s3_server
from testing.servers.service import Service, running, wait_until
from vault.errors import VaultError
from vault.maintenance.check import check
from vault.settings import VaultSettings

FAULTS = ("error", "throttle", "cut", "lost", "hang", "flip")
LEARNED_FROM = ("model", "commons", "engram", "recogniser", "kept", "certificate", "upload")
"""Without one of these, whole, no task can be learned."""
TOLD = ("model", "commit", "commons", "engram", "recogniser", "kept")
"""What a service that starts names when it is harmed."""
KEPT = ("model", "commit")
"""What is not deleted: a model without its record is none, and without its newest commit the one before counts."""


def harm(path: Path, how: str, draw: random.Random) -> bytes:
    """Harm a file; what it held."""
    whole = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(whole[: draw.randrange(len(whole))])
    else:
        harmed = bytearray(whole)
        harmed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(harmed)
    return whole


class ObjectHarm:
    """Rounds of harm to single objects."""

    def __init__(self, plant: Plant, store: Path, draw: random.Random) -> None:
        self._plant = plant
        self._store = store
        self._draw = draw
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def round(self, number: int) -> None:
        """One object harmed, looked at from all sides, and put back."""
        plant = self._plant
        plant.resting = True
        job = submit(plant.vault, f"task-{number}", (2, 3)).id
        there = kinds(self._store)
        kind = self._draw.choice(list(there))
        how = self._draw.choice(["flipped", "cut short"] + ["deleted"] * (kind not in KEPT))
        path, before = there[kind], self._answer(plant.service)
        name = str(path.relative_to(self._store))
        newest = plant.vault.log.numbers(MODEL)[-1]
        whole = harm(path, how, self._draw)
        try:
            self._look(kind, how, name, newest)
            plant.resting = False
            # A job whose own record is harmed is left alone until that is mended.
            outcome = "waits" if kind == "request" else self._outcome(job, name, kind)
            self._expect(self._answer(plant.service) == before or outcome == "succeeded", f"{kind} {how}: answers")
        finally:
            path.write_bytes(whole)
        outcome = outcome if outcome != "waits" else self._outcome(job, name, kind)
        # A commit stands for ever, so that a worker which has read it goes by what it remembers.
        self._expect(outcome == ("failed" if kind in LEARNED_FROM else "succeeded"), f"{kind} {how}: job {outcome}")
        plant.vault.log.head(MODEL)
        after = plant.vault.log.numbers(MODEL)[-1]
        self._expect(after == newest + (outcome == "succeeded"), f"{kind} {how}: {after} versions")
        found = check(plant.vault.objects, LearnerValidator(plant.vault.objects))
        self._expect(found.whole, f"{kind} {how}: not whole afterwards: {found.problems}")
        # Back to one task, so that rounds do not fill the model.
        versions.activate(plant.vault, MODEL, 1)
        wait_until(lambda: not plant.client.get(f"/v1/models/{MODEL}").json()["problems"], 30)
        self.done[f"{kind} {how}: job {outcome}"] += 1
        print(f"round {number}: {kind} {how}, job {outcome}", file=sys.stderr)

    def _look(self, kind: str, how: str, name: str, newest: int) -> None:
        """What the check, the running service and one that starts say of the harmed object."""
        plant = self._plant
        objects = plant.vault.objects
        found = check(objects, LearnerValidator(objects))
        named = {problem.object for problem in found.problems}
        # A deleted record of a job leaves no trace; of a record the name of the seal may be what was harmed.
        if not (how == "deleted" and kind in ("attempt", "decision", "request", "result")):
            self._expect(name in named or self._unharmed(name), f"{kind} {how}: the check named {sorted(named)}")
        if kind not in TOLD:
            return
        with self._newcomer() as service:
            wait_until(lambda: service.client.get("/readyz").json().get("reason") != "starting", 30)
            known = self._unharmed(name) or self._is_told(service, name)
            self._expect(known, f"{kind} {how}: a service that starts does not name it")
            answer = service.client.post(PREDICT, content=png(0, 100), headers=PNG)
            age = "the newest" if answer.json().get("version") == newest else "an older"
            served = f"answers with {age} version" if answer.status_code == 200 else f"answers {answer.status_code}"
            self.done[f"{kind} harmed: a service that starts {served}"] += 1

    def _is_told(self, service: Service, name: str) -> bool:
        """Whether a service names an object as harmed; what only learning needs it reads once it answers."""

        def named() -> bool:
            answer = service.client.get(f"/v1/models/{MODEL}").json()
            args = [problem["object"] for problem in answer["problems"]] if "problems" in answer else [answer["detail"]]
            return any(name in one for one in args)

        with suppress(AssertionError):
            wait_until(named, 20)
        return named()

    def _unharmed(self, name: str) -> bool:
        """Whether a record reads as it did: the bit was one of the name of its seal."""
        try:
            self._plant.vault.objects.get_json(name)
        except VaultError:
            return False
        return True

    @contextmanager
    def _newcomer(self) -> Iterator[Service]:
        settings = self._plant.vault.settings.model_dump() | {"drain_seconds": 0, "poll_seconds": 0.2}
        with running(ServiceSettings(**settings)) as service:
            yield service

    def _answer(self, service: Service) -> Any:
        answers = [service.client.post(PREDICT, content=png(digit, 100), headers=PNG) for digit in (0, 1)]
        self.done["predictions"] += len(answers)
        self._expect(all(answer.status_code == 200 for answer in answers), "a prediction failed")
        return [answer.json().get("predictions") for answer in answers]

    def _outcome(self, job: str, name: str, kind: str) -> str:
        ended = self._plant.finished(job)
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


def harmed_objects(rounds: int, seed: int, redis_url: str) -> dict[str, Any]:
    """The first part."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        with planted(VaultSettings(store_url=str(store), redis_url=redis_url, lease_seconds=5)) as plant:
            create(plant.vault)
            plant.finished(submit(plant.vault, "low", (0, 1)).id)
            wait_until(lambda: plant.version() == 1, 30)
            harming = ObjectHarm(plant, store, random.Random(seed))
            for number in range(rounds):
                harming.round(number)
            plant.resting = True
    return {"rounds": rounds, "what_came_of_it": dict(sorted(harming.done.items())), "faults": harming.faults}


def faulty_s3(tasks: int, seed: int, redis_url: str, endpoint: str) -> dict[str, Any]:
    """The second part."""
    args: dict[str, Any] = {}
    faults: list[str] = []
    for fault in FAULTS:
        s3 = FaultyS3(endpoint, seed)
        url = f"s3://{BUCKET}/{fault}"
        settings = VaultSettings(store_url=url, redis_url=redis_url, s3_endpoint=s3.url, store_timeout_seconds=2)
        try:
            with planted(settings) as plant:
                create(plant.vault)
                plant.finished(submit(plant.vault, "low", (0, 1)).id)
                wait_until(lambda plant=plant: plant.version() == 1, 30)
                before = dict(s3.seen)
                began = time.monotonic()
                with s3.failing(**{fault: 0.1}), asking(plant.service) as answers:
                    states = Counter(learn(plant, f"task-{number}") for number in range(tasks))
                args[fault] = {
                    "requests": s3.seen["passed"] - before["passed"],
                    "faults": s3.seen[fault],
                    "jobs": dict(states),
                    "predictions": dict(answers),
                    "seconds": round(time.monotonic() - began, 1),
                }
                print(f"{fault}: {args[fault]}", file=sys.stderr)
                found = check(plant.vault.objects, LearnerValidator(plant.vault.objects), deep=True)
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


def learn(plant: Plant, task: str) -> str:
    """Ask until the task is accepted, and wait until its job is over; how it ended."""
    while (answer := plant.upload(task, (2, 3))).status_code != 202:
        if answer.status_code == 409:  # accepted, and the answer to the one before was lost
            jobs = plant.vault.jobs.list(MODEL)
            return str(plant.finished(next(job.id for job in jobs if job.task == task), 300)["state"])
    state = str(plant.finished(answer.json()["job"]["id"], 300)["state"])
    return state


@contextmanager
def asking(service: Service, connections: int = 4) -> Iterator[Counter[str]]:
    """Connections that predict all the time; their answers by status."""
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
    """The third part."""
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
    options = parser("Storage that fails")
    options.add_argument("--rounds", type=int, default=60, help="objects that are harmed")
    options.add_argument("--tasks", type=int, default=3, help="tasks learned under each kind of fault")
    args = options.parse_args()
    os.environ.update(AWS)
    redis = RedisServer()
    try:
        objects = harmed_objects(args.rounds, args.seed, redis.url)
        with s3_server() as endpoint:
            s3 = faulty_s3(args.tasks, args.seed, redis.url, endpoint)
        disk = full_disk(redis.url)
    finally:
        redis.remove()
    faults = [*objects.pop("faults"), *s3.pop("faults"), *disk.pop("faults")]
    record("storage", {"seed": args.seed, "objects": objects, "s3": s3, "disk": disk, "faults": faults}, args.out)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
