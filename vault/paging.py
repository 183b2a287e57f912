"""Cursors: where the next page begins, as text that a caller hands back unread."""

from __future__ import annotations

import base64
import binascii

from vault.errors import InvalidCursor

_MAX_CHARACTERS = 1024


def encode_cursor(position: str) -> str:
    """An opaque, URL-safe cursor for `position`, the key of a page's last item."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The position inside a cursor.

    Raises
    ------
    InvalidCursor
        `encode_cursor` did not make it.
    """
    if not cursor or len(cursor) > _MAX_CHARACTERS:
        raise InvalidCursor("This is not a cursor of a page.")
    try:
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidCursor("This is not a cursor of a page.") from error
    if encode_cursor(position) != cursor or not position.isprintable():
        raise InvalidCursor("This is not a cursor of a page.")
    return position
