"""A host shuts out all users of a server, or all guests."""

from __future__ import annotations

import pytest

from tests.e2e.clients import connected
from tests.e2e.federation.peers import code_of, played_server
from tests.e2e.servers import running

FAR = "far.example:3032"


@pytest.mark.parametrize("spelling", [FAR, "FAR.example.", "far.example:9", "example"])
async def test_a_ban_of_a_server_holds_for_all_its_users_in_every_spelling(
    database_url: str, spelling: str
) -> None:
    async with running(database_url, rate_limits="off") as harness:
        ada = await harness.account("ada")
        far, near = await played_server(harness), await played_server(harness, "near.test")
        ann, eve, bea = await far.guest(), await far.guest(), await near.guest()
        room = (await harness.instance(ada)).id
        async with (
            connected(harness, ada) as host,
            connected(harness, ann) as guest,
            connected(harness, eve) as late,
            connected(harness, bea) as other,
        ):
            for player in (host, guest, other):
                await player.join(room)
            for wrong in (harness.address, "a..b", "127.1"):
                order = {"server": wrong, "type": "ban"}
                done = await host.ask("instance-moderate", order, subgroup=room)
                assert "error" in done, wrong
            done = await host.ask(
                "instance-moderate", {"server": spelling, "type": "ban"}, subgroup=room
            )
            assert "error" not in done, done
            assert (await guest.event("instance-left"))["data"]["reason"] == "banned"
            for player in (guest, late):
                refused = await player.ask("instance-join", {"instance": room})
                assert refused["error"]["code"] == 123
            await other.say(room, "still here")
            assert (await host.hear())["data"] == "still here"
        # A further token, or another name, is no way around it.
        again = await far.guest(ann.at, displayname="Bob")
        asked = await far.ask("POST", f"/api/instances/{room}/candidate", {}, token=again.token)
        assert code_of(asked) == 123


async def test_no_guests_are_let_in_by_any_door(database_url: str) -> None:
    async with running(database_url, rate_limits="off") as harness:
        ada = await harness.account("ada")
        far = await played_server(harness)
        ann = await far.guest()
        async with far.client(ada.token) as client:
            world = (await client.put("/api/worlds", json={"title": "Mine"})).json()["data"]["id"]
            wanted = {"world": world, "tags": ["avr:invite_only", "avr:no_guests"]}
            room = (await client.put("/api/instances", json=wanted)).json()["data"]["id"]
            invited = await client.post(f"/api/instances/{room}/candidate", json={"user": ann.at})
            assert code_of(invited) is not None
        asked = await far.ask("POST", f"/api/instances/{room}/candidate", {}, token=ann.token)
        assert code_of(asked) == 129
        async with connected(harness, ann) as guest:
            refused = await guest.ask("instance-join", {"instance": room})
            assert refused["error"]["code"] == 129
