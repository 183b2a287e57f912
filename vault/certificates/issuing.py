"""Issuing of certificates: bound to what they are of, and signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vault.commit_log import Commit
from vault.models import Model
from vault.storage.documents import digest

if TYPE_CHECKING:
    from vault.certificates.signing import SigningKey

SUBJECT = "subject"
"""The part of a certificate that names what it is of; those of earlier releases have none."""


class CertificateIssuer:
    """Issuer of certificates, with the key of this process or, without one, unsigned."""

    def __init__(self, key: SigningKey | None) -> None:
        self.key = key

    def document(
        self, certificate: Mapping[str, Any], model: Model, head: Commit, engrams: tuple[str, ...], recogniser: str
    ) -> bytes:
        """The bytes of the certificate of the version after `head`, as they are stored and signed.

        Parameters
        ----------
        certificate
            What is certified, which this adds to: what it is of.
        engrams, recogniser
            Those of the new version.
        """
        subject = {
            "definition": digest(model.definition),
            "engrams": list(engrams),
            "recogniser": recogniser,
            "after": head.certificate,
        }
        return json.dumps({**certificate, SUBJECT: subject}, sort_keys=True, ensure_ascii=False).encode()

    def sign(self, document: bytes) -> dict[str, Any] | None:
        """The signature of such bytes, for the commit that names them; None without a key."""
        return None if self.key is None else self.key.sign(document)


def difference(subject: Mapping[str, Any], model: Model, commit: Commit) -> str | None:
    """The first part in which a version is not what its certificate is of; None where all is."""
    own = {
        "definition": digest(model.definition),
        "engrams": list(commit.engrams),
        "recogniser": commit.recogniser,
    }
    return next((name for name, value in own.items() if subject.get(name) != value), None)


def certified_digests(document: bytes) -> list[str]:
    """The digests of all tasks' answers that a certificate holds; none where it is not understood."""
    try:
        rows = json.loads(document)["tasks"]
        return [str(row["logits_sha256"]) for row in rows]
    except (ValueError, KeyError, TypeError):
        return []
