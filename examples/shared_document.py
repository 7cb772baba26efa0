"""Edits a document together in two terminals, and continues after a restart of the server.

    .venv/bin/python examples/shared_document.py ann_example
    .venv/bin/python examples/shared_document.py ann_example --session s_…

The first prints its session, and the second joins that session: all sockets of a session share its
state. With `--document`, the terminals are sessions of their own that watch one document:

    .venv/bin/python examples/shared_document.py ann_example --document new
    .venv/bin/python examples/shared_document.py ann_example --document 17

All of them show each change. Who types a line waits for the document and edits it when it is
offered; an empty line hands it to the next in line.

Type `name value` to set a line of the document, `name` alone to remove it. Lines that you type
while the server is down are kept, and sent when it is back.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import trio
import trio_websocket
from player import (
    PASSWORD,
    Refused,
    answer_in,
    arguments,
    end_at_ctrl_c,
    register,
    rejection,
    run,
    typed,
)

GONE = (OSError, httpx.HTTPError, trio_websocket.ConnectionClosed, trio_websocket.HandshakeError)
HOPELESS = {1009, 4001, 4002, 4003, 4004, 4005}
"""Close codes after which another try would fail in the same way, because of what was sent."""
HELP = "Type `name value` to set a line, `name` alone to take it out; Ctrl-D ends."
LOST = "connection lost, trying again"
LEAVE_S = 30.0
"""Time limit at the end for lines that are not saved yet."""
Json = dict[str, Any]


def merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def message(kind: str, id_: str, **rest: Any) -> str:
    """An Event or an Ack."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f%z")
    return json.dumps({"type": kind, "id": id_, "sent_at": now, **rest})


class Login:
    """A user's token of one session."""

    def __init__(self, server: str, username: str, password: str, session: str | None) -> None:
        self.server = server
        self.session = session
        self.access = ""
        self._account = {"username": username, "password": password}
        self._refresh = ""
        self._good_s = 0.0

    async def log_in(self) -> None:
        """Gets a token of the session, or of a new one; creates the account if that fails."""
        given = {**self._account, "session_id": self.session}
        try:
            answer = await self._ask("/auth/login", given)
        except Refused as refused:
            async with httpx.AsyncClient(base_url=self.server) as http:
                await register(http, **self._account, refused=refused)
            answer = await self._ask("/auth/login", given)
        opened = answer["token"]["session"]["id"]
        if self.session not in (None, opened):
            raise Refused(f"{self.session} is not an open session of {self._account['username']}")
        self.session = opened
        self._take(answer)

    async def stay_good(self) -> None:
        """Refreshes the token in time. Without a token, the session and its state would end."""
        while True:
            await trio.sleep(self._good_s / 2)
            with suppress(Refused, *GONE):  # the next connection, or the next try, will do it
                self._take(await self._ask("/auth/refresh", {"refresh": self._refresh}))

    def _take(self, answer: Json) -> None:
        token = answer["token"]
        self.access, self._refresh = token["access"], token["refresh"]
        expires = datetime.fromisoformat(token["access_expires"]).timestamp()
        self._good_s = expires - answer["time"] / 1000  # by the server's own clock

    async def _ask(self, path: str, body: Json) -> Json:
        async with httpx.AsyncClient(base_url=self.server) as http:
            response = await http.post(path, json=body)
        if response.status_code == 429 or response.is_server_error:
            response.raise_for_status()  # try again later
        return answer_in(response)


class Document:
    """The state of a session as this terminal knows it, and the lines that are not saved yet."""

    def __init__(self, login: Login) -> None:
        self.saved = trio.Event()
        self.saved.set()
        self._login = login
        self._socket: trio_websocket.WebSocketConnection | None = None
        self._state: Json = {}
        self._typed: Json = {}
        """Lines that must still be sent; None removes one."""
        self._sent: Json = {}
        """Lines in the event `_event`, which has no Ack yet."""
        self._event = ""

    async def edit(self, name: str, value: str | None) -> None:
        """Sets or removes a line, now or when the server is back."""
        self._typed[name] = value
        self.saved = trio.Event()
        await self._send()

    async def _send(self) -> None:
        """Sends the lines typed since the last event, once that has its Ack."""
        if self._socket is None or self._sent or not self._typed:
            return
        self._sent, self._typed, self._event = self._typed, {}, str(uuid.uuid4())
        payload = {"kind": "state", "patch": {"document": self._sent}}
        text = message("event", self._event, status="ok", reason=None, payload=payload)
        with suppress(trio_websocket.ConnectionClosed):  # it is sent again after the next connect
            await self._socket.send_message(text)

    async def stay_connected(self) -> None:
        """Connects, and again whenever the connection is lost."""
        wait_s = 0.2
        while True:
            try:
                await self._connect()
            except GONE as gone:
                if getattr(getattr(gone, "reason", None), "code", 0) in HOPELESS:
                    raise
            if self._socket is not None:
                self._socket, wait_s = None, 0.2
                print(LOST, flush=True)
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    async def _connect(self) -> None:
        """Opens a socket with the present token, and talks until it ends."""
        url = self._login.server.replace("http", "ws", 1) + "/ws/user"
        credential = [(b"Authorization", f"Bearer {self._login.access}".encode())]
        try:
            async with trio_websocket.open_websocket_url(url, extra_headers=credential) as socket:
                await self._talk(socket)
        except trio_websocket.ConnectionRejected as rejected:
            if rejected.status_code == 401:  # the token is not valid any more; the session may be
                await self._login.log_in()
            elif rejected.status_code not in (409, 429) and rejected.status_code < 500:
                raise rejection(rejected) from None

    async def _talk(self, socket: trio_websocket.WebSocketConnection) -> None:
        while True:
            received = json.loads(await socket.get_message())
            if received["type"] == "ack":
                if received["id"] == self._event:
                    await self._settled()
                continue
            payload = received["payload"]
            if payload["kind"] == "closing":
                continue
            await socket.send_message(message("ack", received["id"]))
            match payload["kind"]:
                case "hello":
                    self._socket = socket
                    self._state = payload["session"]["state"]
                    print(f"session {payload['session']['id']}", flush=True)
                    self._show()
                    # Unknown whether these were saved. Sending a patch twice is harmless.
                    self._typed, self._sent = {**self._sent, **self._typed}, {}
                    await self._send()
                case "state":
                    self._state = merge(self._state, payload["patch"])
                    self._show()
                case "refused" if payload["event"] == self._event:
                    print(f"refused: {received['reason']}", flush=True)
                    self._sent = {}  # the Ack that follows means only that this was said

    async def _settled(self) -> None:
        """Call when the event has its Ack: it is in the database, or was refused before."""
        if self._sent:
            self._state = merge(self._state, {"document": self._sent})
            self._show()
        self._sent, self._event = {}, ""
        if not self._typed:
            self.saved.set()
        await self._send()

    def _show(self) -> None:
        lines = self._state.get("document", {})
        print(json.dumps(lines, sort_keys=True), flush=True)


class WatchedDocument:
    """A document that this terminal watches, and edits when it is its turn.

    `take_turns` alone waits, edits and hands over, so that nothing is asked twice at the same time.
    """

    def __init__(self, login: Login, number: str) -> None:
        self.done = trio.Event()
        """Set while nothing is left to be saved or handed over."""
        self._login = login
        self._number = number
        self._view: Json = {}
        self._typed: Json = {}
        """Lines that are not saved yet; None removes one."""
        self._holds = self._offered = self._hands_over = False
        self._todo = trio.Event()

    def edit(self, name: str, value: str | None) -> None:
        """Sets or removes a line when this session can edit the document."""
        self._typed[name] = value
        self._hands_over = False
        self._go_on()

    def hand_over(self) -> None:
        """Releases the document when all is saved; it is offered to the next in line."""
        self._hands_over = True
        self._go_on()

    def _go_on(self) -> None:
        self.done = trio.Event()
        self._todo.set()

    async def take_turns(self) -> None:
        """Does what is to be done, and again when the server could not be reached."""
        while True:
            await self._todo.wait()
            self._todo = trio.Event()
            try:
                await self._take_turn()
            except GONE:
                await trio.sleep(0.5)
                self._todo.set()

    async def _take_turn(self) -> None:
        if self._typed and not self._holds:
            await self._acquire()
        if self._typed and self._holds:
            sent = dict(self._typed)
            if await self._ask("PATCH", "", {"data": sent}, but=(113, 115)) is None:
                self._holds = False  # it was away for too long: it waits again
                self._todo.set()
                return
            for name, value in sent.items():
                if self._typed[name] == value:
                    del self._typed[name]
        if self._hands_over and self._holds and not self._typed:
            await self._ask("POST", "/release", but=(113,))
            self._holds = False
            print("handed over", flush=True)
        if not self._typed and not (self._hands_over and self._holds):
            self.done.set()

    async def _acquire(self) -> None:
        """Acquires the document if it is offered, and waits in line if it is not."""
        if not self._offered:
            waits = await self._ask("POST", "/queue", but=(114,))
            if waits is None:
                await self._look()
                return
            self._offered = waits["queue"]["offered_until"] is not None
        if self._offered:
            self._offered = False
            if await self._ask("POST", "/acquire", but=(113, 114)) is None:
                await self._look()
            else:
                self._holds = True
                print("it is your turn", flush=True)

    async def _look(self) -> None:
        """Asks what this session holds, after an answer that was lost."""
        has = (await self._request("GET", "/session"))["session"]["resource"]
        self._holds = self._is_this(has)
        if has is not None and not self._holds:
            raise Refused("this session holds another resource")
        self._todo.set()

    def _is_this(self, resource: Json | None) -> bool:
        return resource is not None and str(resource["id"]) == self._number

    async def create(self) -> None:
        """Creates the document if it is a new one."""
        if self._number == "new":
            made = await self._request("POST", "/resource/document", {"title": "Notes", "data": {}})
            self._number = str(made["resource"]["id"])
        print(f"document {self._number}", flush=True)

    async def follow(self) -> None:
        """Watches the document, and again whenever the connection is lost."""
        while True:
            try:
                await self._follow()
            except trio_websocket.ConnectionRejected as rejected:
                if rejected.status_code == 401:
                    await self._login.log_in()
            except GONE as gone:
                if getattr(getattr(gone, "reason", None), "code", 0) in HOPELESS:
                    raise
                if self._view:
                    print(LOST, flush=True)
            self._view = {}
            await trio.sleep(0.5)

    async def _follow(self) -> None:
        url = self._login.server.replace("http", "ws", 1) + "/ws/user"
        credential = [(b"Authorization", f"Bearer {self._login.access}".encode())]
        async with trio_websocket.open_websocket_url(url, extra_headers=credential) as socket:
            payload = {"kind": "watch", "type": "document", "id": int(self._number)}
            fields = {"status": "ok", "reason": None, "payload": payload}
            await socket.send_message(message("event", str(uuid.uuid4()), **fields))
            while True:
                received = json.loads(await socket.get_message())
                if received["type"] == "event" and received["payload"]["kind"] != "closing":
                    await socket.send_message(message("ack", received["id"]))
                    await self._take(received["payload"])

    async def _take(self, payload: Json) -> None:
        match payload["kind"]:
            case "hello":  # the server may have forgotten the line
                self._holds = self._is_this(payload["session"]["resource"])
                self._offered = False
                self._todo.set()
            case "resource":
                self._holds = self._is_this(payload["resource"])
                self._todo.set()
            case "resource-updated":
                if "view" in payload:
                    self._view = payload["view"]
                elif payload["from"] == self._view["version"]:
                    self._view = merge(self._view, payload["patch"])
                else:  # a gap
                    found = await self._ask("GET", "/preview?data=true")
                    assert found is not None
                    self._view = found["resource"]
                holder = payload["holder"]
                name = "nobody" if holder is None else holder["user"]["username"]
                lines = json.dumps(self._view["data"], sort_keys=True)
                print(f"{lines} (edited by {name})", flush=True)
            case "resource-queue":
                self._offered = payload["offered_until"] is not None
                if payload["position"] is not None and not self._offered:
                    print(f"waiting, position {payload['position']}", flush=True)
                self._todo.set()
            case "resource-unwatched":
                raise Refused(f"the document can't be watched any more: {payload['reason']}")
            case "refused":
                raise Refused(payload["error"]["message"])

    async def _ask(
        self, method: str, path: str, body: Json | None = None, *, but: tuple[int, ...] = ()
    ) -> Json | None:
        """The answer; None for an error with one of these codes."""
        path = f"/resource/document/{self._number}{path}"
        answer: Json | None = await self._request(method, path, body, but=but)
        return answer

    async def _request(
        self, method: str, path: str, body: Json | None = None, *, but: tuple[int, ...] = ()
    ) -> Any:
        async with httpx.AsyncClient(base_url=self._login.server) as http:
            headers = {"Authorization": f"Bearer {self._login.access}"}
            response = await http.request(method, path, json=body, headers=headers)
        if response.status_code == 401:
            await self._login.log_in()
        if response.status_code in (401, 429) or response.is_server_error:
            response.raise_for_status()  # try again later
        answer = response.json()
        if "error" in answer and answer["error"]["code"] in but:
            return None
        return answer_in(response)


async def _watch(login: Login, number: str) -> None:
    document, saved = WatchedDocument(login, number), True
    await document.create()
    async with trio.open_nursery() as nursery:
        await nursery.start(end_at_ctrl_c, nursery.cancel_scope)
        nursery.start_soon(document.follow)
        nursery.start_soon(document.take_turns)
        nursery.start_soon(login.stay_good)
        async for line in typed():
            name, _, value = line.strip().partition(" ")
            if name:
                document.edit(name, value or None)
            else:
                document.hand_over()
        document.hand_over()
        saved = False
        with trio.move_on_after(LEAVE_S):
            await document.done.wait()
            saved = True
        nursery.cancel_scope.cancel()
    if not saved:
        sys.exit("the last lines are not saved")


async def _main(options: argparse.Namespace) -> None:
    login = Login(options.server, options.username, options.password, options.session)
    document = Document(login)
    await login.log_in()
    if options.document is not None:
        await _watch(login, options.document)
        return
    if sys.stdin.isatty():
        print(HELP, file=sys.stderr)
    saved = True
    async with trio.open_nursery() as nursery:
        await nursery.start(end_at_ctrl_c, nursery.cancel_scope)
        nursery.start_soon(document.stay_connected)
        nursery.start_soon(login.stay_good)
        async for line in typed():
            name, _, value = line.strip().partition(" ")
            if name:
                await document.edit(name, value or None)
        saved = False
        with trio.move_on_after(LEAVE_S):
            await document.saved.wait()
            saved = True
        nursery.cancel_scope.cancel()
    if not saved:
        sys.exit("the last lines are not saved")


if __name__ == "__main__":
    parser = arguments("Edits a shared document.")
    parser.add_argument("username", help="created if it does not exist")
    parser.add_argument("--session", help="the session to share, as the other terminal prints it")
    parser.add_argument("--document", help="its number, or `new`: watch it, and edit it in turn")
    parser.add_argument("--password", default=PASSWORD, help=f"if not '{PASSWORD}'")
    run(_main, parser.parse_args())
