"""Clients that come back: after a reload, a short cut of the network, or a crash."""

from __future__ import annotations

from tests.e2e.clients import connected
from tests.e2e.servers import running

# A reload: `at` begins anew ---------------------------------------------------------------------


async def test_after_a_reload_a_player_counts_from_its_own_zero(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            async with connected(harness, ada) as page:
                await page.join(place)
                await page.say(place, "late", key="pose", at=90_000.5)
                assert (await other.hear())["data"] == "late"
            async with connected(harness, ada) as reloaded:
                assert (await reloaded.join(place))["player"] == page.id
                answer = await reloaded.ask(
                    "instance-data", "early", subgroup=place, key="pose", at=0.25
                )
                assert answer["data"] == {}
                assert (await other.hear())["data"] == "early"
                newcomer = await other.join(place)
                assert newcomer["retained"] == [
                    {"player": page.id, "key": "pose", "at": 0.25, "data": "early"}
                ]


async def test_a_join_from_the_same_socket_begins_a_new_count(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other, connected(harness, ada) as player:
            await other.join(place)
            await player.join(place)
            await player.say(place, 1, key="pose", at=9)
            await player.join(place)
            await player.say(place, 2, key="pose", at=1)
            assert [(await other.hear())["data"] for _ in range(2)] == [1, 2]


async def test_two_sockets_of_a_player_count_apart(database_url: str) -> None:
    """Neither tab is silenced by the clock of the other, however often they take turns."""
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with (
            connected(harness, bob) as other,
            connected(harness, ada) as old,
            connected(harness, ada) as new,
        ):
            for each in (other, old, new):
                await each.join(place)
            heard = []
            for at in range(1, 4):
                await old.say(place, [1, at], key="pose", at=1_000 + at)
                heard.append((await other.hear())["data"])
                await new.say(place, [2, at], key="pose", at=at)
                heard.append((await other.hear())["data"])
            assert heard == [[tab, at] for at in range(1, 4) for tab in (1, 2)]


async def test_who_sends_a_value_that_is_dropped_is_told_so(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other, connected(harness, ada) as player:
            await other.join(place)
            await player.join(place)
            data = {"subgroup": place, "key": "pose"}
            assert (await player.ask("instance-data", 2, at=2, **data))["data"] == {}
            dropped = {"dropped": True}
            assert (await player.ask("instance-data", 1, at=1, **data))["data"] == dropped
            to = [other.id]
            assert (await player.ask("instance-data", 1, at=1, to=to, **data))["data"] == dropped
            assert (await player.ask("instance-data", 3, at=2, **data))["data"] == {}
            assert [(await other.hear())["data"] for _ in range(2)] == [2, 3]
