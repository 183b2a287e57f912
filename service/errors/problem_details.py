"""Status and problem document (RFC 9457, `application/problem+json`) of every error.

Below `/v2`, where clients of the Open Inference Protocol ask, a problem is told as these read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

import engram.errors as learner
import vault.errors as store
from service.errors.exceptions import (
    ArchitectureUnavailable,
    CertificateMissing,
    ConflictingParameter,
    CrossSite,
    DataNotFound,
    DataUriNotAllowed,
    EmptyVersion,
    FirstKeyScope,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidBase64,
    InvalidContentEncoding,
    InvalidIdempotencyKey,
    InvalidJson,
    InvalidMultipart,
    InvalidRequest,
    LabelExists,
    Misdirected,
    ModelUnavailable,
    OutOfDiskSpace,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    RequestTooLarge,
    SlowRequest,
    Stopping,
    TooManyImages,
    Unauthorized,
    UnknownParameter,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
    UploadTooLarge,
)
from service.errors.validation import invalid_fields, sentence
from telemetry import logs
from telemetry.redaction import redact

MEDIA_TYPE = "application/problem+json"
PROTOCOL_MEDIA_TYPE = "application/json"
"""Of a problem below `PROTOCOL`: clients there show the text of no other kind."""
PROTOCOL = "/v2"
"""Beginning of the paths of the Open Inference Protocol."""
REQUEST_ID_HEADER = "X-Request-ID"

STATUS: Mapping[type[Exception], int] = {
    Unauthorized: 401,
    Forbidden: 403,
    CrossSite: 403,
    Misdirected: 421,
    RateLimited: 429,
    QuotaExceeded: 429,
    InvalidJson: 400,
    InvalidMultipart: 400,
    InvalidRequest: 422,
    UnknownParameter: 422,
    ConflictingParameter: 400,
    InvalidContentEncoding: 400,
    UnsupportedContentEncoding: 415,
    InvalidBase64: 422,
    UnsupportedMediaType: 415,
    RequestTooLarge: 413,
    UploadTooLarge: 413,
    SlowRequest: 408,
    TooManyImages: 413,
    DataUriNotAllowed: 403,
    DataNotFound: 422,
    CertificateMissing: 404,
    EmptyVersion: 409,
    LabelExists: 409,
    FirstKeyScope: 409,
    Overloaded: 503,
    ModelUnavailable: 503,
    ArchitectureUnavailable: 503,
    OutOfDiskSpace: 503,
    InvalidIdempotencyKey: 422,
    IdempotencyKeyReused: 422,
    IdempotencyInProgress: 409,
    Stopping: 503,
    learner.InvalidDefinition: 422,
    learner.InvalidOptions: 422,
    learner.InputError: 422,
    learner.ImageError: 422,
    learner.EmptyImage: 422,
    learner.NotAnImage: 422,
    learner.TruncatedImage: 422,
    learner.UnsupportedImage: 422,
    learner.ImageTooLarge: 413,
    learner.ImageTooCostly: 422,
    learner.WrongChannels: 422,
    learner.ArchiveError: 422,
    learner.AmbiguousLabel: 422,
    learner.NotAnArchive: 422,
    learner.UnsafePath: 422,
    learner.BadName: 422,
    learner.ArchiveLink: 422,
    learner.TooManyEntries: 413,
    learner.SuspiciousRatio: 413,
    learner.ArchiveTooLarge: 413,
    learner.BadLayout: 422,
    learner.ExamplesError: 422,
    learner.TooFewClasses: 422,
    learner.CommonsNeedsClasses: 422,
    learner.TooFewImages: 422,
    learner.TooManyUnreadable: 422,
    learner.NotExportable: 422,
    learner.InvalidBackbone: 422,
    learner.UnknownArchitecture: 422,
    learner.ArchitectureMissing: 422,
    learner.PickleRefused: 422,
    learner.DamagedWeights: 422,
    learner.MissingTensors: 422,
    learner.SurplusTensors: 422,
    learner.WrongShapes: 422,
    learner.NotFinite: 422,
    learner.UnsuitedSize: 422,
    learner.BackboneTooLarge: 413,
    learner.ConversionRefused: 422,
    learner.LearningFailed: 422,
    learner.AccuracyTooLow: 422,
    learner.RecallTooLow: 422,
    learner.RecallUnmeasurable: 422,
    learner.RecognitionTooLow: 422,
    learner.TaskExists: 409,
    learner.UnknownTask: 404,
    learner.UnknownLabel: 404,
    learner.UnknownComposite: 404,
    learner.EngineMissing: 422,
    learner.PrecisionMissing: 422,
    learner.DeviceMissing: 500,
    learner.NoNetwork: 422,
    learner.NothingLearned: 409,
    learner.AnswersOnly: 409,
    learner.CapacityExhausted: 409,
    learner.Cancelled: 409,
    learner.RetentionViolated: 500,
    learner.AnswersDiffer: 500,
    learner.SnapshotError: 500,
    learner.DamagedSnapshot: 500,
    learner.UnsupportedFormat: 500,
    store.StoreUnavailable: 503,
    store.RedisUnavailable: 503,
    store.UnsoundStore: 500,
    store.UnsuitableRedis: 500,
    store.InvalidPath: 500,
    store.InvalidName: 422,
    store.InvalidCursor: 422,
    store.InvalidBundle: 422,
    store.NotFound: 500,
    store.UnknownModel: 404,
    store.UnknownVersion: 404,
    store.UnknownJob: 404,
    store.UnknownKey: 404,
    store.UnknownBackbone: 404,
    store.AlreadyExists: 500,
    store.ModelExists: 409,
    store.BackboneExists: 409,
    store.BackboneInUse: 409,
    store.CandidatesWaiting: 409,
    store.NotACandidate: 409,
    store.KeyExists: 409,
    store.JobExists: 409,
    store.Conflict: 409,
    store.Unreadable: 500,
    store.Damaged: 500,
    store.UnsupportedRecord: 500,
    store.JobOver: 409,
    store.LeaseLost: 409,
}
"""The status of each error that may reach the interface. A class that is not here is answered 500 and logged."""


def status_of(error: BaseException) -> int | None:
    """The status of the nearest of the error's classes that `STATUS` has; None where it has none of them."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return None


def problem(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """The members of a problem document."""
    return {
        "type": f"urn:engram:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **extra,
    }


def describe(error: Exception) -> dict[str, Any]:
    """The problem document of an error: one of an internal error where `status_of` has no status for it."""
    status = status_of(error)
    if status is None:
        return problem(500, "internal_error", "Something went wrong here; it has been logged.")
    code = getattr(error, "code", "internal_error")
    if status == 500:
        harmed = getattr(error, "path", None)
        if isinstance(error, store.Unreadable | store.NotFound) and harmed is not None:
            return problem(500, code, safe_message(error), object=harmed)
        # What else is wrong inside is for the log: it means nothing to the client.
        return problem(500, code, "Something stored is damaged or inconsistent; it has been logged.")
    extra = {"errors": error.errors} if isinstance(error, InvalidRequest) and error.errors else {}
    return problem(status, code, safe_message(error) or code.replace("_", " "), **extra)


def safe_message(error: Exception) -> str:
    """The text of an error as a client may read it, without the file or host that failed, which the log names."""
    if isinstance(error, store.StoreUnavailable):
        return "The storage cannot be used at present."
    if isinstance(error, store.RedisUnavailable):
        return "Redis cannot be used at present."
    return redact(str(error))


def traceback_of(error: Exception) -> Exception | None:
    """`error` as `exc_info` of a line in the log; None where what is needed cannot be reached for now.

    That is foreseen, and comes again with every request: its text, which names the cause, says all there is.
    """
    return None if status_of(error) == 503 else error


def invalid(error: ValidationError, what: str) -> InvalidRequest:
    """The InvalidRequest that says what a pydantic error says; `what` names the thing that does not fit."""
    found = invalid_fields(error.errors())
    return InvalidRequest(f"{what}: {sentence(found[0])}", found)


def in_protocol(path: str) -> bool:
    """Whether a path is one of the Open Inference Protocol."""
    return path == PROTOCOL or path.startswith(f"{PROTOCOL}/")


def protocol_error(body: Mapping[str, Any]) -> dict[str, Any]:
    """A problem document as the Open Inference Protocol has it."""
    return {"error": body["detail"], **{name: body[name] for name in ("code", "request_id", "ready") if name in body}}


class ProblemAnswer(JSONResponse):
    """A problem document as a response; sent for a path of the Open Inference Protocol, it is such an error instead."""

    media_type = MEDIA_TYPE

    def __init__(self, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body, body["status"], dict(headers or {}))
        self._problem = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not in_protocol(scope["path"]):
            await super().__call__(scope, receive, send)
            return
        own = ("content-type", "content-length")
        headers = {name: value for name, value in self.headers.items() if name not in own}
        await JSONResponse(protocol_error(self._problem), self.status_code, headers)(scope, receive, send)


def answer(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem document as a response, with the id of the request that it answers."""
    if (identity := logs.value("request_id")) is not None:
        body = {**body, "request_id": identity}
    return ProblemAnswer(body, headers)


def response(error: Exception) -> JSONResponse:
    """The answer to an error, with `Retry-After` where coming back later may help."""
    body = describe(error)
    retry = getattr(error, "retry_after", 5 if body["status"] == 503 else None)
    headers = {"Retry-After": str(retry)} if retry is not None else {}
    return answer(body, headers | getattr(error, "headers", {}))
