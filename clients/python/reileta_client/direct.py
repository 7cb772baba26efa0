"""A room's own connection to the node on which its instance lives, if the node takes such.

Players' messages take this connection, which is faster than the way over the server. Who is inside,
moderation and the snapshots stay with the server. If the node can't be reached, or the connection
is lost, the room goes on over the server.

The order is kept: what the node sends waits until the server says that it sends nothing more
(`instance-direct`), and what this player says goes to the node once the node has all that went over
the server.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio
from httpx_ws import AsyncWebSocketSession, aconnect_ws

from reileta_client.connection import Connection
from reileta_client.errors import Disconnected, Refused, ReiletaError, TimedOut
from reileta_client.kept_socket import LOST

CONNECT_S: Final = 5.0
PAUSE_S: Final = 1.0
"""Seconds until the next attempt; doubled each time, up to `PAUSE_MAX_S`."""
PAUSE_MAX_S: Final = 60.0
STEADY_S: Final = 30.0
WAITING: Final = 4096
"""Messages of the node that wait for the server's word."""


class _Pending:
    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: ReiletaError | None = None


class Direct:
    """`begun`: messages come over it. Made and used by `Room` alone."""

    def __init__(
        self,
        connection: Connection,
        instance: str,
        take: Callable[[dict[str, Any]], None],
        rejoin: Callable[[], Awaitable[None]],
    ) -> None:
        """`take` gets the data of `instance-data`; `rejoin` asks the server for a snapshot."""
        self.begun = False
        self._connection = connection
        self._instance = instance
        self._take = take
        self._rejoin = rejoin
        self._offered = False
        self._wanted = True
        self._stirred = anyio.Event()
        self._socket: AsyncWebSocketSession | None = None
        self._sends = False
        self._held: list[dict[str, Any]] = []
        self._word = anyio.Event()
        """The server sends nothing more; or, if `begun` is false, a snapshot."""
        self._states = itertools.count(1)
        self._pending: dict[int, _Pending] = {}

    # For the room --------------------------------------------------------------------------------

    def snapshot(self, *, offered: bool) -> None:
        """Takes the room back to the server: a snapshot came from there, or the server is lost."""
        self.begun = self._sends = False
        self._held = []
        self._offered = offered
        self._word.set()
        self._stirred.set()

    def want(self, on: bool) -> None:
        """Whether to connect when the node takes connections."""
        self._wanted = on
        self._stirred.set()

    def hear(self, state: str) -> None:
        """The node takes connections; or the server sends nothing more that players say."""
        if state == "offered":
            self._offered = True
            self._stirred.set()
        elif state == "begun":
            self._begin()

    def _begin(self) -> None:
        self.begun = True
        held, self._held = self._held, []
        for data in held:
            self._take(data)
        self._word.set()
        self._stirred.set()

    async def request(self, data: Any, *, to: Sequence[str] | None) -> None:
        """Sends a message, and waits until the instance has taken it."""
        if not self._sends:
            await self._connection.request("instance-data", data, subgroup=self._instance, to=to)
            return
        pending, state = _Pending(), next(self._states)
        self._pending[state] = pending
        try:
            with anyio.move_on_after(self._connection.timeout_s):
                await self._write({"state": state, "command": "instance-data", "to": to}, data)
                await pending.done.wait()
        finally:
            self._pending.pop(state, None)
        if pending.error is not None:
            raise pending.error
        if not pending.done.is_set():
            raise TimedOut("instance-data: no answer in time")

    async def tell(self, data: Any, *, key: str, at: float) -> None:
        """Sends a value, without waiting for an answer."""
        if self._sends:
            await self._write({"command": "instance-data", "key": key, "at": at}, data)
        else:
            fields = {"subgroup": self._instance, "key": key, "at": at}
            await self._connection.tell("instance-data", data, **fields)

    # Connecting ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connects whenever the node takes it, until it is cancelled."""
        pause_s = PAUSE_S
        while True:
            self._stirred = anyio.Event()
            if self.begun:  # the connection was lost; only a snapshot tells what is missing
                await self._fall_back()
                continue
            if not self._offered or not self._wanted or not self._connection.open:
                await self._stirred.wait()
                continue
            self._offered = False
            began = anyio.current_time()
            try:
                way = await self._connection.request("instance-ticket", subgroup=self._instance)
                await self._use(way)
            except ReiletaError:
                pass
            if anyio.current_time() - began > STEADY_S:
                pause_s = PAUSE_S
            until = anyio.current_time() + pause_s
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
            while not self.begun and (left_s := until - anyio.current_time()) > 0:
                self._stirred = anyio.Event()
                with anyio.move_on_after(left_s):
                    await self._stirred.wait()

    async def _fall_back(self) -> None:
        try:
            await self._rejoin()
        except ReiletaError:
            await anyio.sleep(PAUSE_S)
        else:
            if self.begun:  # not inside any more
                await self._stirred.wait()

    async def _use(self, way: dict[str, Any]) -> None:
        """One connection, until its end."""
        secure = way["secure"]
        if not secure and self._connection.secure:
            return
        url = f"{'wss' if secure else 'ws'}://{way['address']}/api/ws"
        self._word = anyio.Event()
        try:
            with anyio.move_on_after(CONNECT_S) as connecting:
                async with (
                    aconnect_ws(
                        url, self._connection.client, session_class=AsyncWebSocketSession
                    ) as socket,
                    anyio.create_task_group() as tasks,
                ):
                    await socket.send_text(
                        json.dumps(
                            {
                                "state": 0,
                                "command": "authenticate",
                                "data": {"ticket": way["ticket"]},
                            }
                        )
                    )
                    answer = json.loads(await socket.receive_text())
                    if answer.get("state") != 0 or "error" in answer:
                        return
                    connecting.deadline = float("inf")
                    self._socket = socket
                    tasks.start_soon(self._speak)
                    tasks.start_soon(self._until_snapshot, tasks)
                    while True:
                        self._receive(await socket.receive_text())
        except* (*LOST, ValueError):
            pass
        finally:
            self._sends, self._socket = False, None
            pending, self._pending = self._pending, {}
            for one in pending.values():
                one.error = Disconnected("the connection was lost before the answer came")
                one.done.set()

    async def _speak(self) -> None:
        """Speaks to the node once it has all that went over the server."""
        await self._word.wait()
        if self.begun:
            try:
                await self._connection.request(
                    "instance-data", None, subgroup=self._instance, to=()
                )
            except ReiletaError:
                return
            self._sends = self.begun and self._socket is not None

    async def _until_snapshot(self, tasks: anyio.abc.TaskGroup) -> None:
        """Ends the connection when a snapshot comes over the server."""
        await self._word.wait()
        while self.begun:
            self._stirred = anyio.Event()
            await self._stirred.wait()
        tasks.cancel_scope.cancel()

    def _receive(self, text: str) -> None:
        message = json.loads(text)
        pending = self._pending.pop(message.get("state"), None)
        if pending is not None:
            if "error" in message:
                pending.error = Refused.of(message["error"])
            pending.done.set()
        elif message.get("command") == "instance-data" and "data" in message:
            if message.get("subgroup") != self._instance or "state" in message:
                return
            if self.begun:
                self._take(message["data"])
            elif len(self._held) < WAITING:
                self._held.append(message["data"])
            else:
                raise ValueError("the node says too much")

    async def _write(self, message: dict[str, Any], data: Any) -> None:
        given = {name: value for name, value in message.items() if value is not None}
        socket = self._socket
        if socket is None:
            raise Disconnected("not connected")
        try:
            await socket.send_text(json.dumps({**given, "subgroup": self._instance, "data": data}))
        except LOST as error:
            raise Disconnected("the connection is lost") from error
