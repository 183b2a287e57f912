"""Exceptions of the HTTP service; `service.errors.problem_details` has the status of each."""

from __future__ import annotations

from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of the refusals that only the HTTP interface makes."""

    code: ClassVar[str] = "service_error"


class Unauthorized(ServiceError):
    """No key, or one that is not valid; `given` says whether there was one."""

    code = "unauthorized"

    def __init__(self, detail: str, *, given: bool) -> None:
        super().__init__(detail)
        error = ', error="invalid_token"' if given else ""
        self.headers = {"WWW-Authenticate": f'Bearer realm="engram"{error}'}


class Forbidden(ServiceError):
    """A key that may not do this."""

    code = "forbidden"

    def __init__(self, detail: str, scope: str) -> None:
        super().__init__(detail)
        self.headers = {"WWW-Authenticate": f'Bearer realm="engram", error="insufficient_scope", scope="{scope}"'}


class CrossSite(ServiceError):
    code = "cross_site"


class Misdirected(ServiceError):
    code = "misdirected_request"


class RateLimited(ServiceError):
    """Too many requests for a key; `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class QuotaExceeded(RateLimited):
    """More than a key may have of something; `retry_after` is in seconds."""

    code = "quota_exceeded"


class InvalidJson(ServiceError):
    code = "invalid_json"


class InvalidRequest(ServiceError):
    """A request whose fields do not fit; `errors` names each."""

    code = "invalid_request"

    def __init__(self, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors or []


class UnknownParameter(InvalidRequest):
    """Query parameters, or fields of a body, that the route does not have."""

    code = "unknown_parameter"


class ConflictingParameter(ServiceError):
    """A field that the query and the body have, and not the same."""

    code = "conflicting_parameter"


class InvalidBase64(ServiceError):
    code = "invalid_base64"


class InvalidMultipart(ServiceError):
    code = "invalid_multipart"


class UnsupportedMediaType(ServiceError):
    code = "unsupported_media_type"


class UnsupportedContentEncoding(ServiceError):
    """A body that is packed in a way that is not unpacked here."""

    code = "unsupported_content_encoding"

    def __init__(self, detail: str, taken: str) -> None:
        super().__init__(detail)
        self.headers = {"Accept-Encoding": taken}


class InvalidContentEncoding(ServiceError):
    """A body that is not packed as its `Content-Encoding` says, or is damaged or cut off."""

    code = "invalid_content_encoding"


class RequestTooLarge(ServiceError):
    code = "request_too_large"


class UploadTooLarge(ServiceError):
    code = "upload_too_large"


class SlowRequest(ServiceError):
    """The client stopped sending, or nearly so."""

    code = "request_timeout"


class TooManyImages(ServiceError):
    code = "too_many_images"


class DataUriNotAllowed(ServiceError):
    code = "data_uri_not_allowed"


class DataNotFound(ServiceError):
    code = "data_not_found"


class EmptyVersion(ServiceError):
    """A version without any task, whose activation would end all answers of the model."""

    code = "empty_version"


class LabelExists(ServiceError):
    """A label that another class of the task has, or one that reads the same."""

    code = "label_exists"


class FirstKeyScope(ServiceError):
    """A first key with which nobody could make the next one."""

    code = "first_key_scope"


class CertificateMissing(ServiceError):
    code = "certificate_missing"


class Overloaded(ServiceError):
    """More than can be served or queued; `retry_after` is in seconds."""

    code = "overloaded"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class InvalidIdempotencyKey(ServiceError):
    code = "invalid_idempotency_key"


class IdempotencyKeyReused(ServiceError):
    code = "idempotency_key_reused"


class IdempotencyInProgress(ServiceError):
    """The same request is being answered; `retry_after` is in seconds."""

    code = "idempotency_in_progress"
    retry_after: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__("The first request under this Idempotency-Key is not answered yet.")


class Stopping(ServiceError):
    """The process ends before the request was answered."""

    code = "stopping"


class OutOfDiskSpace(ServiceError):
    """A disk is full."""

    code = "no_room"


class ModelUnavailable(ServiceError):
    """A model that is there but could not be loaded."""

    code = "model_unavailable"


class ArchitectureUnavailable(ModelUnavailable):
    """A model over a network whose architecture is not installed on this replica."""

    code = "architecture_unavailable"
