"""Passwords that keyboards send in different ways, and passwords that the profile refuses."""

from __future__ import annotations

import pytest

from reileta.opaque_string import prepared, refused_character


@pytest.mark.parametrize(
    ("sent", "compared"),
    [
        ("correct horse", "correct horse"),
        (" Ada ", " Ada "),
        ("Zoe\u0308", "Zo\u00eb"),
        ("\u1100\u1161", "\uac00"),
        ("a\u00a0b\u2003c\u3000d\u1680e", "a b c d e"),
        ("\uff21\u017f\u212b", "\uff21\u017f\u00c5"),
        ("\ud800", "\ud800"),
    ],
)
def test_a_password_is_compared_in_nfc_with_plain_spaces(sent: str, compared: str) -> None:
    assert prepared(sent) == compared
    assert prepared(compared) == compared


@pytest.mark.parametrize(
    "password", ["correct horse", "пароль π — ß", "密码 パス 비밀", "🔑🚀", "Ⅸ½"]
)
def test_letters_signs_and_spaces_of_all_alphabets_are_allowed(password: str) -> None:
    assert refused_character(password) is None


@pytest.mark.parametrize(
    "refused",
    ["\t", "\n", "\x7f", "\x85", "\u00ad", "\u200b", "\u200d", "\ufeff", "\ufffe", "\u1100",
     "\u2028", "\ue000", "\U0003fff0"],
    ids=ascii,
)  # fmt: skip
def test_the_first_character_that_is_not_allowed_is_named(refused: str) -> None:
    assert refused_character(f"pass{refused}word\x00") == refused
