"""Files as answers. What they say of ranges and tags is tested in test_assets and test_pictures."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.downloads import NAME_LENGTH, safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Harbour-1.2", "Harbour-1.2.bin"),
        ("../../etc/passwd", "etc-passwd.bin"),
        ('a"; filename=b.exe', "a-filename-b.exe.bin"),
        ("a\r\nX: y", "a-X-y.bin"),
        ("", "file.bin"),
        ("...", "file.bin"),
        ("\u00e9\u202e", "file.bin"),
        ("x" * 500, "x" * NAME_LENGTH + ".bin"),
    ],
)
def test_names_are_safe(text: str, name: str) -> None:
    assert safe_name(text, ".bin") == name


@given(st.text())
def test_no_name_is_more_than_a_name(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.bin|file\.bin", safe_name(text, ".bin"))
