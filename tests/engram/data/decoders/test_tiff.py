"""Tests of TIFF under decoder 2: every depth, byte order, layout and meaning gives the right values."""

from __future__ import annotations

import io
import struct
from itertools import product
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image

from engram.config.definition import InputShape
from engram.data.image_limits import ImageLimits
from engram.data.pictures import pixels
from engram.errors import ImageTooCostly, ImageTooLarge, TruncatedImage, UnsupportedImage
from testing.data.encoded_images import Samples, tiff_file

HEIGHT, WIDTH = 13, 37
GREY = InputShape(channels=1, height=HEIGHT, width=WIDTH)
COLOUR = InputShape(channels=3, height=HEIGHT, width=WIDTH)


def noise(bits: int, samples: int) -> Samples:
    """Samples (13, 37, S) of so many bits, the lowest and the highest among them."""
    kind = numpy.uint32 if bits > 16 else numpy.uint16
    found = numpy.random.default_rng(bits * 10 + samples).integers(0, 1 << bits, (HEIGHT, WIDTH, samples), dtype=kind)
    found[0, 0], found[0, 1] = 0, (1 << bits) - 1
    return found


def scaled(values: Any, bits: int) -> NDArray[numpy.int64]:
    """Values of so many bits as 8 bits, by exact fractions."""
    most = (1 << bits) - 1
    found = [int(int(value) * 255 / most + 0.5) for value in numpy.asarray(values).flat]
    return numpy.array(found).reshape(values.shape)


def worst(data: bytes, expected: Any, shape: InputShape) -> int:
    """The largest difference from the expected pixels (H, W) or (H, W, C)."""
    found = pixels(data, shape).astype(int)
    return int(abs(found - numpy.asarray(expected).reshape(HEIGHT, WIDTH, -1)).max())


LAYOUTS: list[dict[str, Any]] = [
    {"order": order, "compression": compression, "predictor": predictor, "tile": tile}
    for order, compression, predictor, tile in product("<>", (1, 5, 8, 32773), (1, 2), (0, 16))
    if predictor == 1 or compression in (5, 8)
]


def named(layout: dict[str, Any]) -> str:
    return "-".join(map(str, layout.values()))


def layouts(bits: int) -> list[dict[str, Any]]:
    """Layouts that samples of so many bits may have: differences are of 8 or 16."""
    return [layout for layout in LAYOUTS if layout["predictor"] == 1 or bits in (8, 16)]


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_of_every_depth(bits: int, photometric: int) -> None:
    stored = noise(bits, 1)
    seen = scaled(stored if photometric == 1 else ((1 << bits) - 1) - stored, bits)
    for layout in layouts(bits):
        data = tiff_file(stored, bits, photometric, **layout)
        assert worst(data, seen, GREY) == 0, named(layout)
        assert worst(data, seen.repeat(3, axis=2), COLOUR) == 0, named(layout)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_colour_of_every_depth(bits: int, planar: int) -> None:
    stored = noise(bits, 3)
    seen = scaled(stored, bits)
    for layout in layouts(bits):
        assert worst(tiff_file(stored, bits, 2, planar=planar, **layout), seen, COLOUR) == 0, named(layout)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize(("photometric", "base"), [(1, 1), (0, 1), (2, 3)])
def test_transparency(photometric: int, base: int, kind: int, bits: int, planar: int) -> None:
    if (photometric, kind) == (0, 1):
        pytest.skip("what is multiplied where white is zero is not agreed on")
    stored = noise(bits, base + 1)
    most = (1 << bits) - 1
    opacity = stored[:, :, -1:] / most
    if kind == 1:
        stored[:, :, :-1] = numpy.rint(stored[:, :, :-1] * opacity)
    files = {
        named(layout): tiff_file(stored, bits, photometric, planar=planar, tags=[(338, 3, [kind])], **layout)
        for layout in LAYOUTS
    }
    colours = stored[:, :, :-1] / most
    if photometric == 0:
        colours = 1 - colours
    behind = numpy.array([0x10, 0x80, 0xF0]) / 255
    for shape, back in ((COLOUR.model_copy(update={"background": "#1080f0"}), behind), (COLOUR, numpy.ones(3))):
        seen = {0: colours, 1: colours + (1 - opacity) * back, 2: colours * opacity + (1 - opacity) * back}[kind]
        expected = numpy.broadcast_to(seen * 255, (HEIGHT, WIDTH, 3)).round()
        assert {name: found for name, data in files.items() if (found := worst(data, expected, shape)) > 1} == {}


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_have_colours_of_16_bits(bits: int, compression: int, order: str, planar: int) -> None:
    stored = noise(bits, 1)
    palette = numpy.random.default_rng(1).integers(0, 65536, (3, 1 << bits))
    palette[0, 0] = 65535
    tags = [(320, 3, palette.reshape(-1).tolist())]
    data = tiff_file(stored, bits, 3, order=order, compression=compression, planar=planar, tags=tags)
    assert worst(data, scaled(palette.T[stored[:, :, 0]], 16), COLOUR) == 0


def test_a_palette_that_was_filled_with_8_bits_is_not_black() -> None:
    stored = noise(2, 1)
    palette = numpy.array([[0, 255, 9, 100], [1, 2, 3, 4], [200, 100, 50, 25]])
    data = tiff_file(stored, 2, 3, tags=[(320, 3, palette.reshape(-1).tolist())])
    assert worst(data, palette.T[stored[:, :, 0]], COLOUR) == 0


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_cmyk(order: str, bits: int, planar: int) -> None:
    stored = noise(bits, 4)
    inks = stored / ((1 << bits) - 1)
    seen = (1 - inks[:, :, :3]) * (1 - inks[:, :, 3:]) * 255
    for compression in (1, 5):
        data = tiff_file(stored, bits, 5, order=order, planar=planar, compression=compression)
        assert worst(data, seen, COLOUR) <= 1.5


@pytest.mark.parametrize("planar", [1, 2])
def test_ycbcr_without_compression(planar: int) -> None:
    luma, blue, red = (plane.astype(float) for plane in numpy.moveaxis(noise(8, 3), 2, 0))
    seen = [
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    ]
    expected = numpy.clip(numpy.stack(seen, axis=2), 0, 255)
    for tags in ([(530, 3, [1, 1])], []):
        data = tiff_file(noise(8, 3), 8, 6, planar=planar, tags=tags)
        assert worst(data, expected, COLOUR) <= 2


REC_709 = (529, 5, [2126, 10000, 7152, 10000, 722, 10000])


def by_rec_709(stored: Samples) -> NDArray[numpy.float64]:
    luma, blue, red = (plane.astype(float) for plane in numpy.moveaxis(stored, 2, 0))
    seen = [
        luma + 1.5748 * (red - 128),
        luma - 0.187324 * (blue - 128) - 0.468124 * (red - 128),
        luma + 1.8556 * (blue - 128),
    ]
    return numpy.stack(seen, axis=2).clip(0, 255)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_ycbcr_with_coefficients_of_its_own(order: str, compression: int, planar: int) -> None:
    stored = noise(8, 3)
    layout: dict[str, Any] = {"order": order, "compression": compression, "planar": planar}
    data = tiff_file(stored, 8, 6, tags=[(530, 3, [1, 1]), REC_709], **layout)
    assert worst(data, by_rec_709(stored).round(), COLOUR) <= 1
    usual = tiff_file(stored, 8, 6, tags=[(530, 3, [1, 1])], **layout)
    named = tiff_file(stored, 8, 6, tags=[(530, 3, [1, 1]), (529, 5, [299, 1000, 587, 1000, 114, 1000])], **layout)
    assert (pixels(named, COLOUR) == pixels(usual, COLOUR)).all()


def test_subsampled_ycbcr_with_coefficients_of_its_own() -> None:
    """Groups of two by two pixels: four of brightness, one of each colour."""
    groups = numpy.random.default_rng(5).integers(0, 256, (16, 6))
    units = groups.reshape(4, 4, 6)
    stored = numpy.empty((8, 8, 3), dtype=numpy.uint8)
    stored[:, :, 0] = units[:, :, :4].reshape(4, 4, 2, 2).transpose(0, 2, 1, 3).reshape(8, 8)
    stored[:, :, 1:] = units[:, :, 4:].repeat(2, axis=0).repeat(2, axis=1)
    tags = [(256, 4, [8]), (257, 4, [8]), (258, 3, [8, 8, 8]), (277, 3, [3]), (278, 4, [8]), (530, 3, [2, 2]), REC_709]
    data = tiff_file(groups.reshape(1, -1, 1), 8, 6, compression=8, tags=tags)
    found = pixels(data, InputShape(channels=3, height=8, width=8)).astype(int)
    assert abs(found - by_rec_709(stored)).max() <= 2


def test_coefficients_that_are_not_applied_say_so() -> None:
    data = tiff_file(noise(8, 3), 8, 6, tags=[(259, 3, [7]), REC_709])
    with pytest.raises(UnsupportedImage, match=r"in JPEG with coefficients other than those of Rec\. 601"):
        pixels(data, COLOUR)
    for fractions in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1], [1, 2]):
        with pytest.raises(UnsupportedImage, match="coefficients that"):
            pixels(tiff_file(noise(8, 3), 8, 6, tags=[(530, 3, [1, 1]), (529, 5, fractions)]), COLOUR)


RAW = {
    "DNG": [(50706, 4, [0x0401])],
    "a preview before SubIFDs": [(254, 4, [1]), (330, 4, [8])],
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("order", ["<", ">"])
def test_camera_raw_is_not_read_from_its_preview(order: str, name: str) -> None:
    with pytest.raises(UnsupportedImage, match="camera RAW"):
        pixels(tiff_file(noise(8, 3), 8, 2, order=order, tags=RAW[name]), COLOUR)


def test_cr2_is_not_read_from_its_preview() -> None:
    stored = noise(8, 3)
    stored[0, 0, :2] = b"C"[0], b"R"[0]
    with pytest.raises(UnsupportedImage, match="camera RAW"):
        pixels(tiff_file(stored, 8, 2), COLOUR)
    assert worst(tiff_file(stored, 8, 2, order=">"), stored, COLOUR) == 0


@pytest.mark.parametrize("tags", [[(254, 4, [1])], [(254, 4, [0]), (330, 4, [8])], [(254, 4, [2]), (330, 4, [8])]])
def test_reduced_images_and_pyramids_are_no_camera_raw(tags: Any) -> None:
    assert worst(tiff_file(noise(8, 3), 8, 2, tags=tags), noise(8, 3), COLOUR) == 0


def test_subsampled_ycbcr_without_compression_says_so() -> None:
    with pytest.raises(UnsupportedImage, match="subsampled"):
        pixels(tiff_file(noise(8, 3), 8, 6, tags=[(530, 3, [2, 2])]), COLOUR)


def test_ycbcr_in_jpeg_is_as_libtiff_has_it() -> None:
    smooth = numpy.stack([numpy.add.outer(range(16), range(16)) * step for step in (7, 3, 5)], axis=2)
    out = io.BytesIO()
    Image.fromarray(smooth.astype(numpy.uint8)).save(out, "TIFF", compression="jpeg", quality=95)
    found = pixels(out.getvalue(), InputShape(channels=3, height=16, width=16))
    assert abs(found.astype(int) - smooth).mean() < 4


def test_lab_is_colour_under_daylight() -> None:
    """Against CIE 15 and sRGB, with the white of D50 that L*a*b* in TIFF has."""
    stored = numpy.zeros((HEIGHT, WIDTH, 3), dtype=numpy.uint8)
    stored[:, :, 0] = numpy.linspace(90, 200, WIDTH)
    stored[:, :, 1] = numpy.linspace(-15, 15, HEIGHT).astype(numpy.int8).view(numpy.uint8)[:, None]
    light = stored[:, :, 0].astype(float) * 100 / 255
    signed = stored.view(numpy.int8).astype(float)
    fy = (light + 16) / 116
    f = numpy.stack([fy + signed[:, :, 1] / 500, fy, fy - signed[:, :, 2] / 200], axis=2)
    xyz = numpy.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_linear = numpy.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = numpy.clip(xyz @ to_linear.T, 0, 1)
    seen = numpy.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    for compression in (1, 5):
        assert worst(tiff_file(stored, 8, 8, compression=compression), seen.round(), COLOUR) <= 3


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax(compression: str, photometric: int) -> None:
    bits = numpy.random.default_rng(2).integers(0, 2, (HEIGHT, WIDTH)).astype(bool)
    out = io.BytesIO()
    Image.fromarray(bits).save(out, "TIFF", compression=compression, tiffinfo={262: photometric})
    with Image.open(io.BytesIO(out.getvalue())) as image:
        stored = image.tag_v2[262]  # type: ignore[attr-defined]
    assert stored == photometric
    found = pixels(out.getvalue(), GREY)[:, :, 0]
    assert set(found.flat) == {0, 255}
    assert ((found == 255) == bits).all()


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_bits_in_reverse(bits: int) -> None:
    stored = noise(bits, 1)
    data = bytearray(tiff_file(stored, bits, 1, rows=HEIGHT, tags=[(266, 3, [2])]))
    length = HEIGHT * ((WIDTH * bits + 7) // 8)
    data[8 : 8 + length] = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data[8 : 8 + length])
    assert worst(bytes(data), scaled(stored, bits), GREY) == 0


@pytest.mark.parametrize("side", range(1, 9))
def test_orientation(side: int) -> None:
    stored = noise(16, 1)
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: a[::-1].T,
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: a.T[::-1],
    }
    seen = turns[side](scaled(stored, 16)[:, :, 0])
    shape = InputShape(channels=1, height=len(seen), width=seen.shape[1])
    found = pixels(tiff_file(stored, 16, 0, tags=[(274, 3, [side])]), shape)[:, :, 0]
    assert (255 - found.astype(int) == seen).all()


def test_large_files_have_offsets_of_64_bits() -> None:
    stored = noise(16, 1)
    body = stored.astype(">u2").tobytes()
    fields = [(256, WIDTH), (257, HEIGHT), (258, 16), (259, 1), (262, 0), (273, 16), (277, 1), (278, HEIGHT)]
    entries = b"".join(struct.pack(">HHQQ", tag, 16, 1, value) for tag, value in [*fields, (279, len(body))])
    head = b"MM\0+" + struct.pack(">HHQ", 8, 0, 16 + len(body))
    data = head + body + struct.pack(">Q", len(fields) + 1) + entries + bytes(8)
    assert worst(data, scaled(65535 - stored, 16), GREY) == 0


UNSUPPORTED = {
    "32 bits": (tiff_file(noise(32, 1), 32, 1, order=">"), "32 bits"),
    "signed": (tiff_file(noise(16, 1), 16, 1, tags=[(339, 3, [2])]), "signed integers with 16 bits"),
    "signed 8 bits": (tiff_file(noise(8, 1), 8, 1, tags=[(339, 3, [2])]), "signed integers with 8 bits"),
    "floating-point": (tiff_file(noise(32, 1), 32, 1, tags=[(339, 3, [3])]), "floating-point numbers with 32 bits"),
    "a second sample of no kind": (tiff_file(noise(8, 2), 8, 1), "2 samples a pixel that does not say"),
    "many samples": (tiff_file(noise(8, 12), 8, 1, tags=[(338, 3, [0] * 11)]), "12 samples"),
    "JPEG 2000": (tiff_file(noise(8, 3), 8, 2, tags=[(259, 3, [34712])]), "JPEG 2000"),
    "a compression without a name": (tiff_file(noise(8, 3), 8, 2, tags=[(259, 3, [65000])]), "65000"),
    "a filter array": (tiff_file(noise(16, 1), 16, 32803), "colour filter arrays"),
    "other inks": (tiff_file(noise(8, 4), 8, 5, tags=[(332, 3, [2])]), "inks"),
    "channels of several depths": (tiff_file(noise(8, 3), 8, 2, tags=[(258, 3, [5, 6, 5])]), "different numbers"),
    "Lab of 16 bits": (tiff_file(noise(16, 3), 16, 8), "16 bits a channel"),
    "differences of 4 bits": (tiff_file(noise(4, 1), 4, 1, compression=5, tags=[(317, 3, [2])]), "predictor 2"),
    "floating differences": (tiff_file(noise(16, 1), 16, 1, compression=8, tags=[(317, 3, [3])]), "predictor 3"),
    "JPEG of 12 bits": (tiff_file(noise(12, 1), 12, 1, tags=[(259, 3, [7])]), "12 bits"),
}


READ_BY_DECODER_1 = {(1, "signed 8 bits"), (1, "other inks")}
"""What decoder 1 goes on reading, as it did."""


@pytest.mark.parametrize("decoder", [1, 2])
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_kind_that_is_not_read_is_not_called_damaged(name: str, decoder: int) -> None:
    data, words = UNSUPPORTED[name]
    shape = COLOUR.model_copy(update={"convert": True})
    if (decoder, name) in READ_BY_DECODER_1:
        assert pixels(data, shape, decoder=1).shape == (HEIGHT, WIDTH, 3)
        return
    with pytest.raises(UnsupportedImage, match=words if decoder == 2 else None):
        pixels(data, shape, decoder=decoder)


def test_what_only_decoder_2_reads_says_so() -> None:
    data = tiff_file(noise(16, 1), 16, 0, order=">")
    with pytest.raises(UnsupportedImage, match="decoder 1 of models does not read TIFF images of this kind"):
        pixels(data, GREY, decoder=1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=named)
@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_file_that_is_cut_off_is_called_so(bits: int, layout: dict[str, Any]) -> None:
    if layout["predictor"] == 2 and bits == 1:
        pytest.skip("differences are of 8 or 16 bits")
    # The directory stands before the pixels, so that what is cut off are pixels.
    whole = tiff_file(noise(bits, 1), bits, 0, **layout)
    shift = len(whole)
    (start,) = struct.unpack_from(layout["order"] + "I", whole, 4)
    moved = bytearray(whole[:4] + struct.pack(layout["order"] + "I", start) + whole[8:])
    (count,) = struct.unpack_from(layout["order"] + "H", moved, start)
    for number in range(count):
        at = start + 2 + 12 * number
        tag, _, length = struct.unpack_from(layout["order"] + "HHI", moved, at)
        if tag in (273, 324):
            (where,) = struct.unpack_from(layout["order"] + "I", moved, at + 8)
            places = [at + 8] if length == 1 else [where + 4 * place for place in range(length)]
            for place in places:
                (offset,) = struct.unpack_from(layout["order"] + "I", moved, place)
                struct.pack_into(layout["order"] + "I", moved, place, offset + shift)
    data = bytes(moved) + whole[:start]
    assert worst(data, scaled((1 << bits) - 1 - noise(bits, 1), bits), GREY) == 0
    with pytest.raises(TruncatedImage):
        pixels(data[:-3], GREY)


def test_tiles_and_sizes_are_held_to_the_limits() -> None:
    limits = ImageLimits(max_pixels=HEIGHT * WIDTH)
    assert pixels(tiff_file(noise(8, 1), 8, 1, tile=16), GREY, limits).shape == (HEIGHT, WIDTH, 1)
    for tags in ([(256, 4, [100_000])], [(322, 4, [60_000]), (323, 4, [60_000])], [(256, 4, [40]), (322, 4, [1])]):
        with pytest.raises((ImageTooLarge, ImageTooCostly, TruncatedImage)):
            pixels(tiff_file(noise(8, 1), 8, 1, tile=16, tags=tags), GREY, limits)


def test_bytes_are_not_taken_for_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of images with more pixels than it thinks sensible, and refuses twice as many."""
    stored = noise(16, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH)
    data = tiff_file(stored, 16, 2, compression=5, rows=HEIGHT, tags=[(338, 3, [0])])
    assert worst(data, scaled(stored[:, :, :3], 16), COLOUR) == 0
