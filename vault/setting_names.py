"""Names of the settings of all programs, and what looks as if it was to be one."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping

from vault.environment import PREFIX

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


def warn_of_strangers(environment: Mapping[str, str]) -> None:
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
