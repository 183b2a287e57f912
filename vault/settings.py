"""Where the state is kept, as `ENGRAM_*` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vault.logs import LogFormat, LogLevel


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
