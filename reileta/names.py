"""Checks that names can be seen, and that they hide nothing.

The properties of characters are those of the `regex` library, which has a newer Unicode than
Python's own `unicodedata`. Pure.
"""

from __future__ import annotations

import unicodedata
from typing import Final

import regex

MARKS_LIMIT: Final = 4
"""Most combining marks in a row, counted in NFD: a longer stack covers the lines around it."""

# Characters without a picture: format characters, fillers, blanks and noncharacters. Signs such as
# the Arabic number sign are format characters with a picture.
_INVISIBLE: Final = (
    r"[[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Noncharacter_Code_Point}"
    r"\u2800\uFFFC\U00016FE4\U0001D159]--\p{Prepended_Concatenation_Mark}]"
)
_SEARCH: Final = regex.compile(rf"(?V1){_INVISIBLE}")
_VISIBLE: Final = regex.compile(rf"(?V1)[[^\p{{M}}\p{{Z}}\p{{Cc}}\p{{Cs}}]--{_INVISIBLE}]")
_STACK: Final = regex.compile(rf"(?:\p{{M}}[\u200C\u200D]*){{{MARKS_LIMIT + 1}}}")

# Scripts whose letters join, or form conjuncts: joiners choose between spellings there.
_SCRIPTS: Final = (
    "Adlm|Arab|Beng|Deva|Gujr|Guru|Java|Khmr|Knda|Mand|Mlym|Mong|Mymr|Nkoo|Orya|Phag|Rohg|Sinh|"
    "Syrc|Taml|Telu|Tibt"
)
_JOINING: Final = "".join(rf"\p{{Script_Extensions={script}}}" for script in _SCRIPTS.split("|"))
_LETTER: Final = rf"[[\p{{L}}\p{{M}}]&&[{_JOINING}]]"
_BASE: Final = rf"[\p{{L}}&&[{_JOINING}]]"
_VIRAMA: Final = r"\p{Indic_Syllabic_Category=Virama}"
_JOINS_NEXT: Final = r"[\p{Joining_Type=D}\p{Joining_Type=L}]\p{Joining_Type=T}*"
_JOINS_LAST: Final = r"\p{Joining_Type=T}*[\p{Joining_Type=R}\p{Joining_Type=D}]"
_EMOJI: Final = r"\p{Extended_Pictographic}"
_TAG: Final = r"[\U000E0030-\U000E0039\U000E0061-\U000E007A]"
_HIEROGLYPH: Final = r"[\U00013000-\U0001342F]"
_MONGOLIAN: Final = r"[\p{Script=Mongolian}&&\p{L}]"

_BELONGING: Final = regex.compile(
    "(?V1)"
    + "|".join(
        (
            # ZWNJ within a word of such a script, as in Persian.
            rf"(?<={_LETTER})\u200C(?={_LETTER})",
            # ZWJ beside a virama, as in Sinhala and Bengali.
            rf"(?<={_BASE}[\p{{M}}\u200D]*)(?:(?<={_VIRAMA})\u200D|\u200D(?={_VIRAMA}))",
            # ZWJ beside a letter that would not join without it: the Hijri year's sign.
            rf"(?<={_JOINS_NEXT})\u200D(?!\u200D|{_JOINS_LAST})",
            rf"(?<!\u200D|{_JOINS_NEXT})\u200D(?={_JOINS_LAST})",
            # Emoji: joined ones, their presentation, keycaps, and flags of regions.
            rf"(?<={_EMOJI}[\uFE0F\p{{Emoji_Modifier}}]?)\u200D(?={_EMOJI})",
            rf"(?<={_EMOJI})[\uFE0E\uFE0F]",
            r"(?<=[0-9#*])\uFE0F(?=\u20E3)",
            rf"(?<=\U0001F3F4){_TAG}{{3,6}}\U000E007F",
            # Forms of ideographs and letters.
            r"(?<=\p{Unified_Ideograph})[\uFE00-\uFE02\U000E0100-\U000E01EF]",
            r"(?<=[\p{Script=Myanmar}&&\p{L}])\uFE00",
            rf"(?<={_MONGOLIAN})[\u180B-\u180D\u180F]",
            rf"(?<={_MONGOLIAN})\u180E(?={_MONGOLIAN})",
            rf"(?<={_HIEROGLYPH})[\U00013430-\U0001343F]+(?={_HIEROGLYPH})",
            # The space of Braille.
            r"(?<=[\u2801-\u28FF])\u2800+(?=[\u2801-\u28FF])",
        )
    )
)


def name_fault(name: str) -> str | None:
    """The reason why nobody could read the name, as the end of a sentence; None if it is fine.

    The name is in NFC, and without control characters.
    """
    if name.isascii() and not name.isspace():
        return None
    hidden = _SEARCH.search(_BELONGING.sub("", name))
    if hidden is not None:
        return f"must not contain invisible characters (U+{ord(hidden[0]):04X})"
    if _VISIBLE.search(name) is None:
        return "must contain a visible character"
    if _STACK.search(unicodedata.normalize("NFD", name)) is not None:
        return f"must not have more than {MARKS_LIMIT} combining marks in a row"
    return None
