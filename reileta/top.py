"""Live figures of a server in the terminal: what `reileta top` does.

It watches over one socket of `/api/ws`, as the console does, and connects again by itself.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

Json = dict[str, Any]

ANSWER_S: Final = 10.0
PAUSE_LIMIT_S: Final = 10.0
SHOWN: Final = 30
"""Instances that are asked for; the terminal shows as many as fit."""
KEPT: Final = 180
BARS: Final = "▁▂▃▄▅▆▇█"
NOT_ADMIN: Final = 4
"""The code of `PermissionDenied`."""
MESSAGE_BYTES: Final = 8 * 1024 * 1024
FIGURES: Final = (
    ("players", "players", "{:,.0f}"),
    ("messages in/s", "messages_in_per_s", "{:,.0f}"),
    ("deliveries/s", "deliveries_per_s", "{:,.0f}"),
    ("processor", "cpu", "{:.0%}"),
    ("late by, ms", "lag_ms", "{:,.1f}"),
    ("wait, ms", "wait_ms", "{:,.2f}"),
    ("requests/s", "requests_per_s", "{:,.1f}"),
    ("backlog, KiB", "backlog_bytes", "{:,.0f}"),
)


class TopError(Exception):
    """It can't go on; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a server is, over HTTP and as a WebSocket."""

    http: str
    socket: str


def server_at(url: str) -> ServerUrl:
    """The server at a URL. Raises ValueError, with a message for the operator."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError("must be like http://127.0.0.1:3032 or https://play.example.org")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return ServerUrl(base, "ws" + base.removeprefix("http") + "/api/ws")


@dataclass(slots=True)
class TopState:
    """What the server has shown so far."""

    nodes: list[Json] = field(default_factory=list)
    instances: list[Json] = field(default_factory=list)
    total: int = 0
    series: dict[str, deque[float]] = field(default_factory=dict)
    connected: bool = False

    def take(self, data: Json) -> None:
        """Takes the data of an `admin-figures`."""
        self.nodes = data.get("nodes", {}).get("nodes", self.nodes)
        page = data.get("instances")
        if page is not None:
            self.instances, self.total = page["items"], page["total"]
        for name, values in data.get("figures", {}).get("series", {}).items():
            self.series.setdefault(name, deque(maxlen=KEPT)).extend(values)

    def restart(self) -> None:
        """A new socket shows all samples again."""
        self.series.clear()


def printable(text: str) -> str:
    """The text without what a terminal would obey: names are what users have chosen."""
    return "".join(one if one.isprintable() else "?" for one in text)


def sparkline(values: list[float], width: int) -> str:
    """The newest values as bars; the highest one fills its cell."""
    newest = values[-width:]
    top = max(newest, default=0.0)
    if top <= 0:
        return BARS[0] * len(newest)
    return "".join(BARS[round(max(0.0, value) / top * (len(BARS) - 1))] for value in newest)


def picture(state: TopState, height: int) -> RenderableType:
    """What the terminal shows now. `height`: its lines."""
    nodes = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("node", "state", "players", "instances", "sockets", "cpu", "memory", "crashes"):
        nodes.add_column(name, justify="left" if name in ("node", "state") else "right")
    for one in state.nodes[: max(1, height // 4)]:
        style = {"ready": "green", "unready": "yellow"}.get(one["state"], "red")
        nodes.add_row(
            Text(printable(one["name"])),
            Text(printable(str(one.get("reason", one["state"]))), style=style),
            f"{one['players']:,}",
            f"{one['instances']:,}",
            f"{one['sockets']:,}",
            f"{one['cpu']:.0%}",
            f"{one['memory_bytes'] / 2**20:,.0f} MiB",
            Text(f"{one['crashes']:,}", style="red" if one["crashes"] else ""),
        )
    figures = Table(box=None, pad_edge=False, show_header=False, expand=True)
    figures.add_column(width=14)
    figures.add_column(justify="right", width=10)
    figures.add_column(ratio=1, no_wrap=True)
    for title, name, shape in FIGURES:
        values = list(state.series.get(name, ()))
        newest = values[-1] if values else 0.0
        if name == "backlog_bytes":
            newest /= 1024
        bars = Text(sparkline(values, 60), style="cyan", overflow="crop")
        figures.add_row(title, shape.format(newest), bars)
    instances = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    instances.add_column(f"instance ({state.total:,})", ratio=1, no_wrap=True)
    for name in ("seats", "queue", "msgs/s", "drain", "wait ms", "backlog", "restarts"):
        instances.add_column(name, justify="right")
    room = max(1, height - len(FIGURES) - min(len(state.nodes), max(1, height // 4)) - 6)
    for one in state.instances[:room]:
        instances.add_row(
            Text(printable(str(one["title"] or one["name"] or one["id"]))),
            f"{one['connected']}/{one['capacity']}",
            str(one["queued"]),
            _rate(one, "messages_per_s"),
            _rate(one, "drain_size"),
            _rate(one, "wait_ms"),
            f"{one['backlog_bytes']:,}",
            Text(str(one["restarts"]), style="red" if one["restarts"] else ""),
        )
    head = Text("Reileta", style="bold")
    head.append(
        "  live" if state.connected else "  reconnecting …",
        "green bold" if state.connected else "red bold",
    )
    return Group(head, Text(), nodes, Text(), figures, Text(), instances)


def _rate(row: Json, name: str) -> str:
    return f"{row[name]:,.1f}" if name in row else "…"


def _command(state: int, command: str, data: Json) -> str:
    return json.dumps({"state": state, "command": command, "data": data})


class Watcher:
    """A watch of a server, with the token of an admin, or its username and password."""

    def __init__(self, server: ServerUrl, token: str | None, login: tuple[str, str] | None) -> None:
        self._server = server
        self._token = token
        self._login = login
        self.state = TopState()

    def updates(self, watch: Json) -> Generator[TopState]:
        """The state after each update, and when the connection is lost; for ever.

        Raises TopError: the login or the token is refused, or the user is not an admin.
        """
        pause_s = 0.5
        while True:
            try:
                for state in self._updates(watch):
                    pause_s = 0.5
                    yield state
            except (OSError, WebSocketException, TimeoutError) as error:
                if not self.state.nodes:
                    raise TopError(f"{self._server.http} does not answer: {error}") from None
            self.state.connected = False
            yield self.state
            time.sleep(pause_s)
            pause_s = min(PAUSE_LIMIT_S, pause_s * 2)

    def _updates(self, watch: Json) -> Generator[TopState]:
        known = self._token
        token = self._token = known or self._logged_in()
        with connect(self._server.socket, open_timeout=ANSWER_S, max_size=MESSAGE_BYTES) as socket:
            socket.send(_command(1, "authenticate", {"token": token}))
            error = self._answer(socket.recv, 1)
            if error is not None and known is not None and self._login is not None:
                self._token = None  # its time is over: log in again
                return
            self._ensure_none(error)
            socket.send(_command(2, "admin-watch", watch))
            self._ensure_none(self._answer(socket.recv, 2))
            self.state.restart()
            for text in socket:
                message = json.loads(text)
                if message.get("command") == "admin-figures":
                    self.state.take(message["data"])
                    self.state.connected = True
                    yield self.state

    def _answer(self, receive: Callable[[float], str | bytes], state: int) -> Json | None:
        """Waits for the answer to a command; returns its error, if it is one."""
        while True:
            message = json.loads(receive(ANSWER_S))
            if message.get("state") == state:
                error: Json | None = message.get("error")
                return error

    @staticmethod
    def _ensure_none(error: Json | None) -> None:
        """Raises TopError if a command was refused."""
        if error is None:
            return
        if error["code"] == NOT_ADMIN:
            raise TopError("the user is not an admin of the server")
        raise TopError(printable(error["message"]))

    def close(self) -> None:
        """Ends the session that a login here began."""
        if self._login is None or self._token is None:
            return
        request = urllib.request.Request(  # noqa: S310
            f"{self._server.http}/api/auth/logout",
            method="DELETE",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=ANSWER_S):  # noqa: S310
            pass

    def _logged_in(self) -> str:
        """The token of a new session. Raises TopError."""
        assert self._login is not None
        username, password = self._login
        request = urllib.request.Request(  # noqa: S310 - `server_at` lets only HTTP through
            f"{self._server.http}/api/auth/login",
            data=json.dumps({"username": username, "password": password}).encode(),
            headers={"Content-Type": "application/json"},
        )
        context = ssl.create_default_context() if request.type == "https" else None
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S, context=context) as answer:  # noqa: S310
                token: str = json.load(answer)["data"]["token"]
        except urllib.error.HTTPError as refused:
            if refused.code >= 500 and self.state.nodes:
                raise  # it comes back
            try:
                message = json.load(refused)["error"]["message"]
            except (ValueError, LookupError):
                message = f"the server answers {refused.code}"
            raise TopError(printable(message)) from None
        except (ValueError, LookupError):
            raise TopError(f"{self._server.http} is not a Reileta server") from None
        return token


def show(watcher: Watcher, *, sort: str, every_ms: int, once: bool) -> None:
    """Shows the figures until Ctrl-C; `once`: the first that have rates. Raises TopError."""
    watch: Json = {
        "topics": [
            {"topic": "nodes"},
            {"topic": "figures"},
            {"topic": "instances", "sort": sort, "limit": SHOWN},
        ],
        "every_ms": every_ms,
    }
    console = Console()
    if once:
        for seen, state in enumerate(watcher.updates(watch)):
            if seen == 2:  # by then there are rates
                console.print(picture(state, 60))
                return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for state in watcher.updates(watch):
            live.update(picture(state, console.height), refresh=True)
