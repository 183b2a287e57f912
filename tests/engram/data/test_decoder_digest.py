"""Tests of the digests of decoders, of their changes, and of their place in certificates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import features

from engram.certificate import Certificate, certify
from engram.config.definition import Definition, InputShape
from engram.data.reference.decoder_digest import DecoderDigest
from engram.data.reference.reference_images import reference_digest
from engram.errors import DamagedSnapshot
from engram.memory import Memory
from testing.data.digits import SMALL_MODEL

SHAPE = InputShape(channels=3, height=16, width=16)


def digest(decoder: int = 2, **changes: Any) -> DecoderDigest:
    found = DecoderDigest.of(Definition.load({"input": SHAPE.model_dump(), "decoder": decoder}))
    return replace(found, **changes)


def test_it_is_that_of_the_reference_images_and_names_all_it_depends_on() -> None:
    one, two = digest(1), digest(2)
    assert (one.number, one.background, one.images, one.before) == (1, None, 40, None)
    assert one.sha256 == reference_digest(SHAPE, 1) != two.sha256 == reference_digest(SHAPE, 2)
    assert one.pillow["pillow"] == features.version("pil")
    assert one.pillow["webp"] == features.version("webp")
    assert {"zlib", "jpg", "platform"} <= one.pillow.keys()


def test_the_background_and_the_shape_are_part_of_it() -> None:
    definition = Definition(input=SHAPE)
    green = definition.decoded_by({"decoder": 2, "background": "#00ff00"})
    small = definition.model_copy(update={"input": SHAPE.model_copy(update={"height": 8})})
    assert len({DecoderDigest.of(one).sha256 for one in (definition, green, small)}) == 3
    assert DecoderDigest.of(green).background == "#00ff00"


def test_it_comes_back_from_json_and_what_later_releases_add_is_passed_over() -> None:
    changed = digest().after(digest(sha256="0" * 64, pillow={"pillow": "9"}))
    for one in (digest(), changed):
        assert DecoderDigest.from_dict({**one.to_dict(), "of_tomorrow": 1}) == one
    assert "before" not in digest().to_dict()
    assert changed.to_dict()["before"] == {"pillow": {"pillow": "9"}, "sha256": "0" * 64}


@pytest.mark.parametrize("field", ["number", "pillow", "images", "sha256"])
def test_a_part_that_is_missing_or_of_another_type_is_damage(field: str) -> None:
    whole = digest().to_dict()
    for harmed in ({**whole, field: None}, {name: value for name, value in whole.items() if name != field}):
        with pytest.raises(DamagedSnapshot, match=field):
            DecoderDigest.from_dict(harmed)
    with pytest.raises(DamagedSnapshot):
        DecoderDigest.from_dict([])


def test_only_the_same_decoder_of_the_same_images_can_have_changed() -> None:
    now = digest()
    assert not now.changed_since(None)
    assert not now.changed_since(now)
    assert now.changed_since(replace(now, sha256="0" * 64))
    for other in ({"number": 1}, {"background": "#000000"}, {"images": 39}):
        assert not now.changed_since(digest(sha256="0" * 64, **other))


def test_a_change_names_the_libraries_that_moved() -> None:
    now = digest(pillow={"pillow": "13", "webp": "1", "platform": "Linux x86_64"})
    same, other = replace(now, sha256="0" * 64), digest(pillow={"pillow": "12", "platform": "Linux x86_64"})
    assert "Decoder 2 no longer gives" in now.describe_change(same)
    assert "the libraries are the same" in now.describe_change(same)
    assert "since pillow 12 became 13, webp none became 1:" in now.describe_change(other)
    assert now.after(now) is now.after(None) is now


@pytest.mark.parametrize("decoder", [1, 2])
def test_a_certificate_says_what_the_decoder_makes_of_images(decoder: int) -> None:
    memory = Memory.create(Definition.load({**SMALL_MODEL, "decoder": decoder}))
    made = certify(memory)
    assert made.decoder == DecoderDigest.of(memory.definition)
    document = made.to_dict()
    assert document["format"] == 1
    assert document["decoder"]["number"] == decoder  # type: ignore[index]
    assert Certificate.from_dict(document) == made


def test_one_from_before_decoders_had_numbers_is_read_and_repeated() -> None:
    document = certify(Memory.create(Definition.load(SMALL_MODEL))).to_dict()
    del document["decoder"]
    earlier = Certificate.from_dict(document)
    assert earlier.decoder is None
    assert earlier.to_dict() == document


def test_a_decoder_that_is_none_is_damage() -> None:
    document = certify(Memory.create(Definition.load(SMALL_MODEL))).to_dict()
    with pytest.raises(DamagedSnapshot, match="decoder"):
        Certificate.from_dict({**document, "decoder": 2})
