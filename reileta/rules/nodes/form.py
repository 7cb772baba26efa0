"""The form of what a node says in a player's name. Pure.

The server relays `data` byte for byte to browsers, which hang up on text that is not UTF-8, and to
clients that parse it. So a node's data must be what a client's own must be.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from reileta.protocol.node_link import DATA_BYTES, Direct, Fan
from reileta.rules.instance.instance import TO_LIMIT
from reileta.rules.instance.retained import KEY_LIMIT
from reileta.rules.resource.json_values import is_deeper

DEPTH: Final = 60
"""Arrays and objects within one another in data."""
ID_LIMIT: Final = 64

_raw: Final = msgspec.json.Decoder(msgspec.Raw)


def fault_in(fan: Fan | Direct) -> str | None:
    """What is wrong with a node's message; None: nothing."""
    if isinstance(fan, Direct):
        return "a player's id is too long" if len(fan.player) > ID_LIMIT else None
    if len(fan.data) > DATA_BYTES:
        return "data is too large"
    if fan.key is not None and not (1 <= len(fan.key) <= KEY_LIMIT and _is_text(fan.key)):
        return "key is out of range"
    if fan.at is not None and not math.isfinite(fan.at):
        return "at is not a number"
    if fan.to is not None and len(fan.to) > TO_LIMIT:
        return "to has too many players"
    if len(fan.player) > ID_LIMIT or any(len(one) > ID_LIMIT for one in fan.to or ()):
        return "a player's id is too long"
    if fan.of < 0:
        return "of is negative"
    try:
        fan.data.decode()
    except UnicodeDecodeError:
        return "data is not UTF-8"
    try:
        _raw.decode(fan.data)
    except (msgspec.DecodeError, RecursionError):
        return "data is not JSON"
    if is_deeper(fan.data, DEPTH):
        return "data is nested too deeply"
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
