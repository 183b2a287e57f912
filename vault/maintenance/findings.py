"""Findings of an integrity check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from vault.errors import StoreUnavailable, UnknownModel, VaultError


@dataclass(frozen=True)
class Finding:
    """One problem that a check found."""

    object: str
    """Path of the damaged or missing object."""
    code: str
    """`damaged`, `not_found`, `unsupported_format`, `gap`, `retention_violated` and so on; of a warning
    `decoder_changed`."""
    detail: str


@dataclass
class Findings:
    """Counts of everything that was checked, and the problems found."""

    models: int = 0
    versions: int = 0
    backbones: int = 0
    blobs: int = 0
    bytes: int = 0
    """Of the blobs."""
    certificates: int = 0
    """Versions whose answers agree with their certificates."""
    elsewhere: int = 0
    """Versions certified in another environment, whose answers could not be compared."""
    jobs: int = 0
    uploads: int = 0
    """Uploads that wait for their job."""
    orphans: int = 0
    """Unreferenced blobs and uploads, and records of deleted jobs; a sweep removes them."""
    orphan_bytes: int = 0
    """Of the blobs and uploads among them."""
    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    """What an operator should know, though everything is whole."""

    @property
    def whole(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def add(self, path: str, code: str, detail: str) -> None:
        """Note a problem, once."""
        finding = Finding(path, code, detail)
        if finding not in self.problems:
            self.problems.append(finding)

    def warn(self, path: str, code: str, detail: str) -> None:
        """Note what is no problem, once."""
        finding = Finding(path, code, detail)
        if finding not in self.warnings:
            self.warnings.append(finding)

    @contextmanager
    def noting(self, path: str) -> Iterator[None]:
        """Inside, an error of the vault becomes a problem of the object that it names, else of `path`.

        StoreUnavailable is raised nevertheless, since an unreachable object cannot be checked; so is UnknownModel,
        since a model without a record may be deleted.
        """
        try:
            yield
        except (StoreUnavailable, UnknownModel):
            raise
        except VaultError as error:
            self.add(getattr(error, "path", None) or path, error.code, str(error))

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"whole": self.whole, **asdict(self)}
