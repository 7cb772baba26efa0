"""Checks that text is Unicode and that bytes are UTF-8."""

from __future__ import annotations


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
