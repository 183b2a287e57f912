"""Export of models to bundle files, and import into any store."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from vault.backbones import BackboneRecord, Backbones
from vault.certificates.answers import CertifiedAnswers
from vault.certificates.issuing import certified_digests
from vault.commit_log import Commit, CommitLog, record_path
from vault.errors import BackboneExists, Damaged, InvalidBundle, InvalidName, ModelExists, UnknownModel
from vault.maintenance.bundle import BundleReader, BundleWriter
from vault.maintenance.validator import Role, Validator, blobs_of, check_order
from vault.models import Model, Models, is_model_name
from vault.storage.documents import seal
from vault.storage.object_store import ObjectStore

_MODEL = "model.json"
_MOST_ANSWERS = 2**25
"""Bytes of certified answers in a bundle; those beyond are left out, since records are bounded."""
_BACKBONE = ("name", "description", "weights")
"""What a bundle has of a backbone."""


@dataclass(frozen=True)
class TransferSummary:
    """Summary of an export or import."""

    model: str
    versions: int
    blobs: int
    bytes: int
    """Of the blobs."""
    backbones: tuple[str, ...] = ()
    """Names of the backbones that are in the file; of an import, those that have these names here as well."""


def export_model(objects: ObjectStore, name: str, destination: Path) -> TransferSummary:
    """Write all objects of a model into the file `destination`, which appears or is replaced once it is complete.

    The model may be in use. At most one blob is held in memory.

    Raises
    ------
    UnknownModel, StoreUnavailable
    Damaged, NotFound, UnsupportedRecord
        An object of the model is damaged or missing.
    OSError
        The file cannot be written; the error names it, or its folder if that is missing.
    """
    models = Models(objects)
    model = models.get(name)
    commits = CommitLog(objects, models).list(name)
    backbones = _backbones_of(objects, commits)
    records = {_MODEL: _model_record(model, backbones, _answers_of(objects, model, commits))}
    for number, commit in enumerate(commits):
        check_order(record_path(name, model.lineage, number), commit)
        records[_log_member(number)] = seal(_portable(commit), commit.format)
    shas = sorted({sha for commit in commits for sha in blobs_of(commit)})
    members = {member: (len(data), hashlib.sha256(data).hexdigest()) for member, data in records.items()}
    members |= {f"blobs/{sha}": (objects.size(f"blobs/{sha}"), sha) for sha in shas}
    with _written_whole(destination) as file:
        writer = BundleWriter(file, name, members)
        for member, data in records.items():
            writer.add(member, data)
        for sha in shas:
            writer.add(f"blobs/{sha}", objects.get_blob(sha))
        writer.close()
    size = sum(members[f"blobs/{sha}"][0] for sha in shas)
    return TransferSummary(name, len(commits), len(shas), size, tuple(one.name for one in backbones))


def _backbones_of(objects: ObjectStore, commits: list[Commit]) -> list[BackboneRecord]:
    """The backbones whose weights these versions have."""
    weights = {sha for commit in commits for sha in commit.backbones}
    return [one for one in Backbones(objects).list() if one.weights in weights] if weights else []


def _answers_of(objects: ObjectStore, model: Model, commits: list[Commit]) -> dict[str, str]:
    """What tasks answered when they were certified, in base64 by its SHA-256, as far as it is kept."""
    found: dict[str, str] = {}
    answers, left = CertifiedAnswers(objects), _MOST_ANSWERS
    for certificate in dict.fromkeys(commit.certificate for commit in commits if commit.certificate):
        for sha in certified_digests(objects.get_blob(certificate)):
            if sha not in found and (data := answers.get(model, sha)) is not None and len(data) <= left:
                found[sha] = base64.b64encode(data).decode()
                left -= len(data)
    return dict(sorted(found.items()))


def _model_record(model: Model, backbones: list[BackboneRecord], answers: Mapping[str, str]) -> bytes:
    """A model's record as a member, with the backbones, which are to have their names where it goes, and answers."""
    document = {key: getattr(model, key) for key in ("definition", "format_version", "created_at")}
    if backbones:
        document["backbones"] = [{key: getattr(one, key) for key in _BACKBONE} for one in backbones]
    if answers:  # here, since earlier releases know no such member, but pass over what they do not know of a record
        document["answers"] = answers
    return seal(document, model.format_version)


@contextmanager
def _written_whole(destination: Path) -> Iterator[BinaryIO]:
    """A temporary file that becomes `destination` when the block ends well; an OSError names `destination`."""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{destination.name}-", dir=destination.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, destination)
        except BaseException:
            os.unlink(partial)
            raise
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(destination.parent)) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(destination)) from error


def import_model(objects: ObjectStore, source: Path, validator: Validator, name: str | None = None) -> TransferSummary:
    """Import the model in the file `source` under the name `name`, by default its own.

    Everything is verified before anything is written, and the model's record is written last: until then the model does
    not exist, and a sweep removes what a crash leaves. A repeated import continues from there.

    Raises
    ------
    InvalidBundle, Damaged, UnsupportedRecord
        The file is no complete bundle that this release can read; nothing was written.
    InvalidName, ModelExists
        The name is not valid, or taken.
    StoreUnavailable
    """
    with BundleReader(source) as bundle:
        name = name or bundle.model
        if not is_model_name(name):
            raise InvalidName(f"A model cannot be called {name[:120]!r}.")
        models = Models(objects)
        _refuse_taken(models, name)
        bundle.verify()
        model = _model(bundle, name, validator)
        commits = _commits(bundle, model, validator)
        roles = {sha: role for commit in commits for sha, role in blobs_of(commit).items()}
        backbones, answers = _backbones(bundle, roles, validator), _answers(bundle)
        blobs = {member.removeprefix("blobs/") for member in bundle.members if member.startswith("blobs/")}
        if odd := sorted(blobs ^ roles.keys()):
            raise InvalidBundle(f"The blob {odd[0]} is named by no version, or missing.")
        for sha, role in roles.items():
            validator.blob(f"blobs/{sha}", role, bundle.read(f"blobs/{sha}"))
        for sha in roles:
            objects.put_blob(bundle.read(f"blobs/{sha}"))
        named = _restore_backbones(objects, backbones)
        for data in answers:
            CertifiedAnswers(objects).put(model, data)
        CommitLog(objects, models).restore(model, commits)
        models.restore(model)
        size = sum(bundle.members[f"blobs/{sha}"].size for sha in roles)
    return TransferSummary(name, len(commits), len(roles), size, named)


def _refuse_taken(models: Models, name: str) -> None:
    try:
        models.get(name)
    except UnknownModel:
        return
    raise ModelExists(name, "and nothing of it is replaced; import under another name (--name)")


def _model(bundle: BundleReader, name: str, validator: Validator) -> Model:
    """The model under its new name, with a new lineage, since its log develops separately from now on."""
    document = bundle.read_json(_MODEL)
    try:
        definition, version, created = (document[key] for key in ("definition", "format_version", "created_at"))
    except KeyError as error:
        raise Damaged(_MODEL, f"it lacks {error}") from error
    if not isinstance(definition, dict) or not isinstance(version, int):
        raise Damaged(_MODEL, "it is no model")
    validator.definition(_MODEL, definition)
    return Model(name, definition, version, uuid.uuid4().hex, str(created))


def _backbones(bundle: BundleReader, roles: Mapping[str, Role], validator: Validator) -> list[dict[str, Any]]:
    """The backbones in a bundle, each with the fields `_BACKBONE`."""
    listed = bundle.read_json(_MODEL).get("backbones", [])
    try:
        found = [{key: one[key] for key in _BACKBONE} for one in listed]
    except (KeyError, TypeError) as error:
        raise Damaged(_MODEL, f"it lacks {error} of a backbone") from error
    for one in found:
        if not is_model_name(str(one["name"])) or roles.get(str(one["weights"])) != "weights":
            raise InvalidBundle(f"The backbone {str(one['name'])[:120]!r} is of no version in this bundle.")
        if not isinstance(one["description"], dict):
            raise Damaged(_MODEL, f"it does not say what the backbone {one['name']} is")
        validator.backbone(_MODEL, one["description"])
    return found


def _answers(bundle: BundleReader) -> list[bytes]:
    """What tasks answered when they were certified, as a bundle has it."""
    listed = bundle.read_json(_MODEL).get("answers", {})
    try:
        found = {sha: base64.b64decode(text, validate=True) for sha, text in listed.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise Damaged(_MODEL, f"its answers are none ({error})") from error
    for sha, data in found.items():
        if hashlib.sha256(data).hexdigest() != sha:
            raise Damaged(_MODEL, "it has other answers than those certified")
    return list(found.values())


def _restore_backbones(objects: ObjectStore, backbones: list[dict[str, Any]]) -> tuple[str, ...]:
    """Make the backbones whose names are free; the names that are theirs then.

    Where another has the name the model does without: its versions name the weights by their hash.
    """
    named = []
    for one in backbones:
        with suppress(BackboneExists):
            named.append(Backbones(objects).create(**one).name)
    return tuple(named)


def _commits(bundle: BundleReader, model: Model, validator: Validator) -> list[Commit]:
    members = sorted(member for member in bundle.members if member.startswith("log/"))
    commits = []
    for number, member in enumerate(members):
        if member != _log_member(number):
            raise InvalidBundle(f"Version {number} is missing, and there are later ones.")
        try:
            commit = Commit.from_dict({**bundle.read_json(member), "lineage": model.lineage, "by": None})
        except (KeyError, TypeError) as error:
            raise Damaged(member, f"it is no commit ({error})") from error
        if commit.version != number:
            raise Damaged(member, "it is the commit of another place")
        check_order(member, commit)
        if commit.decoding is not None:
            validator.definition(member, model.definition, commit.decoding)
        commits.append(commit)
    if not commits:
        raise InvalidBundle("There is no version in this bundle.")
    return commits


def _portable(commit: Commit) -> Mapping[str, Any]:
    """The fields of a commit that do not depend on the store."""
    return {key: value for key, value in commit.to_dict().items() if key not in ("lineage", "by")}


def _log_member(version: int) -> str:
    return f"log/{version:08d}.json"
