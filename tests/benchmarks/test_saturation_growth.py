"""Tests of growth trends and their plots."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.drills.saturation import growths
from benchmarks.harness.curves import draw
from testing.drills.growth import MIB, ProcessGrowth, Sample, sample, trend


def samples(rss_per_second: float, noise: float = 0.0, count: int = 600) -> list[Sample]:
    chance = random.Random(0)
    return [
        Sample(second, round((300 + rss_per_second * second + chance.gauss(0, noise)) * MIB), 20, 9)
        for second in range(count)
    ]


def test_a_line_is_found_under_noise() -> None:
    chance = random.Random(1)
    times = [float(second) for second in range(1200)]
    found = trend(times, [5.0 + 0.01 * time + chance.gauss(0, 1) for time in times])
    assert abs(found.slope - 0.01) < 3 * found.error
    assert found.error < 0.001
    assert math.isclose(found.level, 11.0, abs_tol=0.3)


def test_growth_is_told_from_noise() -> None:
    assert growths({"service": ProcessGrowth(samples(0.0, noise=5.0))}) == []
    [found] = growths({"service": ProcessGrowth(samples(0.05, noise=5.0))})
    assert found.startswith("the service's rss: 17")


def test_a_process_can_be_looked_at() -> None:
    now = sample(os.getpid())
    assert now.rss > MIB
    assert now.files > 2
    assert now.threads >= 1


def test_curves_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "curves.svg"
    draw({"one & only": {"a": ([0.0, 1.0], [2.0, 3.0]), "b": ([0.0], [0.0])}, "zero": {"a": ([0.0], [0.0])}}, "s", path)
    root = ElementTree.parse(path).getroot()
    assert len(root.findall("{*}polyline")) == 3
