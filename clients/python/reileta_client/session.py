"""The socket of the session API: the state that all sockets of a session share, and resources,
which one session at a time may write.

It connects again by itself while `run` runs, and sends what was not acknowledged again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import anyio.abc
import httpx
from httpx_ws import AsyncWebSocketSession

from reileta_client.credentials import CredentialKeeper
from reileta_client.errors import (
    ErrorCode,
    ProtocolError,
    Refused,
    ReiletaError,
    TimedOut,
)
from reileta_client.http import Http
from reileta_client.kept_socket import CREDENTIAL_GONE, LOST, KeptSocket
from reileta_client.merge_patch import merged

TIMEOUT_S: Final = 30.0
REPLACED: Final = 4009
NOT_TAKEN: Final = frozenset({1007, 1009, 4001, 4002, 4003, 4004, 4005})
"""Close codes that say that a message of the client is not one."""


@dataclass(eq=False, slots=True)
class _Sent:
    """An event that the server has not acknowledged."""

    payload: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    done: anyio.Event = field(default_factory=anyio.Event)
    error: ReiletaError | None = None

    def end(self, error: ReiletaError | None = None) -> None:
        self.error = error
        self.done.set()


@dataclass(eq=False, slots=True)
class Watched:
    """A resource as it is now, kept in step with the server.

    Attributes:
        current: the newest description, with `holder` and `access`.
        view: the whole content, for those who may acquire it.
        ended: why it is no longer watched.
    """

    type: str
    id: int
    changed: Callable[[Watched], object]
    current: dict[str, Any] = field(default_factory=dict)
    view: dict[str, Any] | None = None
    ended: str | None = None
    began: anyio.Event = field(default_factory=anyio.Event)


class SessionSocket(KeptSocket):
    """One socket after another.

    Events: `state` (the state), `resource` (the one that the session holds, or None), `queue` (a
    place in a waiting line), `server-notice` (what an admin tells everyone), `open` (whether it was
    open before), `lost` and `closed` (code, reason).
    """

    _path = "/ws/user"
    _subprotocol = "reileta.session"

    def __init__(self, client: httpx.AsyncClient, http: Http, keeper: CredentialKeeper) -> None:
        super().__init__(client, http, keeper)
        self.held: dict[str, Any] | None = None
        self._confirmed: dict[str, Any] = {}
        self._sent: list[_Sent] = []
        self._watches: dict[tuple[str, int], Watched] = {}
        self._wake = anyio.Event()
        self._to_write: list[str] = []

    @property
    def state(self) -> dict[str, Any]:
        """The state, with the own changes that are not acknowledged yet."""
        state: Any = self._confirmed
        for one in self._sent:
            if one.payload["kind"] == "state":
                state = merged(state, one.payload["patch"])
        return state if isinstance(state, dict) else {}

    async def patch(self, patch: Mapping[str, Any]) -> None:
        """Changes the state by a merge patch: None removes a member. Returns when it is stored.
        After a lost connection it is sent again. Raises Refused, ProtocolError, TimedOut."""
        await self._send({"kind": "state", "patch": dict(patch)})

    # Resources -----------------------------------------------------------------------------------

    async def acquire(
        self,
        type: str,  # noqa: A002 - the protocol's name
        number: int,
        *,
        wait: bool = False,
        on_queue: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        """Acquires a resource; with `wait`, stands in line until it is offered."""
        while True:
            try:
                await self._http.whole("POST", f"/resource/{type}/{number}/acquire")
            except Refused as refused:
                if not wait or refused.code != ErrorCode.ACQUIRED_BY_ANOTHER:
                    raise
            else:
                return
            await self._wait_in_line(type, number, on_queue)

    async def release(self, type: str, number: int) -> None:  # noqa: A002
        """Gives a resource back."""
        await self._http.whole("POST", f"/resource/{type}/{number}/release")

    async def write(
        self,
        type: str,  # noqa: A002
        number: int,
        *,
        version: int | None = None,
        **change: Any,
    ) -> dict[str, Any]:
        """Writes `title` or `data` by a merge patch, if the session holds the resource; with
        `version`, only if it has that one. Returns the resource."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        answer = await self._http.whole(
            "PATCH", f"/resource/{type}/{number}", body=change, headers=headers
        )
        resource: dict[str, Any] = answer["resource"]
        return resource

    async def watch(
        self,
        type: str,  # noqa: A002
        id: int,  # noqa: A002
        changed: Callable[[Watched], object] = lambda _: None,
    ) -> Watched:
        """Watches a resource; `changed` hears of each change. Raises Refused."""
        await self.ready()
        watched = self._watches[type, id] = Watched(type, id, changed)
        try:
            await self._send({"kind": "watch", "type": type, "id": id})
        except ReiletaError:
            self._watches.pop((type, id), None)
            raise
        await watched.began.wait()
        return watched

    async def unwatch(self, watched: Watched) -> None:
        if self._watches.pop((watched.type, watched.id), None) is not None:
            await self._send({"kind": "unwatch", "type": watched.type, "id": watched.id})

    async def _wait_in_line(
        self,
        type: str,  # noqa: A002
        number: int,
        on_queue: Callable[[dict[str, Any]], object] | None,
    ) -> None:
        await self.ready()
        path = f"/resource/{type}/{number}/queue"
        done = anyio.Event()
        ended: list[str] = []

        def changed(queue: dict[str, Any]) -> None:
            if (queue["type"], queue["id"]) != (type, number):
                return
            if on_queue is not None:
                on_queue(queue)
            reason = queue["reason"]
            if queue["offered_until"] is not None or reason in ("expired", "failed"):
                done.set()  # asks for it, and stands in line again if it is too late
            elif reason is not None and reason != "acquired":
                ended.append(reason)
                done.set()

        stop = self.on("queue", changed)
        try:
            answer = await self._http.whole("POST", path)
            if answer["queue"]["offered_until"] is None:
                await done.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(2), suppress(Exception):
                await self._http.whole("DELETE", path)
            raise
        finally:
            stop()
        if ended:
            raise ReiletaError(f"no longer in line: {ended[0]}")

    # Connecting ----------------------------------------------------------------------------------

    def _headers(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    def _opened(
        self, socket: AsyncWebSocketSession, token: str, tasks: anyio.abc.TaskGroup
    ) -> None:
        self._to_write = []
        tasks.start_soon(self._write_all, socket)

    def _refused(self, status: int) -> int:
        return status

    def _is_over(self, code: int) -> bool:
        return code == REPLACED

    def _is_doubtful(self, code: int) -> bool:
        return code in (CREDENTIAL_GONE, 401)

    def _lost(self, code: int, reason: str, wait: float) -> float:
        if code in NOT_TAKEN:
            # One of the messages was wrong: sent again, it would close the next socket.
            sent, self._sent = self._sent, []
            for one in sent:
                one.end(ProtocolError(reason or f"the server closed the socket with {code}"))
        self._emit("lost", {"code": code, "reason": reason})
        return wait

    def _closed(self, code: int, reason: str, error: ReiletaError) -> None:
        for one in self._sent:
            one.end(error)
        for watched in self._watches.values():
            watched.ended = str(error)
            watched.began.set()
        self._emit("closed", {"code": code, "reason": reason})

    async def _write_all(self, socket: AsyncWebSocketSession) -> None:
        """Writes what waits, in order."""
        while True:
            self._wake = anyio.Event()
            waiting, self._to_write = self._to_write, []
            for text in waiting:
                with suppress(*LOST):  # the reader notices
                    await socket.send_text(text)
            if not self._to_write:
                await self._wake.wait()

    # Messages ------------------------------------------------------------------------------------

    async def _send(self, payload: dict[str, Any]) -> None:
        if self.ended is not None:
            raise self.ended
        sent = _Sent(payload)
        self._sent.append(sent)
        if payload["kind"] == "state":
            self._emit("state", self.state)
        if self._ready.is_set():
            self._post(sent)
        try:
            with anyio.move_on_after(TIMEOUT_S):
                await sent.done.wait()
        finally:
            if sent in self._sent:
                self._sent.remove(sent)
        if not sent.done.is_set():
            raise TimedOut(f"{payload['kind']}: no answer within {TIMEOUT_S:g} s")
        if sent.error is not None:
            raise sent.error

    def _post(self, sent: _Sent) -> None:
        message = {"type": "event", "id": sent.id, "status": "ok", "reason": None}
        self._write({**message, "payload": sent.payload})

    def _write(self, message: dict[str, Any]) -> None:
        sent_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._to_write.append(json.dumps({**message, "sent_at": sent_at}))
        self._wake.set()

    def _receive(self, text: str) -> None:
        message = json.loads(text)
        if message["type"] == "ack":
            self._acknowledged(message["id"].lower())
            return
        payload = message["payload"]
        if payload["kind"] != "closing":
            self._write({"type": "ack", "id": message["id"]})
        match payload["kind"]:
            case "hello":
                self._hello(payload)
            case "state":
                self._confirmed = merged(self._confirmed, payload["patch"])
                self._emit("state", self.state)
            case "resource":
                self.held = payload["resource"]
                self._emit("resource", self.held)
            case "refused":
                self._taken(payload["event"].lower(), Refused.of(payload["error"]))
                self._emit("state", self.state)
            case "resource-updated":
                self._updated(payload)
            case "resource-unwatched":
                self._unwatched(payload)
            case "resource-queue":
                self._emit("queue", payload)
            case "server-notice":
                self._emit("server-notice", payload)

    def _hello(self, payload: dict[str, Any]) -> None:
        self._backoff.reset()
        self._confirmed, self.held = payload["session"]["state"], payload["session"]["resource"]
        again, self._opened_before = self._opened_before, True
        # What was not acknowledged may or may not be in this state: it is sent again, with new ids.
        asked = set()
        for sent in self._sent:
            sent.id = str(uuid.uuid4())
            asked.add((sent.payload["kind"], sent.payload.get("type"), sent.payload.get("id")))
            self._post(sent)
        for type_, id_ in self._watches:
            if ("watch", type_, id_) not in asked:
                self._post(_Sent({"kind": "watch", "type": type_, "id": id_}))
        self._ready.set()
        self._emit("open", again)
        self._emit("state", self.state)
        self._emit("resource", self.held)

    def _acknowledged(self, id_: str) -> None:
        sent = self._taken(id_)
        if sent is not None and sent.payload["kind"] == "state":
            self._confirmed = merged(self._confirmed, sent.payload["patch"])

    def _taken(self, id_: str, error: Refused | None = None) -> _Sent | None:
        for sent in self._sent:
            if sent.id == id_:
                self._sent.remove(sent)
                sent.end(error)
                return sent
        return None

    def _updated(self, update: dict[str, Any]) -> None:
        watched = self._watches.get((update["type"], update["id"]))
        if watched is None:
            return
        if "view" in update:
            watched.view = update["view"]
        elif "patch" in update:
            if watched.view is None or watched.view["version"] != update["from"]:
                # Not the copy that the patch belongs to: the answer has the whole view.
                self._post(_Sent({"kind": "watch", "type": watched.type, "id": watched.id}))
                return
            watched.view = merged(watched.view, update["patch"])
        watched.current = update
        watched.began.set()
        watched.changed(watched)

    def _unwatched(self, payload: dict[str, Any]) -> None:
        watched = self._watches.pop((payload["type"], payload["id"]), None)
        if watched is not None:
            watched.ended = payload["reason"]
            watched.began.set()
            watched.changed(watched)
