"""Readiness of a replica, and the reasons against it."""

from __future__ import annotations

from typing import Literal

from service.lifecycle.draining import Draining
from service.models.live import LiveModels

Reason = Literal["draining", "starting", "no_model_loads", "nothing_learned"]

DETAILS: dict[Reason, str] = {
    "draining": "The service is about to stop.",
    "starting": "The models have not been looked at yet.",
    "no_model_loads": "No stored model can be loaded.",
    "nothing_learned": "No model has learned a task yet.",
}


def unready(live: LiveModels, draining: Draining) -> Reason | None:
    """The reason why this replica cannot answer; None when it can."""
    if draining.begun:
        return "draining"
    if any(loaded.memory.tasks for loaded in live.models()):
        return None
    if not live.swept:
        return "starting"
    return "no_model_loads" if live.failing else "nothing_learned"
