"""Tests of the claims table."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.reports import claims, imbalance, leave_one_out, strangers


def rnf(forgetting: float, *overrides: str, seed: int = 0) -> dict[str, Any]:
    about = {"benchmark": "split_mnist", "method": "rnf", "scale": "paper", "seed": seed}
    return {**about, "overrides": [*overrides], "forgetting": forgetting}


def lines(rows: list[dict[str, Any]], method: str) -> list[str]:
    return [line for line in claims.table(rows).splitlines() if line.startswith(f"| {method} ")]


def test_what_was_not_run_says_so() -> None:
    table = claims.table([])
    assert table.count("| not run | – |") == len(claims.CLAIMS)
    partly = [rnf(6.0, "settings.preset=fine_tuning"), rnf(0.0)]
    assert "not run" in lines(partly, "rnf")[0]


@pytest.mark.parametrize(
    ("published", "resistant", "met"), [(0.4, 0.0, "yes"), (4.0, 0.0, "**no**"), (0.4, 0.1, "**no**")]
)
def test_rnf_is_judged_by_what_it_loses_less(published: float, resistant: float, met: str) -> None:
    rows = [
        rnf(5.0, "settings.preset=fine_tuning"),
        rnf(7.0, "settings.preset=fine_tuning", seed=1),
        rnf(published),
        rnf(1.0, "settings.tolerance=0.002"),
        rnf(99.0, "settings.resistance=true", "settings.tolerance=0.002"),
        rnf(resistant, "settings.resistance=true", "settings.tolerance=0.002"),
    ]
    closely, as_published, small, *_ = lines(rows, "rnf")
    assert "naive fine-tuning forgets 6.0 ± 1.4, RNF (tolerance 0.2 %) forgets 1.0, " in closely
    assert closely.endswith("| yes |" if resistant == 0 else "| **no** |")
    assert f"RNF as published (tolerance 2 %) forgets {published}, " in as_published
    assert as_published.endswith(f"| {met} |")
    assert "not run" in small


def test_sharc_is_chosen_by_held_out_images() -> None:
    def arm(name: str, held_out: float | None, test: float | None) -> dict[str, Any]:
        about = {"benchmark": "sharc_er", "dataset": "split_mnist", "kib": 16, "arm": name}
        return {**about, "held_out": held_out, "test": test}

    rows = [arm("er images", 80, 81), arm("er maps", None, None), arm("sharc 0.3", 85, 84), arm("sharc 0.9", 83, 90)]
    assert "16 KiB: 84.00 against 81.00 %" in lines(rows, "sharc")[1]
    rows += [arm("er images", 80, 83), arm("sharc 0.3", 60, 70), arm("sharc 0.9", 84, 92)]
    assert "16 KiB: 91.00 ± 1.41 against 82.00 ± 1.41 %" in lines(rows, "sharc")[1], "means over two seeds"


@pytest.mark.parametrize(("tests", "met"), [((96.2, 96.5, 96.1), "**no**"), ((97.2, 97.5, 97.1), "yes")])
def test_sharc_beats_replay_by_more_than_chance(tests: tuple[float, ...], met: str) -> None:
    about = {"benchmark": "sharc_er", "dataset": "split_mnist", "kib": 256, "held_out": 95.0}
    rows = [{**about, "arm": "er maps", "test": test} for test in (96.3, 96.5, 95.9)]
    rows += [{**about, "arm": "sharc 0.3", "test": test} for test in tests]
    assert lines(rows, "sharc")[1].endswith(f"| {met} |")


def test_each_task_left_out_has_a_line_and_all_have_a_mean() -> None:
    row = {
        "benchmark": "leave_one_out",
        "seed": 0,
        "auroc_far": 1.0,
        "unknown": {"known": 0.011, "near": 0.5, "far": 1.0},
        "false_alarms_per_100000": {"drift": 0.1, "new task suspected": 0.2},
        "false_alarms_per_100000_in_bursts": {"drift": 0.5, "new task suspected": 0.0},
        "delay_alone": {"mean": 20.4, "largest": 30},
        "delay_half": {"mean": 60.0, "largest": 90},
    }
    table = leave_one_out.table([{**row, "left_out": 0, "auroc_near": 0.9}, {**row, "left_out": 4, "auroc_near": 0.98}])
    assert "| 8 and 9 | 0.980 | 1.000 | 1.1 % / 50.0 % / 100.0 % | 0.3 / 0.5 | 20 (30) | 60 (90) |" in table
    assert "| mean | 0.940 | 1.000 |" in table
    assert len({line.count("|") for line in table.splitlines()[2:]}) == 1
    assert leave_one_out.table([]) == ""


def test_the_recall_of_a_rare_class_is_told_learner_by_learner() -> None:
    row = {
        "benchmark": "imbalance",
        "good": 1000,
        "defects": 10,
        "learner": "eidetic, recipe 2",
        "calibration_error": 0.01,
    }
    rows = [
        {**row, "seed": 0, "recall": {"good": 1.0, "defect": 0.8}, "balanced_accuracy": 0.9},
        {**row, "seed": 1, "recall": {"good": 0.96, "defect": 0.9}, "balanced_accuracy": 0.93},
    ]
    line = "| eidetic, recipe 2, 1000 : 10 | 0.960 | 0.850 (0.800) | 0.915 ± 0.021 | 0.010 | 2 |"
    assert imbalance.table(rows).splitlines()[-1] == line
    assert imbalance.table([]) == ""


def test_the_table_of_strangers_has_means_over_the_draws() -> None:
    def row(draw: int, no: float, yes: float) -> dict[str, object]:
        answers = {
            "known images": {"yes": 1 - no, "no": no, "unsaid": 0.0},
            "noise": {"yes": yes, "no": 0.0, "unsaid": 1 - yes},
        }
        about = {"benchmark": "strangers", "data": "MNIST", "images": 20, "recipe": 2, "draw": draw}
        return {**about, "answers": answers}

    found = strangers.table([row(0, 0.02, 0.0), row(1, 0.04, 0.5), {"benchmark": "other"}])
    assert (
        found.splitlines()[2] == "| data | images a class | recipe | known images: no / unsaid | noise: yes / unsaid |"
    )
    assert found.splitlines()[-1] == "| MNIST | 20 | 2 | 3.0 / 0 | 25.0 / 75 |"
    assert strangers.table([]) == ""
