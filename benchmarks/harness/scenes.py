"""Drawn photographs: boats, houses and trees of 640 x 480 pixels in scenes that tell nothing of them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480

Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


def photograph(name: str, number: int) -> bytes:
    """The JPEG of one picture of a class; the same on every call, and another for every number.

    Sky, ground, light, grain, focus, place, size and colours are drawn alike for all classes, and so is what else
    stands in the scene.
    """
    generator = np.random.default_rng([number, sorted(CLASSES).index(name)])
    image = _scene(generator)
    draw = ImageDraw.Draw(image)
    horizon = int(HEIGHT * generator.uniform(0.4, 0.6))
    for _ in range(generator.integers(2, 6)):
        _clutter(draw, generator, horizon)
    scale = generator.uniform(70, 150)
    CLASSES[name](draw, generator, generator.uniform(160, WIDTH - 160), generator.uniform(horizon + 20, 440), scale)
    for _ in range(generator.integers(0, 3)):
        _clutter(draw, generator, HEIGHT - 60)
    image = image.rotate(generator.uniform(-6, 6), Image.Resampling.BILINEAR, expand=False)
    image = image.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.8)))
    pixels = np.asarray(image, np.float32) * generator.uniform(0.6, 1.25)
    pixels += generator.normal(0, generator.uniform(3, 12), pixels.shape)
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=int(generator.integers(75, 95)))
    return stream.getvalue()


def _colour(generator: Generator, low: int = 20, high: int = 235) -> Colour:
    red, green, blue = generator.integers(low, high, 3).tolist()
    return red, green, blue


def _scene(generator: Generator) -> Image.Image:
    """Sky over ground, each of two colours and a cloudy texture."""
    rows = np.linspace(0, 1, HEIGHT)[:, None, None]
    horizon = generator.uniform(0.35, 0.6)
    parts = [
        (1 - rows) * np.array(_colour(generator)) + rows * np.array(_colour(generator)) for _ in range(2)
    ]  # (HEIGHT, 1, 3) each
    pixels = np.where(rows < horizon, *parts) * np.ones((1, WIDTH, 1))
    for cells in (5, 20, 80):
        noise = generator.normal(0, 60 / math.sqrt(cells), (cells, cells)).astype(np.float32)
        cloud = Image.fromarray(noise, "F").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        pixels = pixels + np.asarray(cloud)[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _clutter(draw: Draw, generator: Generator, top: int) -> None:
    """A shape of no meaning somewhere below a row."""
    x, y = generator.uniform(0, WIDTH), generator.uniform(top, HEIGHT)
    points = [
        (x + generator.uniform(10, 45) * math.cos(angle), y + generator.uniform(10, 45) * math.sin(angle))
        for angle in np.linspace(0, 2 * math.pi, int(generator.integers(3, 9)), endpoint=False)
    ]
    draw.polygon(points, fill=_colour(generator))


def _boat(draw: Draw, generator: Generator, x: float, y: float, size: float) -> None:
    """A hull, a mast and one or two sails."""
    half, deep = size * generator.uniform(0.7, 1.1), size * generator.uniform(0.2, 0.35)
    hull = [(x - half, y - deep), (x + half, y - deep), (x + 0.6 * half, y), (x - 0.6 * half, y)]
    draw.polygon(hull, fill=_colour(generator))
    top, foot = y - deep - size * generator.uniform(1.0, 1.6), y - deep * 1.15
    draw.line([(x, y - deep), (x, top)], fill=_colour(generator), width=5)
    draw.polygon([(x + 5, top), (x + 5, foot), (x + 0.8 * half, foot)], fill=_colour(generator))
    if generator.random() < 0.7:
        draw.polygon([(x - 5, top + 15), (x - 5, foot), (x - 0.6 * half, foot)], fill=_colour(generator))


def _house(draw: Draw, generator: Generator, x: float, y: float, size: float) -> None:
    """Walls, a roof, a door and windows."""
    half, high = size * generator.uniform(0.6, 1.0), size * generator.uniform(0.7, 1.2)
    draw.rectangle([x - half, y - high, x + half, y], fill=_colour(generator))
    peak = y - high - size * generator.uniform(0.4, 0.8)
    draw.polygon([(x - 1.15 * half, y - high), (x + 1.15 * half, y - high), (x, peak)], fill=_colour(generator))
    door = x + half * generator.uniform(-0.5, 0.5)
    draw.rectangle([door - 0.14 * half, y - 0.5 * high, door + 0.14 * half, y], fill=_colour(generator))
    for side in (-0.65, 0.65):
        left, top = x + side * half - 0.15 * half, y - 0.8 * high
        draw.rectangle([left, top, left + 0.3 * half, top + 0.25 * high], fill=_colour(generator), outline=(20, 20, 20))


def _tree(draw: Draw, generator: Generator, x: float, y: float, size: float) -> None:
    """A trunk, and a crown of many leaves or of tiers."""
    high, thick = size * generator.uniform(0.9, 1.3), size * generator.uniform(0.08, 0.16)
    draw.rectangle([x - thick, y - high, x + thick, y], fill=_colour(generator))
    red, green, blue = _colour(generator)
    if generator.random() < 0.5:
        for tier in range(3):
            top, wide = y - high * (1.5 - 0.35 * tier), size * (0.35 + 0.2 * tier)
            shade = (red - 5 * tier, green - 5 * tier, blue - 5 * tier)
            draw.polygon([(x, top), (x - wide, top + 0.6 * high), (x + wide, top + 0.6 * high)], fill=shade)
        return
    for _ in range(60):
        angle, far = generator.uniform(0, 2 * math.pi), size * 0.65 * math.sqrt(generator.random())
        left, top, leaf = x + far * math.cos(angle), y - high + far * math.sin(angle), size * 0.14
        light = int(generator.integers(-20, 20))
        draw.ellipse(
            [left - leaf, top - leaf, left + leaf, top + leaf], fill=(red + light, green + light, blue + light)
        )


CLASSES: dict[str, Callable[[Draw, Generator, float, float, float], None]] = {
    "boat": _boat,
    "house": _house,
    "tree": _tree,
}
"""What draws one of each class: at a place (x, foot), of a size in pixels."""
