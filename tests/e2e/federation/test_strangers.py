"""Every operation and command, as a guest who is named like an admin, and as another server.

The lists are whole: a new operation is refused to both, or has a row here.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from api.ws.registry.commands import COMMANDS
from tests.e2e.clients import Json, connected
from tests.e2e.federation.peers import code_of, played_server
from tests.e2e.servers import running

NOT_LOGGED_IN: Final = 3
INVALID_CREDENTIAL: Final = 101
GUEST_NOT_ALLOWED: Final = 129
METHODS: Final = ("get", "put", "post", "patch", "delete")
OF_GUESTS: Final = {
    "POST /api/instances/{ref}/candidate",
    "DELETE /api/instances/{ref}/candidate",
    "GET /api/integrity",
    "DELETE /api/integrity/{token}",
}
"""What a guest may call beyond what anybody may."""
OF_OWNERS: Final = {"PUT /api/worlds", "PUT /api/instances"}
"""What a guest may call with `--guests-own on`: the things of others stay out of reach."""
OF_SERVERS: Final = {
    "GET /api/integrity",
    "PUT /api/integrity",
    "DELETE /api/integrity/{token}",
    "DELETE /api/challenges/{challenge}",
}
"""What another server may call beyond what anybody may."""
COMMANDS_OF_GUESTS: Final = {
    *("ping", "authenticate", "subscribe", "unsubscribe"),
    *("instance-join", "instance-leave", "instance-data", "instance-interest", "instance-ticket"),
}


@pytest.mark.parametrize("guests_own", [False, True])
async def test_every_operation_is_refused_that_is_not_for_strangers(
    database_url: str, guests_own: bool
) -> None:
    async with running(database_url, rate_limits="off", guests_own=guests_own) as harness:
        boss = await harness.account("boss", admin=True)
        far = await played_server(harness)
        twin = await far.guest(f"{boss.id}@{far.address}", displayname="boss")
        async with far.client(boss.token) as admin:
            world = (await admin.put("/api/worlds", json={"title": "Mine"})).json()["data"]["id"]
            wanted = {"world": world, "tags": ["avr:public"]}
            room = (await admin.put("/api/instances", json=wanted)).json()["data"]["id"]
            document: Json = (await admin.get("/openapi.json")).json()
        refs = {"users": boss.id, "worlds": world, "instances": room, "services": "com.example.a"}
        values = {"user": boss.id, "other": boss.id, "peer": far.address, "type": "world"}

        def filled(path: str) -> str:
            noun = path.split("/")[2] if path.startswith("/api/") else ""
            known = {**values, "ref": refs.get(noun, "x")}
            return re.sub(r"\{(\w+)\}", lambda part: known.get(part[1], "1"), path)

        body = {
            "world": world,
            "title": "Evil",
            "displayname": "Evil",
            "user": boss.id,
            "type": "ban",
        }
        async with (
            far.client() as nobody,
            far.client(twin.token) as guest,
            far.client() as server,
        ):
            del nobody.headers["Authorization"]
            for path, operations in document["paths"].items():
                for method in filter(METHODS.__contains__, operations):
                    operation = f"{method.upper()} {path}"
                    data = None if method in ("get", "delete") else body
                    answers = [
                        await client.request(method.upper(), filled(path), json=data)
                        for client in (nobody, guest, server)
                    ]
                    statuses = [one.status_code for one in answers]
                    if "json" not in answers[0].headers["Content-Type"]:
                        assert statuses[1:] == statuses[:1] * 2, operation
                        continue
                    public, of_guest, of_server = map(code_of, answers)
                    if guests_own and operation in OF_OWNERS:
                        assert of_guest is None, operation
                    elif operation not in OF_GUESTS:
                        assert of_guest in (public, GUEST_NOT_ALLOWED), operation
                    if operation not in OF_SERVERS:
                        assert of_server in (public, NOT_LOGGED_IN, INVALID_CREDENTIAL), operation
        # What the guest is to others: nobody that this server knows.
        own = await harness.store.users.find(boss.id)
        assert own is not None
        assert own.displayname == "boss"
        async with far.client(twin.token) as guest:
            me = (await guest.get("/api/users/@me")).json()["data"]
        assert (me["id"], me["server"], me["username"], me["tags"]) == (
            boss.id,
            far.address,
            "",
            [],
        )


@pytest.mark.parametrize("command", sorted(COMMANDS.by_name))
async def test_every_command_is_refused_that_is_not_for_guests(
    database_url: str, command: str
) -> None:
    async with running(database_url, rate_limits="off") as harness:
        boss = await harness.account("boss", admin=True)
        far = await played_server(harness)
        twin = await far.guest(f"{boss.id}@{far.address}")
        room = (await harness.instance(boss)).id
        async with connected(harness, twin) as guest:
            await guest.join(room)
            answer = await guest.ask(command, {}, subgroup=room)
            code = answer.get("error", {}).get("code")
            assert (code == GUEST_NOT_ALLOWED) == (command not in COMMANDS_OF_GUESTS)


async def test_a_guest_who_is_named_like_a_local_user_is_somebody_else(database_url: str) -> None:
    """Its id is that of the owner, an admin, a moderator and a banned user here, by turns."""
    async with running(database_url, rate_limits="off") as harness:
        boss = await harness.account("boss", admin=True)
        bob, cid = await harness.account("bob"), await harness.account("cid")
        far = await played_server(harness)
        async with far.client(boss.token) as admin:
            world = (await admin.put("/api/worlds", json={"title": "Mine"})).json()["data"]["id"]
            wanted = {"world": world, "tags": ["avr:private"]}
            secret = (await admin.put("/api/instances", json=wanted)).json()["data"]["id"]
            room = (await harness.instance(boss)).id
            moderator = await admin.put(f"/api/instances/{secret}/moderators/{bob.id}")
            assert code_of(moderator) is None
            banned = await admin.post(
                f"/api/instances/{room}/moderate", json={"user": cid.id, "type": "ban"}
            )
            assert code_of(banned) is None
        for real in (boss, bob):
            twin = await far.guest(f"{real.id}@{far.address}", displayname=real.username)
            answer = await far.ask("GET", f"/api/instances/{secret}", token=twin.token)
            assert code_of(answer) == 36
            async with connected(harness, twin) as guest, connected(harness, real) as own:
                refused = await guest.ask("instance-join", {"instance": secret})
                assert refused["error"]["code"] == 36
                entered = await guest.join(room)
                assert entered["role"] == "normal"
                await own.join(room)  # a player of its own
                order = {"user": f"{real.id}@{harness.address}", "type": "kick"}
                asked = await guest.ask("instance-moderate", order, subgroup=room)
                assert asked["error"]["code"] == GUEST_NOT_ALLOWED
                # A measure against one of the two does not hit the other.
                async with connected(harness, boss) as host:
                    order = {"user": twin.at, "type": "kick"}
                    done = await host.ask("instance-moderate", order, subgroup=room)
                    assert "error" not in done or real is boss
                assert (await guest.event("instance-left"))["data"]["user"] == twin.at
                assert "error" not in await own.ask("instance-data", 1, subgroup=room)
        # The ban of a user here is not one of the guest with its id, and the other way round.
        twin = await far.guest(f"{cid.id}@{far.address}")
        async with connected(harness, twin) as guest:
            await guest.join(room)
