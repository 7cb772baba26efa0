"""JSON that clients give us to keep: states and documents (S `State`, PROTOCOL §8).

What is kept is bounded in size and in depth, and has one text: the canonical one, with sorted keys
and no spaces. Values are msgspec's: objects are dicts, of equal keys the last counts.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from reileta.errors import Detail, InvalidInput, MessageInvalid, PayloadTooLarge

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

DEPTH_LIMIT: Final = 64
"""Arrays and objects within one another, the outermost included."""

_NESTED: Final = f"must not be nested deeper than {DEPTH_LIMIT} levels"
_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decoder: Final = msgspec.json.Decoder()


def decode(
    raw: bytes | str,
    *,
    limit_bytes: int,
    field: str = "body",
    error: type[InvalidInput] = MessageInvalid,
) -> Json:
    """The value of a JSON text that comes from outside.

    Raises:
        PayloadTooLarge: it is longer than `limit_bytes`, as UTF-8.
        InvalidInput: (`error`, at `field`) it is no JSON, nested too deep, or has a number that no
            64-bit float and no integer of ours can hold.
    """
    try:
        text = raw.encode() if isinstance(raw, str) else raw
    except UnicodeEncodeError:
        raise error.field(field, "must be JSON") from None
    if len(text) > limit_bytes:
        raise PayloadTooLarge.field(field, f"must be at most {limit_bytes} bytes")
    try:
        text.decode()  # msgspec takes what it skips on trust
        value: Json = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise error.field(field, "must be JSON") from None
    except RecursionError:
        raise error.field(field, _NESTED) from None
    # Nearly nothing has so many brackets, and counting them is cheaper than following them.
    if text.count(b"{") + text.count(b"[") > DEPTH_LIMIT and _deeper_than_allowed(value):
        raise error.field(field, _NESTED)
    return value


def encode(value: Json) -> str:
    """The canonical text of a value that `decode` made, or that was made of such."""
    return _encoder.encode(value).decode()


def settle(
    value: object,
    *,
    limit_bytes: int,
    field: str,
    error: type[InvalidInput] = MessageInvalid,
) -> Json:
    """What will be kept of a value that something else has decoded, or that code has made.

    Raises what `decode` does; what JSON has no word for is no JSON (but NaN becomes null).
    """
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        raise error(Detail(field, "must be JSON")) from None
    except RecursionError:
        raise error.field(field, _NESTED) from None
    return decode(text, limit_bytes=limit_bytes, field=field, error=error)


def same(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON: 1, 1.0 and true are three, which Python takes for
    one."""
    return one is other or (one == other and encode(one) == encode(other))


def _deeper_than_allowed(value: Json) -> bool:
    level: list[Json] = [value]
    for _ in range(DEPTH_LIMIT):
        below: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        level = below
    return any(isinstance(one, (dict, list)) for one in level)
