from __future__ import annotations

import pytest

from reileta.unicode import is_unicode, is_utf8


@pytest.mark.parametrize(
    ("payload", "valid"),
    [
        (b"ascii", True),
        ("é\U0001f600".encode(), True),
        (b"\xff", False),
        (b"\xc3", False),
        (b"\xc0\xaf", False),
        (b"\xed\xa0\x80", False),
        (b"\xf4\x90\x80\x80", False),
        (b"", True),
    ],
)
def test_utf8_is_recognised(payload: bytes, valid: bool) -> None:
    assert is_utf8(payload) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [("ascii", True), ("é\U0001f600", True), ("\ud800", False), ("\udc00x", False)],
)
def test_lone_surrogates_are_not_unicode(text: str, valid: bool) -> None:
    assert is_unicode(text) is valid
