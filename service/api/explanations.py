"""Heatmaps as JSON: their numbers, and what stands beside a prediction."""

from __future__ import annotations

import base64
from typing import Any

from engram.explain.explainer import Heatmap
from service.errors.problem_details import describe
from service.models.heatmaps import DrawnHeatmap


def numbers(heatmap: Heatmap) -> dict[str, Any]:
    """The relevance (C, H, W), its sum, what that is meant to be, and the logit that it explains."""
    return {"relevance": heatmap.relevance.tolist(), "sum": heatmap.total, "logit": heatmap.logit, "goal": heatmap.goal}


def explanation(drawn: DrawnHeatmap | Exception, style: str) -> dict[str, Any]:
    """A heatmap beside the prediction that it explains, or why there is none."""
    if isinstance(drawn, Exception):
        return {"error": describe(drawn)}
    heatmap = drawn.heatmap
    about = {"task": heatmap.task, "label": heatmap.label, "composite": heatmap.composite, "format": style}
    if drawn.png is None:
        return {**about, **numbers(heatmap)}
    return {**about, "media_type": "image/png", "b64": base64.b64encode(drawn.png).decode("ascii")}
