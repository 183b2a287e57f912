"""Tests of the images of a request: each model's own decoder makes its pixels."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.isolation.decoder import BoundedDecoder
from service.metrics import Metrics
from service.models.decoding import ImageDecoder
from service.settings import ServiceSettings

SHAPE = InputShape(channels=3, height=8, width=8)


@pytest.mark.parametrize(("decoder", "behind"), [(1, 0), (2, 255)])
def test_transparency_is_as_the_decoder_of_the_model_has_it(decoder: int, behind: int) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (90, 90, 90, 0)).save(out, "PNG")
    with ThreadPoolExecutor(1) as pool, BoundedDecoder() as bounded:
        decoding = ImageDecoder(pool, bounded, ServiceSettings(), Metrics())
        (found,) = asyncio.run(decoding.decode([out.getvalue()], SHAPE, decoder))
        decoding.close()
    assert isinstance(found, Tensor)
    assert set(found.flatten().tolist()) == {behind}
