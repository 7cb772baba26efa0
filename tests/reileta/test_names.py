"""Names that can be seen, and names that hide something."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest

from reileta.names import MARKS_LIMIT, name_fault

SEEN = {
    "latin": "Ada L.",
    "ideographs": "Hafen bei Nacht - 港",
    "emoji": "😀",
    "joined emoji": "👩\u200d🚀",
    "family": "👨\u200d👩\u200d👧\u200d👦",
    "skin": "👩🏽\u200d🚀",
    "heart on fire": "❤\ufe0f\u200d🔥",
    "rainbow": "🏳\ufe0f\u200d🌈",
    "keycap": "1\ufe0f\u20e3",
    "text style": "☺\ufe0e",
    "flag": "🇩🇪",
    "England": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "Persian": "می\u200cخواهم",
    "Persian after a letter that joins on one side": "کار\u200cها",
    "Hijri year": "1445 ه\u200d",
    "Bengali": "র\u200d\u09cdয\u09beম",
    "Sinhala": "ශ\u0dca\u200dර\u0dd3",
    "half a letter": "क\u094d\u200d",
    "Devanagari": "क\u094d\u200cष",
    "form of an ideograph": "葛\U000e0100城",
    "Mongolian": "ᠠ\u180eᠭ\u180b",
    "Braille": "⠓⠊\u2800⠽⠕",
    "Arabic number sign": "\u0600١",
    "Tibetan": "ཧ\u0f71\u0f74\u0f83",
    "Hangul": "한글",
    "four marks": "a" + "\u0317" * MARKS_LIMIT,
    "private use": "\ue000",
    "unassigned": "\U0003fff0",
}
HIDDEN = [
    "\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180e", "\u200b", "\u200c",
    "\u200d", "\u200e", "\u200f", "\u2060", "\u2061", "\u2064", "\u206a", "\u2800", "\u3164",
    "\ufe0f", "\ufeff", "\uffa0", "\ufff9", "\ufffc", "\uffff", "\U0001d159", "\U0001d173",
    "\U000e0001", "\U000e0020", "\U000e0100", "\U000e0fff",
]  # fmt: skip


@pytest.mark.parametrize("name", SEEN.values(), ids=list(SEEN))
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_that_can_be_seen_is_fine(name: str, form: Literal["NFC", "NFD"]) -> None:
    assert name_fault(unicodedata.normalize(form, name)) is None


@pytest.mark.parametrize("hidden", HIDDEN, ids=ascii)
@pytest.mark.parametrize("name", ["{}", "Ann{}", "{}Ann", "A{}nn", "{0}{0}", "1{}"])
def test_a_name_with_something_invisible_is_not(name: str, hidden: str) -> None:
    fault = name_fault(name.format(hidden))
    assert fault is not None
    assert f"U+{ord(hidden):04X}" in fault


@pytest.mark.parametrize(
    "name",
    ["👩\u200d", "\u200d👩", "👩\u200dA", "م\u200c", "\u200cم", "م\u200cA",
     "م\u200dم", "क\u200dक", "\u200d\u094d", "م\u200c\u200cا",
     "م\u200d\u200dی", "م\u200d\u200d", "a\u094d\u200d",
     "\u2800⠓", "⠓\u2800", "1\ufe0f", "A\ufe0f", "A\U000e0100", "🏴\U000e0067", "ᠠ\u180e"],
    ids=ascii,
)  # fmt: skip
def test_joiners_belong_only_between_what_they_join(name: str) -> None:
    assert name_fault(name) is not None


@pytest.mark.parametrize("name", ["\u0301", "\u0903", "\u20e3", " \u0301", "\u00a0", "\u3000"])
def test_a_name_needs_more_than_marks_and_spaces(name: str) -> None:
    assert name_fault(name) is not None


@pytest.mark.parametrize(
    "name",
    ["a" + "\u0301" * 31, "a" + "\u0301" * 5, "á" + "\u0317" * 4, "Ann" + "\u0489" * 5 + "e",
     "क" + "\u094d\u200d" * 5 + "ष"],
    ids=ascii,
)  # fmt: skip
def test_a_letter_has_few_marks(name: str) -> None:
    fault = name_fault(name)
    assert fault is not None
    assert "combining marks" in fault
