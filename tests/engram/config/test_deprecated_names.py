"""Former names of options, which are still taken and are what is stored."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from engram import LearnOptions
from engram.streams import StreamOptions


def test_former_names_are_taken_as_those_of_today() -> None:
    former = LearnOptions.model_validate({"least_accuracy": 0.5, "least_recognised": 0.25})
    assert former == LearnOptions(min_accuracy=0.5, min_recognised=0.25)
    assert StreamOptions.model_validate({"least_share": 0.2}) == StreamOptions(min_share=0.2)


def test_what_is_stored_is_read_by_releases_that_know_the_former_names_only() -> None:
    stored = LearnOptions(min_accuracy=0.5).stored()
    assert stored["least_accuracy"] == 0.5
    assert "min_accuracy" not in stored
    assert LearnOptions.model_validate(stored) == LearnOptions(min_accuracy=0.5)


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="least_accuracy is the former name of min_accuracy"):
        LearnOptions.model_validate({"least_accuracy": 0.5, "min_accuracy": 0.5})


def test_values_under_former_names_are_checked_alike() -> None:
    with pytest.raises(ValidationError):
        LearnOptions.model_validate({"least_accuracy": 2})


def test_the_schema_has_both_names_and_says_which_is_deprecated() -> None:
    properties = LearnOptions.model_json_schema()["properties"]
    assert properties["least_accuracy"]["deprecated"] is True
    assert "deprecated" not in properties["min_accuracy"]
