"""A minimal player: logs in, joins an instance, sends what you type, prints what others send.

    .venv/bin/python examples/player.py ann_example --instance NAME

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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
import trio_websocket

SERVER = "http://127.0.0.1:3032"
HINT = "start a server with `make serve`, or name another with --server"
"""The advice if the server does not answer."""
PASSWORD = "only an example"  # noqa: S105 - not a secret: the account of an example
INVALID_INPUT, INVALID_LOGIN = 22, 23
"""The error codes of a login that are not final: the account may not exist yet."""


class Refused(Exception):
    """The server refused a request. The text is its error message."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def refusal(error: dict[str, Any]) -> Refused:
    """The exception for an error of the server, with its details."""
    details = (f"{one['field']} {one['message']}" for one in error.get("details", []))
    reasons = "; ".join(details)
    message: str = error["message"]
    return Refused(f"{message}: {reasons}" if reasons else message, error["code"])


def answer_in(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in the body of an answer. Raises Refused if it holds an error."""
    try:
        answer: dict[str, Any] = response.json()
        refused = refusal(answer["error"]) if "error" in answer else None
    except (ValueError, TypeError, LookupError):
        raise Refused(f"{response.url} does not belong to a Reileta server") from None
    if refused is not None:
        raise refused
    return answer


def rejection(rejected: trio_websocket.ConnectionRejected) -> Refused:
    """The exception for a refused upgrade to WebSocket."""
    try:
        return refusal(json.loads(rejected.body or b"")["error"])
    except (ValueError, TypeError, LookupError):
        return Refused(f"status {rejected.status_code}")


async def call(http: httpx.AsyncClient, method: str, path: str, **body: Any) -> dict[str, Any]:
    """Calls the HTTP API and returns the answer's `data`."""
    answer = answer_in(await http.request(method, path, json=body or None))
    data: dict[str, Any] = answer["data"]
    return data


async def log_in(http: httpx.AsyncClient, username: str, password: str = PASSWORD) -> str:
    """Logs in; creates the account if that fails. Returns the token."""
    try:
        session = await call(http, "POST", "/api/auth/login", username=username, password=password)
    except Refused as refused:
        session = await register(http, username, password, refused)
    token: str = session["token"]
    return token


async def register(
    http: httpx.AsyncClient, username: str, password: str, refused: Refused
) -> dict[str, Any]:
    """Creates the account whose login was refused, unless the account exists."""
    if refused.code not in (INVALID_INPUT, INVALID_LOGIN):
        raise refused
    try:
        return await call(http, "POST", "/api/auth/register", username=username, password=password)
    except Refused as second:
        raise Refused(f"{refused}; a new account is refused, too: {second}") from None


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
            raise refusal(message["error"])
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


async def stay(player: Player, instance: str) -> None:
    """Joins, sends what is typed, and prints what others send, until the input ends."""
    joined = await player.join(instance)
    names = ", ".join(one["displayname"] for one in joined["players"])
    print(f"inside {joined['instance']} as {joined['player']}: {names}", flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_print, player)
        await nursery.start(end_at_ctrl_c, nursery.cancel_scope)
        async for line in typed():
            await player.send({"say": line})
        nursery.cancel_scope.cancel()


async def _print(player: Player) -> None:
    while True:
        message = await player.receive()
        if message.get("subgroup") == player.instance or "error" in message:
            print(
                message.get("command"),
                json.dumps(message.get("error") or message["data"]),
                flush=True,
            )


async def _main(options: argparse.Namespace) -> None:
    async with httpx.AsyncClient(base_url=options.server) as http:
        token = await log_in(http, options.username, options.password)
    async with Player.connected(options.server, token) as player:
        await stay(player, options.instance)


def run(main: Callable[[argparse.Namespace], Awaitable[None]], options: argparse.Namespace) -> None:
    """Runs `main`. Errors that the user can do something about are shown in one line."""
    reason = ""
    try:
        trio.run(main, options)
    except* KeyboardInterrupt:
        pass
    except* BrokenPipeError:  # nobody reads the output any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except* EXPECTED as errors:
        reason = _reason(_first(errors), options.server, options.hint)
    if reason:
        sys.exit(reason)


EXPECTED = (
    Refused,
    httpx.HTTPError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    OSError,
)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _reason(error: BaseException, server: str, hint: str) -> str:
    match error:
        case Refused():
            return f"refused: {error}"
        case httpx.HTTPStatusError():
            return f"refused: {error.response.status_code} {error.response.reason_phrase}"
        case trio_websocket.ConnectionRejected():
            return f"refused: {rejection(error)}"
        case trio_websocket.ConnectionClosed(reason=trio_websocket.CloseReason() as reason):
            return f"closed: {reason.code} {reason.reason or reason.name}"
    details = str(error) or type(error).__name__
    return f"no answer from {server} ({details}): {hint}"


def url(text: str) -> str:
    """An argument of the command line: a server's URL."""
    try:
        parts = httpx.URL(text)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"must be a URL such as {SERVER}")
    return text.rstrip("/")


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all examples have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server", type=url, default=SERVER, help=f"its URL (if not {SERVER})")
    parser.set_defaults(hint=HINT)
    return parser


if __name__ == "__main__":
    parser = arguments("A minimal player of a Reileta server.")
    parser.add_argument("username", help="created if it does not exist")
    parser.add_argument("--instance", required=True, help="its id or its name")
    parser.add_argument("--password", default=PASSWORD, help=f"if not '{PASSWORD}'")
    run(_main, parser.parse_args())
