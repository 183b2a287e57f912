"""Settings that services and workers share, read from `ENGRAM_*` environment variables."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SecretsSettingsSource, SettingsConfigDict, SettingsError
from pydantic_settings import PydanticBaseSettingsSource as Source

from telemetry.logs import LogFormat, LogLevel

log = logging.getLogger("engram.vault")

PREFIX = "ENGRAM_"
"""Begins the environment name of every setting."""

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
"""What clients of Valkey call the same protocol."""

_KUBERNETES_NAME = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)")
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://.*")
"""Variables that Kubernetes sets in every container for a service whose name begins with "engram"."""


SECRETS_FOLDER = Path("/run/secrets")
"""Where container engines mount files with secrets."""


class SecretFiles(SecretsSettingsSource):
    """Settings from files: `engram_redis_password` in the folder of secrets holds `ENGRAM_REDIS_PASSWORD`.

    The folder is the one that `ENGRAM_SECRETS_DIR` names, else `/run/secrets` where there is one.
    """

    def __init__(self, settings_class: type[BaseSettings]) -> None:
        super().__init__(settings_class, secrets_dir=secrets_folder(os.environ))


def secrets_folder(environment: Mapping[str, str]) -> Path | None:
    """The folder that holds files with secrets; None without one."""
    folder = Path(environment.get(f"{PREFIX}SECRETS_DIR") or SECRETS_FOLDER)
    return folder if folder.is_dir() else None


class LogSettings(BaseSettings):
    """Logging of any process; the environment name of `log_level` is `ENGRAM_LOG_LEVEL`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Source, env_settings: Source, *others: Source, **_: Source
    ) -> tuple[Source, ...]:
        """Arguments, then variables, then files with secrets."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    secrets_dir: DirectoryPath | None = None
    """Folder of files with secrets, each called like a setting (`engram_redis_password`); without it `/run/secrets`,
    where container engines put them. Variables of the same names go first."""
    log_level: Annotated[LogLevel, BeforeValidator(lambda text: str(text).upper())] = "INFO"
    """Lowest level that is written to standard error."""
    log_format: LogFormat = "auto"
    """One JSON object a line (`json`), or lines for people (`console`); `auto` is `console` on a terminal only."""


class VaultSettings(LogSettings):
    """Settings on which services and workers must agree; the environment name of `store_url` is `ENGRAM_STORE_URL`."""

    store_url: str = "engram-data"
    """The object storage: a folder (plain path or `file:///path`), or `s3://bucket/prefix`. The credentials of S3 come
    from `s3_access_key_id` and `s3_secret_access_key`, else from the standard `AWS_*` variables, or the machine's
    role."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """A Redis or Valkey server: `redis://host:port/db`, `rediss://...`, or `unix:///path.sock?db=0`. It must run by
    itself: Celery cannot use a cluster."""
    redis_password: SecretStr | None = None
    """Password of that server, where its URL has none; best given as a file (`secrets_dir`)."""
    s3_endpoint: str | None = None
    """URL of an S3-compatible store; one that begins with `http://` is spoken to without TLS."""
    s3_region: str | None = None
    """Region of the bucket; without it `AWS_REGION`, else `us-east-1`."""
    s3_access_key_id: SecretStr | None = None
    """Credentials of S3, in place of `AWS_ACCESS_KEY_ID`; best given as files (`secrets_dir`)."""
    s3_secret_access_key: SecretStr | None = None
    """In place of `AWS_SECRET_ACCESS_KEY`."""
    s3_session_token: SecretStr | None = None
    """In place of `AWS_SESSION_TOKEN`."""
    store_timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long S3 may be silent. A small request is made anew after half of it, until twice of it have passed; one for
    a blob or an upload, which may take minutes while bytes keep coming, after all of it, until three times of it."""
    lease_seconds: float = Field(default=15.0, gt=0, le=3600)
    """Seconds after which a worker that does not renew its lease counts as dead."""
    event_ttl_seconds: int = Field(default=24 * 3600, ge=1)
    """Seconds that a job's progress and events are kept after the last of them."""
    job_keep_days: float = Field(default=30.0, gt=0)
    """Days that a job is kept after its end."""
    idempotency_keep_hours: float = Field(default=24.0, gt=0)
    """Hours after its answer in which a repeated request with the same `Idempotency-Key` gets the same answer."""
    upload_keep_hours: float = Field(default=24.0, ge=1)
    """Hours that an upload of an interrupted submission is kept; one whose job is over is deleted at once."""
    blob_keep_hours: float = Field(default=24.0, ge=2)
    """Hours that a blob is kept which neither a version nor a decision names; longer than publishing takes."""
    event_count: int = Field(default=10_000, ge=10)
    """Approximate number of events kept of one job; the oldest are dropped first."""

    @field_validator("redis_url")
    @classmethod
    def _one_server(cls, url: str) -> str:
        scheme, _, rest = url.partition("://")
        scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
        if "cluster" in scheme or "," in urlsplit(url).netloc:
            raise ValueError("a cluster cannot be used by Celery: name one server that runs by itself")
        if scheme not in ("redis", "rediss", "unix") or not rest:
            raise ValueError("it must begin with redis://, rediss:// or unix://")
        return f"{scheme}://{rest}"

    @model_validator(mode="after")
    def _with_password(self) -> Self:
        if self.redis_password is not None and (password := self.redis_password.get_secret_value()):
            scheme, _, rest = self.redis_url.partition("://")
            place, slash, path = rest.partition("/")
            login, _, host = place.rpartition("@")
            user, _, given = login.partition(":")
            if not given:
                place = f"{user}:{quote(password, safe='')}@{host}"
                object.__setattr__(self, "redis_url", f"{scheme}://{place}{slash}{path}")
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("ENGRAM_S3_ACCESS_KEY_ID and ENGRAM_S3_SECRET_ACCESS_KEY go together")
        return self

    @property
    def secrets(self) -> list[str]:
        """The texts that no log may show, beside those of the standard variables."""
        given = (self.redis_password, self.s3_secret_access_key, self.s3_session_token)
        return [one.get_secret_value() for one in given if one is not None]

    @property
    def store_folder(self) -> Path | None:
        """The folder of a local store, absolute; None for S3."""
        if self.store_url.startswith(("s3://", "s3a://")):
            return None
        if self.store_url.startswith("file:"):
            return Path(unquote(urlsplit(self.store_url).path)).absolute()
        return Path(self.store_url).expanduser().absolute()


class DataLimitSettings(BaseModel):
    """How large data may be, alike for services, which refuse uploads by these limits, and for workers, which read by
    them whatever a job names; to be inherited beside `VaultSettings`."""

    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Pixels of one image, judged by its header."""
    max_image_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes of one encoded image."""
    max_image_scans: int = Field(default=500, ge=1)
    """Scans of one JPEG, each of which passes over all its pixels."""
    max_image_parts: int = Field(default=100_000, ge=1)
    """Segments, chunks, blocks, directory entries, strips and tiles of one encoded image."""
    max_image_seconds: float = Field(default=5.0, gt=0, le=600)
    """Processor time that one image may take to decode; those that may need a good part of it are decoded in a process
    of their own, which is killed when the time is over."""
    max_image_memory: int = Field(default=3 * 2**30, ge=1)
    """Bytes of memory that decoding one image may take, by an estimate beforehand and in such a process."""
    max_archive_entries: int = Field(default=100_000, ge=1)
    """Entries of an archive."""
    max_archive_bytes: int = Field(default=8 * 2**30, ge=1)
    """Bytes that an archive may unpack to."""
    max_archive_ratio: float = Field(default=200.0, gt=1)
    """Unpacked bytes for each packed byte of an archive."""
    max_decoded_bytes: int = Field(default=4 * 2**30, ge=1)
    """Bytes of all images of an archive, decoded and resized, since a worker holds them in memory."""


_PROCESS_NAMES = """
backlog_seconds batch_images batch_wait_ms cancel_seconds certificate_key checkpoint_seconds
data_uri_prefixes deaf_seconds decode_processes decode_queue
decode_threads device drain_seconds event_clients event_clients_per_job explain_queue grace_seconds grpc_port
header_seconds hosts
images_per_day job_seconds keep_alive_seconds key_seconds keys max_attempts max_bodies_bytes max_connections
max_backbone_bytes max_document_bytes max_header_bytes max_heatmaps_per_request max_images_per_request
max_request_bytes max_requests max_spool_bytes
max_upload_bytes max_uploads older_versions open_jobs ping_seconds poll_seconds processes progress_seconds
queue_images
reconcile_seconds requests_per_minute retry_after_seconds serve_device slow_body_bytes slow_body_seconds sweep_seconds
torch_threads worker_memory_bytes worker_metrics_host worker_metrics_port worker_threads write_seconds
cors_origins root_path trusted_proxies
"""
_CLIENT_NAMES = frozenset({"url", "api_key"})
"""What the commands that ask a service read from the environment."""
NAMES = frozenset((*VaultSettings.model_fields, *DataLimitSettings.model_fields, *_PROCESS_NAMES.split()))
"""Names of all settings, those of services and of workers alike: a process may be given variables meant for the other.

Those of one kind of process only are listed, since nothing here may import them.
"""

_CLIENT_NAMES = frozenset({"api_key", "url"})
"""Names of what clients and the command line read: in the environment of a service they are no mistake."""


def broker_url(redis_url: str) -> str:
    """The Celery broker URL of a Redis: `unix:///path.sock?db=1` becomes `redis+socket:///path.sock?virtual_host=1`."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{user}{parts.path}?virtual_host={database}"


@contextmanager
def explain_settings_errors() -> Iterator[None]:
    """Inside, invalid settings end the program with the status 78 and one line each, instead of a traceback.

    The status (`EX_CONFIG` of sysexits.h) tells a supervisor that a restart would not help. Values are left out, since
    they may be secret.
    """
    try:
        yield
    except ValidationError as error:
        if error.title not in _class_names(LogSettings):
            raise
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in one["loc"][1:])
            if not one["loc"]:  # what is wrong with several settings together names them
                print(f"{one['msg'].removeprefix('Value error, ')}.", file=sys.stderr)
                continue
            name = PREFIX + str(one["loc"][0]).upper() + (f" at {where}" if where else "")
            print(f"{name} cannot be used: {one['msg'].removeprefix('Value error, ')}.", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from error
    except SettingsError as error:
        if isinstance(file := error.__cause__, OSError):
            print(f"The secret {file.filename} cannot be read: {file.strerror or file}.", file=sys.stderr)
            print(f"This process runs as the user {os.geteuid()}.", file=sys.stderr)
            raise SystemExit(os.EX_CONFIG) from error
        # Only the text of this error names the field.
        field = str(error).partition('"')[2].partition('"')[0]
        print(f"{PREFIX}{field.upper()} cannot be used: it is not JSON.", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from error


def warn_of_unknown_names(environment: Mapping[str, str]) -> None:
    """Log a warning for each variable with the prefix of settings that is none: it may be misspelt."""
    folder = secrets_folder(environment)
    files = {path.name: "" for path in folder.iterdir()} if folder is not None else {}
    for name, value in sorted({**files, **environment}.items()):
        if not name.upper().startswith(PREFIX):
            continue
        rest = name.upper().removeprefix(PREFIX)
        if (
            rest.lower() in NAMES | _CLIENT_NAMES
            or _KUBERNETES_NAME.fullmatch(rest)
            or _KUBERNETES_VALUE.fullmatch(value)
        ):
            continue
        near = difflib.get_close_matches(rest.lower(), NAMES, 1, 0.75)
        hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else "."
        log.warning("%s is no setting, and changes nothing%s", name, hint)


def _class_names(kind: type[LogSettings]) -> set[str]:
    """Names of a settings class and of all its subclasses in this process."""
    return {kind.__name__}.union(*(_class_names(below) for below in kind.__subclasses__()))
