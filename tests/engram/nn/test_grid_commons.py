"""Tests of commons on a grid: plain arithmetic, equal bytes, mirroring, storing, relevance."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from engram import CommonsDefinition
from engram.config.definition import Definition
from engram.errors import CommonsNeedsClasses
from engram.explain.commons import CommonsRelevance
from engram.explain.grid_commons import BankRelevance, smooth_features
from engram.nn.commons.bank import Bank
from engram.nn.commons.dead_leaves import dead_leaves
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.commons.prepared_bank import PreparedBank
from engram.nn.commons.recipes import commons_of
from engram.nn.serialization import dump_commons, load_commons
from testing.data.patterns import definition

CHANGES: tuple[dict[str, Any], ...] = (
    {"kind": "smooth"},
    {"kind": "learned"},
    {"kind": "smooth", "mirror": True, "stride": 2, "patch": None},
    {"kind": "learned", "mirror": True, "grid": 3, "patch": None},
    {"kind": "learned", "mirror": True, "stride": 3, "patch": None},
)


def wanted(channels: int = 3, side: int = 13, **changes: Any) -> Definition:
    fields = {"features": 128, "patch": 5, **changes}
    shape = {"channels": channels, "height": side, "width": side}
    return definition("mlp", input=shape, commons=CommonsDefinition.model_validate(fields), recipe=3)


def made(channels: int = 3, side: int = 13, **changes: Any) -> GridCommons:
    found = commons_of(wanted(channels, side, **changes)).fitted(pictures(40, channels, side))
    assert isinstance(found, GridCommons)
    return found.eval()


def pictures(count: int, channels: int = 3, side: int = 13) -> Tensor:
    """(N, C, H, W) uint8: blots of a few pixels, so that there are edges as well as flat places."""
    generator = torch.Generator().manual_seed(side)
    small = torch.rand(count, channels, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear") * 255).to(torch.uint8)


def scaled(images: Tensor) -> Tensor:
    return images.float() / 255


@dataclass(frozen=True)
class PlainBank:
    """A bank in Python's own whole numbers, value by value."""

    bank: Bank

    def filters(self) -> list[tuple[Tensor, int]]:
        weight, offsets = self.bank.filters.weight.long(), self.bank.offsets.long()  # type: ignore[operator]
        pairs = [(one, int(offset)) for one, offset in zip(weight, offsets, strict=True)]
        return pairs + ([(one.flip(2), offset) for one, offset in pairs] if self.bank.about.mirror else [])

    def response(self, patch: Tensor, weight: Tensor, offset: int) -> int:
        values = self.bank.values
        total, squares = int(patch.sum()), int((patch * patch).sum())
        spread = values * squares - total**2 + values * 255**2 * self.bank.contrast_floor
        scale = float(np.float32(64 / math.sqrt(spread)))
        normal = [round(float(np.float32((values * pixel - total) * scale))) for pixel in patch.flatten().tolist()]
        return int(sum(one * two for one, two in zip(normal, weight.flatten().tolist(), strict=True))) + offset

    def maps(self, image: Tensor) -> list[list[list[int]]]:
        """Of an image (C, H, W) of whole numbers, for each filter the responses by row and column."""
        patch, stride = self.bank.patch, self.bank.stride
        tops, lefts = (range((side - patch) % stride // 2, side - patch + 1, stride) for side in image.shape[1:])
        return [
            [[self.response(image[:, top : top + patch, left : left + patch], *pair) for left in lefts] for top in tops]
            for pair in self.filters()
        ]

    def features(self, image: Tensor) -> list[float]:
        bank, maps, found = self.bank, self.maps(image), []
        for sign in (1, -1):
            for number in range(bank.count):
                for top, bottom in bank.rows:
                    for place in range(bank.grid):
                        sums = [self.cell(maps[number], sign, (top, bottom), bank.columns[place])]
                        if bank.about.mirror:
                            other = bank.columns[bank.grid - 1 - place]
                            sums.append(self.cell(maps[bank.count + number], sign, (top, bottom), other))
                        share = sum(sums) / len(sums) / (bank.unit * bank.span)
                        level = (math.sqrt(share) if bank.about.kind == "smooth" else share) * 4096
                        found.append(min(4095, round(level)) / 4096)
        return found

    def cell(self, rows: list[list[int]], sign: int, height: tuple[int, int], width: tuple[int, int]) -> float:
        part = [value for row in rows[height[0] : height[1]] for value in row[width[0] : width[1]]]
        return sum(max(0, sign * value - self.bank.threshold) for value in part) / len(part)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_whole_numbers(channels: int, changes: dict[str, Any]) -> None:
    commons = made(channels, **changes)
    images = pictures(3, channels)
    levels = commons(scaled(images)) / 2.0**-12
    plain = torch.tensor([PlainBank(commons.each()[0]).features(image.long()) for image in images]) * 4096
    # The mean of a cell is one division here and several there, which may part at the border of two levels.
    assert float((levels - plain).abs().max()) <= 1
    assert float((levels != plain).double().mean()) < 0.001


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("side", [13, 70])
def test_an_image_has_the_same_bytes_whatever_its_neighbours_its_row_and_the_threads(
    side: int, changes: dict[str, Any]
) -> None:
    commons = made(3, side, **changes)
    images = scaled(pictures(21, 3, side))
    whole = commons(images)
    assert torch.equal(whole, commons.canonical(images))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    assert torch.equal(commons(images[order]), whole[order])
    for size in (1, 2, 4, 8, 16):
        assert torch.equal(torch.cat([commons(part) for part in torch.split(images, size)]), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(commons(images), whole)
    finally:
        torch.set_num_threads(threads)


def test_sums_over_levels_are_exact_in_any_order() -> None:
    commons = made()
    features = commons(scaled(pictures(64)))
    levels = features.double() / commons.step
    assert torch.equal(levels, levels.round())
    assert float(levels.max()) <= 4095
    assert float(levels.max()) > 255, "the levels are made use of"
    assert float(levels.min()) >= 0
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    whole = levels.T @ levels
    assert torch.equal(levels[order].T @ levels[order], whole)
    parts = [part.long().T @ part.long() for part in torch.split(levels, 7)]
    assert torch.equal(torch.stack(parts).sum(0), whole.long())


MIRRORED = [changes for changes in CHANGES if "mirror" in changes]


@pytest.mark.parametrize(
    ("side", "changes"),
    [
        *itertools.product((13, 17), MIRRORED),
        (72, MIRRORED[0]),
        *(pytest.param(72, changes, marks=pytest.mark.slow) for changes in MIRRORED[1:]),
        *(pytest.param(134, changes, marks=pytest.mark.slow) for changes in MIRRORED),
    ],
)
def test_a_mirrored_picture_has_the_same_features_to_the_bit(side: int, changes: dict[str, Any]) -> None:
    commons, images = made(3, side, **changes), scaled(pictures(8, 3, side))
    assert torch.equal(commons(images.flip(3)), commons(images))
    plain = made(3, side, **{**changes, "mirror": False})
    assert not torch.equal(plain(images.flip(3)), plain(images))


def test_no_sum_of_a_filter_exceeds_what_float32_holds() -> None:
    for changes in CHANGES:
        bank = made(**changes).each()[0]
        weight, offsets = bank.matrix()
        longest = 64 * bank.values**0.5 + bank.values**0.5 / 2  # of a normalised patch, each value rounded
        assert float((weight.double().norm(dim=1) * longest + offsets.abs()).max()) < 2**23  # halves are needed, too


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize(("channels", "side"), [(1, 13), (3, 12), (3, 70)])
def test_prepared_banks_give_the_bytes_of_the_plain_form(channels: int, side: int, changes: dict[str, Any]) -> None:
    commons = made(channels, side, **changes)
    extremes = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, channels, side, side)
    images = torch.cat([pictures(21, channels, side), extremes, 255 * (pictures(2, channels, side) // 128)])
    pixels = commons.pixels(scaled(images))
    plain = torch.cat([bank(pixels) for bank in commons.each()], 1)
    for size in (1, 4, 25):
        assert torch.equal(torch.cat([commons(scaled(part)) for part in torch.split(images, size)]), plain)
        assert torch.equal(torch.cat([commons.of_bytes(part) for part in torch.split(images, size)]), plain)


@pytest.mark.parametrize("patch", [4, 5])
def test_even_and_odd_parts_of_filters_give_the_same_sums(patch: int) -> None:
    bank = made(side=12 + patch % 2, mirror=True, patch=patch, kind="learned").each()[0]
    images = pictures(3, 3, 12 + patch % 2).permute(0, 2, 3, 1).float().contiguous()
    assert torch.equal(PreparedBank(bank)(images), bank(images))


@pytest.mark.parametrize("changes", CHANGES)
def test_prepared_responses_are_those_of_the_bank(changes: dict[str, Any]) -> None:
    commons = made(**changes)
    (bank,), images = commons.each(), commons.pixels(scaled(pictures(3)))
    assert torch.equal(PreparedBank(bank).responses(images), bank.responses(bank.patches(images), *bank.matrix()))


@pytest.mark.parametrize("changes", CHANGES)
def test_relevance_is_placed_by_the_shares_of_all_cells_that_a_place_is_in(changes: dict[str, Any]) -> None:
    commons = made(**changes)
    (bank,), image = commons.each(), commons.pixels(scaled(pictures(1)))
    relevance, parts = BankRelevance(bank), torch.randn(bank.features, generator=torch.Generator().manual_seed(3))
    found = bank.responses(bank.patches(image), *bank.matrix())[0]  # (H', W', N)
    above = torch.stack([found - bank.threshold, -found - bank.threshold]).clamp(0, bank.ceiling - bank.threshold)
    seen = relevance.see(image)
    assert torch.equal(seen.above, above)
    placed, shares = torch.zeros_like(above), (relevance._unfolded(parts, seen.sums) / seen.sums.clamp_min(1)).float()
    for row, (top, bottom) in enumerate(bank.rows):
        for column, (left, right) in enumerate(bank.columns):
            placed[:, top:bottom, left:right] += shares[:, None, None, :, row, column]
    evenly = (placed * above).permute(0, 3, 1, 2).flatten(0, 1).contiguous().sum(0)[None, None]
    kernel = torch.ones(1, 3, bank.patch, bank.patch)
    expected = F.conv_transpose2d(evenly, kernel, stride=bank.stride) / kernel.numel()
    given = relevance.relevance(seen, image.permute(0, 3, 1, 2) / 255.0, parts, flat=True)
    assert torch.equal(given[(slice(None), *bank.covered)], expected[0])


def test_banks_are_prepared_anew_when_their_filters_change_and_can_be_copied() -> None:
    commons, images = made(kind="learned"), scaled(pictures(4))
    before = commons(images)
    (bank,) = commons.each()
    assert torch.equal(copy.deepcopy(commons)(images), before)
    assert pickle.dumps(commons), "what is laid out for a kernel, and cannot be stored, is left out"
    bank.set(-bank.filters.weight.detach() / 8, torch.zeros(bank.count))
    after = commons(images)
    assert not torch.equal(after, before)
    assert torch.equal(after, bank(commons.pixels(images)))


@pytest.mark.parametrize("changes", CHANGES)
def test_what_is_stored_gives_the_same_features(changes: dict[str, Any]) -> None:
    commons, images = made(**changes), scaled(pictures(4))
    data = dump_commons(commons)
    again = load_commons(wanted(**changes), data)
    assert torch.equal(again(images), commons(images))
    assert dump_commons(again) == data


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize(
    ("side", "flat"), [(13, True), (13, False), pytest.param(130, True, marks=pytest.mark.slow), (130, False)]
)
def test_relevance_is_conserved(changes: dict[str, Any], flat: bool, side: int) -> None:
    commons = made(3, side, **changes)
    generator = torch.Generator().manual_seed(5)
    image = scaled(pictures(1, 3, side))
    weight, bias = torch.randn(commons.features, generator=generator), torch.tensor(0.7)
    relevance, logit = CommonsRelevance(commons).conserved(image, weight, bias, flat=flat)
    assert relevance.shape == image.shape[1:]
    assert logit == float(commons(image)[0] @ weight + bias)
    assert float(relevance.sum()) == pytest.approx(logit, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("changes", CHANGES)
def test_the_gradient_is_that_of_features_without_rounding(changes: dict[str, Any]) -> None:
    commons = made(**changes)
    image = scaled(pictures(1)).double()
    weight = torch.randn(commons.features, generator=torch.Generator().manual_seed(6)).double()
    rounded, smooth = commons(image.float())[0].double(), smooth_features(commons, image)
    assert float((rounded - smooth).abs().max()) < 0.02
    carried = CommonsRelevance(commons).gradient(image, weight)
    for row, column in [(3, 3), (6, 2), (8, 9)]:
        step = torch.zeros_like(image)
        step[0, 0, row, column] = 1e-6
        change = (
            float((smooth_features(commons, image + step) - smooth_features(commons, image - step)) @ weight) / 2e-6
        )
        assert float(carried[0, row, column]) == pytest.approx(change, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("field", [{"mirror": True}, {"stride": 2}, {"grid": 3}, {"dictionary": "dead_leaves"}])
def test_what_only_recipe_3_has_is_refused_before_it(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"commons.{next(iter(field))} needs recipe 3"):
        definition("mlp", commons=CommonsDefinition.model_validate(field), recipe=2)
    found = definition("mlp", 3, commons=CommonsDefinition.model_validate(field), recipe=3)
    assert Definition.load(found.stored()) == found


def test_patches_that_do_not_lie_as_in_the_mirror_are_refused() -> None:
    assert made(side=18, mirror=True, stride=2, patch=None, kind="learned").each()[0].patch == 6
    assert made(side=19, mirror=True, stride=2, patch=None, kind="learned").each()[0].patch == 5
    with pytest.raises(ValidationError, match="an even number of columns"):
        definition("mlp", commons=CommonsDefinition(mirror=True, stride=2, patch=5), recipe=3)
    shape = {"channels": 3, "height": 128, "width": 129}
    with pytest.raises(ValidationError, match="an even number over 2"):
        definition("mlp", input=shape, commons=CommonsDefinition(mirror=True), recipe=3)


def test_filters_of_a_dictionary_depend_on_no_image_and_need_no_classes() -> None:
    blank = commons_of(wanted(kind="learned", dictionary="dead_leaves"))
    blank.check_classes(1)
    images = scaled(pictures(4))
    first, other = blank.fitted(pictures(40)), blank.fitted(255 - pictures(40))
    assert torch.equal(first(images), other(images))
    assert float(first(images).max()) > 0.05
    data = dump_commons(first)
    assert dump_commons(load_commons(wanted(kind="learned", dictionary="dead_leaves"), data)) == data
    with pytest.raises(ValidationError, match="smooth filters are drawn"):
        wanted(kind="smooth", dictionary="dead_leaves")


def test_filters_are_not_learned_from_a_single_class() -> None:
    blank = commons_of(wanted(kind="learned"))
    with pytest.raises(CommonsNeedsClasses, match="dead_leaves"):
        blank.check_classes(1)
    blank.check_classes(2)
    blank.fitted(pictures(40)).check_classes(1)
    commons_of(wanted(kind="smooth")).check_classes(1)


def test_dead_leaves_are_the_same_each_time_and_differ_from_each_other() -> None:
    images = dead_leaves(3)
    assert images.shape == (1024, 3, 32, 32)
    assert images.float().std((0, 2, 3)).min() > 40
    dead_leaves.cache_clear()
    assert torch.equal(dead_leaves(3), images)
    assert not torch.equal(images[0], images[1])


def test_grey_images_have_filters_that_depend_on_no_task_unless_a_kind_is_named() -> None:
    assert made(1, kind=None, patch=None).dictionary == "dead_leaves"
    assert made(1, kind="learned").dictionary is None
    assert made(3, kind=None).dictionary is None
    for side, patch in ((8, 3), (28, 10), (64, 10)):
        shape = wanted(1, side, kind=None, patch=None)
        (bank,) = shape.filters.banks(shape.input)
        assert (bank.kind, bank.patch, bank.grid) == ("learned", patch, 2)


def test_a_preset_names_fields_over_which_what_is_given_wins() -> None:
    assert CommonsDefinition(preset="large").features == 4096
    assert CommonsDefinition(preset="large", features=256).features == 256
    assert CommonsDefinition(preset="fast").stride == 2
    for preset in CommonsDefinition.presets:
        found = definition("mlp", commons=CommonsDefinition.model_validate({"preset": preset}), recipe=3)
        assert Definition.load(found.stored()) == found
    with pytest.raises(ValidationError, match="preset"):
        CommonsDefinition.model_validate({"preset": "huge"})


def test_what_says_nothing_is_stored_as_before() -> None:
    assert CommonsDefinition().stored() == {"kind": None, "features": 2048, "patch": None}
    assert set(definition("mlp", recipe=2).stored()["commons"]) == {"kind", "features", "patch"}
