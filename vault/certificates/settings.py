"""Settings of the processes that make certificates: services and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr, field_validator

from vault.settings import VaultSettings

if TYPE_CHECKING:
    from vault.certificates.signing import SigningKey


class SigningSettings(VaultSettings):
    """Settings of the vault, and the key that certificates are signed with."""

    certificate_key: SecretStr | None = None
    """What certificates are signed with: the file of a private key that `engram certificate-key create` made, or its
    text, as a file of `secrets_dir` gives it. Without it they are not signed."""

    @field_validator("certificate_key")
    @classmethod
    def _of_ed25519(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None or not key.get_secret_value():
            return None
        from vault.certificates.signing import SigningKey  # which processes without a key do without

        SigningKey.of(key.get_secret_value())
        return key

    @property
    def signing_key(self) -> SigningKey | None:
        """The key itself; raises ValueError where its file is gone since."""
        if self.certificate_key is None:
            return None
        from vault.certificates.signing import SigningKey

        return SigningKey.of(self.certificate_key.get_secret_value())
