"""Ed25519 keys that certificates are signed with, and their files in PEM."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

ALGORITHM = "Ed25519"
_PEM = "-----BEGIN "
_FIELDS = ("algorithm", "key_id", "public_key", "value")


@dataclass(frozen=True)
class PublicKey:
    """The public half of a key, which tells whether a signature was made with the other half."""

    raw: bytes
    """32 bytes."""

    @classmethod
    def of(cls, text: str) -> PublicKey:
        """The key in a PEM file or in its text, public or private; raises ValueError with a sentence."""
        data = _pem(text)
        if b"PRIVATE KEY" in data:
            return SigningKey.of(text).public
        try:
            key = load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(f"it is no public key in PEM ({error})") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("it is no Ed25519 key")
        return cls(key.public_bytes_raw())

    @property
    def id(self) -> str:
        """SHA-256 of the key in DER (SubjectPublicKeyInfo), 64 hex digits."""
        return hashlib.sha256(self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @property
    def pem(self) -> str:
        """The text of a PEM file."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    def made(self, value: bytes, data: bytes) -> bool:
        """Whether the signature `value` of `data` was made with this key's other half."""
        try:
            self._key.verify(value, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key, which signs; its text is secret."""

    _key: Ed25519PrivateKey

    @classmethod
    def create(cls) -> SigningKey:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, text: str) -> SigningKey:
        """The key in a PEM file without a password, or in its text; raises ValueError with a sentence."""
        data = _pem(text)
        try:
            key = load_pem_private_key(data, password=None)
        except TypeError as error:
            raise ValueError("it is encrypted: nobody could give the password when the process starts") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError("it is no private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("it is no Ed25519 key")
        return cls(key)

    @property
    def pem(self) -> str:
        """The text of a PEM file (PKCS #8), without a password."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def public(self) -> PublicKey:
        """The half that may be shown to anybody."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> dict[str, Any]:
        """The signature of `data` as a JSON object: `algorithm`, `key_id`, and `public_key` and `value` in base64."""
        public = self.public
        return {
            "algorithm": ALGORITHM,
            "key_id": public.id,
            "public_key": base64.b64encode(public.raw).decode(),
            "value": base64.b64encode(self._key.sign(data)).decode(),
        }


def signer(signature: Mapping[str, Any], data: bytes) -> PublicKey:
    """The key that `signature`, as `SigningKey.sign` gave it, was made with.

    Raises
    ------
    ValueError
        It is none, or not of `data`; the text says which.
    """
    try:
        algorithm, key_id, public, value = (_text(signature[name]) for name in _FIELDS)
        key, made = PublicKey(base64.b64decode(public, validate=True)), base64.b64decode(value, validate=True)
        named = key.id
    except (KeyError, ValueError) as error:
        raise ValueError("it is no signature") from error
    if algorithm != ALGORITHM:
        raise ValueError(f"it is a signature by {algorithm[:40]}, which this release does not know")
    if key_id != named:
        raise ValueError("the key that it holds is not the one that it names")
    if not key.made(made, data):
        raise ValueError("it is the signature of something else")
    return key


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError("a part of a signature is no text")
    return given


def _pem(text: str) -> bytes:
    """The text itself, or that of the file which it names."""
    if text.lstrip().startswith(_PEM):
        return text.encode()
    try:
        return Path(text).expanduser().read_bytes()
    except OSError as error:
        raise ValueError(f"the file {text} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # such as a path with a zero byte
        raise ValueError("it names no file") from error
