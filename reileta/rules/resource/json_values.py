"""Decodes JSON from clients: request bodies, states, documents.

There is one decoder for HTTP and sockets. It returns the value as it was sent, or refuses it and
names the field; it never changes a value:

- An integer (without fraction and exponent) is exact. Any other number is a 64-bit float.
- A number beyond the range of a 64-bit float, or one that would become 0, is refused. So is one
  with more digits than a float holds, unless they are the nearest float's own (`_loses_digits`).
- A repeated name in one object, and a lone surrogate, are refused.
- Nesting and the number of values are bounded. Both are counted before anything is decoded, in
  time that grows only with the number of bytes.

A stored value has one text: the canonical one, with sorted names and no spaces.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec

from reileta.errors import Detail, InvalidInput, MessageInvalid, PayloadTooLarge
from reileta.unicode import BOM, is_unicode, is_utf8

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

DEPTH_LIMIT: Final = 64
"""Nesting depth of arrays and objects, including the outermost."""
VALUES_LIMIT: Final = 10_000
"""Values in one body or document: scalars, arrays and objects, at any depth."""

_NESTED: Final = f"must not be nested deeper than {DEPTH_LIMIT} levels"
_encoder: Final = msgspec.json.Encoder(order="deterministic")
_unsorted: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()

_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(code for code in range(256) if code not in b"[]{}")
_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")
_SPACES: Final = b" \t\r\n"

_TINY: Final = re.compile(rb"[eE]-0*+(?:29[0-9]|[3-9][0-9]{2}|[0-9]{4})")
_ZEROS: Final = b"0" * 32
"""Without that many zeros in a row, a number with an exponent from -289 on is not too small for a
float."""
_FLOAT_DIGITS: Final = 17
"""That many significant digits identify any float; programs only write more if they are the float's
own."""
_EXACT_DIGITS: Final = 15
"""That many significant digits survive in any float."""
_MOST_DIGITS: Final = 767
"""The most significant digits of a float, written out in full."""
_MANY: Final = b"0" * (_EXACT_DIGITS + 1)
_MORE_DIGITS: Final = re.compile(
    rb"(?<![0-9.])[0.]*+[1-9]"
    rb"(?:[0-9]{17}|(?=[0-9]*\.)[0-9.]{18}|[0-9.]{15,}+[eE]\+?[0-9]|[0-9]{15,}+\.)"
)
"""The start of any number for which `_loses_digits` may be true: one with more than 17 digits,
or 16 and an exponent that is not negative, or 16 before the point. Programs rarely write such
floats."""
_MANY_DIGITS: Final = re.compile(rb"-?[0-9.]{16,}+(?:[eE][-+]?[0-9]++)?")
_LONG: Final = b"0" * 309
"""As many digits as the largest float has."""
_TO_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_ESCAPED_COLON: Final = b"\\u003"
_TOKEN: Final = re.compile(
    rb'[ \t\r\n]*([{}\[\],:]|"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^ \t\r\n{}\[\],:"]++)', re.DOTALL
)
_NAMED_TOKENS: Final = 2_000
"""The number of tokens searched for the place of an error; a later one has no path."""
_PATH_LENGTH: Final = 256


class NotJson(ValueError):
    """The text is not JSON, or not UTF-8."""


class Unstorable(ValueError):
    """The text is JSON that can't be stored: `path` is the place (dotted; empty: all of it),
    `message` the reason."""

    def __init__(self, path: str, message: str, *, too_large: bool = False) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message
        self.too_large = too_large


# Checking a text without decoding it -------------------------------------------------------------


def _without_strings(text: bytes) -> bytes:
    """The text with a mark in place of each string."""
    if b'\\"' in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"s".join(text.split(b'"')[::2])


def values_within(text: bytes) -> int:
    """The number of values in JSON: scalars, arrays and objects, at any depth."""
    return _values_in(_without_strings(text))


def is_deeper(text: bytes, limit: int) -> bool:
    """Whether arrays and objects in JSON are nested deeper than that."""
    # Hardly any text has that many brackets, and counting them is faster than following them.
    return text.count(b"[") + text.count(b"{") > limit and _lies_deeper(
        _without_strings(text), limit
    )


def _values_in(structure: bytes) -> int:
    structure = structure.translate(None, _SPACES)
    empty = structure.count(b"[]") + structure.count(b"{}")
    return 1 + structure.count(b",") + structure.count(b"[") + structure.count(b"{") - empty


def _lies_deeper(structure: bytes, limit: int) -> bool:
    brackets = structure.translate(_TO_SQUARE, _NO_BRACKETS)
    if brackets.count(b"[") <= limit:
        return False
    rest = brackets.replace(b"[]", b"")  # the innermost pairs: often all but a few outermost ones
    if rest.count(b"[") < limit:
        return False
    return max(accumulate(array("b", rest.translate(_STEPS))), default=0) >= limit


def _ensure_bounded(text: bytes, values_limit: int) -> None:
    """Raises Unstorable for a text with too many values, or nested too deeply.

    For a text that is not JSON, it checks as much as a decoder would read.
    """
    opened = text.count(b"[") + text.count(b"{")
    many = text.count(b",") + opened >= values_limit
    if not many and opened <= DEPTH_LIMIT:
        return
    structure = _without_strings(text)
    if many and _values_in(structure) > values_limit:
        raise Unstorable("", f"must have at most {values_limit} values", too_large=True)
    if _lies_deeper(structure, DEPTH_LIMIT):
        raise Unstorable("", _NESTED)


# Decoding ----------------------------------------------------------------------------------------


def read(text: bytes, *, values_limit: int = VALUES_LIMIT) -> Json:
    """The value of a JSON text from outside, with or without a byte order mark.

    Raises:
        NotJson: the text is not JSON.
        Unstorable: it is JSON, but can't be stored unchanged.
    """
    text = text.removeprefix(BOM)
    _ensure_bounded(text, values_limit)
    if not is_utf8(text):  # msgspec does not check strings that it skips
        raise NotJson
    try:
        value: Json = _decoder.decode(text)
    except msgspec.ValidationError:  # without types, only numbers can be wrong
        _name_fault(text)
        raise Unstorable("", _INFINITE) from None
    except (msgspec.MsgspecError, RecursionError):
        _name_fault(text)
        raise NotJson from None
    if _repeats_names(text, value):
        _name_fault(text)
        raise Unstorable("", "must not repeat a name")
    if _has_odd_numbers(text):
        _ensure_numbers(text)
    return value


def decode(
    raw: bytes | str,
    *,
    limit_bytes: int,
    values_limit: int = VALUES_LIMIT,
    field: str = "body",
    error: type[InvalidInput] = MessageInvalid,
) -> Json:
    """Like `read`, with errors for a client, at `field` or a path within it.

    Paths in a `body` don't have `field` as a prefix.

    Raises:
        PayloadTooLarge: the text is longer than `limit_bytes` in UTF-8, or has too many values.
        InvalidInput: (`error`) it is not JSON, or can't be stored.
    """
    try:
        text = raw.encode() if isinstance(raw, str) else raw
    except UnicodeEncodeError:
        raise error.field(field, "must be JSON") from None
    if len(text) > limit_bytes:
        raise PayloadTooLarge.field(field, f"must be at most {limit_bytes} bytes")
    try:
        return read(text, values_limit=values_limit)
    except NotJson:
        raise error.field(field, "must be JSON") from None
    except Unstorable as fault:
        within = () if field == "body" and fault.path else (field,)
        path = ".".join((*within, fault.path) if fault.path else within)
        kind = PayloadTooLarge if fault.too_large else error
        raise kind.field(path, fault.message) from None


def encode(value: Json) -> str:
    """The canonical text of a value from `decode`, or made of such values."""
    return _encoder.encode(value).decode()


def text_of(value: Json) -> bytes:
    """The text of such a value, as long as the canonical one, with names in any order."""
    return _unsorted.encode(value)


def load(text: str) -> Any:
    """The value of a text from `encode`."""
    return _decoder.decode(text)


def refuse_if_unstorable(
    value: object,
    *,
    limit_bytes: int,
    field: str,
    values_limit: int = VALUES_LIMIT,
    error: type[InvalidInput] = MessageInvalid,
) -> Json:
    """The value as it will be stored, from `decode` or from code.

    Raises the errors of `decode`; a value that JSON does not have, such as NaN, is not JSON.
    """
    try:
        text = _unsorted.encode(value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        raise error(Detail(field, "must be JSON")) from None
    except RecursionError:
        raise error.field(field, _NESTED) from None
    settled = decode(
        text, limit_bytes=limit_bytes, values_limit=values_limit, field=field, error=error
    )
    # If they are equal except for tuples and the like, each value is checked.
    if settled != value and _has_other_values(value):
        raise error.field(field, "must be JSON")
    return settled


def same(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON: 1, 1.0 and true differ, although Python says they are
    equal."""
    if one is other:
        return True
    if type(one) is not type(other) or one != other:
        return False
    return (
        type(one) in (str, int, bool)
        or text_of(one) == text_of(other)
        or encode(one) == encode(other)
    )


def _has_other_values(value: object) -> bool:
    """Whether it contains NaN, an infinity, or a name that is not text: these would be encoded as
    something else."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float):
            if one - one != 0:
                return True
        elif isinstance(one, dict):
            if not all(isinstance(name, str) for name in one):
                return True
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting.extend(one)
    return False


# Checks that a decoder does not make --------------------------------------------------------------

_VANISHES: Final = "must be 0, or large enough not to become 0 as a 64-bit float"
_LOSSY: Final = "must not have more digits than a 64-bit float holds, unless it is an integer"
_INFINITE: Final = "must be within the range of a 64-bit float"


def _repeats_names(text: bytes, value: Json) -> bool:
    """Whether an object repeats a name: then the value has fewer names than the text, and so its
    encoding has fewer colons."""
    if text.count(b":") < 2:
        return False
    again = _unsorted.encode(value)
    if _ESCAPED_COLON in text:  # a string can have more colons than its text
        return _without_strings(text).count(b":") != _without_strings(again).count(b":")
    return text.count(b":") != again.count(b":")


def _has_odd_numbers(text: bytes) -> bool:
    """Whether there may be numbers that the decoder accepts, but that can't be stored."""
    if (b"e-" in text or b"E-" in text) and _TINY.search(text) is not None:
        return True
    digits = text.translate(_TO_ZEROS)
    if _LONG in digits or _ZEROS in text:
        return True
    if _MANY not in digits.translate(None, b"."):
        return False
    structure = _without_strings(text)
    if _MORE_DIGITS.search(structure) is None:
        return False
    return any(map(_loses_digits, _MANY_DIGITS.findall(structure)))


def _ensure_numbers(text: bytes) -> None:
    """Raises Unstorable for a number that can't be stored."""
    faults: list[str] = []

    def number(digits: str) -> int:
        fault = _number_fault(digits)
        if fault is not None:
            faults.append(fault)
        return 0

    json.loads(text, parse_float=number, parse_int=number)
    if faults:
        _name_fault(text)
        raise Unstorable("", faults[0])


def _loses_digits(number: bytes) -> bool:
    """Whether a finite number with a fraction or an exponent differs from what its float shows.

    With up to 17 significant digits, a fraction stands for its nearest float: that is what every
    program means by it (0.1 is not a float either). An integer, and a number with more digits, must
    be equal to the float written with as many digits: otherwise something is lost.
    """
    if number.isdigit() or (number[:1] == b"-" and number[1:].isdigit()):
        return False  # an integer is exact
    mantissa, _, exponent = number.lower().lstrip(b"-").partition(b"e")
    whole, _, fraction = mantissa.partition(b".")
    given = (whole + fraction).lstrip(b"0").rstrip(b"0")
    if len(given) <= _EXACT_DIGITS:
        return False
    is_fraction = int(exponent[:8] or b"0") < len(fraction.rstrip(b"0"))
    if is_fraction and len(given) <= _FLOAT_DIGITS:
        return False
    if len(given) > _MOST_DIGITS:
        return True
    shown = f"{float(number):.{len(given) - 1}e}".lstrip("-").partition("e")[0]
    return shown.replace(".", "").encode() != given


def _is_not_zero(number: str) -> bool:
    return number.lower().partition("e")[0].strip("-0.") != ""


def _name_fault(text: bytes) -> None:
    """Raises Unstorable with the place of the first value that can't be stored, if it finds one."""
    path: list[str | int] = []
    names: list[set[str] | None] = []
    """For each open object: the names so far; None for an array."""
    name_next = False
    end = 0
    for _ in range(_NAMED_TOKENS):
        match = _TOKEN.match(text, end)
        if match is None:
            return
        end = match.end()
        token = match[1]
        first = token[:1]
        if first in b"{[":
            names.append(set() if first == b"{" else None)
            path.append("" if first == b"{" else 0)
            name_next = first == b"{"
        elif first in b"}]":
            if not names:
                return
            names.pop()
            path.pop()
            name_next = False
        elif first == b",":
            if not names:
                return
            name_next = names[-1] is not None
            last = path[-1]
            if isinstance(last, int):
                path[-1] = last + 1
        elif first == b":":
            name_next = False
        elif first == b'"':
            name = _string(token)
            if name is None:
                return
            if name_next:
                path[-1] = name
            if not is_unicode(name):
                raise Unstorable(_dotted(path), "must not contain a lone surrogate")
            if name_next:
                known = names[-1]
                assert known is not None
                if name in known:
                    raise Unstorable(_dotted(path), "must not be repeated")
                known.add(name)
        else:
            fault = _number_fault(token.decode(errors="replace"))
            if fault is not None:
                raise Unstorable(_dotted(path), fault)


def _string(token: bytes) -> str | None:
    try:
        return str(json.loads(token))
    except ValueError:
        return None


def _number_fault(text: str) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        return _INFINITE if text.strip("-")[:1].isdigit() else None
    if value == 0:
        return _VANISHES if _is_not_zero(text) else None
    return _LOSSY if text[-1:].isdigit() and _loses_digits(text.encode()) else None


def _dotted(path: list[str | int]) -> str:
    dotted = ".".join(str(part) for part in path)[:_PATH_LENGTH]
    return dotted.encode("utf-8", "replace").decode()
