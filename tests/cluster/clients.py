"""Clients of a cluster, which write down all they do and see; `checker.py` judges it.

A client is one session. It has a socket at one of the nodes, is inside an instance, and says a
numbered message now and then. When its socket is lost, or its node is silent, it goes to another
node, with the same token, and enters again. It knows nothing of which node does what.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from tests.cluster.checker import Answered, Came, Heard, Joined, Outside, Record, Sent, Went

Json = dict[str, Any]

HANDSHAKE_S: Final = 5.0
PING_S: Final = 0.5
SILENT_S: Final = 3.0
"""A client whose node has been silent for so long goes to another one."""
RETRY_S: Final = 0.2
BLOCK_BYTES: Final = 65_536
LOST: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


def now() -> float:
    """The one clock of all records; that of the machine, so that processes agree."""
    return time.monotonic()


class Ended(Exception):
    """A socket ended, or could not be opened: with a close code, a status, or neither."""

    def __init__(self, code: int = 0, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Line:
    """A WebSocket. One task may send and another one receive."""

    def __init__(self, stream: trio.SocketStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._sending = trio.Lock()
        self._parts: list[bytes] = []
        self._messages: list[Json] = []
        self.heard_at = now()

    @classmethod
    async def open(cls, url: str, token: str) -> Line:
        """A socket to the node at that URL. Raises Ended."""
        uri = parse_uri(url.replace("http", "ws", 1) + "/api/ws")
        protocol = ClientProtocol(uri, max_size=2**25)
        request = protocol.connect()
        request.headers["Authorization"] = f"Bearer {token}"
        protocol.send_request(request)
        stream: trio.SocketStream | None = None
        try:
            with trio.fail_after(HANDSHAKE_S):
                stream = await trio.open_tcp_stream(uri.host, uri.port)
                line = cls(stream, protocol)
                await line._flush()
                while protocol.state is State.CONNECTING:
                    await line._read()
        except LOST as error:
            if stream is not None:
                await trio.aclose_forcefully(stream)
            raise Ended from error
        except BaseException:
            if stream is not None:
                await trio.aclose_forcefully(stream)
            raise
        return line

    async def _flush(self) -> None:
        async with self._sending:
            for data in self._protocol.data_to_send():
                if data:
                    await self._stream.send_all(data)

    async def _read(self) -> None:
        data = await self._stream.receive_some(BLOCK_BYTES)
        self.heard_at = now()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if event.status_code != 101:
                    raise Ended(event.status_code)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._parts.append(bytes(event.data))
                if event.fin:
                    self._messages.append(json.loads(b"".join(self._parts)))
                    self._parts.clear()
        if self._protocol.handshake_exc is not None:
            raise Ended
        with suppress(*LOST):
            await self._flush()
        if not data and self._protocol.state is not State.OPEN and not self._messages:
            raise Ended(self._code(), self._reason())

    def _code(self) -> int:
        told = self._protocol.close_rcvd
        return 0 if told is None else int(told.code)

    def _reason(self) -> str:
        told = self._protocol.close_rcvd
        return "" if told is None else told.reason

    async def send(self, message: Json) -> None:
        """Raises Ended."""
        try:
            if self._protocol.state is not State.OPEN:
                raise Ended(self._code(), self._reason())
            self._protocol.send_text(json.dumps(message).encode())
            with trio.fail_after(HANDSHAKE_S):
                await self._flush()
        except LOST as error:
            raise Ended from error

    async def ping(self) -> None:
        """Raises Ended."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_ping(b"")
                with trio.fail_after(HANDSHAKE_S):
                    await self._flush()
        except LOST as error:
            raise Ended from error

    async def receive(self) -> Json:
        """The next message. Raises Ended."""
        while not self._messages:
            if self._protocol.state is not State.OPEN:
                raise Ended(self._code(), self._reason())
            try:
                await self._read()
            except LOST as error:
                raise Ended from error
        return self._messages.pop(0)

    async def ask(self, command: str, data: object, **more: object) -> Json:
        """A request's answer, for clients without another task that receives."""
        await self.send({"state": "ask", "command": command, "data": data, **more})
        while (answer := await self.receive()).get("state") != "ask":
            pass
        return answer

    async def aclose(self) -> None:
        """Ends it in order, without waiting for the other side."""
        with (
            suppress(Ended, *LOST),
            trio.CancelScope(deadline=trio.current_time() + 1, shield=True),
        ):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                await self._flush()
        await trio.aclose_forcefully(self._stream)


@dataclass
class Crowd:
    """What clients share: where the nodes are, and what everyone saw."""

    urls: Sequence[str]
    records: list[Record] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    """Of refused messages and joins."""
    closes: Counter[int] = field(default_factory=Counter)
    events: list[tuple[float, str, Json]] = field(default_factory=list)
    """All other events: when, by which client, and the message."""
    random: random.Random = field(default_factory=lambda: random.Random(1))
    sockets: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


class Visitor:
    """A client that stays inside one instance, and talks; `every_s`: how often."""

    def __init__(
        self,
        crowd: Crowd,
        name: str,
        token: str,
        instance: str,
        *,
        at: int = 0,
        every_s: float = 0.5,
    ) -> None:
        self.name = name
        self.token = token
        self.instance = instance
        self.at = at
        """The number of its node."""
        self.every_s = every_s
        self.player = ""
        self.inside = False
        self.since = -math.inf
        """When it last began to hear the instance."""
        self.players: set[str] = set()
        self.paused_s: list[float] = []
        """Each time it came in again: how long it was not able to hear anything."""
        self.ids: list[str] = []
        """Its players, one after the other."""
        self.stays_away = False
        """It no longer enters."""
        self.quiet = False
        """It says nothing."""
        self.patient = False
        """It stays with its node, however silent that is."""
        self._crowd = crowd
        self._numbers = itertools.count(1)
        self._socket = 0
        self._waits = trio.Event()
        self._heard_at = now()

    async def run(self) -> None:
        """Comes, and comes back, for ever."""
        while True:
            try:
                await self._visit()
            except* Ended as group:
                for error in _leaves(group):
                    self._crowd.closes[error.code] += 1
            self.at = (self.at + 1) % len(self._crowd.urls)
            await trio.sleep(RETRY_S * self._crowd.random.random())

    async def _visit(self) -> None:
        line = await Line.open(self._crowd.urls[self.at], self.token)
        self._socket = next(self._crowd.sockets)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, line)
                nursery.start_soon(self._watch, line)
                nursery.start_soon(self._talk, line)
        finally:
            self._outside()
            await line.aclose()

    def _outside(self) -> None:
        if self.inside:
            self.inside = False
            self._note(Outside, ())

    def _note(self, kind: Callable[..., Record], rest: Sequence[object]) -> None:
        self._crowd.records.append(kind(now(), self.name, self._socket, self.instance, *rest))

    async def _watch(self, line: Line) -> None:
        """Ends a socket whose node is silent."""
        while True:
            await trio.sleep(PING_S)
            await line.ping()
            if not self.patient and now() - line.heard_at > SILENT_S:
                raise Ended(-1)

    async def _talk(self, line: Line) -> None:
        """Enters, and says a message now and then."""
        while True:
            if self.stays_away:
                await trio.sleep(RETRY_S)
            elif not self.inside:
                state = {"join": next(self._numbers)}
                self._waits = trio.Event()
                await line.send(
                    {
                        "command": "instance-join",
                        "state": state,
                        "data": {"instance": self.instance},
                    }
                )
                await self._waits.wait()
                if not self.inside:
                    await trio.sleep(RETRY_S)
            else:
                if not self.quiet:
                    await self.say(line)
                await trio.sleep(self.every_s * (0.5 + self._crowd.random.random()))

    async def say(self, line: Line) -> None:
        number = next(self._numbers)
        self._note(Sent, (number,))
        await line.send(
            {
                "command": "instance-data",
                "subgroup": self.instance,
                "state": number,
                "data": {"by": self.name, "n": number},
            }
        )

    async def _listen(self, line: Line) -> None:
        while True:
            self._take(await line.receive())

    def _take(self, message: Json) -> None:
        command, data = message.get("command"), message.get("data") or {}
        if "state" in message:
            code = message.get("error", {}).get("code", 0)
            if code:
                self._crowd.codes[code] += 1
            if command == "instance-join":
                if not code:
                    self._entered(data, restored=False)
                self._waits.set()
            elif command == "instance-data":
                self._note(Answered, (message["state"], code))
                if code == 39:
                    self._outside()
            return
        if message.get("subgroup") != self.instance:
            self._crowd.events.append((now(), self.name, message))
            return
        match command:
            case "instance-data":
                self._heard_at = now()
                self._note(Heard, (data["data"]["by"], data["data"]["n"]))
            case "instance-joined":
                self.players.add(data["player"])
                self._note(Came, (data["player"],))
            case "instance-left":
                self.players.discard(data["player"])
                self._note(Went, (data["player"],))
                if data["player"] == self.player:
                    self._outside()
            case "instance-restored":
                self._entered(data, restored=True)
            case _:
                self._crowd.events.append((now(), self.name, message))

    def _entered(self, data: Json, *, restored: bool) -> None:
        self.inside = True
        self.player = data["player"]
        if self.player not in self.ids:
            self.ids.append(self.player)
        self.players = {one["player"] for one in data["players"]}
        self.since = now()
        self.paused_s.append(self.since - self._heard_at)
        self._heard_at = self.since
        self._note(Joined, (self.player, frozenset(self.players), restored))


def _leaves(group: BaseExceptionGroup[Any]) -> list[Any]:
    return [
        leaf
        for one in group.exceptions
        for leaf in (_leaves(one) if isinstance(one, BaseExceptionGroup) else [one])
    ]
