"""A minimal player: logs in, joins an instance, sends what you type, prints what others send.

    .venv/bin/python examples/player.py ann --instance NAME

If the account does not exist, it is created. `examples/two_players.py` opens an instance and shows
two of these players meeting. Any WebSocket client can do the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
import trio_websocket

SERVER = "http://127.0.0.1:3032"
PASSWORD = "only an example"  # noqa: S105 - not a secret: the account of an example


class Refused(Exception):
    """The server refused a request. The text is its error message."""


async def call(http: httpx.AsyncClient, method: str, path: str, **body: Any) -> dict[str, Any]:
    """Calls the HTTP API and returns the answer's `data`."""
    response = await http.request(method, path, json=body or None)
    answer = response.json()
    if "error" in answer:
        details = [f"{one['field']} {one['message']}" for one in answer["error"].get("details", [])]
        raise Refused(": ".join([answer["error"]["message"], *details]))
    data: dict[str, Any] = answer["data"]
    return data


async def log_in(http: httpx.AsyncClient, username: str, password: str = PASSWORD) -> str:
    """Logs in; creates the account if that fails. Returns the token."""
    account = {"username": username, "password": password}
    try:
        session = await call(http, "POST", "/api/auth/login", **account)
    except Refused:
        session = await call(http, "POST", "/api/auth/register", **account)
    token: str = session["token"]
    return token


class Player:
    """One WebSocket to the server, and the instance that it has joined."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket
        self._states = itertools.count(1)
        self._early: deque[dict[str, Any]] = deque()
        self.instance = ""
        self.id = ""

    @classmethod
    @asynccontextmanager
    async def connected(cls, server: str, token: str) -> AsyncIterator[Player]:
        """Opens the socket. The token is in a header of the upgrade."""
        url = server.replace("http", "ws", 1) + "/api/ws"
        credential = [(b"Authorization", f"Bearer {token}".encode())]
        async with trio_websocket.open_websocket_url(url, extra_headers=credential) as socket:
            yield cls(socket)

    async def join(self, instance: str) -> dict[str, Any]:
        """Joins. Returns the players inside and the retained values."""
        joined = await self.request("instance-join", data={"instance": instance})
        self.instance, self.id = joined["instance"], joined["player"]
        return joined

    async def send(self, data: Any) -> None:
        """Sends data to all others inside, without waiting for an answer."""
        await self._send(command="instance-data", subgroup=self.instance, data=data)

    async def keep(self, key: str, data: Any) -> None:
        """Sends data to all others inside. The server keeps the key's newest value for players that
        join later."""
        await self.request("instance-data", subgroup=self.instance, key=key, data=data)

    async def request(self, command: str, **fields: Any) -> dict[str, Any]:
        """Sends a command. Returns the `data` of its answer, which is the message with the same
        `state`."""
        state = next(self._states)
        await self._send(state=state, command=command, **fields)
        while (message := await self._next()).get("state") != state:
            self._early.append(message)
        if "error" in message:
            raise Refused(message["error"]["message"])
        data: dict[str, Any] = message.get("data", {})
        return data

    async def receive(self) -> dict[str, Any]:
        """The next event. Events that arrived before an answer come first."""
        return self._early.popleft() if self._early else await self._next()

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.get_message())
        return message

    async def _send(self, **message: Any) -> None:
        await self._socket.send_message(json.dumps(message))


async def typed() -> AsyncIterator[str]:
    """The typed lines. Reads in a thread, which does not keep the program from ending."""
    rest = b""
    while chunk := await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


async def end_at_ctrl_c(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Cancels the scope at Ctrl-C, so that the program ends in an orderly way."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def _print(player: Player) -> None:
    while True:
        message = await player.receive()
        if message.get("subgroup") == player.instance or "error" in message:
            print(message.get("command"), json.dumps(message.get("error") or message["data"]))


async def _main(options: argparse.Namespace) -> None:
    async with httpx.AsyncClient(base_url=options.server) as http:
        token = await log_in(http, options.username, options.password)
    async with Player.connected(options.server, token) as player, trio.open_nursery() as nursery:
        joined = await player.join(options.instance)
        names = ", ".join(one["displayname"] for one in joined["players"])
        print(f"inside {joined['instance']} as {joined['player']}: {names}")
        nursery.start_soon(_print, player)
        await nursery.start(end_at_ctrl_c, nursery.cancel_scope)
        async for line in typed():
            await player.send({"say": line})
        nursery.cancel_scope.cancel()


def run(main: Any, *arguments: Any) -> None:
    """Runs `main`. Errors that the user can fix are shown in one line."""
    try:
        trio.run(main, *arguments)
    except* httpx.ConnectError:
        sys.exit(f"no server answers there: start one with `make serve` ({SERVER})")
    except* Refused as refused:
        sys.exit(f"refused: {_first(refused)}")
    except* trio_websocket.ConnectionClosed as closed:
        sys.exit(f"closed: {_first(closed)}")
    except* KeyboardInterrupt:
        pass


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal player of a Reileta server.")
    parser.add_argument("username")
    parser.add_argument("--instance", required=True, help="its id or its name")
    parser.add_argument("--password", default=PASSWORD)
    parser.add_argument("--server", default=SERVER)
    run(_main, parser.parse_args())
