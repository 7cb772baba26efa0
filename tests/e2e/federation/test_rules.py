"""Rules about servers act at once, wherever they were set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from reileta.observability import log_events
from tests.conftest import PATIENCE_S, Databases
from tests.e2e.clients import connected
from tests.e2e.federation.hostile_peer import HostilePeer, Json, Request, hostile_peer
from tests.e2e.federation.servers import Account, FederatedServer, federated_servers

NO_LIMITS = ("--rate-limits", "off")


@asynccontextmanager
async def server_and_peer(
    databases: Databases, folder: Path, *options: str
) -> AsyncIterator[tuple[FederatedServer, HostilePeer]]:
    async with (
        hostile_peer() as peer,
        federated_servers(
            databases, folder, 1, options=(*NO_LIMITS, *options), peers=[peer.address]
        ) as (server,),
    ):
        yield server, peer


async def rule(server: FederatedServer, by: Account, **fields: object) -> int:
    async with server.ask(by) as client:
        return (await client.put("/api/servers/rules", json=fields)).status_code


async def unrule(server: FederatedServer, by: Account, pattern: str) -> int:
    async with server.ask(by) as client:
        answer = await client.delete("/api/servers/rules", params={"pattern": pattern})
        return answer.status_code


async def code(server: FederatedServer, token: str) -> int | None:
    """The error of a read with that token."""
    async with server.ask(token) as client:
        answer = await client.get("/api/users")
    found: int | None = answer.json().get("error", {}).get("code")
    return found


async def contact(server: FederatedServer, by: Account, address: str) -> Json:
    async with server.ask(by) as client:
        answer = await client.post("/api/servers", json={"server": address})
    return {"status": answer.status_code, **answer.json()}


async def test_a_block_ends_everything_at_once_and_can_be_undone(
    databases: Databases, tmp_path: Path
) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin = await b.admin()
        token = await peer.token_of(b)
        peer.answers["PUT", "/api/challenges"] = (200, issued())
        assert (await contact(b, admin, peer.address))["status"] == 200
        asked = len(peer.requests)
        # The host alone: every port of it.
        assert await rule(b, admin, pattern="127.0.0.9", kind="block", reason="spam") == 200
        assert await code(b, token) == 101
        refused = await peer.known_to(b)
        assert (refused["status"], refused["error"]["code"]) == (403, 110)
        answer = await contact(b, admin, peer.address)
        assert (answer["status"], answer["error"]["code"]) == (403, 135)
        assert len(peer.requests) == asked
        found = await b.get(f"/api/servers/{peer.address}", admin)
        assert (found["decision"], found["tokens"]) == ("block", [])
        assert "token_expires_at" not in found
        blocked = await b.running.until_logged(log_events.SERVER_BLOCKED)
        assert blocked["server"] == peer.address

        assert await unrule(b, admin, "127.0.0.9:3032") == 200  # a port is ignored
        assert await unrule(b, admin, "127.0.0.9") == 404
        assert await code(b, token) == 101  # its token stays revoked
        assert (await peer.known_to(b))["status"] == 200
        assert (await contact(b, admin, peer.address))["status"] == 200


def issued() -> Json:
    return {
        "id": "abc",
        "token": "sa_" + "p" * 43,
        "expires_at": HostilePeer("", 0).now_ms() + 30 * 24 * 3600 * 1000,
    }


async def test_commands_act_on_a_running_server(databases: Databases, tmp_path: Path) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin = await b.admin()
        token = await peer.token_of(b)
        await b.command("servers", "block", "127.0.0.9:99", "--reason", "spam")
        assert await code(b, token) == 101  # in the database, at once
        with trio.fail_after(PATIENCE_S):
            while (await b.get(f"/api/servers/{peer.address}", admin))["decision"] != "block":
                await trio.sleep(0.05)
        assert (await peer.known_to(b))["status"] == 403
        assert "127.0.0.9  rule=block  reason='spam'" in await b.command("servers", "list")
        await b.command("servers", "silence", "127.0.0.9")
        with trio.fail_after(PATIENCE_S):
            while (await b.get(f"/api/servers/{peer.address}", admin))["decision"] != "silence":
                await trio.sleep(0.05)
        assert await code(b, await peer.token_of(b)) is None  # it can read
        await b.command("servers", "unblock", "127.0.0.9")
        await b.command("servers", "unblock", "127.0.0.9", check=False)
        entries = (await b.get("/api/audit", admin))["items"]
        found = [(one["action"], one["target"]) for one in entries if one["via"] == "command"]
        assert found[:3] == [
            ("delete_server_rule", "127.0.0.9"),
            ("put_server_rule", "127.0.0.9"),
            ("put_server_rule", "127.0.0.9"),
        ]


async def test_a_command_before_the_start_counts_too(databases: Databases, tmp_path: Path) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        token = await peer.token_of(b)
        await b.stop()
        await b.command("servers", "block", "127.0.0.9")
        await b.start()
        assert await code(b, token) == 101
        assert (await peer.known_to(b))["status"] == 403


@pytest.mark.parametrize("mode", ["allowlist", "off"])
async def test_without_permission_nothing_happens(
    databases: Databases, tmp_path: Path, mode: str
) -> None:
    async with server_and_peer(databases, tmp_path, "--federation", mode) as (b, peer):
        admin = await b.admin()
        assert (await peer.known_to(b))["status"] == 403
        assert (await contact(b, admin, peer.address))["error"]["code"] == 135
        assert peer.requests == []
        assert await rule(b, admin, pattern="127.0.0.9", kind="allow") == 200
        allowed = (await peer.known_to(b))["status"] == 200
        assert allowed == (mode == "allowlist")
        if allowed:
            token = await peer.token_of(b)
            assert await unrule(b, admin, "127.0.0.9") == 200
            assert await code(b, token) == 101


async def test_a_block_within_a_challenge_wins(databases: Databases, tmp_path: Path) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin = await b.admin()

        async def block(request: Request) -> None:
            if request.path.startswith("/api/challenges/"):
                assert await rule(b, admin, pattern="127.0.0.9", kind="block") == 200

        peer.gate = block
        answer = await peer.known_to(b)
        assert (answer["status"], answer["error"]["code"]) == (403, 110)
        async with b.ask(admin) as client:
            assert (await client.get(f"/api/servers/{peer.address}")).status_code == 404


async def test_rules_are_for_admins_and_checked(databases: Databases, tmp_path: Path) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin, user = await b.admin(), await b.account()
        token = await peer.token_of(b)
        for by in (user, token):
            async with b.ask(by) as client:
                for method, path in (
                    ("GET", "/api/servers"),
                    ("POST", "/api/servers"),
                    ("GET", f"/api/servers/{peer.address}"),
                    ("POST", f"/api/servers/{peer.address}"),
                    ("GET", "/api/servers/rules"),
                    ("PUT", "/api/servers/rules"),
                    ("DELETE", "/api/servers/rules"),
                    ("GET", "/api/challenges"),
                ):
                    answer = await client.request(method, path)
                    assert answer.status_code in (401, 403), (method, path)
        for wrong in (
            {"pattern": "", "kind": "block"},
            {"pattern": "a b", "kind": "block"},
            {"pattern": "x" * 400, "kind": "block"},
            {"pattern": "127.1", "kind": "block"},
            {"pattern": "evil.example", "kind": "hate"},
            {"pattern": "evil.example"},
            {"kind": "block"},
            {"pattern": "evil.example", "kind": "block", "until": -1},
            {"pattern": "evil.example", "kind": "block", "reason": "x" * 501},
        ):
            assert await rule(b, admin, **wrong) == 400, wrong
        assert await rule(b, admin, pattern="EVIL.Example.:8443", kind="block") == 200
        assert await rule(b, admin, pattern="bücher.example", kind="silence", until=2**52) == 200
        assert await rule(b, admin, pattern="evil.example", kind="allow") == 200
        listed = await b.get("/api/servers/rules", admin)
        assert [(one["pattern"], one["kind"]) for one in listed["items"]] == [
            ("evil.example", "allow"),
            ("xn--bcher-kva.example", "silence"),
        ]
        assert {one["by"] for one in listed["items"]} == {admin.id}
        page = await b.get("/api/servers/rules", admin, params={"limit": 1})
        more = await b.get("/api/servers/rules", admin, params={"limit": 1, "after": page["next"]})
        assert [one["pattern"] for one in more["items"]] == ["xn--bcher-kva.example"]
        silenced = await b.get("/api/servers/rules", admin, params={"kind": "silence"})
        assert silenced["total"] == 1


async def test_admins_who_subscribe_are_told_and_nobody_else(
    databases: Databases, tmp_path: Path
) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin, user = await b.admin(), await b.account()
        async with connected(b.running, admin) as told, connected(b.running, user) as other:
            for socket in (told, other):
                await socket.ask("subscribe", {"event": "update-peer"})
            await peer.token_of(b)
            event = await told.event("update-peer")
            assert event["subgroup"] == event["data"]["address"] == peer.address
            assert (event["data"]["state"], event["data"]["decision"]) == ("known", "allow")
            peer.replace_key(chained=False)
            await peer.known_to(b)
            event = await told.event("update-peer")
            assert event["data"]["state"] == "pending"
            assert event["data"]["offered_key"] == peer.key.public_base64url
            await rule(b, admin, pattern="127.0.0.9", kind="block")
            event = await told.event("update-peer")
            assert event["data"]["decision"] == "block"
            assert "error" not in await other.ask("ping")
            assert not any(one.get("command") == "update-peer" for one in other.skipped)
