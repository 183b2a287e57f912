"""Ridges that regressions over the features of commons may add, by how these repeat each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ridges:
    """Images' worth of mean square that a regression may add to every direction, ascending."""

    values: tuple[float, float, float, float]
    repeating: bool = False
    """Whether there are thousands of features, of which most repeat others: a few images then leave no freedom to a
    small ridge, which tells that it is too small, and heads need one as well."""


OF_FILTERS = Ridges((0.7, 4.0, 20.0, 100.0))
"""From the one for tidy features of many images to the one for untidy features of few."""

OF_NETWORKS = Ridges((20.0, 100.0, 500.0, 2500.0), repeating=True)
"""For features of a network that a user brought."""
