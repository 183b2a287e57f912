"""Store with one model, which learns each task by a worker's attempt in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.http_learner import archive
from benchmarks.harness.results import append, rows_of
from engram import Definition, Examples, Memory
from engram.nn.pretrained.backbone import Backbone
from service.lifecycle.tuning import TUNING
from service.models import loaded, versions
from testing.processes.processes import plain_environment
from vault.commit_log import Commit
from vault.errors import ModelExists
from vault.vault import Vault
from worker.settings import WorkerSettings

MODEL = "growth"
ROOT = Path(__file__).parents[2]
_ATTEMPTS = "attempts.jsonl"


class GrowthStore:
    """A store in `folder`, where the figures of every attempt are kept too.

    A folder of an earlier run is gone on with, if its model has the same definition.

    Parameters
    ----------
    options
        Fields of `LearnOptions`.
    threads
        Threads of PyTorch while learning.
    backbones
        Networks that the definition names.

    Raises
    ------
    ModelExists
        The folder holds a model of another definition.
    """

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        definition: Definition,
        options: Mapping[str, Any],
        threads: int,
        backbones: Mapping[str, Backbone] | None = None,
    ) -> None:
        self.folder = folder / "store"
        self._attempts = folder / _ATTEMPTS
        self._options = dict(options)
        self._settings: dict[str, Any] = {
            "store_url": str(self.folder),
            "redis_url": redis_url,
            "worker_threads": threads,
            "device": "cpu",
            "log_level": "WARNING",
        }
        self.vault = Vault.connect(WorkerSettings(**self._settings))
        for name, backbone in (backbones or {}).items():
            weights = self.vault.objects.put_blob(backbone.weights())
            self.vault.backbones.create(name, backbone.description.stored(), weights)
        versions.create(self.vault, MODEL, definition)
        if backbones:
            definition = Memory.create(definition, backbones).definition  # which says what they are
        if self.vault.models.get(MODEL).definition != definition.stored():
            raise ModelExists(MODEL)

    def learn(self, name: str, examples: Examples) -> dict[str, Any]:
        """Upload a task and learn it, unless it is learned already; returns the figures of the attempt."""
        done = [row for row in self.attempts() if row["task"] == name]
        if done:
            return done[-1]
        with tempfile.NamedTemporaryFile() as file:
            file.write(archive(examples))
            file.flush()
            data = self.vault.objects.put_file(Path(file.name))
        lineage = self.vault.models.get(MODEL).lineage
        job = self.vault.jobs.submit(MODEL, name, data, self._options, lineage=lineage)
        before = self.vault.objects.sizes("blobs")
        row = {**self._attempt(job.id), "images": len(examples)}
        new = {path: size for path, size in self.vault.objects.sizes("blobs").items() if path not in before}
        row["new_bytes"] = sum(new.values())
        row["new_parts"] = self._by_part(row["version"], new)
        append(self._attempts, row)
        return row

    def attempts(self) -> list[dict[str, Any]]:
        """The figures of all attempts, in the order of the tasks."""
        return [dict(row) for row in rows_of(self._attempts)]

    @property
    def head(self) -> int:
        """The newest version."""
        return self.vault.log.numbers(MODEL)[-1]

    def memory(self, version: int) -> Memory:
        """A version, loaded as a service loads it."""
        return loaded.load(self.vault, self.vault.models.get(MODEL), self._commit(version)).memory

    def close(self) -> None:
        """Close the connections."""
        self.vault.close()

    def _commit(self, version: int) -> Commit:
        return self.vault.log.read(MODEL, version)

    def _attempt(self, job: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.growth.attempt", json.dumps(self._settings), job]
        threads = str(self._settings["worker_threads"])
        environment = {**plain_environment(), **TUNING, "OMP_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        ended = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=False)
        if ended.returncode:
            raise RuntimeError(f"the attempt at {job} ended with the status {ended.returncode}")
        figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return figures

    def _by_part(self, version: int, new: Mapping[str, int]) -> dict[str, int]:
        """Bytes of the blobs that are new with a version, by what they are to it."""
        commit = self._commit(version)
        parts = {
            "engrams": commit.engrams,
            "kept": commit.kept,
            "recogniser": (commit.recogniser,),
            "certificate": (commit.certificate,),
            "report": (commit.report,),
        }
        found = {part: sum(new.get(f"blobs/{sha}", 0) for sha in set(names)) for part, names in parts.items()}
        return {**found, "other": sum(new.values()) - sum(found.values())}
