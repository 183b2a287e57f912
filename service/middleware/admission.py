"""Limits on what is let in at once, by whichever protocol it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from service.metrics import Metrics
from service.middleware.body_limits import BodyLimits
from service.middleware.limiter import Limiter
from service.settings import ServiceSettings


@dataclass(frozen=True)
class AdmissionLimits:
    """Limits on requests that are answered side by side, and on their bodies."""

    requests: Limiter
    bodies: BodyLimits

    @classmethod
    def of(cls, settings: ServiceSettings, metrics: Metrics) -> Self:
        """Those of a process, with all room left."""
        requests = Limiter(metrics, "requests", "requests", settings.max_requests, settings.retry_after_seconds)
        return cls(requests, BodyLimits(settings, metrics))
