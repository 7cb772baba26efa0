"""Keys of other servers: replaced with a chain, without one, and once more before acceptance."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from reileta.observability import log_events
from tests.conftest import Databases
from tests.e2e.federation.hostile_peer import HostilePeer, Json, hostile_peer
from tests.e2e.federation.servers import Account, FederatedServer, federated_servers, two_servers

NO_LIMITS = ("--rate-limits", "off")


async def accept(server: FederatedServer, by: Account, address: str, key: str) -> Json:
    async with server.ask(by) as client:
        answer = await client.post(f"/api/servers/{address}", json={"accept_key": key})
    return {"status": answer.status_code, **answer.json()}


async def status(server: FederatedServer, token: str) -> int:
    """Of a request with that token."""
    async with server.ask(token) as client:
        return (await client.get("/api/users")).status_code


async def known(server: FederatedServer, by: Account, peer: HostilePeer) -> Any:
    return await server.get(f"/api/servers/{peer.address}", by)


async def test_a_key_that_follows_by_the_chain_is_taken_by_itself(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        old = await peer.token_of(b)
        first = await known(b, admin, peer)
        for _ in range(3):  # more than one step at a time, too
            peer.replace_key(chained=True)
        assert (await peer.known_to(b))["status"] == 200
        found = await known(b, admin, peer)
        assert (found["state"], found["public_key"]) == ("known", peer.key.public_base64url)
        assert found["key_since"] > first["key_since"]
        assert await status(b, old) == 200


async def test_a_key_without_a_chain_waits_and_changes_nothing_else(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        old = await peer.token_of(b)
        before = await known(b, admin, peer)
        peer.replace_key(chained=False)
        second = peer.key.public_base64url
        answer = await peer.known_to(b)
        assert (answer["status"], answer["error"]["code"]) == (403, 110)
        found = await known(b, admin, peer)
        assert found["state"] == "pending"
        assert found["offered_key"] == second
        changed = {"state", "offered_key", "offered_at"}
        assert {key: found[key] for key in found if key not in changed} == {
            key: before[key] for key in before if key not in changed
        }
        assert await status(b, old) == 200
        noted = await b.running.until_logged(log_events.PEER_KEY_OFFERED)
        assert b.running.events(log_events.PEER_KEY_OFFERED) == [noted]
        assert (noted["server"], noted["key"]) == (peer.address, second)

        # Somebody who does not have the new key can't offer one.
        good, peer.signed = peer.signed, lambda data: {**data, "signature": "A" * 86}
        offered, peer.discovery = peer.discovery, lambda data: {**data, "public_key": "A" * 43}
        assert (await peer.known_to(b))["status"] == 403
        assert (await known(b, admin, peer))["offered_key"] == second
        peer.signed, peer.discovery = good, offered

        # It changes once more before it is accepted: only the named key is.
        peer.replace_key(chained=False)
        third = peer.key.public_base64url
        assert (await peer.known_to(b))["status"] == 403
        refused = await accept(b, admin, peer.address, second)
        assert (refused["status"], refused["error"]["code"]) == (409, 116)
        assert (await known(b, admin, peer))["public_key"] == before["public_key"]
        accepted = await accept(b, admin, peer.address, third)
        assert accepted["status"] == 200, accepted
        assert accepted["data"]["state"] == "known"
        assert accepted["data"]["public_key"] == third
        assert "offered_key" not in accepted["data"]
        assert (await peer.known_to(b))["status"] == 200
        assert await status(b, old) == 200
        actions = [one["action"] for one in (await b.get("/api/audit", admin))["items"]]
        assert actions.count("accept_server_key") == 2  # the refused one, too


async def test_a_command_accepts_exactly_the_named_key(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        await peer.token_of(b)
        peer.replace_key(chained=False)
        assert (await peer.known_to(b))["status"] == 403
        await b.command("servers", "accept-key", peer.address, "A" * 43, check=False)
        assert (await known(b, admin, peer))["state"] == "pending"
        listed = await b.command("servers", "list")
        assert f"{peer.address}  pending" in listed
        assert f"offered={peer.key.public_base64url}" in listed
        await b.command("servers", "accept-key", peer.address, peer.key.public_base64url)
        assert (await known(b, admin, peer))["state"] == "known"
        assert (await peer.known_to(b))["status"] == 200


async def test_a_server_that_uses_its_pinned_key_again_is_known(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        await peer.token_of(b)
        own = peer.key
        peer.replace_key(chained=False)
        assert (await peer.known_to(b))["status"] == 403
        peer.key = own
        assert (await peer.known_to(b))["status"] == 200
        found = await known(b, admin, peer)
        assert (found["state"], found["public_key"]) == ("known", own.public_base64url)
        assert "offered_key" not in found


async def test_a_key_that_changes_within_a_challenge_is_refused(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        shown = peer.key.public_base64url
        peer.discovery = lambda data: {**data, "public_key": shown}
        peer.replace_key(chained=False)
        answer = await peer.known_to(b)
        assert (answer["status"], answer["error"]["code"]) == (403, 110)
        async with b.ask(admin) as client:
            assert (await client.get(f"/api/servers/{peer.address}")).status_code == 404


async def test_a_rotated_key_of_a_real_server_is_taken(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path, *NO_LIMITS) as (a, b):
        admin_a, admin_b = await a.admin(), await b.admin()

        async def contact() -> int:
            async with a.ask(admin_a) as client:
                return (await client.post("/api/servers", json={"server": b.address})).status_code

        assert await contact() == 200
        made = (await a.command("key", "rotate")).strip()
        a.running.process.send_signal(signal.SIGHUP)
        await a.running.until_logged(log_events.SERVER_KEY_CHANGED)
        assert await contact() == 200
        found = await b.get(f"/api/servers/{a.address}", admin_b)
        assert (found["state"], found["public_key"]) == ("known", made)


async def test_a_server_whose_key_changed_gets_no_challenge_from_this_one(
    databases: Databases, tmp_path: Path
) -> None:
    """Pins hold in both directions: this server proves itself to nobody else in its place."""
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        await peer.token_of(b)
        peer.replace_key(chained=False)
        async with b.ask(admin) as client:
            answer = await client.post("/api/servers", json={"server": peer.address})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, 110)
        assert peer.asked("PUT", "/api/challenges") == []
        assert (await known(b, admin, peer))["state"] == "pending"
