"""The bucket of S3 that settings name."""

from __future__ import annotations

import os
from datetime import timedelta

from obstore.store import S3Store

from vault.settings import VaultSettings

_LARGEST = timedelta(minutes=10)
"""A blob of 100 MB over a slow line needs minutes; that nothing comes any more is seen sooner."""


def quick(settings: VaultSettings) -> S3Store:
    """For records and listings: a store that hangs is given up soon."""
    limit = timedelta(seconds=settings.store_timeout_seconds / 2)
    return _connected(settings, limit, limit, tries=4)


def patient(settings: VaultSettings) -> S3Store:
    """For what may be large."""
    return _connected(settings, _LARGEST, timedelta(seconds=settings.store_timeout_seconds), tries=3)


def _connected(settings: VaultSettings, whole: timedelta, silence: timedelta, tries: int) -> S3Store:
    """A store whose requests may hang so many times, less one, and be answered all the same."""
    parts = settings.store_url.partition("://")[2].partition("/")
    region = settings.s3_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3Store(
        parts[0],
        prefix=parts[2].strip("/") or None,
        config={"region": region, **({"endpoint": endpoint} if endpoint else {})},
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": min(timedelta(seconds=5), silence),
            "timeout": whole,
            "read_timeout": silence,
        },
        retry_config={
            "max_retries": 5,
            "retry_timeout": silence * tries,
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
        },
    )
