"""Expressions that Python and JSON Schema read alike."""

from __future__ import annotations

import re

import jsonschema_rs
import pytest

from reileta.protocol import patterns

YES_AND_NO = [
    (patterns.URL, ["https://a", "https://a.b:65535/x?y#z", "https://[::1]/"],
     ["http://a", "https://", "https://a:65536", "https://a b", "https://u@a", "https://a:0"]),
    (patterns.DOCUMENTED_URL, ["https://a.b/"], ["https://[::1]/"]),
    (patterns.EMAIL, ["ada@example.org", "a+b@x.y.z", "ä@ö.de"],
     ["ada", "a@b", "a@b.", "a b@c.d", "a@b@c.d", "a\u0000@b.c", "a@b\u202e.c"]),
    (patterns.NAME, ["a", " a ", "é"], ["", " ", "a\nb", "a\u0000", "a\u202e", "a\u0085"]),
    (patterns.TEXT, ["", " ", "a\n\tb"], ["a\u0000", "\u007f", "\u2028", "a\u000bb"]),
    (patterns.STORABLE, ["", "a\n", "\u202e"], ["\u0000"]),
    (patterns.LABEL, ["a", "a-b", "0"], ["", "-a", "a-", "A", "a" * 64]),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "yes", "no"), YES_AND_NO)
def test_both_read_them_alike(pattern: str, yes: list[str], no: list[str]) -> None:
    schema = jsonschema_rs.Draft202012Validator({"pattern": f"^({pattern})$"})
    for text in yes:
        assert re.fullmatch(pattern, text), text
        assert schema.is_valid(text), text
    for text in no:
        assert not re.fullmatch(pattern, text), text
        assert not schema.is_valid(text), text


def test_a_world_with_or_without_version_and_server() -> None:
    world = "w_00000000-0000-4000-8000-000000000000"
    pattern = str(patterns.WORLD_REF["pattern"])
    for text in (world, f"{world}:1.2", f"{world}@a.b:3032", f"{world}:1@localhost"):
        assert re.search(pattern, text), text
    for text in ("w_1", f"{world}:", f"{world}@", f"{world}:/", f"{world}@A", "u" + world[1:]):
        assert not re.search(pattern, text), text
