"""Tests of the images of a request: each model's own decoder makes its pixels."""

from __future__ import annotations

import asyncio
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.images import decode
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


@pytest.mark.parametrize("count", [1, 32, 33, 80])
@pytest.mark.parametrize(("kind", "side"), [("PNG", 8), ("PNG", 60), ("JPEG", 90)])
def test_images_are_the_same_however_many_are_decoded_together(count: int, kind: str, side: int) -> None:
    """Few and small ones are decoded in the event loop as long as there is time for that, all others in threads."""
    sources = []
    for number in range(count):
        out = io.BytesIO()
        Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(out, kind)
        sources.append(out.getvalue() if number % 11 != 10 else out.getvalue()[:40])
    with ThreadPoolExecutor(2) as pool, BoundedDecoder() as bounded:
        decoding = ImageDecoder(pool, bounded, ServiceSettings(), Metrics())
        found = asyncio.run(decoding.decode(sources, SHAPE, 2))
        decoding.close()
    assert len(found) == count
    for source, one in zip(sources, found, strict=True):
        if isinstance(one, Tensor):
            assert torch.equal(one, decode(source, SHAPE, decoder=2))
        else:
            with pytest.raises(type(one), match=re.escape(str(one))):
                decode(source, SHAPE, decoder=2)
    assert sum(isinstance(one, Exception) for one in found) == count // 11
