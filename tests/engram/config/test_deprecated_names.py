"""Tests of former names of options, which are taken as input and stored in place of the new ones."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from engram import LearnOptions
from engram.streams import StreamOptions


def test_former_names_are_taken_as_those_of_today() -> None:
    former = LearnOptions.model_validate({"least_accuracy": 0.5, "least_recognised": 0.25})
    assert former == LearnOptions(min_accuracy=0.5, min_recognised=0.25)
    given = {"least_share": 0.2, "most_labels": 9}
    assert StreamOptions.model_validate(given) == StreamOptions(min_share=0.2, max_labels=9)


def test_what_is_stored_is_read_by_releases_that_know_the_former_names_only() -> None:
    stored = LearnOptions(min_accuracy=0.5).stored()
    assert stored["least_accuracy"] == 0.5
    assert "min_accuracy" not in stored
    assert LearnOptions.model_validate(stored) == LearnOptions(min_accuracy=0.5)


def refused(**given: object) -> tuple[tuple[int | str, ...], str]:
    """Where and why options are refused."""
    with pytest.raises(ValidationError) as caught:
        LearnOptions.model_validate(given)
    (error,) = caught.value.errors()
    return error["loc"], error["msg"]


def test_both_names_at_once_are_refused() -> None:
    assert refused(least_accuracy=0.5, min_accuracy=0.5) == (("least_accuracy",), "is the former name of min_accuracy")


def test_values_under_former_names_are_checked_alike_and_named_as_they_were_given() -> None:
    assert refused(least_accuracy=2)[0] == ("least_accuracy",)
    assert refused(min_accuracy=2)[0] == ("min_accuracy",)


def test_the_schema_has_both_names_and_says_which_is_deprecated() -> None:
    properties = LearnOptions.model_json_schema()["properties"]
    assert properties["least_accuracy"]["deprecated"] is True
    assert "deprecated" not in properties["min_accuracy"]


def test_options_that_earlier_releases_do_not_know_are_stored_where_they_say_something() -> None:
    assert "min_recall" not in LearnOptions().stored()
    assert LearnOptions.model_validate(LearnOptions().stored()) == LearnOptions()
    asked = LearnOptions(min_recall=0.75)
    assert LearnOptions.model_validate(asked.stored()) == asked
