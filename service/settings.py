"""Settings of a service process, read from `ENGRAM_*` environment variables."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from vault.certificates.settings import SigningSettings
from vault.settings import DataLimitSettings

ANY = "*"
"""Instead of an origin: all of them."""

_SEGMENTS = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*")
_DOTS = re.compile(r"/\.{1,2}(/|$)")
_OWN = re.compile(
    r"/(v1(/(models|jobs|backbones|summary)(/.*)?)?|v2(/(health|models|repository)(/.*)?)?|(ui|docs)(/.*)?|openapi\.json"
    r"|livez|readyz|metrics)"
)
"""Prefixes that could not be told from our own paths, or from their beginnings."""
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"(http://.*):80|(https://.*):443")


def path_prefix(text: str) -> str:
    """A path prefix in its plain form: `/engram` for `/engram/` and `engram`, and nothing for `/`.

    Raises
    ------
    ValueError
        It is not the beginning of a path, or cannot be told from paths that there are.
    """
    prefix = "/" + text.strip().strip("/") if text.strip("/ ") else ""
    if not _SEGMENTS.fullmatch(prefix) or _DOTS.search(unquote(prefix)):
        raise ValueError("it is not the path that a proxy serves Engram below, such as /engram")
    if _OWN.fullmatch(unquote(prefix)):
        raise ValueError("paths of Engram's own begin so")
    return prefix


def network(text: str) -> IPv4Network | IPv6Network:
    """The network that an address, or a network in CIDR notation, is; raises ValueError."""
    return ip_network(text.strip())


def origin(text: str) -> str:
    """An origin as browsers write it: `https://host:port` without the port that its scheme has by default, or `*`.

    Raises
    ------
    ValueError
    """
    plain = text.strip().lower()
    if plain != ANY and not _ORIGIN.fullmatch(plain):
        raise ValueError("it is neither scheme://host[:port] nor *")
    default = _DEFAULT_PORT.fullmatch(plain)
    return (default[1] or default[2]) if default else plain


def _listed(given: Any) -> Any:
    """A list out of the environment: JSON, or separated by commas."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("["):
        try:
            return json.loads(given)
        except ValueError as error:
            raise ValueError("it is not JSON") from error
    return [part.strip() for part in given.split(",") if part.strip()]


def _named(text: str) -> str:
    return str(network(text))


def _with_grpc(port: int | None) -> int | None:
    if port is not None and not all(map(find_spec, ("grpc", "grpc_health", "grpc_reflection"))):
        raise ValueError("it needs what engram-vision[grpc] installs")
    return port


Origin = Annotated[str, AfterValidator(origin)]
TrustedProxy = Annotated[str, AfterValidator(_named)]


class ServiceSettings(SigningSettings, DataLimitSettings):
    """Settings of one service process; the environment name of `queue_images` is `ENGRAM_QUEUE_IMAGES`."""

    processes: int | None = Field(default=None, ge=1, le=64)
    """Processes that answer on one address, each with all models; the bounds below that are told to be of the service
    are divided among them. By default one, of `engram serve` half of the processors up to four. Linux alone."""
    torch_threads: int = Field(default=1, ge=1, le=256)
    """Threads of one inference. Answers are compared as bytes only between processes with the same number."""
    serve_device: Literal["auto", "cpu", "cuda"] = "cpu"
    """What models answer on: the processor, a GPU (`cuda`), or a GPU where there is one (`auto`). A GPU's last bits are
    others, so it is never taken unasked (`docs/gpu.md`)."""
    decode_threads: int = Field(default=2, ge=1, le=64)
    """Threads that decode images."""
    decode_processes: int = Field(default=2, ge=1, le=64)
    """Processes that decode those images which may take long; each is started when it is first needed."""
    decode_queue: int = Field(default=32, ge=1)
    """Requests with such images that are answered at once; further ones are answered 503 at once."""
    batch_images: int = Field(default=32, ge=1, le=4096)
    """Images of one pass through a model at most."""
    batch_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """Milliseconds that a batch with room left waits for more requests while there is a steady flow of them. A request
    that finds the model idle never waits; requests that come while a batch runs form the next one at 0 as well."""
    queue_images: int = Field(default=1024, ge=1)
    """Images of one model that may wait; further requests are answered 503 at once."""
    explain_queue: int = Field(default=16, ge=1)
    """Heatmaps that may wait; further requests are answered 503 at once."""
    older_versions: int = Field(default=2, ge=1, le=64)
    """Versions other than the live ones that stay loaded after `?version=` asked for them."""

    max_requests: int = Field(default=512, ge=1)
    """Requests that are answered at once, health checks not counted; further ones are answered 503 at once."""
    max_connections: int = Field(default=1000, ge=1)
    """Connections that are open at once. One more closes the one that has been idle; when none is, it is told 503,
    health checks excepted. Beyond twice as many, connections are closed without a word."""
    event_clients: int = Field(default=256, ge=1)
    """Event streams that are open at once; further ones are answered 503 at once."""
    event_clients_per_job: int = Field(default=32, ge=1)
    """Event streams of one job that are open at once."""

    max_header_bytes: int = Field(default=32 * 2**10, ge=1024)
    """Size of a request's first line and headers."""
    header_seconds: float = Field(default=10.0, gt=0)
    """Within which a connection's first request begins, and any request's headers end."""
    keep_alive_seconds: int = Field(default=75, ge=1)
    """How long an idle connection stays open. Behind a load balancer it should be longer than what that waits."""
    slow_body_seconds: float = Field(default=20.0, gt=0)
    """A body must bring at least `slow_body_bytes` in so many seconds of waiting for it, else the answer is 408."""
    slow_body_bytes: int = Field(default=8192, ge=1)
    """See `slow_body_seconds`."""
    write_seconds: float = Field(default=30.0, gt=0)
    """A client that takes nothing of its answer for so long is cut off; this also ends event streams nobody reads."""

    max_bodies_bytes: int = Field(default=512 * 2**20, ge=1024)
    """Bodies of all requests under way that are held in memory; uploads of data and networks are not among them."""
    max_uploads: int = Field(default=8, ge=1)
    """Uploads of data and networks that are received at once; further ones are answered 503 at once."""
    max_spool_bytes: int = Field(default=8 * 2**30, ge=1024)
    """Disk space that uploads under way may take in the temporary folder (`TMPDIR`)."""

    max_request_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Size of a request's body that brings images."""
    max_document_bytes: int = Field(default=2**20, ge=1024)
    """Size of any other request's body, uploads excepted."""
    max_upload_bytes: int = Field(default=2 * 2**30, ge=1024)
    """Size of a request that uploads training data."""
    max_backbone_bytes: int = Field(default=2**30, ge=1024)
    """Size of a request that uploads a network."""
    max_images_per_request: int = Field(default=256, ge=1)
    """Images of one prediction request."""
    max_heatmaps_per_request: int = Field(default=8, ge=1)
    """Images of one prediction request that asks for heatmaps; never more than `explain_queue`."""
    data_uri_prefixes: tuple[str, ...] = ()
    """Prefixes (`s3://bucket/folder/`, `gs://`, `az://`, `file:///folder/`) under which `data.uri` may name training
    data; none by default, since whoever may name a file may read it through the model."""

    keys: Literal["auto", "required", "off"] = "auto"
    """Whether requests need an API key. `auto`: on every address but loopback, and there too from the moment when there
    is a key; without one, `engram serve` and `engram service` do not listen on any other address. `off`: never."""
    key_seconds: float = Field(default=2.0, gt=0, le=60)
    """How often the keys are read anew: a revoked key works no longer than that."""
    hosts: tuple[str, ...] = ()
    """Host names, as JSON, that requests without a key may be meant for. By default any; on loopback only this
    machine's own, so that no web page can lead its readers' browsers here under a name of its own."""
    root_path: Annotated[str, AfterValidator(path_prefix)] = ""
    """Path below which a reverse proxy serves this, such as `/engram`, whether or not the proxy takes it off. Option
    `--root-path` of `engram serve` and `engram service` says the same."""
    trusted_proxies: Annotated[tuple[TrustedProxy, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Addresses and networks, separated by commas or as JSON, of the reverse proxies whose `X-Forwarded-Prefix`,
    `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-For` are believed; none by default, since anybody can send
    such headers."""
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Origins (`https://app.example`), separated by commas or as JSON, whose web pages may ask this service from a
    browser; `*` for all. None by default. Keys are asked for as ever."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Of a key that has no such limit of its own; no limit by default."""
    images_per_day: int | None = Field(default=None, ge=1)
    """Predicted or explained with a key that has no such limit of its own."""
    open_jobs: int | None = Field(default=None, ge=1)
    """Queued or running jobs of a key that has no such limit of its own."""

    grpc_port: Annotated[int | None, AfterValidator(_with_grpc)] = Field(default=None, ge=0, le=65535)
    """Port on which the Open Inference Protocol is spoken by gRPC, too, on the same address; 0 takes a free one. None
    by default; it needs `engram-vision[grpc]`. Option `--grpc-port` says the same."""

    poll_seconds: float = Field(default=0.5, gt=0, le=60)
    """How often the commit logs are looked at for versions whose notice was lost."""
    backlog_seconds: float = Field(default=10.0, gt=0, le=3600)
    """Between two looks at how many jobs are open, for Prometheus."""
    ping_seconds: float = Field(default=15.0, gt=0)
    """Between pings of an event stream."""
    retry_after_seconds: int = Field(default=1, ge=1)
    """What `Retry-After` says when there is no room."""
    drain_seconds: float = Field(default=0.5, ge=0, le=300)
    """Between the signal to stop, when `/readyz` turns 503, and the moment connections are refused. Behind a load
    balancer it should be longer than two of its probes."""
    grace_seconds: int = Field(default=20, ge=1, le=3600)
    """What requests under way, uploads among them, may take after that; then they are answered 503. Event streams end
    at once. With `drain_seconds` it should be less than what the process is given until it is killed."""


def given(**options: Any) -> dict[str, Any]:
    """The options of a command line that are given, which stand instead of what the environment says."""
    return {name: value for name, value in options.items() if value is not None}
