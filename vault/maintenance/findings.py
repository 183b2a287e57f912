"""What a look through a store has found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from vault.errors import StoreUnavailable, UnknownModel, VaultError


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    object: str
    """Path of the object that is to blame."""
    code: str
    """`damaged`, `not_found`, `unsupported_format`, `gap`, `retention_violated` and so on."""
    detail: str


@dataclass
class Findings:
    """Everything that was looked at, counted, and what is wrong with it."""

    models: int = 0
    versions: int = 0
    blobs: int = 0
    bytes: int = 0
    """Of the blobs."""
    certificates: int = 0
    """Versions that answer as certified."""
    elsewhere: int = 0
    """Versions that were certified in another environment, so that their answers could not be compared."""
    jobs: int = 0
    uploads: int = 0
    """Uploads that wait for their job."""
    orphans: int = 0
    """Blobs and uploads that nothing names, and records of jobs that are none any more; a sweep removes them."""
    orphan_bytes: int = 0
    """Of the blobs and uploads among them."""
    problems: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(self, path: str, code: str, detail: str) -> None:
        """Note a problem, once."""
        finding = Finding(path, code, detail)
        if finding not in self.problems:
            self.problems.append(finding)

    @contextmanager
    def noting(self, path: str) -> Iterator[None]:
        """Inside, an error of the vault is a problem of the object that it names, else of `path`.

        StoreUnavailable is raised all the same, since what cannot be asked for cannot be judged; so is UnknownModel,
        since where there is no record there may be no model.
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
