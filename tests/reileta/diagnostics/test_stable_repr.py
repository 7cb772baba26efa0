from __future__ import annotations

import pytest

from reileta.diagnostics.stable_repr import quoted, stable_repr
from reileta.rules.instance.events import Left
from reileta.rules.instance.seats import Player


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (1.5, "1.5"),
        ("a", '"a"'),
        (frozenset({"b", "a"}), '{"a", "b"}'),
        (("a", 1), '["a", 1]'),
        ({"k": ["v"]}, '{"k": ["v"]}'),
        (b'{"x":1}', r'<7 bytes "{\"x\":1}">'),
        (b"\xff\x00", r'<2 bytes "\\xff\u0000">'),
    ],
)
def test_values(value: object, text: str) -> None:
    assert stable_repr(value) == text


def test_dataclasses_by_their_fields() -> None:
    left = Left(Player("p_1", "u_1", "s_1", "A", 5), "left")
    assert stable_repr(left) == (
        'Left(player=Player(id="p_1", user="u_1", session="s_1", displayname="A", joined_at=5),'
        ' reason="left", note=None)'
    )


def test_payloads_are_shown_by_their_beginning_and_stand_for_themselves_when_whole() -> None:
    assert stable_repr(b"x" * 1000) == f'<1000 bytes "{"x" * 60}"...>'
    assert stable_repr({"data": b"x" * 1000}) == stable_repr({"data": b"x" * 60 + b"y" * 940})
    whole = [
        stable_repr({"data": data}, whole=True) for data in (b"x" * 1000, b"x" * 60 + b"y" * 940)
    ]
    assert whole[0] != whole[1]
    assert "sha256:" in whole[0]


@pytest.mark.parametrize("code", [0, 7, 0x0A, 0x1B, 0x7F, 0x85, 0x9B, 0x2028, 0x2029, 0xD800])
def test_no_character_moves_a_cursor_or_begins_a_line(code: int) -> None:
    text = quoted(f"a{chr(code)}b")
    assert chr(code) not in text
    assert len(text.splitlines()) == 1
    text.encode()


def test_other_scripts_stay_readable() -> None:
    assert quoted("Zoë 日本") == '"Zoë 日本"'
