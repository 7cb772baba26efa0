"""Sessions compete for resources while their server is killed with `kill -9`.

    python -m tests.chaos.contest [--sessions 50] [--resources 10] [--seconds 20] [--kills 5]

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

from benchmarks.killable import Server, ack, event
from tests.chaos.history import History, Hold, Wait

AWAY_S: Final = 1.5
"""How long a session without a WebSocket keeps its resource here."""
PATCH_EVERY_S: Final = 0.25
OFFER_S: Final = 3.0
"""How long a free resource is offered to the first session here."""
WAIT_LIMIT_S: Final = 60.0
"""The longest time for which a session waits in line without an event."""
RETRY_S: Final = 1.0
"""The longest pause after an attempt that got nothing; shorter ones only load the server."""
PAUSES: Final = 4
"""The same, in the times that the attempt took: a busy machine must not be busy with refusals."""
WRITES_MOST: Final = 6
"""How often a holder writes, at most."""
LIFE_WRITES: Final = 0.5
"""So many writes for each session must be acknowledged before the server is killed again: on a
busy machine a server could be killed before all sessions have come back."""
LIFE_PATIENCE_S: Final = 60.0
"""The longest time to wait for them."""
AWAY_SHARE: Final = 0.04
"""The probability that a holder disconnects before a write."""
_GONE: Final = (httpx.HTTPError, OSError, ConnectionClosed, HandshakeError)


class Contestant:
    """A session that competes. It has a `client` of its own, since its requests overlap."""

    def __init__(
        self,
        number: int,
        token: str,
        server: Server,
        history: History,
        client: httpx.AsyncClient,
        holds: Iterator[int],
    ) -> None:
        self.number = number
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}"}
        self.server = server
        self.history = history
        self.written = 0
        self._holds = holds
        self.seen: dict[int, int] = {}
        """The newest version of each resource that a watch has shown it."""
        self._watched: tuple[int, ...] = ()
        self._places: dict[int, tuple[int | None, str | None]] = {}
        """Its place in the line of each resource that it was told last, and until when it is
        offered to it."""
        self._in_line: dict[int, int] = {}
        """The lines in which it may be, and the life of the server in which it joined them."""
        self._told = trio.Event()
        self._socket = trio.CancelScope()
        self._stays_away = False
        self._away_since: float | None = trio.current_time()
        self._declared_gone = -float("inf")
        """The last time at which the server may have declared it gone."""

    async def ask(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        """An answer; None if the server may or may not have carried it out."""
        await self.server.up.wait()
        try:
            url = self.server.url + path
            answer = await self.client.request(method, url, json=body, headers=self.headers)
        except _GONE:
            return None
        return None if answer.status_code >= 500 else answer

    async def surely(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Repeats the request until it is answered."""
        while (answer := await self.ask(method, path, body)) is None:
            await trio.sleep(0.05)
        return answer

    # The resource

    async def compete(self, resources: list[int]) -> None:
        """Acquires one of two resources, writes to it, releases it; again and again."""
        while True:
            began = trio.current_time()
            got: list[tuple[int, int]] = []
            unknown = False

            async def try_for(resource: int, got: list[tuple[int, int]] = got) -> None:
                nonlocal unknown
                answer = await self.ask("POST", f"/resource/document/{resource}/acquire")
                if answer is None:
                    unknown = True
                elif answer.status_code == 200:
                    got.append((resource, answer.json()["resource"]["version"]))

            async with trio.open_nursery() as nursery:
                for resource in random.sample(resources, 2):
                    nursery.start_soon(try_for, resource)
            if not got and not unknown:
                took = trio.current_time() - began
                await trio.sleep(random.random() * max(RETRY_S, PAUSES * took))
                continue
            if len(got) > 1 and not self.may_be_gone(began):
                self.history.violations.append(f"session {self.number} got two: {got}")
            # An acknowledged acquisition must hold; one without an answer may.
            session = (await self.surely("GET", "/session")).json()["session"]
            has = None if session["resource"] is None else session["resource"]["id"]
            if got and has != got[0][0] and not self.may_be_gone(began):
                self.history.violations.append(f"session {self.number} got {got}, has {has}")
            if has is not None:
                await self.hold(has, next((at for one, at in got if one == has), None), began)

    async def hold(self, resource: int, version: int | None, began: float) -> None:
        """Holds a resource for some writes, then releases it. It acquired it at that `version`."""
        number, since = next(self._holds), trio.current_time()
        if version is not None:
            self.history.acquired(resource, version, number)
        last, granted = since, None
        try:
            for _ in range(random.randint(1, WRITES_MOST)):
                if random.random() < AWAY_SHARE:
                    await self.go_away()
                asked = trio.current_time()
                granted = await self.write(resource, number, began)
                if granted is False:
                    break
                if granted:
                    last = asked
        finally:  # also when the contest is over
            self.history.holds.append(Hold(number, self.number, resource, since, last))
        if granted is not False:
            await self.surely("POST", f"/resource/document/{resource}/release")

    async def write(self, resource: int, hold: int, began: float) -> bool | None:
        """Writes to the resource. False: it has lost it. None: no answer came, so it may hold it or
        may have lost it before."""
        self.written += 1
        body = {"data": {str(self.number): self.written}}
        answer = await self.ask("PATCH", f"/resource/document/{resource}", body)
        if answer is None:
            return None
        if answer.status_code == 200:
            self.history.writes[self.number, resource] = self.written
            self.history.wrote(resource, answer.json()["resource"]["version"], hold)
            return True
        if self.may_be_gone(began):
            self.history.refused += 1
        else:
            what = f"session {self.number} lost {resource}: {answer.text}"
            self.history.violations.append(what)
        return False

    async def go_away(self) -> None:
        """Stays disconnected for longer than `AWAY_S`."""
        self._stays_away = True
        self._socket.cancel()
        await trio.sleep(AWAY_S * (1 + random.random()))
        self._stays_away = False

    def may_be_gone(self, since: float) -> bool:
        """Whether the server may have declared it gone since then."""
        now = trio.current_time()
        away = 0.0 if self._away_since is None else now - self._away_since
        return away >= AWAY_S or self._declared_gone >= since

    # The waiting line

    @property
    def waits(self) -> bool:
        """Whether it waits in lines, and does not try its luck."""
        return self.number % 3 == 0

    async def wait_in_line(self, resources: list[int]) -> None:
        """Waits for a resource, takes the offer, writes and releases; again and again."""
        self._watched = tuple(resources)
        while True:
            resource, began = random.choice(resources), trio.current_time()
            if await self._waited(resource):
                acquired = await self.ask("POST", f"/resource/document/{resource}/acquire")
                if acquired is not None and acquired.status_code == 200:
                    self.history.offers_taken += 1
                    self._in_line.pop(resource, None)
                    version = acquired.json()["resource"]["version"]
                    await self.hold(resource, version, began)
                    continue
            else:
                await trio.sleep(random.random() * RETRY_S)
            await self._give_back()

    async def _waited(self, resource: int) -> bool:
        """Waits for the resource; False: it got no offer."""
        life, asked = self.server.life, trio.current_time()
        fresh = self._in_line.get(resource) != life
        self._places.pop(resource, None)
        self._in_line[resource] = life
        answer = await self.ask("POST", f"/resource/document/{resource}/queue")
        if answer is None:
            return False
        if answer.status_code != 200:
            if fresh:
                self._in_line.pop(resource, None)
            return False
        wait = Wait(self.number, resource, life, asked, trio.current_time(), fresh)
        place = answer.json()["queue"]
        # An event can be faster than the answer; then it is newer.
        self._places.setdefault(resource, (place["position"], place["offered_until"]))
        wait.offered_until = await self._offered(resource)
        if wait.offered_until is not None and self.server.life == life:
            self.history.waits.append(wait)
        return wait.offered_until is not None

    async def _offered(self, resource: int) -> str | None:
        """Waits until it is offered the resource; None: it no longer waits there.

        The line does not survive the server, so after each new connection it waits anew.
        """
        with trio.move_on_after(WAIT_LIMIT_S):
            while True:
                position, offered = self._places.get(resource, (None, None))
                if position is None or offered is not None:
                    return offered
                await self._told.wait()
        self.history.violations.append(f"session {self.number} waited for ever for {resource}")
        return None

    async def _give_back(self) -> None:
        """Releases what an acquisition without an answer may have got it."""
        session = (await self.surely("GET", "/session")).json()["session"]
        if session["resource"] is not None:
            path = f"/resource/document/{session['resource']['id']}/release"
            await self.surely("POST", path)

    def _note(self, payload: dict[str, Any]) -> None:
        """Notes what an event tells of a resource."""
        if payload["kind"] == "resource-updated":
            resource, version = payload["id"], payload["version"]
            if "from" in payload and payload["from"] != self.seen.get(resource):
                self.history.violations.append(f"session {self.number} got a patch with a gap")
            self.seen[resource] = version
            self.history.shown[resource] = max(self.history.shown.get(resource, 0), version)
        elif payload["kind"] == "resource-queue":
            resource, position = payload["id"], payload["position"]
            if payload["reason"] == "acquired":
                return  # it knows that by the answer, and may already wait again
            if payload["reason"] is not None:
                self._in_line.pop(resource, None)
            before = self._places.get(resource, (None, None))[0]
            if position is not None and before is not None and position > before:
                what = f"session {self.number} was put back from {before} to {position}"
                self.history.violations.append(what)
            self._places[resource] = position, payload["offered_until"]
            self._told.set()
            self._told = trio.Event()

    # The state

    async def change(self) -> None:
        """Changes the state through a WebSocket; each patch waits for the Ack of the one before."""
        numbers = itertools.count(1)
        while True:
            await self.server.up.wait()
            if self._stays_away:
                await trio.sleep(0.05)
                continue
            with trio.CancelScope() as self._socket:
                try:
                    await self._change(numbers)
                except* _GONE:
                    await trio.sleep(0.05)
                finally:
                    self._away_since = self._away_since or trio.current_time()

    async def _change(self, numbers: Iterator[int]) -> None:
        url = self.server.url.replace("http", "ws", 1) + "/ws/user"
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        async with open_websocket_url(url, extra_headers=headers, disconnect_timeout=1) as socket:
            self._places.clear()  # the server may be a new one
            self._told.set()
            self._told = trio.Event()
            for resource in self._watched:
                watch = event({})
                watch["payload"] = {"kind": "watch", "type": "document", "id": resource}
                await socket.send_message(json.dumps(watch))
                await self._acknowledged(socket, watch["id"])
            for number in numbers:
                sent = event({"n": number})
                await socket.send_message(json.dumps(sent))
                await self._acknowledged(socket, sent["id"])
                self.history.patches[self.number] = number
                await trio.sleep(PATCH_EVERY_S)

    async def _acknowledged(self, socket: Any, id_: str) -> None:
        """Waits for the Ack, and acknowledges all events before it."""
        with trio.move_on_after(10):
            while True:
                message = json.loads(await socket.get_message())
                self._is_back()
                if message["type"] == "event":
                    self._note(message["payload"])
                    await socket.send_message(json.dumps(ack(message["id"])))
                    if message["payload"].get("event") == id_:
                        raise OSError("the event was refused")
                elif message["id"] == id_:
                    return
        raise OSError("no Ack came")

    def _is_back(self) -> None:
        if self._away_since is not None:
            if trio.current_time() - self._away_since >= AWAY_S:
                self._declared_gone = trio.current_time()
            self._away_since = None


async def contest(
    data: Path, *, sessions: int, resources: int, seconds: float, kills: int
) -> History:
    """Runs the contest on a server of its own, and checks its history."""
    options = ["--away-s", str(AWAY_S), "--resource-offer-s", str(OFFER_S)]
    history, server, holds = History(), Server(data, options), itertools.count(1)
    await server.start()
    tokens = data.parent / "tokens"
    make = [sys.executable, "-m", "reileta", "bots", "create", "--count", str(sessions)]
    await trio.run_process(
        [*make, "--tokens", str(tokens), "--data", str(data)],
        capture_stderr=True,
        stdout=subprocess.DEVNULL,
    )
    async with AsyncExitStack() as clients, trio.open_nursery() as nursery:
        nursery.start_soon(server.read)
        contestants = []
        for number, token in enumerate(tokens.read_text().split()):
            client = await clients.enter_async_context(httpx.AsyncClient(timeout=10))
            contestants.append(Contestant(number, token, server, history, client, holds))
        ids = await _shared(contestants, resources)
        async with trio.open_nursery() as competing:
            for one in contestants:
                competing.start_soon(one.change)
                # Every third one waits in line, the others try their luck.
                competing.start_soon(one.wait_in_line if one.waits else one.compete, ids)
            for _ in range(kills):
                await _live(history, seconds / (kills + 1), sessions)
                await server.kill()
                await server.start()
            await _live(history, seconds / (kills + 1), sessions)
            competing.cancel_scope.cancel()
        await _check_end(history, contestants, ids)
        await server.stop()
        nursery.cancel_scope.cancel()
    history.check()
    return history


async def _live(history: History, seconds: float, sessions: int) -> None:
    """Lets the server live so long, and until the sessions have written enough."""
    before = history.written
    await trio.sleep(seconds)
    with trio.move_on_after(LIFE_PATIENCE_S):
        while history.written < before + sessions * LIFE_WRITES:
            await trio.sleep(0.05 + random.random() / 5)


async def _shared(contestants: list[Contestant], resources: int) -> list[int]:
    """Documents of the first contestant, which all may acquire."""
    shown = [(await one.surely("GET", "/session")).json()["session"] for one in contestants]
    owner, ids = contestants[0], []
    for number in range(resources):
        made = await owner.surely("POST", "/resource/document", {"title": f"Door {number}"})
        ids.append(int(made.json()["resource"]["id"]))
        path = f"/resource/document/{ids[-1]}/share"
        for one in shown[1:]:
            await owner.surely("POST", path, {"user": one["user"]["username"]})
    return ids


async def _check_end(history: History, contestants: list[Contestant], ids: list[int]) -> None:
    """Checks that each acknowledged patch and write is in the database."""
    for one in contestants:
        for resource in ids if one.waits else ():
            await one.surely("DELETE", f"/resource/document/{resource}/queue")
    for one in contestants:
        session = (await one.surely("GET", "/session")).json()["session"]
        acknowledged = history.patches.get(one.number, 0)
        if session["state"].get("n", 0) < acknowledged:
            history.violations.append(f"session {one.number} lost patch {acknowledged}")
        if session["resource"] is not None:
            path = f"/resource/document/{session['resource']['id']}/release"
            await one.surely("POST", path)
    for resource in ids:
        path = f"/resource/document/{resource}"
        await contestants[0].surely("POST", f"{path}/acquire")
        held = await contestants[0].surely("GET", f"{path}/view")
        stored = held.json()["resource"]
        data = stored["data"] or {}
        if history.shown.get(resource, 0) > stored["version"]:
            what = f"a watcher saw version {history.shown[resource]} of {resource}, which is lost"
            history.violations.append(what)
        for (number, written), count in history.writes.items():
            if written == resource and data.get(str(number), 0) < count:
                history.violations.append(f"resource {resource} lost {number}'s write {count}")
        await contestants[0].surely("POST", f"{path}/release")


def run(*, sessions: int, resources: int, seconds: float, kills: int) -> bool:
    """Runs the contest and prints its result; whether all invariants held."""
    with tempfile.TemporaryDirectory(prefix="reileta-contest-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL may run as another account
        history = trio.run(
            lambda: contest(
                Path(folder) / "data",
                sessions=sessions,
                resources=resources,
                seconds=seconds,
                kills=kills,
            )
        )
    print(
        f"{len(history.holds)} holds, {history.written} writes and "
        f"{sum(history.patches.values())} patches acknowledged; "
        f"{history.refused} writes of sessions declared gone refused; "
        f"{history.offers_taken} offers taken, {len(history.waits)} waits, "
        f"{sum(history.shown.values())} versions watched"
    )
    for violation in history.violations:
        print(f"VIOLATION {violation}")
    print(f"{len(history.violations)} violations")
    return not history.violations


def main() -> int:
    """The command line; 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--resources", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kills", type=int, default=5)
    return not run(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
