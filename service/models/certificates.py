"""Certificates of versions: shown with what is kept beside them, and issued again for another decoder."""

from __future__ import annotations

import json
from typing import Any

from engram.config.definition import Definition
from engram.data.reference.decoder_digest import DecoderDigest
from service.errors.exceptions import CertificateMissing
from vault.commit_log import Commit
from vault.models import Model
from vault.vault import Vault


def certificate(vault: Vault, name: str, version: int) -> dict[str, Any]:
    """The retention certificate of a version, and its `signature`, null where there is none.

    Raises
    ------
    CertificateMissing
        The version has no task.
    """
    commit = vault.log.read(name, version)
    if commit.certificate is None:
        raise CertificateMissing(f"Version {version} has learned nothing, so there is nothing to certify.")
    return _read(vault, commit.certificate) | {"signature": commit.signature}


def certified_again(vault: Vault, model: Model, head: Commit, definition: Definition) -> dict[str, Any]:
    """The certificate of `head` with what another decoder makes of images; what tasks make of these stays as it is.

    As fields of a commit, with the signature.
    """
    if head.certificate is None:
        return {}
    content = _read(vault, head.certificate) | {"decoder": DecoderDigest.of(definition).to_dict()}
    assert head.recogniser is not None, "every commit names its recogniser"
    document = vault.certificates.document(content, model, head, head.engrams, head.recogniser)
    return {"certificate": vault.objects.put_blob(document), "signature": vault.certificates.sign(document)}


def _read(vault: Vault, sha: str) -> dict[str, Any]:
    document = json.loads(vault.objects.get_blob(sha))
    assert isinstance(document, dict), "certificates are JSON objects"
    return document
