"""The relay's messages between the host of an instance and the gateways of its players.

| subject | from → to | messages |
|---|---|---|
| `i.<instance>.<epoch>` | host → gateways | `Chunk` of a `Fan`, `Beat` |
| `n.<node>.in` | gateway → host | `InChunk` of an `In`, `InBeat` |
| `n.<node>.rpc` | any → any | the calls at the end of this file |

Fields are only ever added at the end. The messages of an instance's actor that other nodes may send
are put on the wire field by field, in the order in which their dataclass declares them, without
sockets: so a new field of theirs goes to its end, too, and has a default.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any, Final, Literal, TypeAlias, get_args, get_type_hints
from uuid import uuid4

import msgspec

from actors.delivery.batch import Batch
from actors.instance.messages import (
    Absent,
    AddModerator,
    AdmitCandidate,
    CloseInstance,
    ExcludeServers,
    GetBans,
    GetMutes,
    GetPlayers,
    GetQueue,
    GetTicket,
    GetValues,
    Moderate,
    ReassignOwner,
    RejectCandidate,
    RemoveModerator,
    RequestEntry,
    TransferMaster,
    UpdateInstance,
    WithdrawEntry,
)
from actors.membership import (
    CandidateBarred,
    CandidateOffline,
    CandidateOnline,
    MemberSessionEnded,
    RefreshAdmin,
    RemoveMember,
    RenameUser,
)
from actors.runtime.message import Message, Request
from reileta.records import InstanceChanges
from reileta.rules.identity import Visitor
from reileta.rules.instance.candidates import Candidate, State
from reileta.rules.instance.seats import Player

MORE: Final = b"\x01"
"""Begins a part that the next one continues."""
WHOLE: Final = b"\x00"
"""Begins the last part."""
DEFAULT_BYTES: Final = 1024 * 1024
"""The size of a message of the bus, while it is not known."""
HEAD_BYTES: Final = 1024
"""Kept free in a message of the bus."""


def chunks(data: bytes, limit_bytes: int) -> list[bytes]:
    """The data in parts for the bus, each with its first byte."""
    size = max(1, limit_bytes - HEAD_BYTES)
    starts = range(0, len(data), size) if data else (0,)
    parts = [data[start : start + size] for start in starts]
    return [MORE + part for part in parts[:-1]] + [WHOLE + parts[-1]]


class Joiner:
    """Puts parts that come in order together again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def take(self, chunk: bytes) -> bytes | None:
        """The whole, once its last part is there."""
        self._parts.append(chunk[1:])
        if chunk[:1] == MORE:
            return None
        whole, self._parts = b"".join(self._parts), []
        return whole

    def clear(self) -> None:
        """Forgets an incomplete message: the next part begins a new one."""
        self._parts = []


# From the host to gateways -----------------------------------------------------------------------


class Seat(msgspec.Struct, array_like=True):
    """A session inside through a gateway, with its sockets there."""

    visitor: Visitor
    player: Player
    connections: list[int]


class Buffer(msgspec.Struct, array_like=True):
    """A batch of frames. `keys`: for each frame the numbers of its key's parts in `Fan.names`,
    without the instance's id; None: no frame has a key. `parcel`: the number of the parcel that
    has the frames; 0: they are here."""

    data: bytes
    ends: list[int]
    keys: list[tuple[int, ...] | None] | None = None
    snapshot: bool = False
    parcel: int = 0


Span: TypeAlias = tuple[int, int, int]
"""Bytes from … to … of the buffer with that index."""
Edit: TypeAlias = tuple[int, int, list[Span]]
"""The spans that a socket (gateway, connection) gets instead of the whole first buffer."""


class Fan(msgspec.Struct, array_like=True):
    """The frames of one drain. Gateways are named by their index in `gateways`.

    In this order: `came` become receivers; each receiver gets the whole of buffer 0, unless it has
    an edit; `gone` receive no more; `seated` are new players, of any node, without their
    sockets; `lost` are seats (session, player) that have ended; `closed` sockets are closed, with
    the name of a `CloseCode`. `taken`: the last number of each gateway's messages that has been
    handed to the instance.
    """

    gateways: list[str]
    buffers: list[Buffer]
    whole: bool
    came: list[tuple[int, int]] = []
    edits: list[Edit] = []
    gone: list[tuple[int, int]] = []
    lost: list[tuple[str, str]] = []
    closed: list[tuple[int, int, str, str]] = []
    taken: list[tuple[int, int]] = []
    names: list[str] = []
    seated: list[Seat] = []


class Chunk(msgspec.Struct, array_like=True, tag=1):
    """Message number `number` of an instance. `data`: `MORE` or `WHOLE`, then a part of a `Fan`."""

    number: int
    data: bytes


class Beat(msgspec.Struct, array_like=True, tag=2):
    """The last number that was sent, and `Fan.taken` by gateway."""

    last: int
    taken: dict[str, int] = {}


FromHost: TypeAlias = Chunk | Beat

# From a gateway to a host ------------------------------------------------------------------------


class Data(msgspec.Struct, array_like=True, tag=1):
    """A player's `instance-data`; see `SendData`."""

    connection: int
    data: bytes
    key: str | None = None
    at: float | None = None
    to: tuple[str, ...] | None = None
    state: msgspec.Raw | bytes | None = None


class Lost(msgspec.Struct, array_like=True, tag=2):
    """A socket of a session has closed; see `Sink`. `vanished_s`: how long ago it vanished, for
    hosts of older versions, which ignore how long this message is under way.

    `heard`: the last of the host's messages that was written to it. `read`: the last one that its
    client has surely read, if the socket vanished; None: it did not, or the gateway is older.
    """

    connection: int
    session: str
    lost_frames: bool = False
    left: bool = False
    vanished_s: float | None = None
    heard: int | None = None
    barred: bool = False
    read: int | None = None


class Signal(msgspec.Struct, array_like=True, tag=3):
    """A message of `SIGNALS`."""

    name: str
    fields: msgspec.Raw


class Observe(msgspec.Struct, array_like=True, tag=4):
    """A socket begins or ends to observe the data."""

    connection: int
    observes: bool


Item: TypeAlias = Data | Lost | Signal | Observe


class In(msgspec.Struct, array_like=True):
    """The items of one turn of a gateway's sockets."""

    items: list[Item]


class InChunk(msgspec.Struct, array_like=True, tag=1):
    """Message number `number` of a gateway's `series` to an instance."""

    instance: str
    epoch: int
    gateway: str
    series: int
    number: int
    data: bytes


class InBeat(msgspec.Struct, array_like=True, tag=2):
    """The last number that was sent, and the last number of the host's messages that came."""

    instance: str
    epoch: int
    gateway: str
    series: int
    last: int
    applied: int


FromGateway: TypeAlias = InChunk | InBeat

from_host: Final[msgspec.msgpack.Decoder[FromHost]] = msgspec.msgpack.Decoder(FromHost)
from_gateway: Final[msgspec.msgpack.Decoder[FromGateway]] = msgspec.msgpack.Decoder(FromGateway)
fans: Final = msgspec.msgpack.Decoder(Fan)
ins: Final = msgspec.msgpack.Decoder(In)
encode: Final = msgspec.msgpack.Encoder().encode

# Calls -------------------------------------------------------------------------------------------


class Parcel(msgspec.Struct, array_like=True):
    """The frames of a buffer, for one gateway."""

    number: int
    data: bytes
    ends: list[int]


class Enter(msgspec.Struct, array_like=True):
    """A session enters with a socket; see `AddMember`. `after`: the last number that the gateway
    sent before. `known`: the gateway believes that the host knows it, with all its players.
    `attempt`: the same in each repetition of the call; 0 from older nodes."""

    instance: str
    epoch: int
    series: int
    after: int
    connection: int
    visitor: Visitor
    state: bytes | None = None
    known: bool = False
    attempt: int = 0


class Entered(msgspec.Struct, array_like=True):
    """The player, and the number of the first message that concerns the socket. `elsewhere`: this
    node is not the host in that epoch, and did nothing."""

    player: Player | None = None
    number: int = 0
    parcels: list[Parcel] = []
    elsewhere: bool = False


class Ask(msgspec.Struct, array_like=True):
    """A request to the instance, from `REQUESTS`. `connection`: of the socket that asked; 0: none.
    `deed`: the same in each repetition of the request. `again`: the client repeats it."""

    instance: str
    epoch: int
    series: int
    after: int
    connection: int
    name: str
    fields: msgspec.Raw
    deed: str = ""
    again: bool = False


class Tell(msgspec.Struct, array_like=True):
    """Signals of a node that has nobody inside."""

    instance: str
    epoch: int
    signals: list[Signal]


class Told(msgspec.Struct, array_like=True):
    """The signals were handed to the instance, unless it is elsewhere."""

    elsewhere: bool = False


class Watch(msgspec.Struct, array_like=True):
    """A node has sockets that observe the data of the instance, and perhaps nobody inside."""

    instance: str
    epoch: int
    series: int
    connections: list[int]


class Watched(msgspec.Struct, array_like=True):
    """The number of the first message for the sockets."""

    number: int = 0
    elsewhere: bool = False


class Answered(msgspec.Struct, array_like=True):
    """The answer. The messages up to `number` have the frames that the request sent to sockets."""

    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    number: int = 0
    elsewhere: bool = False


class Replay(msgspec.Struct, array_like=True):
    """All messages of the instance from that number on are wanted."""

    instance: str
    epoch: int
    first: int


class Replayed(msgspec.Struct, array_like=True):
    """The messages; None: some are forgotten."""

    chunks: list[bytes] | None = None
    elsewhere: bool = False


class Restore(msgspec.Struct, array_like=True):
    """A gateway has missed messages that are forgotten: its players are to get a snapshot.
    `returning`: they were inside at an earlier host, and this one has not asked for them."""

    instance: str
    epoch: int
    series: int
    seats: list[Seat] = []
    returning: bool = False


class Restored(msgspec.Struct, array_like=True):
    """The number of the message that has the snapshots, and the parcels for it. `lost`: the players
    (session, player) that have no seat; `kicked`: those of them that were kicked."""

    number: int = 0
    parcels: list[Parcel] = []
    lost: list[tuple[str, str]] = []
    elsewhere: bool = False
    kicked: list[tuple[str, str]] = []


class Reseat(msgspec.Struct, array_like=True):
    """The instance has a new host, the caller: which players does a gateway have?

    If it was handed over: `last` is the number of the last host's last message, and `taken` the
    last message of the gateway (series, number) that it has handed to the instance; None: it has
    taken nothing of the gateway. So both sides lose nothing, and get nothing twice.
    """

    instance: str
    epoch: int
    last: int | None = None
    taken: tuple[int, int] | None = None


class Reseated(msgspec.Struct, array_like=True):
    """The players; the gateway listens to the new host by now. `series` is that of its messages."""

    series: int = 0
    seats: list[Seat] = []
    others: list[Seat] = []
    """The players of other nodes, as the last host told."""
    complete: bool = False
    """Whether the players have got everything that the last host sent."""


class SoftState(msgspec.Struct, array_like=True):
    """The state that only the host of an instance knows; see `Frozen`. `seats`: all players,
    without their sockets."""

    values: list[tuple[str, str, float | None, bytes, int]]
    invited: dict[str, Literal["by-leader", "by-member"]]
    candidates: list[tuple[State, Candidate]]
    master: str | None = None
    absent: list[Absent] = []
    seats: list[Seat] = []


class Prepare(msgspec.Struct, array_like=True):
    """Does the node take an instance that is to be handed over to it?"""

    instance: str


class Adopt(msgspec.Struct, array_like=True):
    """The instance is handed over, with that epoch. `gateways`: the nodes that may have players,
    which the new host may not have seen yet. `last`, `taken` (by gateway): as in `Reseat`."""

    instance: str
    epoch: int
    soft: SoftState
    gateways: list[str] = []
    last: int | None = None
    taken: dict[str, tuple[int, int]] = {}


class GetFigures(msgspec.Struct, array_like=True):
    """Asks for the figures of the node's relay."""


class Figures(msgspec.Struct, array_like=True):
    """The figures of a node's relay since its start, as a gateway: how often messages of hosts were
    missing, were sent again, and were lost for good, so that players got a snapshot. `lagging`: of
    the instances that it hosts, how many gateways are behind now."""

    gaps: int = 0
    replays: int = 0
    restores: int = 0
    lagging: int = 0


class Connection(msgspec.Struct, array_like=True):
    """Whether the client of a socket is there (`Sink.responds`)."""

    instance: str
    connection: int


class Parcels(msgspec.Struct, array_like=True):
    """Parcels that the host's messages refer to."""

    instance: str
    epoch: int
    parcels: list[Parcel]


class Missing(msgspec.Struct, array_like=True):
    """The host misses a gateway's messages from that number on."""

    instance: str
    epoch: int
    series: int
    first: int


# The actor's messages ----------------------------------------------------------------------------

REQUESTS: Final[dict[str, type[Request[Any]]]] = {
    kind.__name__: kind
    for kind in (
        AddModerator,
        AdmitCandidate,
        CloseInstance,
        ExcludeServers,
        GetBans,
        GetMutes,
        GetPlayers,
        GetQueue,
        GetValues,
        GetTicket,
        Moderate,
        RejectCandidate,
        RemoveMember,
        RemoveModerator,
        RequestEntry,
        TransferMaster,
        UpdateInstance,
        WithdrawEntry,
    )
}
SIGNALS: Final[dict[str, type[Message]]] = {
    kind.__name__: kind
    for kind in (
        CandidateBarred,
        CandidateOffline,
        CandidateOnline,
        MemberSessionEnded,
        ReassignOwner,
        RefreshAdmin,
        RenameUser,
    )
}
WRITES: Final = (
    AddModerator,
    AdmitCandidate,
    CloseInstance,
    Moderate,
    RejectCandidate,
    RemoveModerator,
    RequestEntry,
    TransferMaster,
    UpdateInstance,
    WithdrawEntry,
)
"""Requests that change something: a repetition must not do it twice."""

_NOT_SENT: Final = ("slot", "sink")


class _Changes(msgspec.Struct, omit_defaults=True):
    """`InstanceChanges`; fields that do not change are left out."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    capacity: int | msgspec.UnsetType = msgspec.UNSET
    tags: frozenset[str] | msgspec.UnsetType = msgspec.UNSET


def _sent_fields(kind: type[Message]) -> list[Field[Any]]:
    return [one for one in fields(kind) if one.name not in _NOT_SENT]  # type: ignore[arg-type]


def _form(kind: type[Message]) -> type[msgspec.Struct]:
    """An array of the message's fields."""
    hints = get_type_hints(kind)
    declared: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for one in _sent_fields(kind):
        hint = _Changes if hints[one.name] is InstanceChanges else hints[one.name]
        if one.default is MISSING:
            declared.append((one.name, hint))
        else:
            declared.append((one.name, hint, one.default))
    return msgspec.defstruct(kind.__name__, declared, array_like=True)


FORMS: Final = {name: _form(kind) for name, kind in (*REQUESTS.items(), *SIGNALS.items())}
_forms: Final = {name: msgspec.msgpack.Decoder(form) for name, form in FORMS.items()}
ANSWERS: Final = {
    name: get_args(kind.__orig_bases__[0])[0]  # type: ignore[attr-defined]
    for name, kind in REQUESTS.items()
}


def fields_of(message: Message) -> msgspec.Raw:
    """The fields of a message of `REQUESTS` or `SIGNALS`, without its socket."""
    values = [getattr(message, one.name) for one in _sent_fields(type(message))]
    sent = [one.given() if isinstance(one, InstanceChanges) else one for one in values]
    return msgspec.Raw(encode(sent))


def deed_of(request: Request[Any]) -> str:
    """The id of an order, the same in each repetition; "" for another request."""
    if not isinstance(request, WRITES):
        return ""
    return str(uuid4()) if request.deed is None else request.deed.id


def comes_again(request: Request[Any]) -> bool:
    """Whether it is an order that a client has given before."""
    return isinstance(request, WRITES) and request.deed is not None and request.deed.again


def request_of(ask: Ask, **socket: Any) -> Request[Any] | None:
    """The request; None if it is of a newer version. `socket`: its `sink`, if it has one."""
    return _message(REQUESTS, ask.name, ask.fields, **socket)  # type: ignore[return-value]


def signal_of(signal: Signal) -> Message | None:
    """The signal; None if it is of a newer version."""
    return _message(SIGNALS, signal.name, signal.fields)


def _message(
    kinds: dict[str, type[Any]], name: str, sent: msgspec.Raw, **socket: Any
) -> Message | None:
    kind = kinds.get(name)
    if kind is None:
        return None
    try:
        form = _forms[name].decode(sent)
    except msgspec.MsgspecError:
        return None
    values = {one.name: getattr(form, one.name) for one in _sent_fields(kind)}
    for field, value in values.items():
        if isinstance(value, _Changes):
            given = {one: getattr(value, one) for one in value.__struct_fields__}
            given = {one: each for one, each in given.items() if each is not msgspec.UNSET}
            values[field] = InstanceChanges(**given)
    made: Message = kind(**values, **socket)
    return made


def batch_of(buffer: Buffer | Parcel, keys: list[Any] | None, *, snapshot: bool) -> Batch:
    """A batch of frames as they came over the wire."""
    return Batch.of_buffer(buffer.data, buffer.ends, keys, snapshot=snapshot)
