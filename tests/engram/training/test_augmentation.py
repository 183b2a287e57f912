"""Tests of augmentation against images that are padded and cut out one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.data.augmentation import augmented


def _cut_out(images: Tensor, kind: str, generator: torch.Generator, *, far: bool) -> Tensor:
    height, width = images.shape[2:]
    part, mode = (4, "reflect") if far else (8, "replicate")
    rows, columns = max(1, height // part), max(1, width // part)
    padded = F.pad(images, (columns, columns, rows, rows), mode=mode)
    top, left = (
        torch.randint(0, 2 * most + 1, (len(images), 1), generator=generator).flatten().tolist()
        for most in (rows, columns)
    )
    found = [
        image[:, first : first + height, other : other + width]
        for image, first, other in zip(padded, top, left, strict=True)
    ]
    if kind == "shift+flip":
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        found = [image.flip(2) if turned else image for image, turned in zip(found, mirrored.tolist(), strict=True)]
    return torch.stack(found)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("kind", ["shift", "shift+flip"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 17), (2, 5, 9)])
def test_images_are_shifted_and_mirrored_as_if_padded_and_cut_out(
    shape: tuple[int, int, int], kind: str, far: bool
) -> None:
    given = torch.Generator().manual_seed(4)
    images = torch.rand(40, *shape, generator=given)
    ours, plain = (torch.Generator().manual_seed(5) for _ in range(2))
    found, expected = augmented(images, kind, ours, far=far), _cut_out(images, kind, plain, far=far)
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    assert found.is_contiguous(memory_format=torch.channels_last) is (shape[0] == 1), "of which layers make their order"
    assert not torch.equal(found, images)
    assert torch.equal(ours.get_state(), plain.get_state())


def test_images_stay_as_they_are_where_nothing_is_asked_for() -> None:
    images = torch.rand(3, 1, 8, 8)
    assert augmented(images, "none", torch.Generator()) is images
