"""Route of the novelty monitor, `/novelty`."""

from __future__ import annotations

from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import NoveltyResponse
from service.dependencies import Parts

router = ScopedRouter("novelty")


@router.get("/v1/models/{model}/novelty", response_model=NoveltyResponse)
@requires_scope("predict")
async def show(model: str, parts: Parts) -> NoveltyResponse:
    """Whether the images that the live version answers, without being told their task, are of tasks it knows.

    The state is the worst of all replicas' and begins at `known` with every version. `new task suspected`: more images
    than usual are of none of its tasks. `drift`: they look less usual than at first, while most are still known.
    """
    await parts.refresh(model)
    return NoveltyResponse.model_validate(await parts.novelty.read(await parts.live.get(model)))
