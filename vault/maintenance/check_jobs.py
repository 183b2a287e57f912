"""Integrity check of job records against the published versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vault.commit_log import Commit, CommitLog
from vault.errors import Damaged, NotFound, UnknownModel, Unreadable
from vault.jobs.ids import is_job_id
from vault.jobs.index import OpenJob, open_path
from vault.jobs.job import kind_of
from vault.maintenance.findings import Findings
from vault.models import Model, Models
from vault.storage.object_store import ObjectStore

Versions = Mapping[str, tuple[Model, list[Commit]]]
"""Each model with its readable versions."""


def check_jobs(objects: ObjectStore, found: Findings, versions: Versions, only: str | None) -> set[str]:
    """Check the records of all jobs, or of one model; returns the paths of the uploads that wait for a job."""
    waiting: set[str] = set()
    for job_id in objects.list_folders("jobs"):
        if is_job_id(job_id):
            upload = _JobCheck(objects, found, job_id, versions, only).check()
            waiting |= {upload} if upload else set()
    return waiting


class _JobCheck:
    """Check of one job's records."""

    def __init__(
        self, objects: ObjectStore, found: Findings, job_id: str, versions: Versions, only: str | None
    ) -> None:
        self._objects = objects
        self._found = found
        self._id = job_id
        self._versions = versions
        self._only = only
        self._folder = f"jobs/{job_id}"
        self._request = f"{self._folder}/request.json"
        self._result = f"{self._folder}/result.json"

    def check(self) -> str | None:
        """Check all records; returns the path of the upload that waits for this job, if any."""
        paths = self._objects.list(self._folder)
        records = self._read(paths)
        request, result = records.get(self._request), records.get(self._result)
        if request is None:
            self._check_remains(paths)
            return None
        model, data = str(request.get("model")), str(request.get("data"))
        if self._only not in (None, model):
            return None
        self._found.jobs += 1
        if result is not None:
            self._check_result(model, request, result)
        if self._result in paths:
            return None
        upload = None if "://" in data else data
        self._check_open(open_path(OpenJob(self._id, model, kind_of(request))), upload)
        return upload and f"data/{upload}"

    def _read(self, paths: list[str]) -> dict[str, dict[str, Any]]:
        """The readable records; those deleted since the listing are skipped."""
        records = {}
        for path in paths:
            with self._found.noting(path), suppress(NotFound):
                if path.endswith(".json"):
                    records[path] = self._objects.get_json(path)
                elif "/checkpoint/" in path:
                    _check_piece(path, self._objects.get(path))
        return records

    def _check_remains(self, paths: list[str]) -> None:
        """Check records without a request: the job was swept, or its request was lost."""
        if self._request in paths or self._only is not None:
            return  # a damaged request is noted already
        if self._result not in paths and any("/attempts/" in path for path in paths):
            self._found.add(self._request, "not_found", "The request of a job under way is missing.")
        else:
            self._found.orphans += len(paths)

    def _check_result(self, model: str, request: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Check that a job that learned has its version, unless the model was deleted meanwhile."""
        if kind_of(request) != "learn":
            return
        there, commits = self._versions.get(model, (None, []))
        if there is None or result.get("state") != "succeeded" or request.get("lineage") not in (None, there.lineage):
            return
        outcome = result.get("result")
        version = outcome.get("version") if isinstance(outcome, Mapping) else None
        path = f"models/{model}/log/{there.lineage}/{version:08d}.json" if isinstance(version, int) else self._result
        if any(finding.object == path for finding in self._found.problems):
            return  # a damaged version is noted already
        known = any(commit.version == version and commit.job == self._id for commit in commits)
        if not known and not self._came_since(there, version):
            detail = f"The job {self._id} published version {version} of {model}, and that is not there."
            self._found.add(path, "version_missing", detail)

    def _came_since(self, model: Model, version: object) -> bool:
        """Whether this job's version was published after the versions were read, or the model was deleted."""
        models = Models(self._objects)
        try:
            if models.get(model.name).lineage != model.lineage:
                return True
            return (
                isinstance(version, int) and CommitLog(self._objects, models).read(model.name, version).job == self._id
            )
        except UnknownModel:
            return True
        except (NotFound, Unreadable):
            return False

    def _check_open(self, named_by: str, upload: str | None) -> None:
        """Check that workers can find an open job and that its upload is whole; the job may end meanwhile."""
        findings = Findings()
        if not self._objects.exists(named_by):
            findings.add(named_by, "not_found", "No worker can find this open job.")
        if upload is not None:
            with findings.noting(f"data/{upload}"):
                self._objects.check_file(upload)
        if not self._objects.exists(self._result):
            self._found.uploads += upload is not None
            self._found.problems.extend(findings.problems)


def _check_piece(path: str, data: bytes) -> None:
    """Check that a piece of a checkpoint has the hash of its name; raises Damaged."""
    sha = path.rsplit("/", 1)[-1]
    if hashlib.sha256(data).hexdigest() != sha:
        raise Damaged(path, "its SHA-256 is not the one it is called by")
