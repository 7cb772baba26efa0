"""The messages of a link: between this server and an instance node (docs/nodes.md#the-link).

A WebSocket message is a MessagePack array of items. An item is an array that begins with its tag;
items of unknown tags are ignored, and fields are only ever added at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

SUBPROTOCOL: Final = "avr-node.1"
VERSION: Final = 1
MESSAGE_BYTES: Final = 1024 * 1024
"""Largest message, in either direction."""
FRAME_BYTES: Final = 256 * 1024
"""A sender begins a new message after so many bytes."""
DATA_BYTES: Final = 64 * 1024
"""Largest `data` of a player's message."""
ITEM_BYTES: Final = 64
"""What an item counts besides its data."""
MESSAGE_ITEMS: Final = 4096
"""A sender begins a new message after so many items."""
ITEMS_LIMIT: Final = 2 * MESSAGE_ITEMS
"""Most items of a message: the smallest have two bytes, and each takes time."""

T = TypeVar("T")


class Hold(msgspec.Struct, array_like=True):
    """An instance that goes on over a new link. `heard`: the last number that came over the one
    before."""

    instance: str
    epoch: int
    heard: int


# Both ways ---------------------------------------------------------------------------------------


class Window(msgspec.Struct, array_like=True, tag=20):
    """All items of the instance up to that number are handled."""

    instance: str
    epoch: int
    number: int


class Ping(msgspec.Struct, array_like=True, tag=21):
    """Answered with `Pong`. `load`: the part of one core that is in use, from a node."""

    number: int
    load: float = 0.0


class Pong(msgspec.Struct, array_like=True, tag=22):
    """The answer to the ping of that number."""

    number: int


# From a node -------------------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, tag=1):
    """The first message of a node, within 5 s."""

    versions: list[int]
    software: str
    capacity: int = 100
    load: float = 0.0
    holds: list[Hold] = []


class Fan(msgspec.Struct, array_like=True, tag=2):
    """A message to players inside, in the name of `player`: the server builds the envelope.

    `kind`: `data`; or `dropped` and `refused`, which only answer the sender of `of`, the number of
    the `Say` that it is about (0: none).
    """

    instance: str
    epoch: int
    number: int
    kind: Literal["data", "dropped", "refused"]
    player: str
    data: bytes = b"null"
    key: str | None = None
    at: float | None = None
    to: list[str] | None = None
    of: int = 0


class Refuse(msgspec.Struct, array_like=True, tag=3):
    """The node can't host the instance."""

    instance: str
    epoch: int
    reason: str = ""


class Direct(msgspec.Struct, array_like=True, tag=5):
    """From here on the player gets data from the node itself (`on`), or over the server again. It
    is numbered like a `Fan`."""

    instance: str
    epoch: int
    number: int
    player: str
    on: bool


class Proof(msgspec.Struct, array_like=True, tag=4):
    """Reserved for later versions."""

    signature: bytes = b""


# From the server ---------------------------------------------------------------------------------


class Welcome(msgspec.Struct, array_like=True, tag=1):
    """The answer to `Hello`. `goes_on`: the instances that go on as they were; the node drops all
    others. What `heard` does not cover is sent again, on both sides."""

    node: str
    link: int
    server: str
    public_key: str
    version: int = VERSION
    goes_on: list[Hold] = []
    window_bytes: int = 256 * 1024
    data_bytes: int = DATA_BYTES


class Seat(msgspec.Struct, array_like=True):
    """A player inside. `user` is `id@server`."""

    player: str
    user: str
    name: str
    role: str
    muted: bool = False


class Value(msgspec.Struct, array_like=True):
    """A retained value."""

    player: str
    key: str
    data: bytes
    at: float | None = None


class Host(msgspec.Struct, array_like=True, tag=2):
    """The node hosts the instance from now on, with these players; items are numbered from 1."""

    instance: str
    epoch: int
    world: str
    owner: str
    title: str | None
    capacity: int
    players: list[Seat] = []
    values: list[Value] = []


class Enter(msgspec.Struct, array_like=True, tag=3):
    """A player is inside from now on."""

    instance: str
    epoch: int
    number: int
    seat: Seat


class Leave(msgspec.Struct, array_like=True, tag=4):
    """A player has left, with its retained values. What is said in its name after this is
    dropped."""

    instance: str
    epoch: int
    number: int
    player: str
    reason: str


class Say(msgspec.Struct, array_like=True, tag=5):
    """A player's message, for the node to pass on."""

    instance: str
    epoch: int
    number: int
    player: str
    data: bytes
    key: str | None = None
    at: float | None = None
    to: list[str] | None = None


class Change(msgspec.Struct, array_like=True, tag=6):
    """A player has another name or role, or was muted or unmuted."""

    instance: str
    epoch: int
    number: int
    seat: Seat


class End(msgspec.Struct, array_like=True, tag=7):
    """The node does not host the instance any more."""

    instance: str
    epoch: int


class Return(msgspec.Struct, array_like=True, tag=8):
    """The player gets data over the server again: the node ends its direct connection."""

    instance: str
    epoch: int
    number: int
    player: str


class Key(msgspec.Struct, array_like=True, tag=9):
    """The server signs with another key from now on."""

    public_key: str


FromNode: TypeAlias = Hello | Fan | Refuse | Proof | Direct | Window | Ping | Pong
FromServer: TypeAlias = (
    Welcome | Host | Enter | Leave | Say | Change | End | Return | Key | Window | Ping | Pong
)

_encode: Final = msgspec.msgpack.Encoder().encode
_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_SHORT: Final = 0x90
_SIZED: Final = {0xDC: 2, 0xDD: 4}
"""How MessagePack begins an array, and how many bytes its length has."""


class Malformed(Exception):
    """A message, or an item of it, has not the form that it must have."""


class _Tagged(msgspec.Struct, array_like=True):
    """The beginning of any item."""

    tag: int


_tags: Final = msgspec.msgpack.Decoder(list[_Tagged])


class Codec(Generic[T]):
    """Decodes the messages of one side."""

    def __init__(self, union: Any, tags: Iterable[int]) -> None:
        self._whole: msgspec.msgpack.Decoder[list[T]] = msgspec.msgpack.Decoder(list[union])
        self._one: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        self._tags = frozenset(tags)

    def decode(self, message: bytes) -> list[T]:
        """The items of known tags. Raises Malformed."""
        return self.decode_counted(message)[0]

    def decode_counted(self, message: bytes) -> tuple[list[T], int]:
        """The items of known tags, and how many there are of all tags. Raises Malformed."""
        if _length(message) > ITEMS_LIMIT:
            raise Malformed("has too many items")
        try:
            items = self._whole.decode(message)
        except (ValueError, RecursionError):
            pass  # an item of a later version, perhaps
        else:
            return items, len(items)
        try:
            tags = _tags.decode(message)
            known = [
                self._one.decode(raw)
                for raw, tagged in zip(_items.decode(message), tags, strict=True)
                if tagged.tag in self._tags
            ]
        except (ValueError, RecursionError) as error:
            raise Malformed(str(error)) from None
        return known, len(tags)


def _length(message: bytes) -> int:
    """The number of items that the head of a message announces; 0 if it is not an array."""
    first = message[0] if message else 0
    if first in _SIZED:
        return int.from_bytes(message[1 : 1 + _SIZED[first]], "big")
    return first & 0x0F if first & 0xF0 == _SHORT else 0


from_node: Final[Codec[FromNode]] = Codec(FromNode, (1, 2, 3, 4, 5, 20, 21, 22))
from_server: Final[Codec[FromServer]] = Codec(FromServer, (1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22))


def size_of(item: object) -> int:
    """What an item counts against a window: its data, its texts, and `ITEM_BYTES`."""
    receivers = getattr(item, "to", None) or ()
    texts = len(getattr(item, "key", None) or "") + sum(map(len, receivers))
    return ITEM_BYTES + len(getattr(item, "data", b"")) + texts


def messages_of(items: Iterable[object]) -> list[bytes]:
    """The items as messages, each of at most `MESSAGE_BYTES`. An item that is larger alone is left
    out: none is, since all that they hold is bounded."""
    messages, part, size = [], list[bytes](), 0
    for item in items:
        encoded = _encode(item)
        if part and (size + len(encoded) > FRAME_BYTES or len(part) >= MESSAGE_ITEMS):
            messages.append(_joined(part))
            part, size = [], 0
        part.append(encoded)
        size += len(encoded)
    if part:
        messages.append(_joined(part))
    return [message for message in messages if len(message) <= MESSAGE_BYTES]


def _joined(items: list[bytes]) -> bytes:
    return _encode([msgspec.Raw(item) for item in items])
