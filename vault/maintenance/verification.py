"""Verification of one version's certificate, with nothing but a store and the learner."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vault.approval import active_number
from vault.certificates.issuing import SUBJECT, difference
from vault.certificates.signing import PublicKey, signer
from vault.commit_log import Commit, CommitLog, record_path
from vault.errors import Damaged, StoreUnavailable, UnknownVersion, VaultError
from vault.maintenance.validator import Validator, blobs_of, check_order
from vault.models import Model, Models
from vault.storage.object_store import ObjectStore

Outcome = Literal["holds", "absent", "open", "refuted"]
PartName = Literal["chain", "objects", "subject", "signature", "decoder", "answers"]


@dataclass(frozen=True)
class VerifiedPart:
    """One thing that a certificate rests on, and what was found of it."""

    part: PartName
    outcome: Outcome
    """`absent` where there is none, and none was asked for; `open` where it can be told neither way."""
    detail: str


@dataclass
class CertificateVerification:
    """What was found of the certificate of one version."""

    model: str
    version: int
    certificate: str | None = None
    """Its SHA-256."""
    key_id: str | None = None
    """The key that it is signed with, if its signature holds."""
    parts: list[VerifiedPart] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """`refuted` if some part is, else `open` if some part is."""
        found = {part.outcome for part in self.parts}
        return "refuted" if "refuted" in found else "open" if "open" in found else "holds"

    def add(self, part: PartName, outcome: Outcome, detail: str) -> None:
        """Note what was found of a part."""
        self.parts.append(VerifiedPart(part, outcome, detail))

    def refuted(self, part: PartName) -> bool:
        """Whether something was found against a part."""
        return any(one.part == part and one.outcome == "refuted" for one in self.parts)

    @contextmanager
    def refuting(self, part: PartName) -> Iterator[None]:
        """Inside, an error of the vault refutes the part; that the storage cannot be reached is raised nevertheless."""
        try:
            yield
        except StoreUnavailable:
            raise
        except VaultError as error:
            self.add(part, "refuted", str(error))

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"outcome": self.outcome, **asdict(self)}


def verify_certificate(
    objects: ObjectStore,
    validator: Validator,
    name: str,
    version: int | None = None,
    trusted: PublicKey | None = None,
) -> CertificateVerification:
    """Verify the certificate of a version, by default of the one that answers, part by part.

    Parameters
    ----------
    validator
        Reads what the blobs hold, and makes the answers again.
    trusted
        The key that it must be signed with; without one any key will do, and so does none.

    Raises
    ------
    UnknownModel, UnknownVersion, StoreUnavailable
    Unreadable
        The model's own record.
    """
    models = Models(objects)
    model, log = models.get(name), CommitLog(objects, models)
    numbers = log.numbers(name)
    if not numbers or (version is not None and not 0 <= version <= numbers[-1]):
        raise UnknownVersion(name, version or 0)
    number = _answering(log, name, numbers[-1]) if version is None else version
    return _Verification(objects, validator, model, number, trusted).run(log)


def _answering(log: CommitLog, name: str, newest: int) -> int:
    """The version that answers; the newest where its commit, which would say so, cannot be read."""
    try:
        return active_number(log.read(name, newest))
    except VaultError:
        return newest


class _Verification:
    """State of one verification."""

    def __init__(
        self, objects: ObjectStore, validator: Validator, model: Model, number: int, trusted: PublicKey | None
    ) -> None:
        self._objects = objects
        self._validator = validator
        self._model = model
        self._trusted = trusted
        self._found = CertificateVerification(model.name, number)

    def run(self, log: CommitLog) -> CertificateVerification:
        found = self._found
        commits = self._chain(log)
        commit = next((one for one in commits if one.version == found.version), None)
        if commit is None:
            return found
        found.certificate = commit.certificate
        self._objects_of(commit)
        if commit.certificate is None:
            found.add("subject", "refuted" if commit.tasks else "absent", "The version has no certificate.")
            return found
        with found.refuting("objects"):
            data = self._objects.get_blob(commit.certificate)
            self._subject(commit, data)
            self._signature(commits, commit, data)
        if not found.refuted("objects"):
            self._answers(commit)
        return found

    def _chain(self, log: CommitLog) -> list[Commit]:
        """The commits up to the version, each after the one before, and each certificate naming the one before."""
        found, model, commits = self._found, self._model, []
        for number in range(found.version + 1):
            with found.refuting("chain"):
                commit = log.read(model.name, number)
                check_order(record_path(model.name, model.lineage, number), commit)
                commits.append(commit)
        earlier: set[str | None] = {None}
        for commit in commits:
            with found.refuting("chain"):
                self._check_link(earlier, commit)
            earlier.add(commit.certificate)
        if not found.refuted("chain"):
            found.add("chain", "holds", f"{len(commits)} commits, each after the one before.")
        return commits

    def _check_link(self, earlier: Collection[str | None], commit: Commit) -> None:
        """Raise Damaged where a new certificate names one before it that no earlier version has."""
        if commit.certificate in earlier:
            return
        subject = _read_subject(self._objects.get_blob(str(commit.certificate)), commit)
        if subject is not None and subject.get("after") not in earlier:
            path = record_path(self._model.name, self._model.lineage, commit.version)
            raise Damaged(path, "its certificate follows one that no earlier version has")

    def _objects_of(self, commit: Commit) -> None:
        found, roles, size = self._found, blobs_of(commit), 0
        for sha, role in roles.items():
            with found.refuting("objects"):
                data = self._objects.get_blob(sha)
                self._validator.blob(f"blobs/{sha}", role, data)
                size += len(data)
        with found.refuting("objects"):
            path = f"models/{self._model.name}/model.json"
            self._validator.definition(path, self._model.definition, commit.decoding)
        if not found.refuted("objects"):
            found.add("objects", "holds", f"{len(roles)} objects, {size / 2**20:.1f} MiB, with the hashes they had.")

    def _subject(self, commit: Commit, data: bytes) -> None:
        subject = _read_subject(data, commit)
        if subject is None:
            detail = "The certificate does not name what it is of: an earlier release made it."
            return self._found.add("subject", "open", detail)
        if (part := difference(subject, self._model, commit)) is not None:
            return self._found.add("subject", "refuted", f"The certificate is of another {part} than this version's.")
        self._found.add("subject", "holds", "The certificate is of this definition, these engrams and this recogniser.")

    def _signature(self, commits: list[Commit], commit: Commit, data: bytes) -> None:
        found, trusted = self._found, self._trusted
        # An earlier release that appended a version left the signature out; the certificate is the same.
        given = [one.signature for one in reversed(commits) if one.certificate == commit.certificate and one.signature]
        signature = commit.signature or next(iter(given), None)
        if signature is None:
            missing: Outcome = "absent" if trusted is None else "refuted"
            return found.add("signature", missing, "The certificate is not signed.")
        try:
            key = signer(signature, data)
        except ValueError as error:
            return found.add("signature", "refuted", f"The signature does not hold: {error}.")
        if trusted is not None and key != trusted:
            return found.add("signature", "refuted", f"The certificate is signed with another key, {key.id}.")
        found.key_id = key.id
        if trusted is None:
            return found.add(
                "signature", "holds", f"Signed with the key {key.id}; no key was given to compare it with."
            )
        found.add("signature", "holds", f"Signed with the given key, {key.id}.")

    def _answers(self, commit: Commit) -> None:
        found, checks = self._found, (self._decoder, self._answered)
        names: tuple[PartName, ...] = ("decoder", "answers")
        for name, check in zip(names, checks, strict=True):
            with found.refuting(name):
                found.add(name, *check(commit))

    def _decoder(self, commit: Commit) -> tuple[Outcome, str]:
        change = self._validator.decoder(self._model, commit)
        if change is None:
            return "holds", "Encoded images give the pixels that they gave."
        return ("open" if change.explained else "refuted"), change.detail

    def _answered(self, commit: Commit) -> tuple[Outcome, str]:
        compared = self._validator.version(self._model, commit)
        if compared.changed:
            return "refuted", f"{', '.join(compared.changed)}: other answers than certified."
        if compared.elsewhere is not None and compared.near:
            return "holds", f"{compared.elsewhere} Every task answers what was certified, but for rounding."
        if compared.elsewhere is not None:
            return "open", f"{compared.elsewhere} The certified answers themselves are not kept."
        return "holds", "Every task gives the certified answers, byte for byte."


def _read_subject(data: bytes, commit: Commit) -> Mapping[str, Any] | None:
    """What a certificate says that it is of; None in those of earlier releases; raises Damaged."""
    try:
        subject = json.loads(data).get(SUBJECT)
    except (ValueError, AttributeError) as error:
        raise Damaged(f"blobs/{commit.certificate}", "it is no certificate") from error
    if not isinstance(subject, Mapping | None):
        raise Damaged(f"blobs/{commit.certificate}", "it does not say what it is of")
    return subject
