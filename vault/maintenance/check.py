"""Integrity check of everything in a store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from vault.backbones import Backbones
from vault.commit_log import Commit, CommitLog, record_path
from vault.errors import NotFound, UnknownModel
from vault.jobs.decisions import Decisions
from vault.maintenance.check_jobs import check_jobs
from vault.maintenance.findings import Findings
from vault.maintenance.validator import AnswersComparison, Role, Validator, blobs_of, check_order
from vault.models import Model, Models
from vault.storage.object_store import ObjectStore

_READERS = 4
"""Blobs that are read, and held in memory, at once."""
_CHECKED = ("blobs", "data", "jobs", "models", "open", "recent", "staging")
"""Folders whose objects are checked by kind; in all other folders every record is read."""
_REMAINS = "Either its record was lost, or it was deleted, or imported, half; a sweep will remove what is left."


def check(objects: ObjectStore, validator: Validator, model: str | None = None, *, deep: bool = False) -> Findings:
    """Check every object of a store, or of one model; the store may be in use meanwhile.

    Parameters
    ----------
    validator
        Reads what the blobs hold.
    deep
        Whether to load every version from its blobs and compare its answers with its certificate.

    Raises
    ------
    StoreUnavailable
    UnknownModel
        There is no such model.
    """
    return _StoreCheck(objects, validator, model, deep).run()


class _StoreCheck:
    """State of one check."""

    def __init__(self, objects: ObjectStore, validator: Validator, only: str | None, deep: bool) -> None:
        self._objects = objects
        self._validator = validator
        self._only = only
        self._deep = deep
        self._models = Models(objects)
        self._log = CommitLog(objects, self._models)
        self._found = Findings()
        self._whole: set[str] = set()
        """Hashes of the undamaged blobs."""

    def run(self) -> Findings:
        found = self._found
        # Listed first, so that objects written from here on do not count as orphans.
        stored = {} if self._only else self._objects.sizes("blobs") | self._objects.sizes("data")
        # Before the versions, among which is whatever is published meanwhile.
        decided = self._decided()
        versions = self._all_versions()
        all_commits = [*decided, *(one for _, commits in versions.values() for one in commits)]
        named = self._weights() | {sha: role for one in all_commits for sha, role in blobs_of(one).items()}
        with ThreadPoolExecutor(_READERS, thread_name_prefix="check") as pool:
            for size in pool.map(self._check_blob, named, named.values()):
                if size is not None:
                    found.blobs += 1
                    found.bytes += size
        for model, commits in versions.values():
            self._check_decoders(model, commits)
            if self._deep:
                self._check_answers(model, commits)
        waiting = check_jobs(self._objects, found, versions, self._only)
        if self._only is None:
            needed = waiting | {f"blobs/{sha}" for sha in named}
            orphans = {path: size for path, size in stored.items() if path not in needed}
            found.orphans += len(orphans)
            found.orphan_bytes += sum(orphans.values())
            self._check_other_records()
        return found

    def _decided(self) -> list[Commit]:
        """Commits that are decided for open jobs and may not be in the log yet."""
        decisions = Decisions(self._objects)
        commits = []
        for job_id, path in decisions.pending():
            with self._found.noting(path), suppress(NotFound):  # swept since
                request = self._objects.get_json(f"jobs/{job_id}/request.json") if self._only else {}
                if request.get("model") == self._only and (commit := decisions.commit(path)):
                    commits.append(commit)
        return commits

    def _weights(self) -> dict[str, Role]:
        """The weights of all backbones; where one model is looked at, its commits name what it needs of them."""
        weights: dict[str, Role] = {}
        if self._only is not None:
            return weights
        for path in (backbones := Backbones(self._objects)).paths():
            with self._found.noting(path):
                self._found.backbones += 1
                record = backbones.read(path)
                weights[record.weights] = "weights"
                self._validator.backbone(path, record.description)
        return weights

    def _all_models(self) -> list[Model]:
        models = []
        for name in [self._only] if self._only else self._objects.list_folders("models"):
            path = f"models/{name}/model.json"
            try:
                with self._found.noting(path):
                    model = self._models.get(name)
                    self._validator.definition(path, model.definition)
                    models.append(model)
            except UnknownModel:
                if self._only:
                    raise
                # Empty folders stay in a local store; if there are files, the model's record may have been lost.
                if self._objects.list(f"models/{name}"):
                    self._found.add(path, "not_found", f"{name} has versions and no record. {_REMAINS}")
        self._found.models = len(models)
        return models

    def _all_versions(self) -> dict[str, tuple[Model, list[Commit]]]:
        versions = {}
        for model in self._all_models():
            try:
                versions[model.name] = self._versions(model)
            except UnknownModel:  # deleted since
                if self._only:
                    raise
                self._found.models -= 1
        return versions

    def _versions(self, model: Model) -> tuple[Model, list[Commit]]:
        """The readable versions of a model; raises UnknownModel if it was deleted or made anew meanwhile."""
        numbers = self._log.numbers(model.name)
        commits = []
        found = Findings()
        folder = f"models/{model.name}/log/{model.lineage}"
        for number in range(numbers[-1] + 1 if numbers else 0):
            path = f"{folder}/{number:08d}.json"
            if number not in numbers:
                found.add(path, "gap", f"There is no version {number}, but there are later ones.")
                continue
            with found.noting(path):
                commit = self._log.read(model.name, number)
                check_order(path, commit)
                commits.append(commit)
                if commit.decoding is not None:
                    self._validator.definition(path, model.definition, commit.decoding)
        with found.noting(f"models/{model.name}/model.json"):
            if self._models.get(model.name).lineage != model.lineage:
                raise UnknownModel(model.name)
        self._found.versions += len(numbers)
        self._found.problems.extend(found.problems)
        return model, commits

    def _check_blob(self, sha: str, role: Role) -> int | None:
        """Check a blob; returns its size if it is undamaged."""
        path = f"blobs/{sha}"
        size = None
        with self._found.noting(path):
            data = self._objects.get_blob(sha)
            size = len(data)
            self._validator.blob(path, role, data)
            self._whole.add(sha)
        return size

    def _check_decoders(self, model: Model, commits: list[Commit]) -> None:
        """Compare what each version's decoder makes of images with its certificate, which takes no version's blobs."""
        changes: dict[str, list[int]] = {}
        for commit in commits:
            path = record_path(model.name, model.lineage, commit.version)
            if commit.certificate not in self._whole:
                continue
            with self._found.noting(path):
                change = self._validator.decoder(model, commit)
                if change is not None and change.explained:
                    changes.setdefault(change.detail, []).append(commit.version)
                elif change is not None:
                    self._found.add(f"blobs/{commit.certificate}", "retention_violated", change.detail)
        for detail, numbers in changes.items():
            which = f"version {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} versions from {numbers[0]} on"
            self._found.warn(f"models/{model.name}/model.json", "decoder_changed", f"{detail} (of {which})")

    def _check_answers(self, model: Model, commits: list[Commit]) -> None:
        """Compare the answers of versions with their certificates; versions of equal content are checked once."""
        seen = set()
        for commit in commits:
            parts = (*commit.engrams, commit.recogniser, commit.certificate)
            if parts in seen or not self._whole.issuperset(blobs_of(commit)):
                continue
            seen.add(parts)
            with self._found.noting(f"models/{model.name}/log/{model.lineage}/{commit.version:08d}.json"):
                compared = self._validator.version(model, commit)
                if commit.certificate is not None:
                    self._found.certificates += compared == AnswersComparison()
                    self._found.elsewhere += compared.elsewhere is not None
                if compared.changed:
                    changed = ", ".join(compared.changed)
                    detail = f"{changed} no longer answers as certified for version {commit.version}."
                    self._found.add(f"blobs/{commit.certificate}", "retention_violated", detail)

    def _check_other_records(self) -> None:
        for folder in self._objects.list_top():
            if folder not in _CHECKED:
                for path in self._objects.list(folder):
                    if path.endswith(".json"):
                        with self._found.noting(path), suppress(NotFound):  # gone since it was listed
                            self._objects.get_json(path)
