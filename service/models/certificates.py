"""Certificates of versions: shown with what is kept beside them, and issued again for another decoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from engram.config.definition import Definition
from engram.data.reference.decoder_digest import DecoderDigest
from service.errors.exceptions import CertificateMissing
from vault.certificates.digests import identity_of
from vault.commit_log import Commit
from vault.models import Model
from vault.vault import Vault


def certificate(vault: Vault, name: str, version: int) -> dict[str, Any]:
    """The retention certificate of a version, with what is kept beside it.

    That is its `signature`, null where there is none, and `digests`: those of its tasks' answers in other environments
    that have served them. Where the version shows other names than those that are certified, these are `names`.

    Raises
    ------
    CertificateMissing
        The version has no task.
    """
    commit = vault.log.read(name, version)
    if commit.certificate is None:
        raise CertificateMissing(f"Version {version} has learned nothing, so there is nothing to certify.")
    document = _read(vault, commit.certificate)
    rows, exact = document.get("tasks", ()), bool(document.get("exact"))
    own = {identity_of(commit, row["task"], row["logits_sha256"], exact=exact) for row in rows}
    served = [asdict(one) for one in vault.digests.list(vault.models.get(name)) if one.identity in own]
    names = {} if commit.names is None else {"names": commit.names}
    return document | {"signature": commit.signature, "digests": served} | names


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
