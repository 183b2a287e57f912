"""Tests of the numbers of a definition: what an earlier release stored means what it meant then."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from engram import Definition, InputShape, Memory
from engram.config.commons import regressions
from engram.data.images import decode
from engram.errors import UnsupportedFormat

SHAPE = InputShape(channels=3, height=16, width=16)
EARLIER = {"input": {"channels": 3, "height": 16, "width": 16}}


def test_a_new_definition_has_the_newest_numbers() -> None:
    made = Definition(input=SHAPE)
    assert (made.decoder, made.recipe, made.novelty, made.learning) == (2, 3, 1, 3)
    assert Definition.load(made.stored()) == made


def test_a_stored_definition_without_numbers_is_of_the_first_release_and_is_stored_as_that_release_would() -> None:
    there = Definition.load(EARLIER)
    assert (there.decoder, there.recipe, there.learning, there.input.background) == (1, 1, 1, None)
    assert not {"decoder", "recipe", "learning"} & there.stored().keys()
    assert there.stored()["input"] == {**EARLIER["input"], "convert": False}
    assert Definition.load(there.stored()) == there


def test_numbers_that_were_not_asked_for_agree_with_those_that_are_there() -> None:
    there = Definition.load(EARLIER)
    assert Definition(input=SHAPE).agreeing(there) == there
    assert Definition(input=SHAPE, decoder=2).agreeing(there).decoder == 2
    asks = Definition(input=SHAPE, settings={"reads": "commons"})
    assert asks.agreeing(there) == asks, "the first recipe has no choice of what is read"


def test_unknown_images_are_told_in_another_way_over_a_network_alone() -> None:
    fields = {"input": SHAPE, "commons": {"kind": "pretrained", "backbone": "net"}}
    made = Definition.model_validate(fields)
    assert made.novelty == made.stored()["novelty"] == 3
    assert Definition.load(made.stored()) == made
    earlier = {name: value for name, value in made.stored().items() if name != "novelty"}
    there = Definition.load(earlier)
    assert (there.novelty, there.stored()) == (1, earlier)
    assert made.agreeing(there) == there
    assert Definition.model_validate({**fields, "novelty": 2}).agreeing(there).novelty == 2
    assert "novelty" not in Definition(input=SHAPE).stored()
    for number in (2, 3):
        with pytest.raises(ValidationError, match=f"novelty {number} needs a pretrained commons"):
            Definition(input=SHAPE, novelty=number)


@pytest.mark.parametrize("fields", [{"method": "rnf"}, {"recipe": 2}, {"settings": {"reads": "all"}}])
def test_tasks_are_learned_in_another_way_where_answers_are_staged_alone(fields: dict[str, object]) -> None:
    made = Definition(input=SHAPE)
    assert made.stored()["learning"] == 3
    earlier = {name: value for name, value in made.stored().items() if name != "learning"}
    there = Definition.load(earlier)
    assert (there.learning, there.stored()) == (1, earlier)
    assert made.agreeing(there) == there
    other = Definition.model_validate({"input": SHAPE, **fields})
    assert other.learning == 1
    assert "learning" not in other.stored()
    for number in (2, 3):
        with pytest.raises(ValidationError, match=f"learning {number} needs answers in stages"):
            Definition.model_validate({"input": SHAPE, **fields, "learning": number})


def test_a_colour_behind_transparency_is_refused_where_the_decoder_takes_none() -> None:
    shape = SHAPE.model_copy(update={"background": "#ffffff"})
    assert Definition(input=shape).input.background == "#ffffff"
    with pytest.raises(ValidationError, match="decoder 1 lays transparency over black"):
        Definition(input=shape, decoder=1)
    with pytest.raises(ValidationError):
        InputShape(channels=3, height=16, width=16, background="white")


def test_a_colour_may_be_written_in_capitals() -> None:
    shape = InputShape(channels=3, height=16, width=16, background="#FF00aB")
    assert shape.background == "#ff00ab"
    assert Definition(input=shape).stored()["input"]["background"] == "#ff00ab"
    assert Definition.load(EARLIER, {"decoder": 2, "background": "#00FF00"}).input.background == "#00ff00"


def test_a_version_decodes_as_it_says_and_else_as_the_definition_says() -> None:
    there = Definition.load(EARLIER)
    assert there.decoding == {"decoder": 1, "background": None}
    green = {"decoder": 2, "background": "#00ff00"}
    other = Definition.load(EARLIER, green)
    assert (other.decoding, other.input.background, other.recipe) == (green, "#00ff00", 1)
    assert Definition.load(EARLIER, None) == Definition.load(EARLIER, there.decoding) == there
    assert other.decoded_by(there.decoding) == there
    assert Definition.load(other.stored()) == other


@pytest.mark.parametrize(
    "decoding",
    [
        {"decoder": 3, "background": None},
        {"decoder": 2, "background": "green"},
        {"decoder": 1, "background": "#00ff00"},
        {"decoder": 2, "background": None, "of_tomorrow": 1},
    ],
)
def test_a_decoding_of_a_later_release_is_refused_and_never_misread(decoding: dict[str, object]) -> None:
    with pytest.raises(UnsupportedFormat, match="that this release does not know"):
        Definition.load(EARLIER, decoding)


@pytest.mark.parametrize("wrong", [True, 1.0, 2.0, "1", 0, 4])
@pytest.mark.parametrize("name", ["decoder", "recipe", "novelty", "learning"])
def test_a_number_is_a_whole_number_that_there_is(name: str, wrong: object) -> None:
    with pytest.raises(ValidationError):
        Definition.model_validate({**EARLIER, name: wrong})


def test_a_models_shape_is_decoded_by_the_models_own_decoder() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(out, "PNG")
    earlier, today = Definition.load(EARLIER), Definition(input=SHAPE)
    assert int(decode(out.getvalue(), earlier.input).max()) == 0
    assert int(decode(out.getvalue(), today.input).min()) == 255
    assert int(decode(out.getvalue(), SHAPE).min()) == 255
    assert int(decode(out.getvalue(), today.input, decoder=1).max()) == 0
    assert Definition(input=earlier.input).input.decoder == 2
    assert earlier.decoded_by({"decoder": 2}).input.decoder == 2
    assert Memory.create(earlier).definition.input.decoder == 1
    assert earlier.input.model_dump() == SHAPE.model_dump()


NETWORK = {"kind": "pretrained", "backbone": "net"}
BESIDE = {**NETWORK, "size": 64, "together": True}


def test_networks_that_one_regression_reads_follow_each_other() -> None:
    made = Definition.model_validate({"commons": [{"kind": "learned"}, NETWORK, BESIDE, BESIDE]})
    assert regressions(made.parts) == (1, 3)
    stored = made.stored()["commons"]
    assert ["together" in part for part in stored] == [False, False, True, True]
    assert Definition.load(made.stored()) == made


@pytest.mark.parametrize(
    ("commons", "said"),
    [
        (BESIDE, "before it"),
        ([BESIDE, NETWORK], "before it"),
        ([NETWORK, {"kind": "learned"}, BESIDE], "before it"),
        ([{**NETWORK, "features": 16384}, {**BESIDE, "features": 64}], "at most 16384"),
    ],
)
def test_networks_together_that_do_not_follow_or_are_too_many_are_refused(commons: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Definition.model_validate({"commons": commons})
