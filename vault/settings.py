"""Where the state is kept, as `ENGRAM_*` environment variables."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from telemetry.logs import LogFormat, LogLevel


class LogSettings(BaseSettings):
    """How every process logs; the environment name of `log_level` is `ENGRAM_LOG_LEVEL`."""

    model_config = SettingsConfigDict(env_prefix="ENGRAM_", extra="ignore", frozen=True)

    log_level: Annotated[LogLevel, BeforeValidator(lambda text: str(text).upper())] = "INFO"
    """What is written to standard error, and all that is graver."""
    log_format: LogFormat = "auto"
    """One JSON object a line (`json`), or lines for people (`console`); `auto` is `console` on a terminal only."""


class VaultSettings(LogSettings):
    """What services and workers must agree on; the environment name of `store_url` is `ENGRAM_STORE_URL`."""

    store_url: str = "engram-data"
    """The object storage: a folder (plain path or `file:///path`), or `s3://bucket/prefix`. The credentials of S3 come
    from the standard `AWS_*` variables, or the machine's role."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """`redis://host:port/db`, `rediss://...`, or `unix:///path.sock?db=0`."""
    s3_endpoint: str | None = None
    """URL of an S3-compatible store; one that begins with `http://` is spoken to without TLS."""
    s3_region: str | None = None
    """Region of the bucket; without it `AWS_REGION`, else `us-east-1`."""
    store_timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long S3 may be silent. A small request is made anew after half of it, until twice of it have passed; one for
    a blob or an upload, which may take minutes while bytes keep coming, after all of it, until three times of it."""
    lease_seconds: float = Field(default=15.0, gt=0, le=3600)
    """Seconds after which a worker that does not renew its lease is taken for dead."""
    event_ttl_seconds: int = Field(default=24 * 3600, ge=1)
    """Seconds that a job's progress and events are kept after the last of them."""
    job_keep_days: float = Field(default=30.0, gt=0)
    """Days after its end that a job can be looked at."""
    idempotency_keep_hours: float = Field(default=24.0, gt=0)
    """Hours after its answer that a request with an `Idempotency-Key` is answered the same when it is made again."""
    upload_keep_hours: float = Field(default=24.0, ge=1)
    """Hours that an upload is kept whose submission broke off; one whose job is over is deleted at once."""
    blob_keep_hours: float = Field(default=24.0, ge=2)
    """Hours that a blob is kept which no version names, and none that is decided on; longer than publishing takes."""
    event_count: int = Field(default=10_000, ge=10)
    """Events of one job that are kept, about; the oldest go first."""

    @property
    def store_folder(self) -> Path | None:
        """The folder of a local store, absolute; None for S3."""
        if self.store_url.startswith(("s3://", "s3a://")):
            return None
        if self.store_url.startswith("file:"):
            return Path(unquote(urlsplit(self.store_url).path)).absolute()
        return Path(self.store_url).expanduser().absolute()


def broker_url(redis_url: str) -> str:
    """The Celery broker URL of a Redis: `unix:///path.sock?db=1` becomes `redis+socket:///path.sock?virtual_host=1`."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


PREFIX = str(LogSettings.model_config["env_prefix"])


@contextmanager
def explain_settings_errors() -> Iterator[None]:
    """End the program with the status 78 and a line for each setting that does not fit, instead of a traceback.

    The status says so to whoever would start it again (`EX_CONFIG` of sysexits.h).

    Values are left out: they may be secret.
    """
    try:
        yield
    except ValidationError as error:
        if error.title not in _names(LogSettings):
            raise
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in one["loc"][1:])
            name = PREFIX + str(one["loc"][0]).upper() + (f" at {where}" if where else "")
            print(f"{name} cannot be used: {one['msg']}.", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from error
    except SettingsError as error:
        # It names the field in a text of its own, and what it came from does not.
        field = str(error).partition('"')[2].partition('"')[0]
        print(f"{PREFIX}{field.upper()} cannot be used: it is not JSON.", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from error


def _names(kind: type[LogSettings]) -> set[str]:
    """Of all classes of settings that this process knows."""
    found = {kind.__name__}
    for below in kind.__subclasses__():
        found |= _names(below)
    return found


log = logging.getLogger("engram.vault")

_NAMES = """
backlog_seconds batch_images batch_wait_ms blob_keep_hours cancel_seconds checkpoint_seconds
data_uri_prefixes decode_threads device drain_seconds event_clients event_clients_per_job event_count
event_ttl_seconds explain_queue grace_seconds header_seconds hosts idempotency_keep_hours images_per_day
job_keep_days job_seconds keep_alive_seconds key_seconds keys lease_seconds log_format log_level
max_archive_bytes max_archive_entries max_archive_ratio max_attempts max_bodies_bytes max_connections
max_decoded_bytes max_document_bytes max_header_bytes max_image_bytes max_image_pixels
max_images_per_request max_request_bytes max_requests max_spool_bytes max_upload_bytes max_uploads
older_versions open_jobs ping_seconds poll_seconds progress_seconds queue_images reconcile_seconds redis_url
requests_per_minute retry_after_seconds s3_endpoint s3_region slow_body_bytes slow_body_seconds
store_timeout_seconds store_url sweep_seconds torch_threads upload_keep_hours worker_memory_bytes
worker_metrics_host worker_metrics_port worker_threads write_seconds
"""
NAMES = frozenset(_NAMES.split())
"""Of the service's and the worker's, so that each may be given what is meant for the other."""
_LINKED = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
"""What Kubernetes tells every container of a service whose name begins with "engram"."""


def warn_of_unknown_names(environment: Mapping[str, str]) -> None:
    """Log a warning for each variable that is called as settings are, and is none: it may be misspelt."""
    for name, value in sorted(environment.items()):
        if not name.upper().startswith(PREFIX):
            continue
        rest = name.upper().removeprefix(PREFIX)
        if rest.lower() in NAMES or _LINKED.fullmatch(rest) or _ADDRESS.fullmatch(value):
            continue
        near = difflib.get_close_matches(rest.lower(), NAMES, 1, 0.75)
        hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else "."
        log.warning("%s is no setting, and changes nothing%s", name, hint)
