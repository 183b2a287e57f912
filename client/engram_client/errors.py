"""The client's errors: what the service refused, how jobs ended, and what never was an answer.

EngramClientError
├── Unreachable            no answer came: no connection, a timeout, a connection that broke
├── UnexpectedAnswer       an answer came that is none of Engram's, as from a proxy
├── InvalidDataset         a folder or a table on this machine is not as it must be; nothing was sent
├── Refused                the service refused, with a `code`
│   ├── AccessRefused      401, 403, 421: the key, its scope, or the host
│   ├── RequestRefused     the request itself: its body, its fields, its names
│   ├── UnknownName        404: no such model, task, label, version or job
│   ├── StateRefused       409: it does not fit what is there
│   ├── DataRefused        an image, an archive, or what is in it
│   ├── LimitReached       429: the key's requests a minute, images a day or open jobs
│   ├── ServiceBusy        503: no room, no storage, no model ready; come back later
│   └── ServiceFailed      500: a bug, or damaged data
└── JobFailed              a job ended without a version
    └── JobCancelled       it was cancelled, or its model deleted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DATA_CODES = frozenset(
    {
        "ambiguous_label",
        "archive_bad_layout",
        "archive_bad_name",
        "archive_link",
        "archive_suspicious_ratio",
        "archive_too_large",
        "archive_too_many_entries",
        "archive_unsafe_path",
        "commons_needs_classes",
        "data_not_found",
        "empty_image",
        "image_too_costly",
        "image_too_large",
        "invalid_archive",
        "invalid_examples",
        "invalid_image",
        "invalid_input",
        "no_network",
        "not_an_archive",
        "not_an_image",
        "recall_unmeasurable",
        "too_few_classes",
        "too_few_images",
        "too_many_unreadable_images",
        "truncated_image",
        "unsupported_image",
        "wrong_channels",
    }
)
"""Codes of refusals that are about images and archives."""


class EngramClientError(Exception):
    """What every error of this client is."""


class Unreachable(EngramClientError):
    """No answer came from the service."""


class UnexpectedAnswer(EngramClientError):
    """An answer that is none of Engram's: from a proxy, or from something else at this address."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        """HTTP status, where it is the status that was unexpected."""


class InvalidDataset(EngramClientError, ValueError):
    """A folder or a table of labelled images is not as it must be; nothing was sent.

    Its code is `bad_table`, `bad_layout`, `missing_files` or `contradicting_labels`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail
        """For people; it may change."""


class Refused(EngramClientError):
    """The service refused.

    Its families tell what to do about it; `code` says exactly what was wrong, and stays the same from release to
    release.
    """

    def __init__(self, problem: Mapping[str, Any], status: int, retry_after: float | None = None) -> None:
        self.code = str(problem["code"])
        self.status = status
        """HTTP status."""
        self.detail = str(problem.get("detail") or self.code.replace("_", " "))
        """For people; it may change."""
        self.request_id: str | None = problem.get("request_id")
        """By which the service's log has the request."""
        self.retry_after = retry_after
        """Seconds after which the service says that it may be asked again."""
        self.errors: Sequence[Mapping[str, Any]] = problem.get("errors") or ()
        """What does not fit, each with `loc` and `message`."""
        self.problem = problem
        """All that the service said (RFC 9457)."""
        super().__init__(f"{self.detail} ({self.code})")


class AccessRefused(Refused):
    """There is no valid key, or it may not do this."""


class RequestRefused(Refused):
    """The request is not as it must be."""


class UnknownName(Refused):
    """There is nothing of this name."""


class StateRefused(Refused):
    """It does not fit what is there, such as a name that is taken."""


class DataRefused(Refused):
    """An image or an archive is not as it must be."""


class LimitReached(Refused):
    """The key has used up what it may ask for at present."""


class ServiceBusy(Refused):
    """The service cannot do it now; later it may."""


class ServiceFailed(Refused):
    """Something is wrong inside the service."""


class JobFailed(EngramClientError):
    """A job ended without a version."""

    def __init__(self, job_id: str, code: str, detail: str) -> None:
        self.job_id = job_id
        self.code = code
        self.detail = detail
        """For people; it may change."""
        super().__init__(f"{detail} ({code})")


class JobCancelled(JobFailed):
    """A job was cancelled, or its model deleted."""


_BY_STATUS: Mapping[int, type[Refused]] = {
    401: AccessRefused,
    403: AccessRefused,
    404: UnknownName,
    409: StateRefused,
    421: AccessRefused,
    429: LimitReached,
    503: ServiceBusy,
}


def family(code: str, status: int) -> type[Refused]:
    """The class of a refusal with this code and HTTP status; also of codes that later releases may add."""
    if code in DATA_CODES:
        return DataRefused
    return _BY_STATUS.get(status, ServiceFailed if status >= 500 else RequestRefused)
