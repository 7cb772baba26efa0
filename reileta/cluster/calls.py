"""Calls from one node to another: a request over the bus, and its answer or error.

A node answers on `n.<node>.rpc`. Each call has a name, and a struct as its argument and as its
answer. A message is the byte `VERSION`, then msgpack. Structs are arrays whose fields are only ever
added at the end, so that nodes of two versions understand each other; a node that does not know a
call says so.

A message that is too large for the bus goes in parts. Each part is a request of its own, so that no
part is lost unnoticed.

A call may have been carried out although its caller got an error.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec
import structlog
import trio

from reileta.cluster.bus import (
    Bus,
    BusError,
    BusFull,
    BusMessage,
    BusUnavailable,
    Gap,
    NoResponders,
)
from reileta.errors import Detail, InternalError, Overloaded, ReiletaError
from reileta.observability import log_events

VERSION: Final = b"\x01"
HEAD_BYTES: Final = 1024
"""Kept free in a message of the bus, for the head of a part."""
CALL_BYTES: Final = 64 * 1024 * 1024
"""The largest argument and the largest answer."""
CALLS: Final = 4096
"""Calls that are answered at the same time; further ones are refused with `Overloaded`."""
PARTS_BYTES: Final = 128 * 1024 * 1024
"""Arguments and answers that are incomplete or not yet fetched, in all; the oldest is dropped."""
CONNECTED_S: Final = 1.0
"""Seconds that a call waits for the connection on which it came."""
RENAMED_S: Final = 0.05
"""Seconds between two looks at the id of a node that fell."""
PARTS_S: Final = 10.0
"""Seconds for which they are kept."""

T = TypeVar("T")
A = TypeVar("A")
Capture: TypeAlias = Callable[[Callable[[], Awaitable[None]]], Awaitable[Exception | None]]
"""Runs some work, and returns the exception that it raised, or None."""

_log = structlog.get_logger()


class NodeUnreachable(Exception):
    """The other node did not answer; it may have carried out the call, or may do so later.

    `absent`: nobody listens there, so it did not.
    """

    def __init__(self, node: str, reason: str, *, absent: bool = False) -> None:
        super().__init__(f"{node}: {reason}")
        self.node = node
        self.reason = reason
        self.absent = absent


class CallUnknown(NodeUnreachable):
    """The other node is of a version that does not know the call; it did nothing."""

    def __init__(self, node: str, name: str) -> None:
        super().__init__(node, f"does not know the call {name}", absent=True)


class Identity(Protocol):
    """This process as other nodes know it (`reileta.cluster.member.Member`)."""

    @property
    def node(self) -> str:
        """The node's id, which changes when it falls."""
        ...

    @property
    def bus(self) -> Bus: ...

    def subject(self, *parts: str) -> str:
        """A subject of the cluster."""
        ...

    def valid(self) -> bool:
        """Whether it may answer."""
        ...


class _Request(msgspec.Struct, array_like=True):
    """`part` of `parts` of a call. `fetch`: the answer's part with that number is wanted."""

    caller: str
    call: int
    name: str
    data: bytes
    part: int = 0
    parts: int = 1
    fetch: int = -1


class _Answer(msgspec.Struct, array_like=True):
    """`error` is None in an answer; `parts`: how many parts it has in all."""

    data: bytes = b""
    parts: int = 1
    error: _Error | None = None


class _Error(msgspec.Struct, array_like=True):
    """An error, by the name of its class; `kind` "" is none of the server's errors."""

    kind: str
    code: int
    details: list[tuple[str, str]] = []
    extra: dict[str, str | int | float | bool | None] = {}


_EXTRAS: Final = ("retry_after_s", "address", "secure", "cause", "size")
"""What errors have besides their details."""
_UNKNOWN: Final = "unknown"
_SUSPENDED: Final = "suspended"

_requests: Final = msgspec.msgpack.Decoder(_Request)
_answers: Final = msgspec.msgpack.Decoder(_Answer)
_encoder: Final = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    """A message of the cluster: `VERSION`, then msgpack."""
    return VERSION + _encoder.encode(value)


def unpacked(data: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """The value of a message; None if it is of another version or has another form."""
    if data[:1] != VERSION:
        return None
    try:
        return decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError:
        return None


@dataclass(frozen=True, slots=True)
class _Handler(Generic[T]):
    decoder: msgspec.msgpack.Decoder[T]
    handle: Callable[[T, str], Awaitable[object]]


@dataclass(slots=True)
class _Kept:
    """Parts of an argument, or of an answer that is to be fetched."""

    until: float
    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class _PartsTable:
    """Parts that wait, by caller and call, with a bound; the oldest give way."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], _Kept] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, key: tuple[str, int]) -> _Kept:
        """The entry, made if there is none."""
        now = trio.current_time()
        for old in [one for one, kept in self._kept.items() if kept.until <= now]:
            self.drop(old)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(now + PARTS_S)
        return kept

    def find(self, key: tuple[str, int]) -> _Kept | None:
        return self._kept.get(key)

    def put(self, key: tuple[str, int], number: int, data: bytes) -> None:
        kept = self.of(key)
        grown = len(data) - len(kept.parts.get(number, b""))
        kept.parts[number] = data
        kept.size += grown
        self.size += grown
        while self.size > PARTS_BYTES and len(self._kept) > 1:
            self.drop(next(one for one in self._kept if one != key))

    def drop(self, key: tuple[str, int]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size -= kept.size


class Calls:
    """The calls of this node: those that it answers, and those that it makes."""

    def __init__(self, member: Identity, capture: Capture) -> None:
        """`capture` keeps the failure of one call's handler away from the other calls."""
        self._member = member
        self._capture = capture
        self._handlers: dict[str, _Handler[Any]] = {}
        self._numbers = itertools.count(secrets.randbits(48))
        self._arguments = _PartsTable()
        self._answers = _PartsTable()
        self._running = 0
        self._renamed = trio.Event()
        self._was = ""
        self.listening = trio.Event()
        """Set while the node's calls arrive."""

    def serve(
        self, name: str, argument: type[T], handle: Callable[[T, str], Awaitable[object]]
    ) -> None:
        """Answers calls of that name with what `handle(argument, caller)` returns or raises.

        A ReiletaError reaches the caller as it is. The handler runs in a task of its own; it sets
        its own deadline.
        """
        self._handlers[name] = _Handler(msgspec.msgpack.Decoder(argument), handle)

    def fell(self, was: str) -> None:
        """This node has another id now, or soon."""
        self._was = was
        self._renamed.set()

    def node_gone(self, node: str) -> None:
        """As `MemberListener`."""

    def node_seen(self, node: str) -> None:
        """As `MemberListener`."""

    def reconnected(self) -> None:
        """As `MemberListener`."""

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"calls": self._running, "call parts": len(self._arguments) + len(self._answers)}

    # Answering ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answers the calls to this node, whatever its id is."""
        while True:
            self._renamed = trio.Event()
            while self._member.node == self._was:  # noqa: ASYNC110  # the member has no event for it
                await trio.sleep(RENAMED_S)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer_as, self._member.node, nursery)
                await self._renamed.wait()
                nursery.cancel_scope.cancel()
            self.listening = trio.Event()

    async def _answer_as(self, node: str, nursery: trio.Nursery) -> None:
        bus = self._member.bus
        async with bus.subscribe(self._member.subject("n", node, "rpc")) as subscription:
            self.listening.set()
            while True:
                for message in await subscription.receive():
                    if isinstance(message, Gap):
                        continue  # the callers hear nothing, and call again
                    request = unpacked(message.data, _requests)
                    if request is None or message.reply is None:
                        _log.warning(log_events.CALL_MALFORMED, subject=message.subject)
                    elif self._running >= CALLS:
                        self._reply(message, _Answer(error=_error_of(Overloaded())))
                    else:
                        self._running += 1
                        nursery.start_soon(self._answer, message, request)

    async def _answer(self, message: BusMessage, request: _Request) -> None:
        try:
            if self._member.bus.connection is None:
                # The first calls come before the bus says that it has a connection again.
                with trio.move_on_after(CONNECTED_S):
                    await self._member.bus.changed_from(None)
            answer = await self._answered(request)
        finally:
            self._running -= 1
        if answer.error is None and not self._member.valid():
            answer = _Answer(error=_Error(_SUSPENDED, 0))
        self._reply(message, answer)

    def _reply(self, message: BusMessage, answer: _Answer) -> None:
        assert message.reply is not None
        try:
            self._member.bus.publish(message.reply, pack(answer))
        except BusError as error:  # the caller hears nothing, and asks again
            _log.debug(log_events.CALL_UNANSWERED, reason=type(error).__name__)

    async def _answered(self, request: _Request) -> _Answer:
        key = (request.caller, request.call)
        if request.fetch >= 0:
            return self._fetched(key, request.fetch)
        handler = self._handlers.get(request.name)
        if handler is None:
            return _Answer(error=_Error(_UNKNOWN, 0))
        data = request.data
        if request.parts > 1:
            if request.parts > CALL_BYTES // HEAD_BYTES or not 0 <= request.part < request.parts:
                return _Answer(error=_error_of(InternalError()))
            self._arguments.put(key, request.part, data)
            kept = self._arguments.of(key)
            if kept.size > CALL_BYTES:
                self._arguments.drop(key)
                return _Answer(error=_error_of(Overloaded()))
            if len(kept.parts) < request.parts:
                return _Answer()
            data = b"".join(kept.parts[number] for number in range(request.parts))
            self._arguments.drop(key)
        try:
            argument = handler.decoder.decode(data)
        except msgspec.MsgspecError:
            _log.warning(log_events.CALL_MALFORMED, subject=request.name)
            return _Answer(error=_Error(_UNKNOWN, 0))
        answer: object = None

        async def handle() -> None:
            nonlocal answer
            answer = await handler.handle(argument, request.caller)

        failure = await self._capture(handle)
        if isinstance(failure, ReiletaError):
            return _Answer(error=_error_of(failure))
        if failure is not None:
            _log.error(log_events.CALL_FAILED, call=request.name, exc_info=failure)
            return _Answer(error=_error_of(InternalError()))
        return self._in_parts(key, _encoder.encode(answer))

    def _in_parts(self, key: tuple[str, int], data: bytes) -> _Answer:
        """The first part of an answer; the caller fetches the others."""
        try:
            parts = tuple(_parts(data, self._member.bus.max_data_bytes - HEAD_BYTES))
        except BusUnavailable:
            return _Answer()  # it can't be sent
        if len(parts) > 1:
            for number, part in enumerate(parts):
                self._answers.put(key, number, part)
        return _Answer(parts[0], len(parts))

    def _fetched(self, key: tuple[str, int], number: int) -> _Answer:
        kept = self._answers.find(key)
        part = None if kept is None else kept.parts.get(number)
        if kept is None or part is None:
            return _Answer(error=_Error(_UNKNOWN, 0))
        count = len(kept.parts)
        if number == count - 1:
            self._answers.drop(key)
        return _Answer(part, count)

    # Calling -----------------------------------------------------------------------------------

    async def call(
        self, node: str, name: str, argument: object, answer: type[A], timeout_s: float
    ) -> A:
        """What the node answers.

        Raises:
            NodeUnreachable: it did not answer in time, or there is no such node.
            ReiletaError: what it raised.
        """
        with trio.move_on_after(timeout_s):
            try:
                data = await self._call(node, name, _encoder.encode(argument))
            except NoResponders as error:
                raise NodeUnreachable(node, "nobody listens", absent=True) from error
            except BusFull as error:
                raise Overloaded from error
            except BusError as error:
                raise NodeUnreachable(node, str(error) or type(error).__name__) from error
            try:
                return msgspec.msgpack.decode(data, type=answer)
            except msgspec.MsgspecError as error:
                raise NodeUnreachable(node, f"answers {name} in another form") from error
        raise NodeUnreachable(node, f"no answer in {timeout_s} s")

    async def _call(self, node: str, name: str, argument: bytes) -> bytes:
        if len(argument) > CALL_BYTES:
            raise Overloaded
        number, caller = next(self._numbers), self._member.node
        limit = self._member.bus.max_data_bytes - HEAD_BYTES
        parts = tuple(_parts(argument, limit))
        answer = _Answer()
        for index, part in enumerate(parts):
            request = _Request(caller, number, name, part, index, len(parts))
            answer = await self._request(node, request)
        data = [answer.data]
        for index in range(1, answer.parts):
            request = _Request(caller, number, name, b"", fetch=index)
            data.append((await self._request(node, request)).data)
        return b"".join(data)

    async def _request(self, node: str, request: _Request) -> _Answer:
        subject = self._member.subject("n", node, "rpc")
        message = await self._member.bus.request(subject, pack(request))
        answer = unpacked(message.data, _answers)
        if answer is None:
            raise NodeUnreachable(node, "speaks another version")
        if answer.error is not None:
            if answer.error.kind == _UNKNOWN:
                raise CallUnknown(node, request.name)
            if answer.error.kind == _SUSPENDED:
                raise NodeUnreachable(node, "is suspended")
            raise _raised(answer.error)
        return answer


def _parts(data: bytes, limit: int) -> Iterator[bytes]:
    """The data in parts of at most `limit` bytes; at least one."""
    yield data[:limit]
    for start in range(limit, len(data), limit):
        yield data[start : start + limit]


def without_frames(error: ReiletaError) -> ReiletaError:
    """The same error, which keeps nothing alive of where it was raised."""
    return _raised(_error_of(error))


def _error_of(error: ReiletaError) -> _Error:
    extra = {name: getattr(error, name) for name in _EXTRAS if hasattr(error, name)}
    details = [(detail.field, detail.message) for detail in error.details]
    return _Error(type(error).__name__, error.code, details, extra)


def _raised(received: _Error) -> ReiletaError:
    """The error as the other side raised it. A class that is not known here is told by its code."""
    known = _error_classes()
    kind = known.get(received.kind)
    if kind is None:
        same = (one for one in known.values() if one.code == received.code)
        kind = next(same, InternalError)
    error = kind.__new__(kind)
    details = tuple(Detail(name, message) for name, message in received.details)
    ReiletaError.__init__(error, *details)
    for name in _EXTRAS:
        if name in received.extra:
            setattr(error, name, received.extra[name])
    return error


def _error_classes() -> Mapping[str, type[ReiletaError]]:
    """All errors by the names of their classes."""
    known: dict[str, type[ReiletaError]] = {}
    waiting: list[type[ReiletaError]] = [ReiletaError]
    while waiting:
        kind = waiting.pop()
        known.setdefault(kind.__name__, kind)
        waiting += kind.__subclasses__()
    return known
