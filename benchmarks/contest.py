"""Sessions that fight for resources while the server is killed: is any promise ever broken?

    python -m benchmarks.contest [--sessions 50] [--resources 10] [--seconds 20] [--kills 5]

Every session asks for two resources at once, over and over, writes to the one it gets, and changes
its state through a WebSocket, while the server is killed with `kill -9` and started again. What was
acknowledged is written down, and checked at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

START_S = 30.0
_GONE = (httpx.HTTPError, OSError, ConnectionClosed, HandshakeError)


@dataclass(frozen=True, slots=True)
class Hold:
    """A session had a resource: at least from when it knew it until it asked to give it up."""

    session: int
    resource: int
    since: float
    until: float


@dataclass
class History:
    """What was acknowledged."""

    holds: list[Hold] = field(default_factory=list)
    writes: dict[tuple[int, int], int] = field(default_factory=dict)
    versions: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    patches: dict[int, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def check_holds(self) -> None:
        """A resource never has two holders."""
        by_resource: dict[int, list[Hold]] = defaultdict(list)
        for one in self.holds:
            by_resource[one.resource].append(one)
        for holds in by_resource.values():
            holds.sort(key=lambda one: one.since)
            for before, after in itertools.pairwise(holds):
                if after.since < before.until:
                    self.violations.append(f"two holders: {before} and {after}")

    def check_versions(self) -> None:
        """No two acknowledged writes made the same version."""
        for resource, versions in self.versions.items():
            if len(versions) != len(set(versions)):
                self.violations.append(f"resource {resource} had a version twice")


class Server:
    """A server on a data folder, which can be killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = ""
        self.up = trio.Event()
        self._process: trio.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "reileta", "serve", "--port", "0", "--data"]
        options = [str(self.data), "--log-format", "json", "--rate-limits", "off"]
        self._process = await trio.lowlevel.open_process(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        said = b""
        assert self._process.stdout is not None
        with trio.fail_after(START_S):
            while b'"server.ready"' not in said or not said.endswith(b"\n"):
                said += await self._process.stdout.receive_some(4096)
        events = map(json.loads, said.decode().splitlines())
        self.url = next(one["url"] for one in events if one["event"] == "server.ready")
        self.up.set()

    async def read(self) -> None:
        """Reads the log, so that it never blocks the server."""
        while True:
            process = self._process
            if process is not None and process.stdout is not None:
                try:
                    if await process.stdout.receive_some(65536):
                        continue
                except (trio.ClosedResourceError, trio.BusyResourceError):
                    pass
            await trio.sleep(0.05)

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self.up = trio.Event()
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()


class Session:
    """One of those who fight."""

    def __init__(
        self,
        number: int,
        token: str,
        server: Server,
        history: History,
        client: httpx.AsyncClient,
    ) -> None:
        self.number = number
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}"}
        self.server = server
        self.history = history
        self.written = 0

    async def ask(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        """An answer, or None if nobody knows what became of it."""
        await self.server.up.wait()
        try:
            url = self.server.url + path
            answer = await self.client.request(method, url, json=body, headers=self.headers)
        except _GONE:
            return None
        return None if answer.status_code >= 500 else answer

    async def surely(self, method: str, path: str, body: object = None) -> httpx.Response:
        """An answer, however often it must be asked for."""
        while (answer := await self.ask(method, path, body)) is None:
            await trio.sleep(0.05)
        return answer

    async def fight(self, resources: list[int]) -> None:
        """Gets one of two resources, writes to it, gives it up; again and again."""
        while True:
            two = random.sample(resources, 2)
            got: list[int] = []

            async def try_for(resource: int, got: list[int] = got) -> None:
                answer = await self.ask("POST", f"/resource/document/{resource}/acquire")
                if answer is not None and answer.status_code == 200:
                    got.append(resource)

            async with trio.open_nursery() as nursery:
                for resource in two:
                    nursery.start_soon(try_for, resource)
            if len(got) > 1:
                self.history.violations.append(f"session {self.number} got two: {got}")
            # What was acknowledged must be so; what was not may be.
            session = (await self.surely("GET", "/session")).json()["session"]
            has = None if session["resource"] is None else session["resource"]["id"]
            if got and has != got[0]:
                self.history.violations.append(f"session {self.number} got {got}, has {has}")
            if has is not None:
                await self.hold(has)
            await trio.sleep(random.random() * 0.05)

    async def hold(self, resource: int) -> None:
        since = trio.current_time()
        path = f"/resource/document/{resource}"
        for _ in range(random.randint(1, 3)):
            self.written += 1
            answer = await self.ask("PATCH", path, {"data": {str(self.number): self.written}})
            if answer is None:
                continue
            if answer.status_code != 200:
                what = f"session {self.number} lost {resource}: {answer.text}"
                self.history.violations.append(what)
                return
            self.history.writes[self.number, resource] = self.written
            self.history.versions[resource].append(answer.json()["resource"]["version"])
        self.history.holds.append(Hold(self.number, resource, since, trio.current_time()))
        await self.surely("POST", f"{path}/release")

    async def change(self) -> None:
        """Changes the state through a WebSocket, one patch after the other acknowledged."""
        number = 0
        while True:
            await self.server.up.wait()
            url = self.server.url.replace("http", "ws", 1) + "/ws/user"
            headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
            try:
                async with open_websocket_url(url, extra_headers=headers) as socket:
                    while True:
                        number += 1
                        sent = event({"n": number})
                        await socket.send_message(json.dumps(sent))
                        await self.acknowledged(socket, sent["id"])
                        self.history.patches[self.number] = number
                        await trio.sleep(0.25)
            except _GONE:
                await trio.sleep(0.05)

    async def acknowledged(self, socket: Any, id_: str) -> None:
        """Waits for the Ack, and acknowledges what comes before."""
        with trio.move_on_after(10):
            while True:
                message = json.loads(await socket.get_message())
                if message["type"] == "event":
                    await socket.send_message(json.dumps(ack(message["id"])))
                elif message["id"] == id_:
                    return
        raise OSError("no Ack came")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f%z")


def event(patch: dict[str, object]) -> dict[str, Any]:
    """A client's event that changes the state."""
    payload = {"kind": "state", "patch": patch}
    rest = {"status": "ok", "reason": None, "payload": payload}
    return {"type": "event", "id": str(uuid.uuid4()), "sent_at": _now(), **rest}


def ack(id_: str) -> dict[str, str]:
    """The Ack of an event."""
    return {"type": "ack", "id": id_, "sent_at": _now()}


async def contest(
    data: Path, *, sessions: int, resources: int, seconds: float, kills: int
) -> History:
    """Has them fight on a server of its own, and checks what came of it."""
    history, server = History(), Server(data)
    await server.start()
    tokens = data.parent / "tokens"
    make = [sys.executable, "-m", "reileta", "bots", "create", "--count", str(sessions)]
    await trio.run_process(
        [*make, "--tokens", str(tokens), "--data", str(data)], capture_stderr=True
    )
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4 * sessions)
    async with (
        httpx.AsyncClient(timeout=10, limits=limits) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.read)
        rivals = [
            Session(number, token, server, history, client)
            for number, token in enumerate(tokens.read_text().split())
        ]
        ids = await _shared(rivals, resources)
        async with trio.open_nursery() as fighting:
            for one in rivals:
                fighting.start_soon(one.fight, ids)
                fighting.start_soon(one.change)
            for _ in range(kills):
                await trio.sleep(seconds / (kills + 1))
                await server.kill()
                await server.start()
            await trio.sleep(seconds / (kills + 1))
            fighting.cancel_scope.cancel()
        await _check_end(history, rivals, ids)
        await server.stop()
        nursery.cancel_scope.cancel()
    history.check_holds()
    history.check_versions()
    return history


async def _shared(rivals: list[Session], resources: int) -> list[int]:
    """Documents of the first one's, which all may acquire."""
    shown = [(await one.surely("GET", "/session")).json()["session"] for one in rivals]
    owner, ids = rivals[0], []
    for number in range(resources):
        made = await owner.surely("POST", "/resource/document", {"title": f"Door {number}"})
        ids.append(int(made.json()["resource"]["id"]))
        path = f"/resource/document/{ids[-1]}/share"
        for one in shown[1:]:
            await owner.surely("POST", path, {"user": one["user"]["username"]})
    return ids


async def _check_end(history: History, rivals: list[Session], ids: list[int]) -> None:
    """What was acknowledged is there."""
    for one in rivals:
        session = (await one.surely("GET", "/session")).json()["session"]
        acknowledged = history.patches.get(one.number, 0)
        if session["state"].get("n", 0) < acknowledged:
            history.violations.append(f"session {one.number} lost patch {acknowledged}")
        if session["resource"] is not None:
            path = f"/resource/document/{session['resource']['id']}/release"
            await one.surely("POST", path)
    for resource in ids:
        path = f"/resource/document/{resource}"
        held = await rivals[0].surely("POST", f"{path}/acquire")
        data = held.json()["resource"]["data"] or {}
        for (number, written), count in history.writes.items():
            if written == resource and data.get(str(number), 0) < count:
                history.violations.append(f"resource {resource} lost {number}'s write {count}")
        await rivals[0].surely("POST", f"{path}/release")


def main() -> int:
    """Runs the contest, and says what it showed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--resources", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kills", type=int, default=5)
    given = parser.parse_args()
    os.environ.pop("REILETA_DATA", None)
    with tempfile.TemporaryDirectory(prefix="reileta-contest-") as folder:
        Path(folder).chmod(0o711)
        history = trio.run(lambda: contest(Path(folder) / "data", **vars(given)))
    writes = sum(map(len, history.versions.values()))
    patches = sum(history.patches.values())
    print(f"{len(history.holds)} holds, {writes} writes and {patches} patches acknowledged")
    for one in history.violations:
        print(f"VIOLATION {one}")
    print(f"{len(history.violations)} violations")
    return bool(history.violations)


if __name__ == "__main__":
    sys.exit(main())
