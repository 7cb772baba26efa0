"""One user at one server: the way into this package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc
import httpx

from reileta_client.connection import Connection
from reileta_client.credentials import CredentialKeeper, Credentials
from reileta_client.errors import Disconnected, ErrorCode, QueueEnded, Refused
from reileta_client.http import Http
from reileta_client.room import Room
from reileta_client.session import SessionSocket

NEEDS_A_SEAT: Final = frozenset({ErrorCode.INSTANCE_FULL, ErrorCode.NOT_ALLOWED})
TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A place in the queue. `position` counts from 1; None while an invitation is needed. `queued`:
    how many wait, as far as it is known."""

    state: str
    position: int | None
    queued: int | None = None


class Client:
    """The user's access to a server: the credential, one connection, and the rooms. Made by
    `connect`."""

    def __init__(self, client: httpx.AsyncClient, tasks: anyio.abc.TaskGroup) -> None:
        self._client = client
        self._tasks = tasks
        self.credentials = CredentialKeeper()
        self.http = Http(client, lambda: self.token)
        self._connection: Connection | None = None
        self._session: SessionSocket | None = None
        tasks.start_soon(self.credentials.run, self.http)

    @property
    def token(self) -> str | None:
        current = self.credentials.current
        return None if current is None else current.token

    async def login(self, username: str, password: str) -> dict[str, Any]:
        """Logs in; an earlier session that is still alive continues. Returns the user."""
        body = {"username": username, "password": password}
        if self.credentials.current is not None:
            body["session_id"] = self.credentials.current.session
        return await self._take("/api/auth/login", body)

    async def register(
        self, username: str, password: str, displayname: str | None = None
    ) -> dict[str, Any]:
        """Makes an account. Returns the user."""
        body = {"username": username, "password": password}
        if displayname is not None:
            body["displayname"] = displayname
        return await self._take("/api/auth/register", body)

    async def register_temporarily(self, displayname: str | None = None) -> dict[str, Any]:
        """Makes a temporary account, if the server does that: it looks around, and makes nothing.
        Returns the user."""
        body = {} if displayname is None else {"displayname": displayname}
        return await self._take("/api/auth/temporary", body)

    async def keep_account(
        self, username: str, password: str, displayname: str | None = None
    ) -> dict[str, Any]:
        """Makes the temporary account a full one. Its session goes on. Returns the user."""
        body = {"username": username, "password": password}
        if displayname is not None:
            body["displayname"] = displayname
        user: dict[str, Any] = await self.http.post("/api/users/@me", body)
        return user

    async def enter(self, username: str, password: str) -> dict[str, Any]:
        """Logs in, or makes the account if there is none."""
        try:
            return await self.login(username, password)
        except Refused as refused:
            if refused.code != ErrorCode.LOGIN_INVALID:
                raise
            try:
                return await self.register(username, password)
            except Refused as second:
                # The name is taken: the password was wrong.
                raise (refused if second.code == ErrorCode.AUTH_INVALID else second) from None

    async def logout(self) -> None:
        """Ends the session: its rooms, sockets and keys."""
        try:
            if self.token is not None:
                await self.http.delete("/api/auth/logout")
        except Refused as refused:
            if refused.status != 401:
                raise
        self.credentials.set(None)

    @property
    def connection(self) -> Connection:
        """The socket of the registry API, opened at first use."""
        if self._connection is None or self._connection.ended is not None:
            connection = self._connection = Connection(self._client, self.http, self.credentials)
            self._tasks.start_soon(connection.run)
        return self._connection

    @property
    def session(self) -> SessionSocket:
        """The socket of the session API, opened at first use: the state and the resources."""
        if self._session is None or self._session.ended is not None:
            session = self._session = SessionSocket(self._client, self.http, self.credentials)
            self._tasks.start_soon(session.run)
        return self._session

    async def join(
        self,
        instance: str,
        *,
        wait: bool = False,
        on_queue: Callable[[Standing], object] | None = None,
    ) -> Room:
        """Goes into an instance, by its id or name. With `wait`, stands in line while it is full or
        an invitation is needed; `on_queue` hears of the place. A cancellation leaves the line."""
        while True:
            rooms: list[Room] = []
            connection = self.connection

            def enter(
                welcome: Any, connection: Connection = connection, rooms: list[Room] = rooms
            ) -> None:
                rooms.append(Room(connection, welcome))

            try:
                await connection.request("instance-join", {"instance": instance}, answered=enter)
            except Refused as refused:
                if not wait or refused.code not in NEEDS_A_SEAT:
                    raise
            else:
                self._tasks.start_soon(rooms[0].run)
                return rooms[0]
            await self._wait_for_seat(instance, on_queue)

    async def _wait_for_seat(
        self, instance: str, on_queue: Callable[[Standing], object] | None
    ) -> None:
        connection = self.connection
        id_ = (await self.http.get(f"/api/instances/{instance}"))["id"]
        path = f"/api/instances/{id_}/candidate"
        done = anyio.Event()
        ended: list[Exception] = []
        told = 0
        """How much the socket has told. What it tells while an answer is on its way is newer."""

        def look(entry: dict[str, Any], queued: int | None = None) -> None:
            if entry["state"] == "admitted":
                done.set()
            elif on_queue is not None and not done.is_set():
                on_queue(Standing(entry["state"], entry.get("position"), queued))

        def answered(since: int, entry: dict[str, Any]) -> None:
            if told == since or entry["state"] == "admitted":
                look(entry)

        def end(error: Exception) -> None:
            ended.append(error)
            done.set()

        def changed(message: dict[str, Any]) -> None:
            nonlocal told
            data, user = message["data"], connection.user
            mine = user is not None and data["user"].startswith(f"{user['id']}@")
            if message["subgroup"] != id_ or not mine:
                return
            told += 1
            if data["entry"] is not None:
                look(data["entry"])
            elif data["reason"] in ("expired", "joined"):
                done.set()
            else:
                end(QueueEnded(data["reason"]))

        def moved(message: dict[str, Any]) -> None:
            nonlocal told
            data = message["data"]
            if message["subgroup"] == id_ and data.get("entry") is not None:
                told += 1
                look(data["entry"], data.get("queued"))

        async def ask(_: bool = True) -> None:
            """After a new connection, too: the place may be gone."""
            since = told
            try:
                answered(since, await self.http.post(path))
            except Refused as refused:
                if refused.code == ErrorCode.ALREADY_CONNECTED:
                    done.set()
                elif refused.code == ErrorCode.ALREADY_CANDIDATE:
                    since = told
                    entry = (await self.http.get(f"/api/instances/{id_}/queue")).get("entry")
                    if entry is None:
                        done.set()
                    else:
                        answered(since, entry)
                else:
                    end(refused)

        stops = [
            connection.on("instance-candidate", changed),
            connection.on("instance-queue", moved),
            connection.on("connection-closed", lambda lost: end(Disconnected(lost["reason"]))),
        ]
        connection.openers.append(ask)
        try:
            await ask()
            await done.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(2), suppress(Exception):
                await self.http.delete(path)
            raise
        finally:
            connection.openers.remove(ask)
            for stop in stops:
                stop()
        if ended:
            raise ended[0]

    async def _take(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        answer = await self.http.whole("POST", path, body=body, token=None)
        login = answer["data"]
        self.credentials.set(Credentials.of_login(login, answer["time"]))
        user: dict[str, Any] = login["user"]
        return user


@asynccontextmanager
async def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Client]:
    """A client of the server at that URL, for the block. At its end all sockets close; the session
    stays alive."""
    base = url.rstrip("/")
    async with (
        httpx.AsyncClient(base_url=base, timeout=timeout_s) as client,
        anyio.create_task_group() as tasks,
    ):
        try:
            yield Client(client, tasks)
        finally:
            tasks.cancel_scope.cancel()
