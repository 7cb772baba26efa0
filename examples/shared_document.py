"""Edits a document together from two terminals, and goes on when the server was restarted.

    .venv/bin/python examples/shared_document.py ann
    .venv/bin/python examples/shared_document.py ann --session s_…

The first prints the session that the second joins: one session, one state, which all its sockets
share. Type `name value` to set a line of the document, `name` alone to take it out.
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
from player import PASSWORD, SERVER, Refused, log_in, run

GONE = (OSError, httpx.HTTPError, trio_websocket.ConnectionClosed, trio_websocket.HandshakeError)
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


class Document:
    """The state of a session, as this terminal knows it, and the edits that are not saved yet."""

    def __init__(self, server: str, username: str, password: str, session: str | None) -> None:
        self._server = server
        self._account = {"username": username, "password": password}
        self._session = session
        self._socket: trio_websocket.WebSocketConnection | None = None
        self._unsaved: dict[str, Json] = {}
        self._state: Json = {}

    async def edit(self, patch: Json) -> None:
        """Changes the document, now or when the server is back."""
        id_ = str(uuid.uuid4())
        self._unsaved[id_] = patch
        await self._send(id_, patch)

    async def _send(self, id_: str, patch: Json) -> None:
        payload = {"kind": "state", "patch": patch}
        text = message("event", id_, status="ok", reason=None, payload=payload)
        if self._socket is not None:
            with suppress(trio_websocket.ConnectionClosed):  # then it is sent again by and by
                await self._socket.send_message(text)

    async def stay_connected(self) -> None:
        """Connects, and connects again whenever the connection is lost."""
        wait_s = 0.2
        while True:
            try:
                token = await self._log_in()
                url = self._server.replace("http", "ws", 1) + "/ws/user"
                credential = [(b"Authorization", f"Bearer {token}".encode())]
                opened = trio_websocket.open_websocket_url(url, extra_headers=credential)
                async with opened as socket:
                    wait_s = 0.2
                    await self._talk(socket)
            except GONE:
                if self._session is None:
                    raise  # it never worked
                print("connection lost, trying again", flush=True)
            self._socket = None
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    async def _log_in(self) -> str:
        """A token of the session that this terminal had, or was told."""
        given = (
            self._account
            if self._session is None
            else {**self._account, "session_id": self._session}
        )
        async with httpx.AsyncClient(base_url=self._server) as http:
            if self._session is None:
                await log_in(http, **self._account)  # which makes the account when the name is free
            answer = (await http.post("/auth/login", json=given)).json()
        if "error" in answer:
            raise Refused(answer["message"])
        token = answer["token"]
        self._session = str(token["session"]["id"])
        return str(token["access"])

    async def _talk(self, socket: trio_websocket.WebSocketConnection) -> None:
        while True:
            said = json.loads(await socket.get_message())
            if said["type"] == "ack":
                # It is in the database.
                self._state = merge(self._state, self._unsaved.pop(said["id"], {}))
                self._show()
                continue
            payload = said["payload"]
            if payload["kind"] == "closing":
                continue
            await socket.send_message(message("ack", said["id"]))
            match payload["kind"]:
                case "hello":
                    self._socket = socket
                    self._state = payload["session"]["state"]
                    print(f"session {payload['session']['id']}", flush=True)
                    self._show()
                    # Whether these were saved is not known: a patch twice is as good as once.
                    unsaved, self._unsaved = self._unsaved, {}
                    for patch in unsaved.values():
                        await self.edit(patch)
                case "state":
                    self._state = merge(self._state, payload["patch"])
                    self._show()
                case "refused":
                    self._unsaved.pop(payload["event"], None)
                    print(f"refused: {said['reason']}", flush=True)

    def _show(self) -> None:
        lines = self._state.get("document", {})
        print(json.dumps(lines, sort_keys=True), flush=True)


async def _main(options: argparse.Namespace) -> None:
    document = Document(options.server, options.username, options.password, options.session)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(document.stay_connected)
        async for line in trio.wrap_file(sys.stdin):
            name, _, value = line.strip().partition(" ")
            if name:
                await document.edit({"document": {name: value or None}})
        await trio.sleep(0.5)  # for what was typed last
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Edits a shared document.")
    parser.add_argument("username")
    parser.add_argument("--session", help="the session to share, as the other terminal prints it")
    parser.add_argument("--password", default=PASSWORD)
    parser.add_argument("--server", default=SERVER)
    run(_main, parser.parse_args())
