"""Servers of other versions: one that lacks the newest fields, and one that knows no federation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reileta.ids import new_id
from reileta.security.credentials import new_token
from tests.conftest import Databases
from tests.e2e.federation.hostile_peer import HostilePeer, hostile_peer
from tests.e2e.federation.servers import Account, FederatedServer, federated_servers

NO_LIMITS = ("--rate-limits", "off")
UNKNOWN_PATH = {"code": 2, "message": "Request not found"}
HOUR_MS = 3_600_000


async def error(server: FederatedServer, by: Account, method: str, path: str, body: object) -> Any:
    async with server.ask(by) as client:
        answer = await client.request(method, path, json=body)
    return answer.json()["error"]


def ensure_it_says(found: Any, *words: str) -> None:
    """Error 7, about the field `server`, with these words."""
    assert found["code"] == 7, found
    (detail,) = found["details"]
    assert detail["field"] == "server"
    for word in words:
        assert word in str(detail), found


async def test_a_server_without_the_newest_fields_is_challenged_visited_and_read(
    databases: Databases, tmp_path: Path
) -> None:
    """It names no keys, gateways and version, and its objects have what they need only."""
    async with (
        hostile_peer() as old,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[old.address]) as (b,),
    ):
        admin, ann = await b.admin(), await b.account("ann")
        newest = {"keys", "gateways", "version", "secure"}
        old.discovery = lambda data: {k: one for k, one in data.items() if k not in newest}
        token = await old.token_of(b)
        async with b.ask(token) as client:
            user = f"{new_id('u')}@{old.address}"
            made = await client.put("/api/integrity", json={"user": user, "displayname": "Bea"})
            assert made.status_code == 200, made.text
        expires_at = old.now_ms() + HOUR_MS
        issued = {"id": "t1", "token": new_token("sa"), "expires_at": expires_at}
        visit = {"id": "v1", "user": ann.at, "token": new_token("ia"), "expires_at": expires_at}
        bea = {"id": user.partition("@")[0], "username": "bea", "displayname": "Bea", "tags": []}
        old.answers = {
            ("PUT", "/api/challenges"): (200, issued),
            ("PUT", "/api/integrity"): (200, visit),
            ("GET", "/api/users/bea"): (200, bea),
        }
        async with b.ask(ann) as client:
            answer = await client.post("/api/integrity", json={"server": old.address})
            assert answer.status_code == 200, answer.text
        shown = await b.get(f"/api/servers/{old.address}", admin)
        assert shown["state"] == "known"
        assert "version" not in shown
        # What is missing in an object is named.
        found = await error(b, ann, "GET", f"/api/users/bea@{old.address}", None)
        assert found["code"] == 11
        assert found["details"]


async def test_a_server_from_before_federation_is_told_from_one_that_refuses(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as old,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[old.address]) as (b,),
    ):
        admin, ann = await b.admin(), await b.account("ann")
        server = {"server": old.address}
        nothing: HostilePeer = old
        nothing.discovery = lambda _: (
            b"HTTP/1.1 404 X\r\nContent-Length: 55\r\n\r\n"
            b'{"error": {"code": 2, "message": "Request not found"}}\n'
        )
        for by, path in ((admin, "/api/servers"), (ann, "/api/integrity")):
            ensure_it_says(await error(b, by, "POST", path, server), "/.well-known/avr", "too old")
        # It describes itself, and has neither challenges nor guests.
        old.discovery = lambda data: data
        old.answers = {
            ("PUT", "/api/challenges"): (404, UNKNOWN_PATH),
            ("PUT", "/api/integrity"): (404, UNKNOWN_PATH),
        }
        found = await error(b, ann, "POST", "/api/integrity", server)
        ensure_it_says(found, "/api/challenges", "too old")
        issued = {"id": "t", "token": new_token("sa"), "expires_at": old.now_ms() + HOUR_MS}
        old.answers["PUT", "/api/challenges"] = (200, issued)
        found = await error(b, ann, "POST", "/api/integrity", server)
        ensure_it_says(found, "guests", "too old")
        found = await error(b, ann, "GET", f"/api/users?server={old.address}", None)
        ensure_it_says(found, "refuses this request")
        # None of this is a failure of the server, so it is not left alone.
        assert (await b.get(f"/api/servers/{old.address}", admin))["failures"] == 0
