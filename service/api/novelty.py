"""Route of the novelty monitor, `/novelty`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from engram.drift.monitor import State
from engram.recognition.conformal import ALPHA
from service.api.route import ScopedRouter, requires_scope
from service.dependencies import Parts

router = ScopedRouter("novelty")


class WelchResponse(BaseModel):
    """The latest Welch test: whether the newest window's novelty lies above the reference's."""

    reference_samples: int
    """Images of the reference so far; tests begin when it is complete."""
    reference_mean: float | None
    """Null before there is any of it."""
    window_mean: float | None
    p_value: float | None
    drift: bool
    """Whether the last two tests that agreed said so."""


class CusumResponse(BaseModel):
    """The cumulative sums over unusual images: the one that is nearest to its alarm."""

    level: float = ALPHA
    """Images whose p-value, one minus their novelty, is at most this are unusual to it; to the first, at 0.01, they are
    the unknown ones. Absent from what a replica of an earlier release tells, which has that one only."""
    value: float
    threshold: float
    usual: float
    """The share of unusual images that is taken for usual."""
    raised: bool
    """From the moment it reaches the threshold until it is back at 0."""


class ReplicaNovelty(BaseModel):
    """What one replica makes of its share of the images."""

    replica: str
    state: State
    samples: int
    unknown: int
    unknown_share: float
    since: str


class NoveltySpan(BaseModel):
    """The images that came in from a moment on, until the next span begins."""

    began_at: str
    samples: int
    unknown: int


class NoveltyHistory(BaseModel):
    """The images of a day, over all versions and replicas, by spans of time; those without any are left out."""

    seconds: int
    """How long a span is."""
    spans: list[NoveltySpan]
    """The oldest first."""


class NoveltyResponse(BaseModel):
    """The worst state of all replicas on the live version, since when some are in it, and counts over all of them."""

    model: str
    version: int
    state: State
    samples: int
    """Images answered by this version without being told their task."""
    unknown: int
    """Those of them that the task they are given to does not accept."""
    unknown_share: float
    since: str
    welch: WelchResponse
    """Of the replica with the worst state, as is `cusum`."""
    cusum: CusumResponse
    replicas: list[ReplicaNovelty]
    history: NoveltyHistory = Field(default_factory=lambda: NoveltyHistory(seconds=300, spans=[]))


@router.get("/v1/models/{model}/novelty", response_model=NoveltyResponse)
@requires_scope("predict")
async def show(model: str, parts: Parts) -> NoveltyResponse:
    """Whether the images that the live version answers, without being told their task, are of tasks it knows.

    The state is the worst of all replicas' and begins at `known` with every version. `new task suspected`: more images
    than usual are of none of its tasks. `drift`: they look less usual than at first, while most are still known.
    """
    await parts.refresh(model)
    return NoveltyResponse.model_validate(await parts.novelty.read(await parts.live.get(model)))
