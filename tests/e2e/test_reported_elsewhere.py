"""Kinds of faults that others reported of similar servers, tried on a real server.

Each was right here when it was tried; the tests keep it so.
"""

from __future__ import annotations

import pytest

from tests import logs
from tests.e2e.clients import Player, connected, until
from tests.e2e.servers import running
from tests.e2e.test_administration import client_of, header
from tests.e2e.test_coming_back import lost


async def test_wrong_credentials_leave_the_grace_of_a_player_alone(database_url: str) -> None:
    """Elsewhere, an attempt with a wrong token took the place that was kept for the right one."""
    async with running(database_url, seat_grace_s=60) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        eve = await harness.account("eve")
        place = (await harness.instance(bob, capacity=2)).id
        async with connected(harness, bob) as other, connected(harness) as stranger:
            await other.join(place)
            player = await lost(harness, ada, place)
            for token in (ada.token[:-1], "ua_wrong", ada.session):
                refused = await stranger.ask("authenticate", {"token": token})
                assert refused["error"]["code"] == 101
                claim = {"instance": place, "player": player, "session": ada.session}
                refused = await stranger.ask("instance-join", claim)
                assert refused["error"]["code"] == 3
            await stranger.ask("authenticate", {"token": eve.token})
            claim = {"instance": place, "player": player, "session": ada.session}
            refused = await stranger.ask("instance-join", claim)
            assert refused["error"]["code"] == 48  # the seat is still taken
            async with connected(harness, ada) as back:
                assert (await back.join(place))["player"] == player


async def test_an_instance_that_is_made_again_by_the_same_name_is_a_new_one(
    database_url: str,
) -> None:
    """Elsewhere, those inside the new one were removed when the old one had ended."""
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            ada = await harness.account("ada")
            world = await client.put("/api/worlds", json={}, headers=header(ada))
            body = {"world": world.json()["data"]["id"], "name": "picnic"}
            seen: set[str] = set()
            async with connected(harness, ada) as player:
                for _ in range(5):
                    made = await client.put("/api/instances", json=body, headers=header(ada))
                    id_ = made.json()["data"]["id"]
                    assert id_ not in seen
                    seen.add(id_)
                    await player.join("picnic")
                    closed = await client.delete(f"/api/instances/{id_}", headers=header(ada))
                    assert closed.status_code == 200
                made = await client.put("/api/instances", json=body, headers=header(ada))
                last = made.json()["data"]["id"]
                await player.join("picnic")
                answer = await player.ask("ping")
                assert "error" not in answer
                left = [one for one in player.skipped if one["command"] == "instance-left"]
                assert {one["subgroup"] for one in left} == seen
                await until(lambda: harness.registry.node.directory.occupancy(last).connected == 1)


async def test_the_last_of_many_subscribes_and_unsubscribes_counts(database_url: str) -> None:
    """Elsewhere, quick changes left clients subscribed to nothing, or to what they had left."""
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            ada, bob = await harness.account("ada"), await harness.account("bob")
            world = (await client.put("/api/worlds", json={}, headers=header(ada))).json()["data"]
            what = {"event": "update-world", "target": world["id"]}

            async def change(title: str) -> None:
                path = f"/api/worlds/{world['id']}"
                assert (
                    await client.post(path, json={"title": title}, headers=header(ada))
                ).status_code == 200

            async def titles(player: Player) -> list[str]:
                """Those that came before the answer to a ping."""
                player.skipped.clear()
                await player.ask("ping")
                events = [one for one in player.skipped if one["command"] == "update-world"]
                return [one["data"]["title"] for one in events]

            async with connected(harness, bob) as player:
                for number in range(10):
                    for _ in range(3):
                        await player.send("subscribe", what)
                        await player.send("unsubscribe", what)
                    await player.ask("subscribe", what)
                    title = f"heard {number}"
                    await change(title)
                    # An earlier change may still be on its way to the new subscription.
                    await player.until(
                        lambda one, title=title: (  # type: ignore[misc]
                            one.get("command") == "update-world" and one["data"]["title"] == title
                        )
                    )
                    await player.ask("unsubscribe", what)
                    await change(f"missed {number}")
                    assert await titles(player) == []


@pytest.mark.parametrize("name", ["a\u0000", "\u0000", "ann\u0000"])
async def test_a_zero_byte_is_nowhere_an_internal_error(database_url: str, name: str) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            ann = await harness.account("ann")
            for path in ("/api/users", "/api/worlds", "/api/instances", "/api/services"):
                one = await client.get(f"{path}/{name}".replace("\0", "%00"), headers=header(ann))
                assert one.status_code == 404
                some = await client.get(path, params={"query": name}, headers=header(ann))
                assert some.status_code == 400
            answer = await client.get(
                "/resource/document", params={"query": name}, headers=header(ann)
            )
            assert answer.status_code == 400
            login = {"username": name, "password": "correct horse"}
            assert (await client.post("/api/auth/login", json=login)).status_code == 400
            async with connected(harness, ann) as player:
                refused = await player.ask("instance-join", {"instance": name})
                assert refused["error"]["code"] == 119
