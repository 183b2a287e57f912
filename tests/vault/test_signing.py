"""Tests of the keys that certificates are signed with, and of the setting that names one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import SecretStr

from vault.certificates.signing import PublicKey, SigningKey, signer
from vault.settings import explain_settings_errors
from worker.settings import WorkerSettings

KEY = SigningKey.create()
DOCUMENT = '{"exact": true, "Łódź": 1}'.encode()


def encrypted() -> str:
    key = load_pem_private_key(KEY.pem.encode(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode()


def of_another_kind() -> str:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_a_signature_tells_its_key_and_what_it_is_of() -> None:
    signature = KEY.sign(DOCUMENT)
    assert signer(signature, DOCUMENT) == KEY.public
    assert signature["key_id"] == KEY.public.id
    with pytest.raises(ValueError, match="something else"):
        signer(signature, DOCUMENT + b" ")
    with pytest.raises(ValueError, match="something else"):
        signer(signature | {"value": KEY.sign(b"")["value"]}, DOCUMENT)


def test_the_id_is_what_other_programs_make_of_the_public_key() -> None:
    key = load_pem_public_key(KEY.public.pem.encode())
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert KEY.public.id == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "RSA"}, "by RSA"),
        ({"key_id": "0" * 64}, "not the one that it names"),
        ({"public_key": SigningKey.create().sign(b"")["public_key"]}, "not the one that it names"),
        ({"public_key": "!"}, "no signature"),
        ({"public_key": "AAAA"}, "no signature"),
        ({"value": "AAAA"}, "something else"),
        ({"value": None}, "no signature"),
    ],
)
def test_what_is_no_signature_is_told(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        signer(KEY.sign(DOCUMENT) | changes, DOCUMENT)


def test_keys_are_read_from_files_and_from_their_text(tmp_path: Path) -> None:
    (private := tmp_path / "key.pem").write_text(KEY.pem)
    (public := tmp_path / "public.pem").write_text(KEY.public.pem)
    for text in (KEY.pem, str(private)):
        assert SigningKey.of(text).public == PublicKey.of(text) == KEY.public
    for text in (KEY.public.pem, str(public)):
        assert PublicKey.of(text) == KEY.public
        with pytest.raises(ValueError, match="no private key"):
            SigningKey.of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/nowhere/key.pem", "/nowhere/key.pem cannot be read"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key in PEM"),
        (encrypted(), "encrypted"),
        (of_another_kind(), "no Ed25519 key"),
    ],
    ids=["missing", "damaged", "encrypted", "another kind"],
)
def test_a_key_that_cannot_be_used_ends_a_process_when_it_starts(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGRAM_CERTIFICATE_KEY", text)
    with pytest.raises(SystemExit) as ended, explain_settings_errors():
        WorkerSettings()
    said = capsys.readouterr().err
    assert ended.value.code == 78
    assert said.startswith("ENGRAM_CERTIFICATE_KEY cannot be used")
    assert message in said
    assert "AAAA" not in said


def test_the_setting_is_a_file_or_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkerSettings().signing_key is None
    assert WorkerSettings(certificate_key=SecretStr("")).signing_key is None
    (file := tmp_path / "key.pem").write_text(KEY.pem)
    monkeypatch.setenv("ENGRAM_CERTIFICATE_KEY", str(file))
    named = WorkerSettings()
    (folder := tmp_path / "secrets").mkdir()
    (folder / "engram_certificate_key").write_text(KEY.pem)
    monkeypatch.delenv("ENGRAM_CERTIFICATE_KEY")
    monkeypatch.setenv("ENGRAM_SECRETS_DIR", str(folder))
    given = WorkerSettings()
    for settings in (named, given):
        assert settings.signing_key is not None
        assert settings.signing_key.public == KEY.public
        assert KEY.pem not in repr(settings)
