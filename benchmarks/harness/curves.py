"""SVG line charts in stacked panels, drawn without a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_COLOURS = ("#1f6fb4", "#d1611b", "#2f8f4e", "#8a4fb3", "#b32f3a", "#5f6b75")
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP, _LEGEND = 720, 160, 70, 30, 40, 16

Curve = tuple[Sequence[float], Sequence[float]]


def draw(panels: Mapping[str, Mapping[str, Curve]], across: str, path: Path) -> None:
    """Write one panel for each title, from 0 upwards, with a curve (x, y) for each name, which has one colour in all.

    Parameters
    ----------
    across
        Label of the common x axis.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    furthest = max(max(x) for curves in panels.values() for x, _ in curves.values()) or 1.0
    parts, top = [], _TOP + _LEGEND * (len(names) - 1)
    for number, (title, curves) in enumerate(panels.items()):
        parts.append(_panel(title, curves, colours, furthest, top + number * (_HEIGHT + _GAP)))
    height = top + len(panels) * (_HEIGHT + _GAP) + 20
    ticks = "".join(
        _text(_LEFT + share * _WIDTH, height - 30, f"{share * furthest:.3g}", "middle") for share in (0, 0.5, 1)
    )
    legend = "".join(
        _text(_LEFT, 16 + _LEGEND * number, name, "start", colour)
        for number, (name, colour) in enumerate(colours.items())
    )
    size = f'width="{_LEFT + _WIDTH + 20}" height="{height}"'
    body = legend + "".join(parts) + ticks + _text(_LEFT + _WIDTH / 2, height - 8, across, "middle")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{body}</svg>\n',
        encoding="utf-8",
    )


def _panel(title: str, curves: Mapping[str, Curve], colours: Mapping[str, str], furthest: float, top: float) -> str:
    highest = 1.1 * max(max(y) for _, y in curves.values()) or 1.0
    lines = [
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>',
        _text(_LEFT + 6, top + 16, title, "start"),
        *(
            _text(_LEFT - 6, top + (1 - share) * _HEIGHT + 4, f"{share * highest:.3g}", "end")
            for share in (0.0, 0.5, 1.0)
        ),
    ]
    for name, (x, y) in curves.items():
        points = " ".join(
            f"{_LEFT + a / furthest * _WIDTH:.1f},{top + (1 - b / highest) * _HEIGHT:.1f}"
            for a, b in zip(x, y, strict=True)
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="1"/>')
    return "".join(lines)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
