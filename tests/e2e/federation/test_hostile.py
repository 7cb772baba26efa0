"""A server that answers with whatever it likes gains nothing, and breaks nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from reileta.observability import log_events
from reileta.security.credentials import new_token
from tests.conftest import PATIENCE_S, Databases
from tests.e2e.federation.hostile_peer import HostilePeer, Request, hostile_peer
from tests.e2e.federation.peers import code_of
from tests.e2e.federation.servers import Account, FederatedServer, federated_servers
from tests.e2e.processes import eventually
from tests.ports import free_port

NO_LIMITS = ("--rate-limits", "off")
VISIT = ("PUT", "/api/integrity")
REVOCATION = ("DELETE", "/api/integrity/v1")
REMOTE = {6, 7, 8, 9, 11}
"""Codes of answers that are not what was asked for."""


def raw(body: bytes, *, status: int = 200, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n" % (status, head, len(body)) + body


NONSENSE = {
    "nothing": raw(b""),
    "no JSON": raw(b"<html>"),
    "no UTF-8": raw(b'{"data": {"id": "\xff", "\xff": "\xff"}}'),
    "no UTF-8 in an error": raw(b'{"error": {"code": 5, "message": "\xff"}}', status=400),
    "no UTF-8 in a failure": raw(b'{"error": {"code": 5, "message": "\xff"}}', status=503),
    "a lone surrogate": raw(b'{"error": {"code": 5, "message": "\\ud800"}}', status=400),
    "a large code": raw(b'{"error": {"code": 1' + b"0" * 4000 + b"}}", status=400),
    "a large number": raw(b'{"data": {"expires_at": 1' + b"0" * 9000 + b"}}"),
    "deep JSON": raw(b'{"data": ' + b"[" * 400_000),
    "deep objects": raw(b'{"data": ' + b'{"a":' * 100_000),
    "a million items": raw(b'{"data": {"items": [' + b"0," * 500_000 + b"0]}}"),
    "over a megabyte": raw(b'{"data": "' + b"a" * 1_100_000 + b'"}'),
    "a redirect": raw(b"", status=302, head=b"Location: http://127.0.0.1:22/\r\n"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "another length": b"HTTP/1.1 200 X\r\nContent-Length: -1\r\n\r\n{}",
    "compressed": raw(b"\x1f\x8b", head=b"Content-Encoding: gzip\r\n"),
}
HOUR_MS = 3_600_000


class Nonsense:
    """A peer that answers properly, but for one path."""

    def __init__(self, peer: HostilePeer, user: Account) -> None:
        self.peer = peer
        self.user = user
        self.proper()

    def proper(self) -> None:
        now = self.peer.now_ms()
        self.peer.answers = {
            ("PUT", "/api/challenges"): (
                200,
                {"id": "t1", "token": new_token("sa"), "expires_at": now + HOUR_MS},
            ),
            VISIT: (200, self.visit()),
            REVOCATION: (200, {}),
        }

    def visit(self, **changes: object) -> dict[str, Any]:
        proper = {
            "id": "v1",
            "user": self.user.at,
            "token": new_token("ia"),
            "expires_at": self.peer.now_ms() + HOUR_MS,
        }
        return {**proper, **changes}


@asynccontextmanager
async def home_of(
    databases: Databases, folder: Path, *more_peers: str
) -> AsyncIterator[tuple[FederatedServer, Account, Nonsense]]:
    async with (
        hostile_peer() as peer,
        federated_servers(
            databases, folder, 1, options=NO_LIMITS, peers=[peer.address, *more_peers]
        ) as (home,),
    ):
        ann = await home.account("ann")
        yield home, ann, Nonsense(peer, ann)


async def visit(home: FederatedServer, user: Account, address: str) -> int | None:
    async with home.ask(user) as client:
        return code_of(await client.post("/api/integrity", json={"server": address}))


def ensure_nothing_broke(home: FederatedServer) -> None:
    log = "\n".join(home.running.log)
    assert log_events.TASK_CRASHED not in log
    assert "Traceback" not in log


async def test_nonsense_in_the_place_of_an_answer_is_that_servers_error(
    databases: Databases, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(hostile_peer()) for _ in NONSENSE]
        addresses = [peer.address for peer in peers]
        home, ann, _ = await stack.enter_async_context(home_of(databases, tmp_path, *addresses))
        for peer, (what, nonsense) in zip(peers, NONSENSE.items(), strict=True):
            await _answer_with_nonsense(home, ann, Nonsense(peer, ann), what, nonsense)
        ensure_nothing_broke(home)
        async with home.ask() as client:
            assert (await client.get("/readyz")).status_code == 200


async def _answer_with_nonsense(
    home: FederatedServer, ann: Account, far: Nonsense, what: str, nonsense: bytes
) -> None:
    """Once in the place of each answer that this server asks for."""
    address = far.peer.address

    def only(method: str, path: str) -> None:
        far.proper()
        far.peer.answers[method, path] = (200, nonsense)

    async with home.ask(ann) as client:
        assert await visit(home, ann, address) is None, what
        only(*REVOCATION)
        assert code_of(await client.delete("/api/integrity/v1")) is None, what

        async def asked() -> bool:
            return bool(far.peer.asked(*REVOCATION))

        await eventually(asked)
        only("GET", "/api/users")
        answer = await client.get(f"/api/users?server={address}")
        assert code_of(answer) in REMOTE, what
        only(*VISIT)
        assert await visit(home, ann, address) in REMOTE, what
        # Its token is gone, so that a challenge comes first.
        only("PUT", "/api/challenges")
        far.peer.answers[VISIT] = (401, {"code": 101, "message": "no"})
        assert await visit(home, ann, address) in REMOTE | {110}, what
        far.peer.discovery = lambda _: nonsense
        assert await visit(home, ann, address) in REMOTE | {110}, what


async def test_an_answer_about_somebody_else_begins_no_visit(
    databases: Databases, tmp_path: Path
) -> None:
    async with home_of(databases, tmp_path) as (home, ann, far):
        bob = await home.account("bob")
        for changes in (
            {"user": bob.at},
            {"user": ann.id},
            {"user": f"{ann.id}@{far.peer.address}"},
            {"user": ann.at.upper()},
            {"token": new_token("sa")},
            {"token": new_token("ua")},
            {"token": "ia_" + "x" * 2000},
            {"token": "ia_x\r\nSet-Cookie: a=b"},
            {"id": "../../users/u_1"},
            {"id": ""},
            {"id": 5},
            {"expires_at": 1},
            {"expires_at": -1},
            {"expires_at": "2027"},
            {"expires_at": 1e300},
        ):
            far.peer.answers[VISIT] = (200, far.visit(**changes))
            assert await visit(home, ann, far.peer.address) == 11, changes
        listed = await home.get("/api/integrity", ann)
        assert listed["items"] == []
        ensure_nothing_broke(home)


async def test_peers_that_hang_cost_nobody_else_time(databases: Databases, tmp_path: Path) -> None:
    """A hundred servers that never answer, asked by one user: another one notices nothing."""
    ports = [free_port("127.0.0.10") for _ in range(100)]
    names = [f"127.0.0.10:{port}" for port in ports]
    async with home_of(databases, tmp_path, *names) as (home, ann, _):
        bob = await home.account("bob")
        started = trio.Event()

        async def hang(stream: trio.SocketStream) -> None:
            started.set()
            async with stream:
                await trio.sleep_forever()

        codes: list[int | None] = []

        async def ask(client: httpx.AsyncClient, name: str) -> None:
            codes.append(code_of(await client.get(f"/api/users?server={name}")))

        async with trio.open_nursery() as hanging, home.ask(ann) as many, home.ask(bob) as other:
            for port in set(ports):
                listeners = await trio.open_tcp_listeners(port, host="127.0.0.10")
                hanging.start_soon(trio.serve_listeners, hang, listeners)
            many.timeout = httpx.Timeout(4 * PATIENCE_S)
            async with trio.open_nursery() as asking:
                for name in names:
                    asking.start_soon(ask, many, name)
                with trio.fail_after(PATIENCE_S):
                    await started.wait()
                assert (await other.get("/api/users")).status_code == 200
                assert len(codes) < len(names)  # the others still wait
            hanging.cancel_scope.cancel()
        assert set(codes) <= {6, 122}
        ensure_nothing_broke(home)


async def test_two_servers_that_challenge_each_other_at_once_do_not_wait_for_each_other(
    databases: Databases, tmp_path: Path
) -> None:
    """A peer that asks this server while it is asked: no deadlock."""
    async with home_of(databases, tmp_path) as (home, ann, far):

        async def ask_back(request: Request) -> None:
            if (request.method, request.path) == ("PUT", "/api/challenges"):
                answer = await far.peer.known_to(home)
                assert answer["status"] == 200, answer

        far.peer.gate = ask_back
        with trio.fail_after(PATIENCE_S):  # a wait for each other ends with an error before that
            assert await visit(home, ann, far.peer.address) is None
