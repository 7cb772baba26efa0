"""The visitors of a soak: each class is one kind, and `visit` is one stay of one visitor.

A visitor raises `Broken` if the server breaks a promise; `Refused` and lost connections are only
allowed during a fault.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import h2.connection
import httpx
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from benchmarks.killable import ack, event
from tests.chaos.soak.town import (
    PASSWORD,
    PATIENCE_S,
    Broken,
    Json,
    Refused,
    Socket,
    Town,
    code_of,
    data,
    leaves,
    quietly,
)
from tests.reileta.media.pngs import png

GRACE_S: Final = 4.0
"""How long the server keeps the seat of a lost player here."""
CLOSED_GRACE_S: Final = 1.5
"""The same, after the player has closed its socket itself."""
AWAY_S: Final = 5.0
"""How long a session without a socket keeps its resource here."""
STAY_S: Final = 3.0
"""The least time between two pictures of a visitor: the server takes one a second of an address."""
RENEW_S: Final = 40.0
"""After this time a visitor gets new keys."""
_SHUT: Final = (36, 39, 48, 49, 123)
"""What a player is refused with in a room that has ended or is full, or that bans or mutes it."""


class Visitor(ABC):
    """A visitor with an address, and an account once it has registered."""

    def __init__(self, town: Town, number: int) -> None:
        self.town = town
        self.number = number
        self.at = town.address()
        self.name = f"{type(self).__name__.lower()}{number}"
        self.token = ""
        self.refresh = ""
        self.session = ""
        self.user = ""
        self._since = 0.0
        self._registered = False

    @abstractmethod
    async def visit(self) -> None:
        """One stay."""

    def chance(self, share: float) -> bool:
        """True with that probability."""
        return self.town.random.random() < share

    async def log_in(self, http: httpx.AsyncClient) -> None:
        """Gets a token: registers at first, and later continues the session."""
        if self.token and trio.current_time() - self._since < RENEW_S:
            return
        if self.refresh and self.chance(0.8):
            answer = await data(http.post("/auth/refresh", json={"refresh": self.refresh}), 101)
            if answer is not None:
                self._take(answer["token"])
                return
            if not self.town.explains(self._since, trio.current_time()):
                raise Broken("a refresh key is no longer valid")
        body: Json = {"username": self.name, "password": PASSWORD}
        if not self._registered:
            # 22: it is registered already, by a request whose answer was lost.
            made = await data(http.post("/api/auth/register", json=body), 22)
            self._registered = True
            if made is not None:
                self.user = made["user"]["id"]
        if self.session:
            body["session_id"] = self.session
        self._take((await data(http.post("/auth/login", json=body)))["token"])
        shown = await data(http.get("/api/users/@me", headers=self.headers))
        self.user = shown["id"]

    def _take(self, token: Json) -> None:
        self.token, self.refresh = token["access"], token["refresh"]
        self.session = token["session"]["id"]
        self._since = trio.current_time()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @asynccontextmanager
    async def client(self, *, http2: bool = False) -> AsyncIterator[httpx.AsyncClient]:
        """A client that is logged in."""
        way = self.town.way()
        async with self.town.http(way, self.at, http2=http2) as http:
            await self.log_in(http)
            http.headers.update(self.headers)
            yield http


class Pinger(Visitor):
    """Measures how long an answer takes."""

    async def visit(self) -> None:
        async with self.client():
            pass
        way = self.town.direct
        async with self.town.socket(way, self.at, "/api/ws", self.token) as socket:
            for _ in range(120):
                sent = trio.current_time()
                answer = await socket.ask("ping", {"time": sent})
                if code_of(answer):
                    raise Refused("ping", code_of(answer))
                self.town.pings.append((sent, trio.current_time() - sent))
                await trio.sleep(0.25)


class Player(Visitor):
    """Joins a room, sends, and leaves in one of many ways; often it comes back."""

    async def visit(self) -> None:
        if not self.town.rooms:
            await trio.sleep(0.5)
            return
        async with self.client():
            pass
        rooms = sorted(self.town.rooms)
        if not rooms:  # the last one has closed meanwhile
            return
        room = self.town.random.choice(rooms)
        player, left, kept_until = "", 0.0, 0.0
        for _ in range(self.town.random.randint(1, 4)):
            way = self.town.way()
            async with self.town.socket(way, self.at, "/api/ws", self.token) as socket:
                answer = await socket.ask("instance-join", {"instance": room})
                if code_of(answer) in _SHUT or room not in self.town.rooms:
                    return
                if code_of(answer):
                    raise Refused("instance-join", code_of(answer))
                shown = answer["data"]
                now = trio.current_time()
                if now < kept_until and shown["player"] != player and not self._sent_away(room):
                    raise Broken(f"came back as another player, {now - left:.1f} s after it left")
                player = shown["player"]
                self.town.rooms.get(room, set()).add(self.user)
                if not await self.play(socket, room):
                    return
                if self.chance(0.2):
                    await self.other_tab(room, player)
                if self.chance(0.3):
                    await socket.lose(reset=self.chance(0.5))
                elif self.chance(0.3):
                    await socket.ask("instance-leave", {"instance": room})
                    return
                left = trio.current_time()
            kept_until = left + (GRACE_S if socket.lost else CLOSED_GRACE_S) / 2
            if self.chance(0.2):
                await trio.sleep(GRACE_S * 1.5)
            if self.chance(0.2):
                return
        self.town.removed.discard((room, self.user))

    def _sent_away(self, room: str) -> bool:
        """Whether it may have been removed meanwhile, so that it comes back as another player."""
        return room not in self.town.rooms or (room, self.user) in self.town.removed

    async def play(self, socket: Socket, room: str) -> bool:
        """Sends for a while; False if the player was removed."""
        moves = self.town.random.randint(10, 80)
        for at in range(moves):
            position = [self.town.random.random() for _ in range(3)]
            await socket.send(
                {
                    "command": "instance-data",
                    "subgroup": room,
                    "key": f"limb{at % 5}",
                    "at": at,
                    "data": position,
                }
            )
            self.town.tally.done["message"] += 1
            if at % 10 == 0:
                data_ = {"say": "x" * self.town.random.randint(1, 400)}
                answer = await socket.ask("instance-data", data_, subgroup=room)
                if code_of(answer) in (36, 39):
                    return False
                if code_of(answer) not in (0, 49, 102, 122):
                    raise Refused("instance-data", code_of(answer))
            with trio.move_on_after(0.05):
                while True:
                    await socket.receive()
        return True

    async def other_tab(self, room: str, player: str) -> None:
        """A second tab with the same token is the same player."""
        async with self.town.socket(self.town.way(), self.at, "/api/ws", self.token) as tab:
            answer = await tab.ask("instance-join", {"instance": room})
            if code_of(answer) in _SHUT:
                return
            if code_of(answer):
                raise Refused("instance-join", code_of(answer))
            if answer["data"]["player"] != player and room in self.town.rooms:
                self.town.tally.done["tab as another player"] += 1
            await tab.ask("subscribe", {"event": "update", "target": room})
            if self.chance(0.5):
                await tab.lose(reset=True)


class Host(Visitor):
    """Opens a room, moderates its players, and closes it or leaves it to end by itself."""

    async def visit(self) -> None:
        async with self.client(http2=self.chance(0.5)) as http:
            world = (await data(http.put("/api/worlds", json={"title": self.name})))["id"]
            wanted = {"world": world, "capacity": 12, "tags": ["avr:public"]}
            made = await data(http.put("/api/instances", json=wanted))
            room = made["id"]
            try:
                async with self.town.socket(
                    self.town.way(), self.at, "/api/ws", self.token
                ) as socket:
                    answer = await socket.ask("instance-join", {"instance": room})
                    if code_of(answer):
                        raise Refused("a host's instance-join", code_of(answer))
                    self.town.rooms[room] = set()
                    for turn in range(self.town.random.randint(10, 30)):
                        await self.moderate(http, socket, room, turn)
                        with trio.move_on_after(0.7):
                            while True:
                                await socket.receive()
            finally:
                self.town.rooms.pop(room, None)
            if self.chance(0.7):
                await data(http.delete(f"/api/instances/{room}"), 36)
            await data(http.delete(f"/api/worlds/{world}"))

    async def moderate(self, http: httpx.AsyncClient, socket: Socket, room: str, turn: int) -> None:
        users = sorted(self.town.rooms[room])
        if not users or turn % 3:
            await data(http.get(f"/api/instances/{room}/players"), 36)
            return
        kind = self.town.random.choice(("kick", "ban", "mute", "warn"))
        user = self.town.random.choice(users)
        if kind in ("kick", "ban"):
            self.town.removed.add((room, user))
        order = {"user": user, "type": kind, "reason": "soak"}
        answer = await socket.ask("instance-moderate", order, subgroup=room)
        if code_of(answer) not in (0, 50, 122):
            raise Refused(f"{kind}", code_of(answer))
        if kind in ("ban", "mute") and not code_of(answer):
            undo = {"user": user, "type": f"un{kind}"}
            await data(http.post(f"/api/instances/{room}/moderate", json=undo), 50)
        self.town.tally.done["moderation"] += 1


class Guest(Visitor):
    """Waits in the queue of a full room of its own, and withdraws or is admitted."""

    async def visit(self) -> None:
        async with self.client() as http:
            if not self.town.rooms:
                await trio.sleep(1)
                return
            room = self.town.random.choice(sorted(self.town.rooms))
            path = f"/api/instances/{room}/candidate"
            entry = await data(http.post(path, json={}), 36, 15, 118, 123, 49)
            if entry is None:
                return
            await trio.sleep(self.town.random.random() * 3)
            await data(http.get(f"/api/instances/{room}/queue"), 36)
            if self.chance(0.5):
                await data(http.delete(path), 36, 117)


class Holder(Visitor):
    """Keeps a state and a document through the session API, and checks that nothing is lost."""

    def __init__(self, town: Town, number: int) -> None:
        super().__init__(town, number)
        self.sent = 0
        self.acknowledged = 0
        self.document = 0
        self.written = 0
        self.confirmed = 0
        self.alone_since = math.inf
        """When the server closed the socket (Trio's clock, in seconds)."""

    async def visit(self) -> None:
        async with self.client() as http:
            if not self.document:
                wanted = {"title": self.name, "data": {"n": 0}}
                made = await data(http.post("/resource/document", json=wanted))
                self.document = made["resource"]["id"]
            path = f"/resource/document/{self.document}"
            try:
                async with self.town.socket(
                    self.town.way(), self.at, "/ws/user", self.token
                ) as socket:
                    await self.change(socket)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self.follow, socket)
                        await self.write(http, path)
                        nursery.cancel_scope.cancel()
                    if self.chance(0.4):
                        await socket.lose(reset=self.chance(0.5))
            except (HandshakeError, ExceptionGroup) as error:
                # 409: the server still asks the socket before whether it is there.
                if any(getattr(one, "status_code", 0) != 409 for one in leaves(error)):
                    raise
                self.town.tally.done["token in use (409)"] += 1
                await trio.sleep(1)

    async def follow(self, socket: Socket) -> None:
        """Acknowledges the server's events, as it demands. Notes when the socket ends."""
        self.alone_since = math.inf
        try:
            while True:
                message = json.loads(await socket.connection.get_message())
                if message["type"] == "event":
                    await socket.send(ack(message["id"]))
        except ConnectionClosed:
            self.alone_since = trio.current_time()

    async def write(self, http: httpx.AsyncClient, path: str) -> None:
        """Acquires the document, writes to it three times, reads it, and often releases it.

        A session without a socket loses it after `AWAY_S`, so 115 is right then, and only then.
        """
        await data(http.post(f"{path}/acquire"), 114)
        try:
            for _ in range(3):
                self.written += 1
                await data(http.patch(path, json={"data": {"n": self.written}}))
                self.confirmed = self.written
                self.town.tally.done["document written"] += 1
            shown = await data(http.get(f"{path}/view"))
        except Refused as refused:
            if refused.code != 115:
                raise
            if trio.current_time() - self.alone_since < AWAY_S:
                raise Broken(f"{path} was lost although the session has a socket") from None
            raise trio.ClosedResourceError("its socket, for too long: error 115") from None
        if shown["resource"]["data"]["n"] != self.written:
            raise Broken(f"{path} has {shown['resource']['data']}, not {self.written}")
        if self.chance(0.7):
            await data(http.post(f"{path}/release"))

    async def change(self, socket: Socket) -> None:
        """Changes the state; each change waits for its Ack."""
        hello = await socket.receive()
        await socket.send(ack(hello["id"]))
        if hello["payload"]["kind"] == "closing":  # the database was lost after the upgrade
            raise Refused("closing", hello["payload"]["code"])
        kept = hello["payload"]["session"]["state"].get("n", 0)
        if kept < self.acknowledged:
            raise Broken(f"the state has {kept}, acknowledged was {self.acknowledged}")
        for _ in range(self.town.random.randint(3, 20)):
            self.sent += 1
            sent = event({"n": self.sent})
            await socket.send(sent)
            refused = False
            while True:
                message = await socket.receive()
                if message["type"] == "event":
                    await socket.send(ack(message["id"]))
                    payload = message["payload"]
                    if payload["kind"] == "closing":
                        raise Refused("closing", payload["code"])
                    refused = refused or payload["kind"] == "refused"
                elif message["id"] == sent["id"]:
                    break
            if refused:
                raise Refused("state", 122)
            self.acknowledged = self.sent
            self.town.tally.done["state changed"] += 1
            await trio.sleep(0.05)


class Tabs(Visitor):
    """Two tabs that share keys: they refresh at the same time, and both go on."""

    async def visit(self) -> None:
        body = {"username": self.name, "password": PASSWORD}
        async with self.client() as one, self.client(http2=True) as two:
            token = (await data(one.post("/auth/login", json=body)))["token"]
            keys: list[Any] = []

            async def refresh(http: httpx.AsyncClient) -> None:
                asked = {"refresh": token["refresh"]}
                keys.append((await data(http.post("/auth/refresh", json=asked)))["token"])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(refresh, one)
                nursery.start_soon(refresh, two)
            first, second = keys
            if (first["access"], first["refresh"]) != (second["access"], second["refresh"]):
                raise Broken("two tabs that refreshed at the same time got different keys")
            new = {"Authorization": f"Bearer {first['access']}"}
            for http in (one, two):
                await data(http.get("/session", headers=new))
            for path in ("/api/ws", "/ws/user"):
                async with self.town.socket(
                    self.town.way(), self.at, path, first["access"]
                ) as socket:
                    await socket.receive()
                    await trio.sleep(self.town.random.random())
                    if self.chance(0.3):
                        await socket.lose(reset=True)
            await data(one.post("/auth/logout", headers=new))


class Browser(Visitor):
    """Reads over connections that it keeps; over HTTP/2 with requests at the same time."""

    _PATHS: Final = (
        "/api/worlds",
        "/api/instances?free=true",
        "/api/users?query=player",
        "/api/server",
        "/api/users/@me",
        "/api/users/@me/follows",
        "/api/time",
        "/healthz",
    )

    async def visit(self) -> None:
        http2 = self.number % 2 == 1
        async with self.client(http2=http2) as http:
            tags: dict[str, str] = {}

            async def read(path: str) -> None:
                known = {"If-None-Match": tags[path]} if path in tags else {}
                answer = await http.request(
                    "HEAD" if self.chance(0.2) else "GET", path, headers=known
                )
                if answer.status_code not in (200, 304):
                    raise Refused(path, 122 if answer.status_code == 503 else answer.status_code)
                if "ETag" in answer.headers:
                    tags[path] = answer.headers["ETag"]
                self.town.tally.done["read"] += 1

            for _ in range(self.town.random.randint(2, 8)):
                paths = self.town.random.sample(self._PATHS, 5)
                if http2:
                    async with trio.open_nursery() as nursery:
                        for path in paths:
                            nursery.start_soon(read, path)
                else:
                    for path in paths:
                        await read(path)
                await trio.sleep(0.3)
            if self.chance(0.2):
                answer = await http.get("/openapi.json")
                if answer.status_code != 200:
                    raise Refused("/openapi.json", answer.status_code)
            with trio.move_on_after(0.005):  # the client gives up an answer
                await http.get("/openapi.json")


class Uploader(Visitor):
    """Uploads files and gets them back; some transfers break off."""

    async def visit(self) -> None:
        began = trio.current_time()
        await self.upload()
        await trio.sleep_until(began + STAY_S)

    async def upload(self) -> None:
        async with self.client(http2=self.chance(0.3)) as http:
            world = (await data(http.put("/api/worlds", json={"title": self.name})))["id"]
            assets = f"/api/worlds/{world}/assets"
            for number in range(3):
                asset = (await data(http.put(assets, json={"version": str(number)})))["id"]
                path = f"{assets}/{asset}/file"
                content = os.urandom(self.town.random.randint(1, 600_000))
                if self.chance(0.3):
                    await self._break_off(path)
                await data(http.post(path, content=content))
                whole = await http.get(path)
                if whole.status_code == 200:
                    if hashlib.sha256(whole.content).digest() != hashlib.sha256(content).digest():
                        raise Broken(f"{path} came back as something else")
                elif whole.status_code != 503:
                    raise Refused(path, whole.status_code)
                if self.chance(0.3):
                    async with http.stream("GET", path) as part:
                        async for _ in part.aiter_raw(1000):
                            break
                self.town.tally.done["file"] += 1
            picture = png([[(0, 0, 0), (255, 255, 255)]], 8, 2)
            await data(http.post(f"/api/worlds/{world}/thumbnail", content=picture))
            await data(http.delete(f"/api/worlds/{world}"))

    async def _break_off(self, path: str) -> None:
        stream = await self.town.stream(self.town.way(), self.at)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
        token = f"Authorization: Bearer {self.token}\r\n\r\n"
        await quietly(stream.send_all((head + token).encode() + os.urandom(100_000)))
        await trio.aclose_forcefully(stream)


class Newcomer(Visitor):
    """Makes an account, uses it, and deletes it."""

    def __init__(self, town: Town, number: int) -> None:
        super().__init__(town, number)
        self._times = 0

    async def visit(self) -> None:
        began = trio.current_time()
        await self.use_account()
        await trio.sleep_until(began + STAY_S)

    async def use_account(self) -> None:
        self._times += 1
        self.name = f"newcomer{self.number}_{self._times}"
        self.token = self.refresh = self.session = ""
        self._registered = False
        async with self.client(http2=self.chance(0.5)) as http:
            await data(http.post("/api/users/@me", json={"displayname": f"New {self._times}"}))
            picture = png([[(0, 0, 0), (255, 255, 255)]], 8, 2)
            raw = {"Content-Type": "image/png"}
            await data(http.post("/api/users/@me/thumbnail", content=picture, headers=raw))
            await data(http.put("/api/users/@me/follows/admin"))
            wrong = {"username": self.name, "password": "wrong horse"}
            await data(http.post("/api/auth/login", json=wrong), 23)
            async with self.town.socket(self.town.way(), self.at, "/api/ws", self.token) as socket:
                await socket.receive()
                body = {"current_password": PASSWORD}
                await data(http.request("DELETE", "/api/users/@me", json=body), 101)
                try:
                    while True:
                        await socket.receive()
                except ConnectionClosed as closed:
                    reason = closed.reason
                    if reason is None or reason.code != 4000:
                        raise
            if (await http.get("/api/users/@me")).status_code not in (401, 503):
                raise Broken("a deleted account can still be used")
            self.town.tally.done["account made and deleted"] += 1


class Hostile(Visitor):
    """Connects in bad ways, and vanishes in the middle."""

    async def visit(self) -> None:
        async with self.client():
            pass
        kinds = (
            self._half_handshake,
            self._half_head,
            self._half_frame,
            self._never_reads,
            self._half_http2,
            self._no_credential,
        )
        # What happens to it is its own matter: only what it leaves behind counts.
        await quietly(self.town.random.choice(kinds)())
        await trio.sleep(self.town.random.random())

    async def _half_handshake(self) -> None:
        way = self.town.way()
        async with await trio.open_tcp_stream("127.0.0.1", way.port, local_address=self.at) as tcp:
            await tcp.send_all(b"\x16\x03\x01\x02\x00\x01\x00")
            await trio.sleep(self.town.random.random() * 3)

    async def _raw(self, *parts: bytes, wait_s: float = 0.5, read: bool = True) -> None:
        stream = await self.town.stream(self.town.way(), self.at)
        try:
            for part in parts:
                await stream.send_all(part)
                if read:
                    with trio.move_on_after(wait_s):
                        await stream.receive_some(65536)
                else:
                    await trio.sleep(wait_s)
        finally:
            await trio.aclose_forcefully(stream)

    def _upgrade(self, path: str = "/api/ws") -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        ).encode()

    async def _half_head(self) -> None:
        await self._raw(b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Le", wait_s=1)

    async def _half_frame(self) -> None:
        path = self.town.random.choice(("/api/ws", "/ws/user"))
        await self._raw(self._upgrade(path), b"\x81\xfe\x10\x00\x00\x00\x00\x00abc", wait_s=1)

    async def _no_credential(self) -> None:
        head = b"\r\n".join(
            line for line in self._upgrade().split(b"\r\n") if not line.startswith(b"Authorization")
        )
        await self._raw(head, b"\x81\x83\x00\x00\x00\x00{]x", wait_s=2)

    async def _never_reads(self) -> None:
        """Joins a room and then neither reads nor answers pings."""
        if not self.town.rooms:
            return
        room = self.town.random.choice(sorted(self.town.rooms))
        join = json.dumps({"command": "instance-join", "data": {"instance": room}}).encode()
        assert len(join) < 126
        frame = bytes((0x81, 0x80 | len(join), 0, 0, 0, 0)) + join
        await self._raw(self._upgrade(), frame, b"\x89\x80\x00\x00\x00\x00", wait_s=6, read=False)

    async def _half_http2(self) -> None:
        """Opens streams, and resets the connection while they are answered."""
        way = self.town.direct
        tcp = await trio.open_tcp_stream("127.0.0.1", way.port, local_address=self.at)
        tls = self.town.http2_tls
        stream = trio.SSLStream(tcp, tls, server_hostname="127.0.0.1", https_compatible=True)
        try:
            connection = h2.connection.H2Connection()
            connection.initiate_connection()
            for number in range(8):
                connection.send_headers(
                    2 * number + 1,
                    [
                        (":method", "POST" if number % 2 else "GET"),
                        (":path", "/openapi.json"),
                        (":scheme", "https"),
                        (":authority", "x"),
                    ],
                    end_stream=number % 2 == 0,
                )
            with trio.fail_after(PATIENCE_S):
                await stream.send_all(connection.data_to_send())
            await trio.sleep(self.town.random.random() * 0.5)
        finally:
            await trio.aclose_forcefully(tcp)


CROWD: Final[dict[type[Visitor], int]] = {
    Pinger: 1,
    Player: 24,
    Host: 3,
    Guest: 2,
    Holder: 6,
    Tabs: 2,
    Browser: 4,
    Uploader: 2,
    Newcomer: 2,
    Hostile: 4,
}
"""How many of each kind come."""
