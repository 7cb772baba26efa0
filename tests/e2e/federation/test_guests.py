"""Guests at a real server: a played server introduces its users, who come over real sockets."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from reileta.ids import new_id
from reileta.records import InstanceRecord
from tests.api.pngs import png
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Player, connected, until
from tests.e2e.federation.peers import Guest, PlayedServer, code_of, played_server
from tests.e2e.processes import eventually
from tests.e2e.servers import Account, ServerHarness, running

UNAUTHORIZED = 101
GUEST_NOT_ALLOWED = 129
SERVER_BLOCKED = 135
FAR = "far.example:3032"


async def room_of(harness: ServerHarness, owner: Account, *tags: str) -> InstanceRecord:
    return await harness.store.instances.create(
        name=f"room-{owner.id[-6:]}{len(tags)}",
        title=None,
        description=None,
        world="w_00000000-0000-4000-8000-000000000000",
        owner=owner.id,
        capacity=8,
        tags=frozenset({"avr:public", *tags}),
    )


async def left(player: Player) -> dict[str, Any]:
    data: dict[str, Any] = (await player.event("instance-left"))["data"]
    return data


async def test_a_guest_joins_speaks_and_is_muted_kicked_and_banned(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest(displayname="Ann")
        room = (await room_of(harness, ada)).id
        async with connected(harness, ada) as host, connected(harness, ann) as guest:
            await host.join(room)
            welcome = await guest.join(room)
            assert [one["user"] for one in welcome["players"]][-1] == ann.at
            joined = (await host.event("instance-joined"))["data"]
            assert (joined["user"], joined["displayname"]) == (ann.at, "Ann")
            assert joined["role"] == "normal"
            await guest.say(room, {"x": 1})
            assert (await host.hear())["data"] == {"x": 1}

            order = {"user": ann.at, "type": "mute"}
            await host.ask("instance-moderate", order, subgroup=room)
            await guest.event("instance-moderated")
            assert (await guest.ask("instance-data", 1, subgroup=room))["error"]["code"] == 49
            for type_, reason in (("kick", "kicked"), ("ban", "banned")):
                if type_ == "ban":
                    await guest.join(room)
                order = {"user": ann.at, "type": type_}
                await host.ask("instance-moderate", order, subgroup=room)
                gone = await left(guest)
                assert (gone["user"], gone["reason"]) == (ann.at, reason)
            again = await guest.ask("instance-join", {"instance": room})
            assert again["error"]["code"] == 123
        bans = await far.ask("GET", f"/api/instances/{room}/bans", token=ada.token)
        assert [one["user"] for one in bans.json()["data"]["items"]] == [ann.at]
        log = await far.ask("GET", f"/api/instances/{room}/moderations", token=ada.token)
        assert {one["user"] for one in log.json()["data"]["items"]} == {ann.at}


async def test_a_token_that_ends_inside_is_renewed_without_leaving(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        room = (await room_of(harness, ada)).id
        async with connected(harness, ada) as host:
            await host.join(room)
            async with connected(harness, ann) as guest:
                player = (await guest.join(room))["player"]
                await host.event("instance-joined")
                # As if its hour was over.
                await harness.store.database.execute("UPDATE integrity_tokens SET expires_at = 1")
                revoked = await far.ask("DELETE", f"/api/integrity/{ann.id}")
                assert code_of(revoked) == 35  # it has ended already
                harness.gateway.auth.forget_user(ann.at)
                answer = await far.ask("GET", "/api/users/@me", token=ann.token)
                assert code_of(answer) == UNAUTHORIZED
                renewed = await far.guest(ann.at)
                answered = await guest.ask("authenticate", {"integrity": renewed.token})
                assert answered["data"]["session"] == guest.session
            async with connected(harness, renewed) as guest:
                assert (await guest.join(room))["player"] == player
        assert all(one.get("command") != "instance-left" for one in host.skipped)


async def test_a_guest_has_the_name_that_its_server_says_now(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest(displayname="Ann")
        room = (await room_of(harness, ada)).id
        async with connected(harness, ada) as host, connected(harness, ann) as guest:
            await host.join(room)
            await guest.join(room)
            await far.guest(ann.at, displayname="Anne")
            updated = (await host.event("player-updated"))["data"]
            assert (updated["user"], updated["displayname"]) == (ann.at, "Anne")
            assert updated["player"] == guest.id


async def test_a_socket_is_closed_when_its_token_is_revoked(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        near = await played_server(harness, "near.example")
        admin = await harness.account("boss", admin=True)
        ada = await harness.account("ada")

        async def revoked_by(token: str | None, server: PlayedServer = far) -> int | None:
            """Revokes a new guest's token, and sees its socket closed if that worked."""
            ann = await far.guest()
            async with connected(harness, ann) as guest:
                answer = await server.ask("DELETE", f"/api/integrity/{ann.id}", token=token)
                if code_of(answer) is None:
                    assert (await guest.closed())[0] == 4000
                    again = await far.ask("GET", "/api/users/@me", token=ann.token)
                    assert code_of(again) == UNAUTHORIZED
                return code_of(answer)

        own = await far.guest()
        async with connected(harness, own) as guest:
            assert (
                code_of(await far.ask("DELETE", f"/api/integrity/{own.id}", token=own.token))
                is None
            )
            assert (await guest.closed())[0] == 4000
        assert await revoked_by(far.token) is None
        assert await revoked_by(admin.token) is None
        assert await revoked_by(near.token) == 35
        assert await revoked_by(ada.token) == 35
        assert await revoked_by((await far.guest()).token) == 35


async def test_a_server_speaks_for_its_own_users_only(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ada = await harness.account("ada")
        user = new_id("u")
        for name in (
            f"{user}@near.example",
            f"{user}@far.example",
            f"{user}@far.example:8443",
            f"{user}@a.far.example:3032",
            f"{ada.id}@{harness.address}",
            user,
            ada.id,
            "u_1@far.example:3032",
            f"{user}@",
            f"{user}@{FAR}@{FAR}",
            f"*@{FAR}",
            "",
        ):
            answer = await far.introduce(name)
            assert (answer.status_code, code_of(answer)) == (400, 34), name
        # Another spelling of the same server is the same user.
        answer = await far.introduce(f"{user}@FAR.example.:3032")
        assert answer.json()["data"]["user"] == f"{user}@{FAR}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("displayname", ""),
        ("displayname", "x" * 33),
        ("displayname", "Ann\u202eevil"),
        ("displayname", "An\u0000n"),
        ("displayname", "An\u200bn"),
        ("displayname", 7),
        ("displayname", None),
        ("follows", ["u_00000000-0000-4000-8000-000000000001@near.example"]),
        ("follows", ["nobody"]),
        ("follows", [7]),
        ("follows", "u"),
        ("follows", ["x"] * 1001),
        ("thumbnail", 7),
    ],
)
async def test_an_introduction_is_checked_like_any_input(
    database_url: str, field: str, value: object
) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        answer = await far.introduce(f"{new_id('u')}@{FAR}", **{field: value})
        assert (answer.status_code, code_of(answer)) == (400, 34)
        assert {one["field"].partition(".")[0] for one in answer.json()["error"]["details"]} == {
            field
        }


async def test_only_a_picture_at_its_own_server_is_shown(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)

        async def shown(url: str) -> str | None:
            ann = await far.guest(thumbnail=url)
            answer = await far.ask("GET", "/api/users/@me", token=ann.token)
            thumbnail: str | None = answer.json()["data"].get("thumbnail")
            return thumbnail

        own = f"https://{FAR}/api/users/u_1/thumbnail"
        assert await shown(own) == own
        for url in (
            f"http://{FAR}/x.png",
            "https://tracker.example/x.png",
            f"https://{FAR}@tracker.example/x.png",
            "javascript:alert(1)",
            f"https://tracker.example/{FAR}",
            "https://[",
            f"https://{FAR}/a\nb.png",
            f"h\tttps://{FAR}/x.png",
            f" https://{FAR}/x.png",
            f"https://{FAR}/x\u202e.png",
            f'https://{FAR}/x" onload="x',
            f"https://{FAR}/\\..\\x.png",
        ):
            assert await shown(url) is None


async def test_nobody_but_servers_introduces_and_servers_visit_nobody(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ada = await harness.account("ada", admin=True)
        ann = await far.guest()
        body = {"user": ann.at, "displayname": "Ann"}
        for token in (ada.token, ann.token):
            answer = await far.ask("PUT", "/api/integrity", body, token=token)
            assert (answer.status_code, code_of(answer)) in ((401, 136), (403, 129))
        there = {"server": "near.example"}
        answer = await far.ask("POST", "/api/integrity", there, token=ann.token)
        assert code_of(answer) == GUEST_NOT_ALLOWED
        assert code_of(await far.ask("POST", "/api/integrity", there)) == 3


async def test_tokens_are_listed_for_those_whom_they_concern(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        near = await played_server(harness, "near.example")
        admin = await harness.account("boss", admin=True)
        ada = await harness.account("ada")
        ann, bea, cat = await far.guest(), await far.guest(), await near.guest()

        async def listed(token: str, query: str = "") -> list[str]:
            answer = await far.ask("GET", f"/api/integrity{query}", token=token)
            assert answer.status_code == 200, answer.text
            assert "ia_" not in answer.text
            return [one["id"] for one in answer.json()["data"]["items"]]

        assert await listed(ann.token) == [ann.id]
        assert await listed(far.token) == [ann.id, bea.id]
        assert await listed(near.token) == [cat.id]
        assert await listed(admin.token) == [ann.id, bea.id, cat.id]
        assert await listed(admin.token, f"?user={bea.at}") == [bea.id]
        assert await listed(admin.token, "?limit=1&offset=1") == [bea.id]
        assert await listed(admin.token, "?user=@me") == []
        assert await listed(ada.token) == []
        async with far.client() as client:
            answer = await client.get("/api/integrity", headers={"Authorization": ""})
            assert answer.status_code in (400, 401)


WRITES: list[tuple[str, str, object]] = [
    ("POST", "/api/server", {"title": "Mine"}),
    ("POST", "/api/users", {"username": "eve"}),
    ("POST", "/api/users/{me}", {"displayname": "Eve"}),
    ("POST", "/api/users/@me", {"displayname": "Eve"}),
    ("DELETE", "/api/users/@me", {}),
    ("POST", "/api/users/ada/suspension", {}),
    ("GET", "/api/users/ada/whereabouts", None),
    ("GET", "/api/audit", None),
    ("GET", "/api/users/@me/sessions", None),
    ("GET", "/api/users/@me/home", None),
    ("POST", "/api/users/@me/home", {"world": "{world}"}),
    ("DELETE", "/api/users/@me/home", None),
    ("DELETE", "/api/users/@me/thumbnail", None),
    ("PUT", "/api/users/@me/follows/ada", None),
    ("DELETE", "/api/users/@me/follows/ada", None),
    ("GET", "/api/users/@me/follows", None),
    ("GET", "/api/users/@me/followers", None),
    ("PUT", "/api/worlds", {"title": "Mine"}),
    ("POST", "/api/worlds/{world}", {"title": "Mine"}),
    ("DELETE", "/api/worlds/{world}", None),
    ("PUT", "/api/worlds/{world}/assets", {}),
    ("DELETE", "/api/worlds/{world}/thumbnail", None),
    ("PUT", "/api/services", {"id": "com.example.mine", "title": "Mine"}),
    ("POST", "/api/services/com.example.mine", {"title": "Mine"}),
    ("DELETE", "/api/services/com.example.mine", None),
    ("PUT", "/api/instances", {"world": "{world}"}),
    ("POST", "/api/instances/{room}", {"title": "Mine"}),
    ("DELETE", "/api/instances/{room}", None),
    ("POST", "/api/instances/{room}/moderate", {"user": "ada", "type": "kick"}),
    ("GET", "/api/instances/{room}/bans", None),
    ("GET", "/api/instances/{room}/moderations", None),
    ("POST", "/api/instances/{room}/master", {"user": "ada"}),
    ("PUT", "/api/instances/{room}/moderators/ada", None),
    ("DELETE", "/api/instances/{room}/moderators/ada", None),
    ("POST", "/api/instances/{room}/candidate", {"user": "ada"}),
    ("DELETE", "/api/instances/{room}/candidate?user=ada", None),
    ("GET", "/api/auth/logout", None),
    ("DELETE", "/api/auth/logout", None),
    ("POST", "/api/integrity", {"server": "near.example"}),
    ("GET", "/session", None),
    ("POST", "/auth/logout", None),
    ("POST", "/resource/document", {"title": "Mine"}),
    ("GET", "/resource/document", None),
    ("GET", "/resource/world/1/view", None),
]
READS = [
    "/api/server",
    "/api/users",
    "/api/users/ada",
    "/api/users/@me",
    "/api/worlds",
    "/api/worlds/{world}",
    "/api/worlds/{world}/assets",
    "/api/services",
    "/api/instances",
    "/api/instances/{room}",
    "/api/instances/{room}/players",
    "/api/instances/{room}/queue",
    "/api/integrity",
]


async def test_a_guest_reads_what_is_public_and_changes_nothing(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        world = await harness.store.worlds.create(
            title="Harbour", description=None, capacity=8, owner=ada.id, tags=frozenset()
        )
        room = await room_of(harness, ada)
        names = {"world": world.id, "room": room.id, "me": ann.at}

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                return value.format(**names)
            return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

        async with far.client(ann.token) as client:
            for method, path, body in WRITES:
                answer = await client.request(method, filled(path), json=filled(body))
                assert (code_of(answer), answer.status_code) == (GUEST_NOT_ALLOWED, 403), path
            picture = f"/api/worlds/{world.id}/thumbnail"
            answer = await client.post(
                picture, content=png(), headers={"Content-Type": "image/png"}
            )
            assert code_of(answer) == GUEST_NOT_ALLOWED
            for path in READS:
                answer = await client.get(filled(path))
                assert answer.status_code == 200, path
        assert await harness.store.instances.get(room.id) == room
        for path in ("/ws/user", "/ws/autopilot"):
            async with far.client() as client:
                answer = await client.get(
                    f"{path}?integrityuser={ann.token}",
                    headers={
                        "Authorization": f"Bearer {ann.token}",
                        "Connection": "Upgrade",
                        "Upgrade": "websocket",
                        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                        "Sec-WebSocket-Version": "13",
                    },
                )
                assert code_of(answer) == GUEST_NOT_ALLOWED, path


async def test_nothing_is_passed_on_for_a_guest_or_a_server(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ann = await far.guest()
        user = new_id("u")
        for token in (ann.token, far.token):
            for path in (
                "/api/users?server=near.example",
                f"/api/users/{user}@near.example",
                f"/api/users/{user}?server=near.example",
                f"/api/users/{user}@{FAR}",
                "/api/worlds@near.example",
                "/api/server?server=near.example",
            ):
                answer = await far.ask("GET", path, token=token)
                assert (answer.status_code, code_of(answer)) == (404, 5), path
        assert harness.metrics.peer_requests == {}


async def test_a_guest_is_shown_as_it_was_here(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ada, admin = await harness.account("ada"), await harness.account("boss", admin=True)
        ann = await far.guest(displayname="Ann")
        id_ = ann.at.partition("@")[0]
        for token in (ann.token, far.token, ada.token, admin.token):
            for path in (f"/api/users/{ann.at}", f"/api/users/{id_}?server={FAR}"):
                answer = await far.ask("GET", path, token=token)
                assert answer.status_code == 200, answer.text
                shown = answer.json()["data"]
                assert (shown["id"], shown["server"]) == (id_, FAR)
                assert (shown["displayname"], shown["username"], shown["tags"]) == ("Ann", "", [])
        assert "status" not in (await far.ask("GET", f"/api/users/{ann.at}", token=ada.token)).text
        # As it is now, as soon as its server says so.
        await far.guest(ann.at, displayname="Anne")
        answer = await far.ask("GET", f"/api/users/{ann.at}", token=ada.token)
        assert answer.json()["data"]["displayname"] == "Anne"
        for method, path in (
            ("POST", f"/api/users/{ann.at}"),
            ("DELETE", f"/api/users/{ann.at}"),
            ("POST", f"/api/users/{ann.at}/suspension"),
        ):
            answer = await far.ask(method, path, {}, token=admin.token)
            assert code_of(answer) == 10, path
        # A name like that of a user here is shown with its server, like any other.
        eve = await far.guest(displayname="boss")
        answer = await far.ask("GET", "/api/users?query=boss", token=eve.token)
        assert [one["server"] for one in answer.json()["data"]["items"]] == [harness.address]


async def test_a_guest_sends_only_commands_of_guests(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        room = (await room_of(harness, ada)).id
        async with connected(harness, ann) as guest:
            await guest.join(room)
            for command, data, more in (
                ("watch", {"type": "document", "id": 1}, {}),
                ("unwatch", {"type": "document", "id": 1}, {}),
                ("instance-moderate", {"user": "ada", "type": "ban"}, {"subgroup": room}),
                ("subscribe", {"event": "instance-data"}, {}),
            ):
                refused = await guest.ask(command, data, **more)
                assert refused["error"]["code"] == GUEST_NOT_ALLOWED, command
            for event in ("update-user", "instance", "all"):
                assert "error" not in await guest.ask("subscribe", {"event": event})
            # The group does not bring the data of instances that it is not in.
            other = (await room_of(harness, ada, "avr:no_guests")).id
            async with connected(harness, ada) as host:
                await host.join(other)
                await guest.event("instance-joined")
                await host.ask("instance-data", "psst", subgroup=other)
                await guest.ask("ping", {})
            assert all(one.get("command") != "instance-data" for one in guest.skipped)


async def test_guests_own_what_the_operator_lets_them_own(database_url: str) -> None:
    async with running(database_url, guests_own=True) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        foreign = await room_of(harness, ada)
        async with far.client(ann.token) as client:
            world = (await client.put("/api/worlds", json={"title": "Mine"})).json()["data"]
            assert world["owner"] == ann.at
            made = await client.put("/api/instances", json={"world": world["id"]})
            room = made.json()["data"]
            assert room["owner"] == ann.at
            changed = await client.post(f"/api/instances/{room['id']}", json={"title": "Tea"})
            assert changed.json()["data"]["title"] == "Tea"
            bans = await client.get(f"/api/instances/{room['id']}/bans")
            assert bans.status_code == 200
            for method, path, body in (
                ("POST", f"/api/instances/{foreign.id}", {"title": "Mine"}),
                ("DELETE", f"/api/instances/{foreign.id}", None),
                ("GET", f"/api/instances/{foreign.id}/bans", None),
                ("GET", f"/api/instances/{foreign.id}/moderations", None),
                ("POST", f"/api/instances/{foreign.id}/moderate", {"user": "ada", "type": "ban"}),
                ("PUT", "/api/services", {"id": "com.example.mine", "title": "Mine"}),
                ("POST", f"/api/worlds/{world['id']}/thumbnail", None),
                ("POST", "/api/users/@me", {"displayname": "Eve"}),
            ):
                answer = await client.request(method, path, json=body)
                assert code_of(answer) == GUEST_NOT_ALLOWED, path
        async with connected(harness, ann) as host, connected(harness, ada) as player:
            assert (await host.join(room["id"]))["role"] == "owner"
            await player.join(room["id"])
            order = {"user": f"{ada.id}@{harness.address}", "type": "kick"}
            done = await host.ask("instance-moderate", order, subgroup=room["id"])
            assert "error" not in done, done
            assert (await left(player))["reason"] == "kicked"


async def test_a_guest_waits_in_the_queue_and_enters(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        far = await played_server(harness)
        ann = await far.guest()
        room = (await harness.instance(ada, capacity=1)).id
        async with connected(harness, bob) as inside, connected(harness, ann) as guest:
            await inside.join(room)
            entry = await far.ask("POST", f"/api/instances/{room}/candidate", {}, token=ann.token)
            data = entry.json()["data"]
            assert (data["user"], data["state"], data["position"]) == (ann.at, "waiting", 1)
            await inside.ask("instance-leave", {"instance": room})
            admitted = await guest.until(
                lambda one: one.get("data", {}).get("reason") == "admitted"
            )
            assert admitted["data"]["user"] == ann.at
            await guest.join(room)
            again = await far.ask("POST", f"/api/instances/{room}/candidate", {}, token=ann.token)
            assert code_of(again) == 15


async def test_a_guest_is_invited_by_its_name(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        room = await harness.store.instances.create(
            name="party",
            title=None,
            description=None,
            world="w_00000000-0000-4000-8000-000000000000",
            owner=ada.id,
            capacity=8,
            tags=frozenset({"avr:invite_only"}),
        )
        async with connected(harness, ann) as guest:
            refused = await guest.ask("instance-join", {"instance": room.id})
            assert refused["error"]["code"] == 49
            path = f"/api/instances/{room.id}/candidate"
            assert code_of(await far.ask("POST", path, {"user": ann.at}, token=ada.token)) is None
            await guest.join(room.id)


async def test_friends_of_two_servers_follow_each_other(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        path = f"/api/users/@me/follows/{ann.at}"
        followed = await far.ask("PUT", path, token=ada.token)
        assert followed.json()["data"]["isFriend"] is False
        ada_at = f"{ada.id}@{harness.address}"
        async with connected(harness, ada) as host:
            await far.guest(ann.at, follows=[ada_at])
            follows = await far.ask("GET", "/api/users/@me/follows", token=ada.token)
            assert [(one["user"], one["isFriend"]) for one in follows.json()["data"]["items"]] == [
                (ann.at, True)
            ]
            await host.ask("subscribe", {"event": "update-user", "target": ann.at})
            async with connected(harness, ann):
                online = await host.until(
                    lambda one: (
                        one.get("command") == "update-user"
                        and one["subgroup"] == ann.at
                        and one["data"].get("status") == "online"
                    )
                )
                assert online["data"]["isFriend"] is True
                assert online["subgroup"] == ann.at
                seen = await far.ask("GET", f"/api/users/{ada.id}", token=ann.token)
                assert seen.json()["data"]["isFriend"] is True
                assert seen.json()["data"]["status"] == "online"
                room = await harness.store.instances.create(
                    name="friends",
                    title=None,
                    description=None,
                    world="w_00000000-0000-4000-8000-000000000000",
                    owner=ada.id,
                    capacity=8,
                    tags=frozenset({"avr:friends_only"}),
                )
                async with connected(harness, ann) as guest:
                    await guest.join(room.id)
        await far.guest(ann.at, follows=[])
        follows = await far.ask("GET", "/api/users/@me/follows", token=ada.token)
        assert follows.json()["data"]["items"][0]["isFriend"] is False


async def test_a_block_acts_on_the_guests_inside_and_can_be_undone(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        near = await played_server(harness, "near.example")
        ann, bea = await far.guest(), await near.guest()
        await far.ask("PUT", f"/api/users/@me/follows/{ann.at}", token=ada.token)
        room = (await room_of(harness, ada)).id
        async with (
            connected(harness, ada) as host,
            connected(harness, ann) as guest,
            connected(harness, bea) as other,
        ):
            for player in (host, guest, other):
                await player.join(room)
            with trio.fail_after(PATIENCE_S):
                await harness.server.node.servers.block("far.example", by=ada.id)
                gone = await left(guest)
                assert (gone["user"], gone["reason"]) == (ann.at, "server-blocked")
                assert (await guest.closed())[0] == 4000
                told = await left(host)
                assert (told["user"], told["reason"]) == (ann.at, "server-blocked")
            await other.say(room, "still here")
            assert (await host.hear())["data"] == "still here"
        answer = await far.ask("GET", "/api/users/@me", token=ann.token)
        assert code_of(answer) in (UNAUTHORIZED, SERVER_BLOCKED)
        assert code_of(await far.introduce(ann.at)) in (UNAUTHORIZED, SERVER_BLOCKED)
        follows = await far.ask("GET", "/api/users/@me/follows", token=ada.token)
        assert follows.json()["data"]["items"] == []
        me = await far.ask("GET", "/api/users/@me", token=ada.token)
        assert me.json()["data"]["following"] == []
        again = await far.ask("PUT", f"/api/users/@me/follows/{ann.at}", token=ada.token)
        assert code_of(again) == SERVER_BLOCKED

        await harness.server.node.servers.delete_rule("far.example", by=ada.id)
        await until(lambda: not harness.hosting.node.servers.is_blocked(far.address))
        follows = await far.ask("GET", "/api/users/@me/follows", token=ada.token)
        assert [one["user"] for one in follows.json()["data"]["items"]] == [ann.at]
        back = await (await played_server(harness)).guest(ann.at)
        async with connected(harness, back) as guest:
            await guest.join(room)


async def test_admins_see_how_many_guests_of_each_server_are_connected(database_url: str) -> None:
    """Guests with an open socket, once each; not those who only have a token, nor users here."""
    async with running(database_url) as harness:
        boss = await harness.account("boss", admin=True)
        far = await played_server(harness)
        near = await played_server(harness, "near.example")
        ann, bea, cat = await far.guest(), await far.guest(), await near.guest()
        await far.guest()

        async def counts() -> dict[str, int]:
            listed = await far.ask("GET", "/api/servers", token=boss.token)
            found = {one["address"]: one["guests"] for one in listed.json()["data"]["items"]}
            for address, guests in found.items():
                one = await far.ask("GET", f"/api/servers/{address}", token=boss.token)
                assert one.json()["data"]["guests"] == guests
            return found

        async def gone() -> bool:
            return not any((await counts()).values())

        assert await counts() == {FAR: 0, "near.example": 0}
        async with (
            connected(harness, boss),
            connected(harness, ann),
            connected(harness, ann),
            connected(harness, bea),
            connected(harness, cat),
        ):
            assert await counts() == {FAR: 2, "near.example": 1}
        assert await eventually(gone)


async def test_a_server_that_is_forgotten_is_a_stranger_and_its_guests_go(
    database_url: str,
) -> None:
    async with running(database_url) as harness:
        ada, boss = await harness.account("ada"), await harness.account("boss", admin=True)
        far = await played_server(harness)
        near = await played_server(harness, "near.example")
        ann, bea = await far.guest(), await near.guest()
        path = f"/api/servers/{FAR.upper()}"
        refused = await far.ask("DELETE", path, token=ada.token)
        assert (refused.status_code, code_of(refused)) == (403, 4)
        async with connected(harness, ann) as guest, connected(harness, bea) as other:
            answer = await far.ask("DELETE", path, token=boss.token)
            assert (answer.status_code, answer.json()["data"]) == (200, {})
            with trio.fail_after(PATIENCE_S):
                assert (await guest.closed())[0] == 4000
            await other.join((await room_of(harness, ada)).id)
        for token in (ann.token, far.token):
            assert code_of(await far.ask("GET", "/api/users", token=token)) == UNAUTHORIZED
        for method in ("GET", "DELETE"):
            assert code_of(await far.ask(method, path, token=boss.token)) == 5
        log = await far.ask("GET", "/api/audit", token=boss.token)
        assert [one["action"] for one in log.json()["data"]["items"]].count("forget_server") == 2
        # It comes again, as a stranger.
        again = await (await played_server(harness)).guest(ann.at)
        async with connected(harness, again):
            pass


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        ({"guests": "off"}, {GUEST_NOT_ALLOWED}),
        # A start without federation blocks every known server, and ends its token.
        ({"federation": "off"}, {UNAUTHORIZED, SERVER_BLOCKED}),
    ],
    ids=["guests", "federation"],
)
async def test_without_guests_nobody_comes(
    database_url: str, settings: dict[str, Any], codes: set[int]
) -> None:
    async with running(database_url) as harness:
        ann = await (await played_server(harness)).guest()
    async with running(database_url, **settings) as harness:
        far = await played_server(harness)
        refused = await far.introduce(f"{new_id('u')}@{FAR}")
        assert code_of(refused) in codes
        answer = await far.ask("GET", "/api/users/@me", token=ann.token)
        assert code_of(answer) in {UNAUTHORIZED, *codes}


async def test_a_silenced_server_reads_but_its_users_do_not_come(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ann = await far.guest()
        async with connected(harness, ann) as guest:
            await harness.server.node.servers.put_rule("far.example", "silence", by="u_admin")
            assert (await guest.closed())[0] == 4000
        assert code_of(await far.introduce(ann.at)) == GUEST_NOT_ALLOWED
        assert (await far.ask("GET", "/api/server")).status_code == 200


async def test_a_guest_authenticates_by_query_and_by_the_user_agent(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ann = await far.guest()
        async with far.client() as client:
            client.headers.pop("Authorization")
            answer = await client.get(f"/api/users/@me?integrityuser={ann.token}")
            assert answer.status_code == 200
            assert ann.token not in answer.text
            assert "Deprecation" not in answer.headers
            shown = answer.json()["data"]
            assert (f"{shown['id']}@{shown['server']}", shown["username"]) == (ann.at, "")
            for agent, status in (("AVR(User)", 200), ("AVR(Server)", 401)):
                headers = {"Authorization": ann.token, "User-Agent": agent}
                answer = await client.get("/api/users/@me", headers=headers)
                assert answer.status_code == status


async def test_a_further_token_closes_the_sockets_of_the_oldest(database_url: str) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        first = await far.guest()
        async with connected(harness, first) as guest:
            tokens: list[Guest] = [await far.guest(first.at) for _ in range(5)]
            assert (await guest.closed())[0] == 4000
        for one in tokens:
            answer = await far.ask("GET", "/api/users/@me", token=one.token)
            assert answer.status_code == 200


async def test_new_guests_of_a_server_are_limited_unless_all_may_come(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.federation.guests.NEW_PER_HOUR", 2)
    async with running(database_url) as harness:
        far = await played_server(harness)
        ann = await far.guest()
        await far.guest()
        refused = await far.introduce(f"{new_id('u')}@{FAR}")
        assert (refused.status_code, code_of(refused)) == (429, 102)
        assert 0 < int(refused.headers["Retry-After"]) <= 3600
        await far.guest(ann.at)
    async with running(database_url, guests="open") as harness:
        await (await played_server(harness)).guest()


async def test_guests_and_visits_are_logged_without_tokens(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(database_url) as harness:
        far = await played_server(harness)
        ann = await far.guest()
        metrics = await far.ask("GET", "/metrics", token=ann.token)
        assert "reileta_guests_admitted_total 1" in metrics.text

        async def noted() -> bool:
            return harness.metrics.guests_admitted == 1

        assert await eventually(noted)
    assert ann.token not in capsys.readouterr().out
