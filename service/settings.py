"""Everything about the service that can be set, as `ENGRAM_*` environment variables."""

from __future__ import annotations

from pydantic import Field

from vault.settings import VaultSettings


class ServiceSettings(VaultSettings):
    """Settings of one service process; the environment name of `queue_images` is `ENGRAM_QUEUE_IMAGES`."""

    torch_threads: int = Field(default=1, ge=1, le=256)
    """Threads of one inference. Answers are compared as bytes only between processes with the same number."""
    decode_threads: int = Field(default=2, ge=1, le=64)
    """Threads that decode images."""
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

    max_request_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Size of a request's body, uploads of training data excepted."""
    max_upload_bytes: int = Field(default=2 * 2**30, ge=1024)
    """Size of a request that uploads training data."""
    max_images_per_request: int = Field(default=256, ge=1)
    """Images of one prediction request."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Pixels of one image, judged by its header."""
    max_image_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes of one encoded image."""
    max_archive_entries: int = Field(default=100_000, ge=1)
    """Entries of an uploaded archive."""
    max_archive_bytes: int = Field(default=8 * 2**30, ge=1)
    """Bytes that an uploaded archive may unpack to."""
    max_archive_ratio: float = Field(default=200.0, gt=1)
    """Unpacked bytes for each packed byte of an uploaded archive."""
    max_decoded_bytes: int = Field(default=4 * 2**30, ge=1)
    """Bytes of all images of an archive, decoded and resized, since a worker holds them in memory."""
    data_uri_prefixes: tuple[str, ...] = ()
    """Prefixes (`s3://bucket/folder/`, `file:///folder/`) under which `data.uri` may name training data; none by
    default, since whoever may name a file may read it through the model."""

    poll_seconds: float = Field(default=0.5, gt=0, le=60)
    """How often the commit logs are looked at for versions whose notice was lost."""
    ping_seconds: float = Field(default=15.0, gt=0)
    """Between pings of an event stream."""
    retry_after_seconds: int = Field(default=1, ge=1)
    """What `Retry-After` says when there is no room."""
    drain_seconds: float = Field(default=0.5, ge=0, le=300)
    """Between the signal to stop, when `/readyz` turns 503, and the moment connections are refused. Behind a load
    balancer it should be longer than two of its probes."""
