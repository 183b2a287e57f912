"""Tests of what certificates say of the decoder."""

from __future__ import annotations

import pytest

from engram.certificate import Certificate, certify
from engram.config.definition import Definition
from engram.data.decoder_digest import DecoderDigest
from engram.errors import DamagedSnapshot
from engram.memory import Memory
from testing.data.digits import SMALL_MODEL


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
