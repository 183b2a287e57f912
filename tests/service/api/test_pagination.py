"""Tests of the cursors of pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dependencies import decode_cursor, encode_cursor
from vault.errors import InvalidCursor


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=100))
def test_a_cursor_gives_back_its_position(position: str) -> None:
    assert decode_cursor(encode_cursor(position)) == position


@pytest.mark.parametrize("cursor", ["", "a", "====", "not a cursor", "x" * 2000, "_w", encode_cursor("a") + "=", "Cg"])
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(cursor)
