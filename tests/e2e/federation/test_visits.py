"""Users of one real server visit another, and their own server has their tokens revoked there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import Databases
from tests.e2e.clients import connected
from tests.e2e.federation.peers import code_of
from tests.e2e.federation.servers import Account, FederatedServer, two_servers
from tests.e2e.processes import eventually
from tests.ports import free_port

Json = dict[str, Any]


@dataclass(frozen=True)
class Visitor:
    """A user of one server with a token of another."""

    at: str
    id: str
    token: str


async def visit(home: FederatedServer, user: Account, there: FederatedServer) -> Visitor:
    async with home.ask(user) as client:
        answer = await client.post("/api/integrity", json={"server": there.address})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert (data["user"], data["server"]) == (user.at, there.address)
    return Visitor(data["user"], data["id"], data["token"])


async def new_room(server: FederatedServer, owner: Account, *tags: str) -> str:
    async with server.ask(owner) as client:
        world = (await client.put("/api/worlds", json={"title": "Harbour"})).json()["data"]["id"]
        wanted = {"world": world, "tags": [*tags] or ["avr:public"]}
        made = await client.put("/api/instances", json=wanted)
        room: str = made.json()["data"]["id"]
        return room


async def is_guest(there: FederatedServer, who: Visitor) -> bool:
    async with there.ask(who.token) as client:
        answer = await client.get("/api/users/@me")
    assert code_of(answer) in (None, 101), answer.text
    return code_of(answer) is None


async def until_gone(there: FederatedServer, who: Visitor) -> None:
    async def gone() -> bool:
        return not await is_guest(there, who)

    await eventually(gone)


async def test_a_user_of_one_server_stands_in_an_instance_of_another(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann, ada = await a.account("ann"), await b.account("ada")
        room = await new_room(b, ada)
        guest = await visit(a, ann, b)
        async with connected(b, ada) as host, connected(b, guest) as player:
            await host.join(room)
            await player.join(room)
            joined = (await host.event("instance-joined"))["data"]
            assert (joined["user"], joined["displayname"]) == (ann.at, "ann")
            await player.say(room, {"wave": True})
            assert (await host.hear())["data"] == {"wave": True}
            await host.say(room, "welcome")
            assert (await player.hear())["data"] == "welcome"
            for measure, seen in (
                ("mute", "instance-moderated"),
                ("kick", "instance-left"),
                ("ban", "instance-moderated"),
            ):
                order = {"user": ann.at, "type": measure}
                host.skipped.clear()
                done = await host.ask("instance-moderate", order, subgroup=room)
                assert "error" not in done, done
                assert (await player.event(seen))["data"]["user"] == ann.at
                heard = [one for one in host.skipped if one["command"] == seen]
                told = heard[0] if heard else await host.event(seen)
                assert told["data"]["user"] == ann.at
            refused = await player.ask("instance-join", {"instance": room})
            assert refused["error"]["code"] == 123
        # It is known here by its server, and to nobody as a user of this one.
        seen = await b.get(f"/api/users/{ann.at}")
        assert (seen["id"], seen["server"], seen["displayname"]) == (ann.id, a.address, "ann")
        assert (await b.get("/api/users?query=ann"))["items"] == []
        async with b.ask() as client:
            assert code_of(await client.get("/api/users/ann")) == 17
        admin = await b.admin()
        async with connected(b, guest):
            where = await b.get(f"/api/users/{ann.at}/whereabouts", admin)
            assert (where["user"], where["status"]) == (ann.at, "online")
            assert len(where["sessions"]) == 1


@pytest.mark.parametrize("way", ["logout", "end", "delete", "suspend", "endpoint"])
async def test_a_visit_ends_with_the_session_that_began_it(
    databases: Databases, tmp_path: Path, way: str
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann, bob = await a.account("ann"), await a.account("bob")
        guest, other = await visit(a, ann, b), await visit(a, bob, b)
        listed = await a.get("/api/integrity", ann)
        assert [one["id"] for one in listed["items"]] == [guest.id]
        async with connected(b, guest) as player:
            async with a.ask(ann) as client:
                if way == "logout":
                    assert code_of(await client.get("/api/auth/logout")) is None
                elif way == "end":
                    assert code_of(await client.delete("/api/auth/logout")) is None
                elif way == "delete":
                    body = {"current_password": "correct horse"}
                    answer = await client.request("DELETE", "/api/users/@me", json=body)
                    assert code_of(answer) is None
                elif way == "suspend":
                    await a.command("admin", "suspend", "ann")
                else:
                    answer = await client.delete(f"/api/integrity/{other.id}")
                    assert code_of(answer) == 35
                    assert code_of(await client.delete(f"/api/integrity/{guest.id}")) is None
            assert (await player.closed())[0] == 4000
        assert not await is_guest(b, guest)
        assert await is_guest(b, other)


async def test_a_token_is_revoked_when_the_other_server_is_back(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann = await a.account("ann")
        guest = await visit(a, ann, b)
        await b.stop()
        async with a.ask(ann) as client:
            assert code_of(await client.delete("/api/auth/logout")) is None
        await a.stop()  # it is not forgotten over a restart, either
        await a.start()
        await b.start()
        await until_gone(b, guest)


async def test_a_server_that_is_away_is_not_the_users_fault(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann = await a.account("ann")
        guest = await visit(a, ann, b)
        room = await new_room(b, await b.account())
        await b.stop()
        async with a.ask(ann) as client:
            answer = await client.post("/api/integrity", json={"server": b.address})
            assert (answer.status_code, code_of(answer)) == (502, 6)
        await b.start()
        a.running.process.kill()
        await a.running.ended()
        # Who is there stays there.
        async with connected(b, guest) as player:
            await player.join(room)


async def test_a_visit_is_checked_like_any_input(databases: Databases, tmp_path: Path) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann = await a.account("ann")
        async with a.ask(ann) as client:
            for server in (a.address, "", "x y", "http://b.example", "127.1", "a/b", 7, None):
                answer = await client.post("/api/integrity", json={"server": server})
                assert (answer.status_code, code_of(answer)) == (400, 34), server
            nobody = f"127.0.0.9:{free_port('127.0.0.9')}"
            answer = await client.post("/api/integrity", json={"server": nobody})
            assert code_of(answer) == 6
            codes = []
            for _ in range(10):
                answer = await client.post("/api/integrity", json={"server": b.address})
                codes.append(code_of(answer))
            assert codes[-1] == 102
            assert "Retry-After" in answer.headers
        await a.command("servers", "block", b.address.partition(":")[0])
        eve = await a.account("eve")

        async def blocked() -> bool:
            async with a.ask(eve) as client:
                answer = await client.post("/api/integrity", json={"server": b.address})
            return code_of(answer) == 135

        await eventually(blocked)
        async with a.ask() as client:
            answer = await client.post("/api/integrity", json={"server": b.address})
            assert code_of(answer) == 3


async def test_a_token_is_of_no_use_at_any_other_server(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann = await a.account("ann")
        guest = await visit(a, ann, b)
        async with a.ask(guest.token) as client:
            assert code_of(await client.get("/api/users/@me")) == 101
        async with b.ask(ann.token) as client:
            assert code_of(await client.get("/api/users/@me")) == 101


async def test_a_blocked_server_loses_the_guests_that_are_inside(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann, ada = await a.account("ann"), await b.account("ada")
        room = await new_room(b, ada)
        guest = await visit(a, ann, b)
        async with connected(b, ada) as host, connected(b, guest) as player:
            await host.join(room)
            await player.join(room)
            await b.command("servers", "block", "127.0.0.2")
            for one in (host, player):
                left = (await one.event("instance-left"))["data"]
                assert (left["user"], left["reason"]) == (ann.at, "server-blocked")
            assert (await player.closed())[0] == 4000
        async with a.ask(ann) as client:
            answer = await client.post("/api/integrity", json={"server": b.address})
            assert code_of(answer) in (110, 135)
        await b.command("servers", "allow", "127.0.0.2")

        # Until the other process has seen the new rule, it refuses challenges, and these count:
        # after three in a minute, the next one is heard 20 s later.
        async with a.ask(await a.account()) as client:
            with trio.fail_after(60):
                while code_of(await client.post("/api/integrity", json={"server": b.address})):
                    await trio.sleep(2)


async def test_friends_of_two_servers_meet_where_only_friends_may(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann, ada = await a.account("ann"), await b.account("ada")
        room = await new_room(b, ada, "avr:friends_only")
        async with a.ask(ann) as client:
            await client.put(f"/api/users/@me/follows/{ada.at}")
        guest = await visit(a, ann, b)
        async with connected(b, guest) as player:
            refused = await player.ask("instance-join", {"instance": room})
            assert refused["error"]["code"] == 49
            async with b.ask(ada) as client:
                followed = await client.put(f"/api/users/@me/follows/{ann.at}")
            assert followed.json()["data"]["isFriend"] is True
            await player.join(room)


async def test_neither_log_has_a_token(databases: Databases, tmp_path: Path) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        ann = await a.account("ann")
        guest = await visit(a, ann, b)
        await a.running.until_logged("visit.begun")
        await b.running.until_logged("guest.admitted")
        async with a.ask(ann) as client:
            await client.delete("/api/auth/logout")
        await a.running.until_logged("visit.revoked")
        await b.running.until_logged("guest.revoked")
        for server in (a, b):
            text = "\n".join(server.running.log)
            for token in (guest.token, ann.token, "sa_", "ia_"):
                assert token not in text
