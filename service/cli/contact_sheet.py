"""Contact sheet of heatmaps, drawn as one PNG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PANEL = 168
GAP = 14
CAPTION = 250
COLUMNS = 2
"""Lengths in pixels, and how many rows stand side by side."""
PAPER, INK, FAINT = (250, 250, 248), (24, 26, 30), (120, 124, 132)


@dataclass(frozen=True)
class Row:
    """Row of the sheet: an image, its heatmap, the heatmap over the image (all PNG), a headline and lines below it."""

    image: bytes
    heatmap: bytes
    overlay: bytes
    headline: str
    lines: tuple[str, ...]


def draw(rows: list[Row], title: str, path: Path) -> None:
    """Write the sheet as PNG, rows going down `COLUMNS` columns."""
    down = -(-len(rows) // COLUMNS)
    row_width = 3 * (PANEL + GAP) + CAPTION
    top = 96
    sheet = Image.new("RGB", (GAP + COLUMNS * (row_width + GAP), top + down * (PANEL + GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * GAP, 18), title, INK, ImageFont.load_default(26))
    for column in range(COLUMNS):
        for panel, heading in enumerate(("image", "heatmap", "overlay")):
            left = 2 * GAP + column * (row_width + GAP) + panel * (PANEL + GAP)
            pen.text((left, top - 28), heading, FAINT, ImageFont.load_default(16))
    for number, row in enumerate(rows):
        column, line = divmod(number, down)
        _draw_row(sheet, pen, row, 2 * GAP + column * (row_width + GAP), top + line * (PANEL + GAP))
    sheet.save(path, "PNG", optimize=True)


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: Row, left: int, top: int) -> None:
    for png in (row.image, row.heatmap, row.overlay):
        with Image.open(io.BytesIO(png)) as picture:
            panel = picture.convert("RGB").resize((PANEL, PANEL), Image.Resampling.BICUBIC)
        sheet.paste(panel, (left, top))
        pen.rectangle((left - 1, top - 1, left + PANEL, top + PANEL), outline=(210, 210, 206))
        left += PANEL + GAP
    pen.text((left + 4, top + 34), row.headline, INK, ImageFont.load_default(24))
    for number, line in enumerate(row.lines):
        pen.text((left + 4, top + 70 + 24 * number), line, FAINT, ImageFont.load_default(16))
