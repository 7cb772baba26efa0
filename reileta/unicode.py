"""Checks that text is Unicode and that bytes are UTF-8."""

from __future__ import annotations

from typing import Final

BOM: Final = b"\xef\xbb\xbf"
"""The byte order mark, which some programs write before UTF-8."""


def is_unicode(text: str) -> bool:
    """Whether the text is free of lone surrogates, which UTF-8 can't encode."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
