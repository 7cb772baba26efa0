"""The WebSocket of a session at the registry API.

It connects again by itself, as the same session, while `run` runs, until the credential has ended.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import anyio.abc
import httpx
from httpx_ws import AsyncWebSocketSession

from reileta_client.credentials import CredentialKeeper
from reileta_client.errors import (
    Disconnected,
    ErrorCode,
    ProtocolError,
    Refused,
    ReiletaError,
    TimedOut,
)
from reileta_client.http import Http
from reileta_client.kept_socket import LOST, KeptSocket

STEADY_S: Final = 5.0
"""A connection that held so long was a good one: the next pause is short again."""
TRY_AGAIN_LATER: Final = 1013
TOO_MUCH: Final = 1008
WRITES_WAITING: Final = 1024


class _Pending:
    """A request that waits for its answer."""

    def __init__(self, answered: Callable[[Any], object] | None) -> None:
        self.answered = answered
        self.done = anyio.Event()
        self.data: Any = None
        self.error: ReiletaError | None = None

    def end(self, error: ReiletaError) -> None:
        self.error = error
        self.done.set()


class Connection(KeptSocket):
    """One socket after another.

    Events of the server come under their names, such as `instance-joined`, with the whole message.
    Besides: `connection-open` (whether it was open before), `connection-lost` (code, reason,
    seconds until the next attempt), `connection-closed` (code, reason) and `connection-error`, an
    error that no request waits for.
    """

    _path = "/api/ws"
    _subprotocol = "reileta.registry"

    def __init__(
        self,
        client: httpx.AsyncClient,
        http: Http,
        keeper: CredentialKeeper,
        *,
        timeout_s: float = 20.0,
    ) -> None:
        super().__init__(client, http, keeper)
        self.user: dict[str, Any] | None = None
        self.session: str | None = None
        self.openers: list[Callable[[bool], Awaitable[None]]] = []
        """Work of this package at each new connection, before `connection-open`."""
        self.client = client
        self.timeout_s = self._timeout_s = timeout_s
        self._states = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._subscriptions: dict[tuple[str, str | None], None] = {}
        self._opened_at = math.inf

    @property
    def secure(self) -> bool:
        """Whether the server is reached over TLS."""
        return self._client.base_url.scheme == "https"

    @property
    def open(self) -> bool:
        """Whether the socket is open and authenticated."""
        return self._ready.is_set() and self.ended is None

    async def request(
        self,
        command: str,
        data: Any = None,
        *,
        subgroup: str | None = None,
        key: str | None = None,
        at: float | None = None,
        to: Sequence[str] | None = None,
        timeout_s: float | None = None,
        answered: Callable[[Any], object] | None = None,
    ) -> Any:
        """Sends a command, and returns the data of its answer. Without a connection it waits for
        one.

        `answered` gets the answer before any event that comes after it. Raises Refused, TimedOut,
        and Disconnected if the connection is lost before the answer: the server may have done it.
        """
        fields = {"subgroup": subgroup, "key": key, "at": at, "to": to}
        limit = self._timeout_s if timeout_s is None else timeout_s
        with anyio.move_on_after(limit):
            await self.ready()
            return await self._ask(command, data, fields, answered)
        raise TimedOut(f"{command}: no answer within {limit:g} s")

    async def tell(self, command: str, data: Any, **fields: Any) -> None:
        """Sends a command without waiting for an answer; nothing if not connected. Errors
        come as `connection-error`."""
        if self.open:
            with suppress(Disconnected):
                await self._write({"command": command, **_given(fields), "data": data})

    async def subscribe(self, event: str, target: str | None = None) -> None:
        """Asks for events beyond those that come anyway; also after each new connection."""
        await self.request("subscribe", _given({"event": event, "target": target}))
        self._subscriptions[event, target] = None

    async def unsubscribe(self, event: str, target: str | None = None) -> None:
        self._subscriptions.pop((event, target), None)
        await self.request("unsubscribe", _given({"event": event, "target": target}))

    # Connecting ----------------------------------------------------------------------------------

    async def _connect(self, token: str) -> tuple[int, str]:
        self._opened_at = math.inf
        code, reason = await super()._connect(token)
        if anyio.current_time() - self._opened_at > STEADY_S:
            self._backoff.reset()
        return (code, reason) if self.ended is None else (-1, str(self.ended))

    def _opened(
        self, socket: AsyncWebSocketSession, token: str, tasks: anyio.abc.TaskGroup
    ) -> None:
        self._opened_at = anyio.current_time()

        async def begin() -> None:
            if not await self._begin(token):
                await socket.close(1000)

        tasks.start_soon(begin)

    def _lost(self, code: int, reason: str, wait: float) -> float:
        if code in (TRY_AGAIN_LATER, TOO_MUCH):
            wait = max(wait, 1.0)
        self._emit("connection-lost", {"code": code, "reason": reason, "retry_s": wait})
        return wait

    def _closed(self, code: int, reason: str, error: ReiletaError) -> None:
        self._reject_all(error)
        self._emit("connection-closed", {"code": code, "reason": reason})

    def _lose(self) -> None:
        super()._lose()
        self._reject_all(Disconnected("the connection was lost before the answer came"))

    async def _begin(self, token: str) -> bool:
        """Makes the socket the session's; returns whether it worked."""
        try:
            with anyio.fail_after(self._timeout_s):
                identity = await self._ask("authenticate", {"token": token}, {})
                self.user, self.session = identity["user"], identity["session"]
                for event, target in tuple(self._subscriptions):
                    with suppress(Refused):
                        topic = _given({"event": event, "target": target})
                        await self._ask("subscribe", topic, {})
                again, self._opened_before = self._opened_before, True
                self._ready.set()
                for work in tuple(self.openers):
                    await work(again)
        except Refused as refused:
            if refused.code == ErrorCode.CREDENTIAL_INVALID:
                await self._replace_credential()
            elif refused.code == ErrorCode.QUOTA_REACHED:
                self.ended = Disconnected(str(refused))
            return False
        except (Disconnected, TimedOut, TimeoutError):
            return False
        self._emit("connection-open", again)
        return True

    # Messages ------------------------------------------------------------------------------------

    async def _ask(
        self,
        command: str,
        data: Any,
        fields: dict[str, Any],
        answered: Callable[[Any], object] | None = None,
    ) -> Any:
        state = next(self._states)
        pending = self._pending[state] = _Pending(answered)
        try:
            message = {"state": state, "command": command, **_given(fields), "data": data}
            await self._write(message)
            await pending.done.wait()
        finally:
            self._pending.pop(state, None)
        if pending.error is not None:
            raise pending.error
        return pending.data

    async def _write(self, message: dict[str, Any]) -> None:
        socket = self._socket
        if socket is None:
            raise Disconnected("not connected")
        try:
            await socket.send_text(json.dumps(message))
        except LOST as error:
            raise Disconnected("the connection is lost") from error

    def _receive(self, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return  # data of a player that this program can't decode
        if not isinstance(message, dict):
            raise ProtocolError(f"not a message of a Reileta server: {text[:80]}")
        pending = self._pending.pop(message.get("state"), None)  # type: ignore[arg-type]
        if pending is not None:
            if "error" in message:
                pending.end(Refused.of(message["error"]))
            else:
                pending.data = message.get("data")
                if pending.answered is not None:
                    pending.answered(pending.data)
                pending.done.set()
        elif "error" in message:
            self._emit("connection-error", message)
        elif message.get("state") is None:
            self._notice(message)

    def _notice(self, message: dict[str, Any]) -> None:
        if message["command"] == "update-user" and self.user is not None:
            data = message["data"]
            if data["id"] == self.user["id"] and "following" in data:
                self.user = data
        self._emit(message["command"], message)

    def _reject_all(self, error: ReiletaError) -> None:
        pending, self._pending = self._pending, {}
        for one in pending.values():
            one.end(error)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
