"""Clients that come back: after a reload, a short cut of the network, or a crash."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from actors.instance import missed
from api.ws.transport import base
from benchmarks.killable import ack
from tests.conftest import PATIENCE_S
from tests.e2e.clients import (
    CLOSE,
    PING,
    PONG,
    Json,
    RawClient,
    connected,
    frame,
    strict,
    text,
    until,
    upgrade_head,
)
from tests.e2e.servers import Account, ServerHarness, running


@pytest.fixture
def quick_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have little time to answer; for tests in which they don't."""
    monkeypatch.setattr(base, "ANSWER_S", 0.05)


@pytest.fixture
def patient_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have all the time that a test has; for tests in which they answer."""
    monkeypatch.setattr(base, "ANSWER_S", PATIENCE_S)


async def vanish(client: RawClient) -> None:
    """The connection is reset, without a close frame."""
    assert isinstance(client.stream, trio.SocketStream)
    client.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.stream.aclose()


def inside(harness: ServerHarness, place: str) -> int:
    return harness.server.node.directory.occupancy(place).connected


# A reload: `at` begins anew ---------------------------------------------------------------------


async def test_after_a_reload_a_player_counts_from_its_own_zero(database_url: str) -> None:
    async with running(database_url, closed_seat_grace_s=PATIENCE_S) as harness:
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


# A short cut: what was missed comes after the snapshot -------------------------------------------


async def lost(harness: ServerHarness, account: Account, place: str) -> str:
    """A player that has just lost its connection, in its grace; returns its id."""
    sockets = len(harness.gateway)
    async with RawClient.connected(harness) as client:
        player = await client.enter(account, place)
        await vanish(client)
    await until(lambda: len(harness.gateway) == sockets)
    return player


async def test_messages_without_a_key_wait_for_a_player_in_its_grace(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other, connected(harness) as third:
            await other.join(place)
            player = await lost(harness, ada, place)
            await third.ask("authenticate", {"token": (await harness.account("cem")).token})
            await third.join(place)
            await other.say(place, "hello?")
            await other.say(place, "pose", key="pose")  # the snapshot has it
            await other.say(place, "for you", to=[player])
            await other.say(place, "for you, keyed", to=[player], key="whisper")
            await other.say(place, "for someone else", to=[third.id])
            await other.ask("instance-data", "bye", subgroup=place, at=3)
            async with connected(harness, ada) as back:
                answer = await back.join(place)
                assert answer["player"] == player
                assert "gap" not in answer
                assert [one["key"] for one in answer["retained"]] == ["pose"]
                await other.say(place, "welcome back")
                heard = [await back.hear() for _ in range(5)]
                assert [one["data"] for one in heard] == [
                    "hello?",
                    "for you",
                    "for you, keyed",
                    "bye",
                    "welcome back",
                ]
                assert {one["player"] for one in heard} == {other.id}
                assert heard[3]["at"] == 3
                # Nothing is told twice.
                again = await back.join(place)
                await other.say(place, "last")
                assert "gap" not in again
                assert (await back.hear())["data"] == "last"


async def test_a_warning_waits_for_a_player_in_its_grace(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as owner:
            await owner.join(place)
            player = await lost(harness, ada, place)
            warned = {"player": player, "type": "warn", "reason": "hush"}
            await owner.ask("instance-moderate", warned, subgroup=place)
            async with connected(harness, ada) as back:
                await back.join(place)
                assert (await back.event("instance-moderated"))["data"]["reason"] == "hush"


async def test_more_than_is_kept_for_a_seat_is_a_gap(database_url: str) -> None:
    async with running(database_url, rate_limits="off") as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            await lost(harness, ada, place)
            for number in range(10):
                await other.ask("instance-data", [number, "x" * 60_000], subgroup=place)
            async with connected(harness, ada) as back:
                assert (await back.join(place))["gap"] is True
                await other.say(place, [10])
                heard = [(await back.hear())["data"][0]]
                while heard[-1] != 10:
                    heard.append((await back.hear())["data"][0])
                assert heard == [6, 7, 8, 9, 10], "the newest, up to 256 KiB"


async def test_a_player_that_was_too_slow_is_told_of_the_gap(database_url: str) -> None:
    async with running(database_url, backlog_limit_bytes=65_536, rate_limits="off") as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            async with RawClient.connected(harness, receive_buffer=4096) as slow:
                await slow.enter(ada, place)
                while not harness.metrics.too_slow:
                    await other.say(place, "x" * 30_000)
                    await other.ask("ping")
                await vanish(slow)
            await until(lambda: len(harness.gateway) == 1)
            async with connected(harness, ada) as back:
                assert (await back.join(place))["gap"] is True


async def test_a_player_whose_old_socket_is_silent_is_told_of_the_gap(
    database_url: str, quick_answers: None
) -> None:
    """The network was cut, and the server does not know it yet: what it sent meanwhile is lost."""
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other, RawClient.connected(harness) as silent:
            await other.join(place)
            player = await silent.enter(ada, place)
            await other.ask("instance-data", "who hears this?", subgroup=place)
            async with connected(harness, ada) as back:
                answer = await back.join(place)
                assert (answer["player"], answer["gap"]) == (player, True)


@pytest.mark.parametrize("ending", ["reset", "end"])
async def test_a_player_that_vanishes_while_others_speak_is_told_of_the_gap(
    database_url: str, ending: str
) -> None:
    """The system, or a proxy, has taken what the client has not read."""
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            async with RawClient.connected(harness) as client:
                player = await client.enter(ada, place)
                await other.ask("instance-data", "who hears this?", subgroup=place)
                if ending == "reset":
                    await vanish(client)
                else:
                    await client.stream.aclose()
            await until(lambda: len(harness.gateway) == 1)
            async with connected(harness, ada) as back:
                answer = await back.join(place)
                assert (answer["player"], answer["gap"]) == (player, True)


async def test_who_vanishes_again_before_it_reads_what_it_missed_is_told_of_the_gap(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What others said was long ago, but for the time that a message to another process may take.
    monkeypatch.setattr(missed, "UNDERWAY_S", 0.05)
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            player = await lost(harness, ada, place)
            await other.ask("instance-data", "hello?", subgroup=place)
            await lost(harness, ada, place)
            async with connected(harness, ada) as back:
                answer = await back.join(place)
                assert (answer["player"], answer["gap"]) == (player, True)


@pytest.mark.parametrize("what", ["one's own words", "retained", "closed"])
async def test_what_is_not_missed_is_no_gap(database_url: str, what: str) -> None:
    async with running(database_url, closed_seat_grace_s=PATIENCE_S) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            async with RawClient.connected(harness) as client:
                player = await client.enter(ada, place)
                speech = {"command": "instance-data", "subgroup": place, "data": "hello"}
                if what == "one's own words":
                    await client.send(text(speech))
                    await other.hear()
                elif what == "retained":
                    await other.ask("instance-data", "pose", subgroup=place, key="pose")
                else:
                    await other.ask("instance-data", "hello", subgroup=place)
                    await client.send(frame(CLOSE, struct.pack(">H", 1001)))
                    await client.close_frame()
                await vanish(client)
            await until(lambda: len(harness.gateway) == 1)
            async with connected(harness, ada) as back:
                answer = await back.join(place)
                assert answer["player"] == player
                assert "gap" not in answer


async def test_a_second_tab_is_told_of_no_gap(database_url: str, patient_answers: None) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        place = (await harness.instance(ada)).id
        async with connected(harness, ada) as one, connected(harness, ada) as two:
            first = await one.join(place)
            second = await two.join(place)
            assert first == second


# One's own ghost --------------------------------------------------------------------------------

Ghost = RawClient
"""A client whose process hangs: it reads nothing and answers no ping."""


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_clean_close_frees_the_seat_soon(database_url: str, code: int | None) -> None:
    async with running(
        database_url, closed_seat_grace_s=0.05, seat_grace_s=PATIENCE_S * 2
    ) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other, RawClient.connected(harness) as client:
            await other.join(place)
            player = await client.enter(ada, place)
            await client.send(frame(CLOSE, b"" if code is None else struct.pack("!H", code)))
            left = (await other.event("instance-left"))["data"]
            assert (left["player"], left["reason"]) == (player, "disconnected")


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_page_of_a_full_instance_that_reloads_slowly_keeps_its_seat(
    database_url: str, code: int | None
) -> None:
    async with running(
        database_url, closed_seat_grace_s=0.05, seat_grace_s=PATIENCE_S * 2
    ) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        cem = await harness.account("cem")
        place = (await harness.instance(bob, capacity=2)).id
        async with connected(harness, bob) as other, connected(harness, cem) as third:
            await other.join(place)
            async with RawClient.connected(harness) as page:
                player = await page.enter(ada, place)
                await page.send(frame(CLOSE, b"" if code is None else struct.pack("!H", code)))
                await page.close_frame()
            await until(lambda: len(harness.gateway) == 2)
            await trio.sleep(0.3)
            answer = await third.ask("instance-join", {"instance": place})
            assert answer["error"]["code"] == 48
            async with connected(harness, ada) as reloaded:
                assert (await reloaded.join(place))["player"] == player
                await reloaded.ask("instance-leave", {"instance": place})
                await third.join(place)


async def test_a_clean_close_frees_the_seat_while_the_session_waits_for_the_database(
    database_url: str,
) -> None:
    async with running(database_url, closed_seat_grace_s=0) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place, elsewhere = await harness.instance(bob), await harness.instance(bob)
        async with connected(harness, bob) as other, connected(harness, ada) as waiting:
            await other.join(place.id)
            async with RawClient.connected(harness) as client:
                player = await client.enter(ada, place.id)
                async with harness.store.database.transaction() as transaction:
                    await transaction.execute("LOCK TABLE instances IN ACCESS EXCLUSIVE MODE")
                    await waiting.send("instance-join", {"instance": elsewhere.id})
                    await client.send(frame(CLOSE, struct.pack("!H", 1000)))
                    left = (await other.event("instance-left"))["data"]
                    assert left["player"] == player


@pytest.mark.parametrize("code", [1002, 1011, 3000, 4000])
async def test_another_close_keeps_the_seat_for_the_grace(database_url: str, code: int) -> None:
    async with running(database_url, closed_seat_grace_s=0) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            async with RawClient.connected(harness) as client:
                player = await client.enter(ada, place)
                await client.send(frame(CLOSE, struct.pack("!H", code)))
                await client.close_frame()
            await until(lambda: len(harness.gateway) == 1)
            async with connected(harness, ada) as back:
                assert (await back.join(place))["player"] == player


async def test_a_user_takes_the_seat_of_its_own_lost_player(database_url: str) -> None:
    """A crash, and a new login, in an instance that is full."""
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob, capacity=2)).id
        async with connected(harness, bob) as other:
            await other.join(place)
            ghost = await lost(harness, ada, place)
            again = await harness.login(ada.id)
            async with connected(harness, again) as player:
                players = (await player.join(place))["players"]
                assert player.id != ghost
                assert len({one["user"] for one in players}) == 2
                left = (await other.event("instance-left"))["data"]
                assert (left["player"], left["reason"]) == (ghost, "disconnected")


async def test_a_user_takes_the_seat_of_its_own_silent_player(
    database_url: str, quick_answers: None
) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob, capacity=2)).id
        async with connected(harness, bob) as other, Ghost.connected(harness) as silent:
            await other.join(place)
            ghost = await silent.enter(ada, place)
            async with connected(harness, await harness.login(ada.id)) as player:
                await player.join(place)
                assert (await other.event("instance-left"))["data"]["player"] == ghost
                await until(lambda: inside(harness, place) == 2)
                # Should it wake up, it knows what has happened.
                assert (await silent.message("instance-left"))["data"]["player"] == ghost


async def test_a_user_does_not_stand_there_twice(database_url: str, quick_answers: None) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob)).id
        async with connected(harness, bob) as other, Ghost.connected(harness) as silent:
            await other.join(place)
            ghosts = {
                await silent.enter(ada, place),
                await lost(harness, await harness.login(ada.id), place),
            }
            async with connected(harness, await harness.login(ada.id)) as player:
                await player.join(place)
                gone = {(await other.event("instance-left"))["data"]["player"] for _ in ghosts}
                assert gone == ghosts
                await until(lambda: inside(harness, place) == 2)


async def test_a_user_may_ask_for_a_seat_in_place_of_its_silent_player(
    database_url: str, quick_answers: None
) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob, capacity=2)).id
        async with connected(harness, bob) as other, Ghost.connected(harness) as silent:
            await other.join(place)
            await silent.enter(ada, place)
            async with RawClient.connected(harness) as http:
                head = f"POST /api/instances/{place}/candidate HTTP/1.1\r\nHost: localhost\r\n"
                await http.send(f"{head}Authorization: Bearer {ada.token}\r\n\r\n".encode())
                answer = await http.answer()
                assert answer.status == 200, answer
                assert answer.envelope["data"]["state"] == "admitted"


async def test_a_player_that_is_there_gives_way_to_nobody(
    database_url: str, patient_answers: None
) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob, capacity=1)).id
        again = await harness.login(ada.id)
        async with connected(harness, ada) as there, connected(harness, again) as player:
            await there.join(place)
            answer = await player.ask("instance-join", {"instance": place})
            assert answer["error"]["code"] == 48
            await there.ask("ping")


async def test_a_player_that_sends_is_there_even_if_it_answers_no_ping(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(bob, capacity=1)).id
        again = await harness.login(ada.id)
        async with running_player(harness, ada, place), connected(harness, again) as player:
            answer = await player.ask("instance-join", {"instance": place})
            assert answer["error"]["code"] == 48


@asynccontextmanager
async def running_player(
    harness: ServerHarness, account: Account, place: str
) -> AsyncIterator[RawClient]:
    """A client in the instance that sends and sends, and answers no ping."""
    async with RawClient.connected(harness) as client, trio.open_nursery() as nursery:
        await client.enter(account, place)

        async def send() -> None:
            while True:
                await client.send(text({"command": "ping"}))
                await trio.sleep(0.02)

        nursery.start_soon(send)
        yield client
        nursery.cancel_scope.cancel()


# The session API's sockets: one for each token ---------------------------------------------------


async def opened(client: RawClient, account: Account, role: str = "user") -> int:
    """Asks for a socket of the session API; returns the status."""
    await client.send(upgrade_head(account, path=f"/ws/{role}"))
    return (await client.answer()).status


async def hello(client: RawClient) -> Json:
    """Reads the first event, and acknowledges it."""
    event: Json = strict((await client.frame()).payload)
    await client.send(text(ack(event["id"])))
    return event


async def test_a_new_socket_takes_the_place_of_one_that_is_silent(
    database_url: str, quick_answers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with Ghost.connected(harness) as silent, RawClient.connected(harness) as new:
            assert await opened(silent, ada) == 101
            await hello(silent)
            assert await opened(new, ada) == 101
            assert (await hello(new))["payload"]["kind"] == "hello"
            await until(lambda: len(harness.gateway) == 1)
            # One that was only late is told why, and that it is for good.
            assert (await silent.frame()).opcode == PING
            assert strict((await silent.frame()).payload)["payload"]["code"] == 4009
            assert (await silent.frame()).close_code == 4009
            # It has the place: a third one is refused as long as it answers.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_pings, new)
                async with RawClient.connected(harness) as third:
                    monkeypatch.setattr(base, "ANSWER_S", PATIENCE_S)
                    assert await opened(third, ada) == 409
                nursery.cancel_scope.cancel()


async def answer_pings(client: RawClient) -> None:
    while True:
        one = await client.frame()
        if one.opcode == PING:
            await client.send(frame(PONG, one.payload))


async def test_one_that_answers_keeps_its_place(database_url: str, patient_answers: None) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as old, RawClient.connected(harness) as new:
            assert await opened(old, ada) == 101
            await hello(old)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_pings, old)
                assert await opened(new, ada) == 409
                nursery.cancel_scope.cancel()


async def test_one_that_sends_and_never_answers_loses_its_place(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "ANSWER_S", 0.2)
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as old, RawClient.connected(harness) as new:
            assert await opened(old, ada) == 101
            await hello(old)

            async def send() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await old.send(frame(PONG, b"not yours"))
                        await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert await opened(new, ada) == 101
                nursery.cancel_scope.cancel()


async def test_of_two_new_sockets_at_once_one_takes_the_place(
    database_url: str, quick_answers: None
) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        statuses: list[int] = []
        async with Ghost.connected(harness) as silent, trio.open_nursery() as nursery:
            assert await opened(silent, ada) == 101
            await hello(silent)
            both = trio.Event()

            async def come() -> None:
                async with RawClient.connected(harness) as new:
                    statuses.append(await opened(new, ada))
                    if len(statuses) == 2:
                        both.set()
                    await both.wait()

            nursery.start_soon(come)
            nursery.start_soon(come)
        assert sorted(statuses) == [101, 409]
        await until(lambda: not len(harness.gateway))


@pytest.mark.parametrize("how", ["closes", "vanishes"])
async def test_a_new_socket_does_not_wait_for_one_that_ends(
    database_url: str, patient_answers: None, how: str
) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as old, RawClient.connected(harness) as new:
            assert await opened(old, ada) == 101
            await hello(old)
            await new.send(upgrade_head(ada, path="/ws/user"))
            assert (await old.frame()).opcode == PING
            if how == "closes":
                await old.send(frame(CLOSE, struct.pack("!H", 1000)))
            else:
                await vanish(old)
            assert (await new.answer()).status == 101
            await hello(new)


async def test_a_new_socket_that_waits_while_the_server_stops(
    database_url: str, patient_answers: None
) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness) as old, RawClient.connected(harness) as new:
            assert await opened(old, ada) == 101
            await hello(old)
            await new.send(upgrade_head(ada, path="/ws/user"))
            assert (await old.frame()).opcode == PING
            with trio.fail_after(PATIENCE_S):
                await harness.server.stop()
                await harness.ended.wait()
            assert (await old.close_frame()).close_code == 1001


async def test_a_new_socket_takes_the_place_while_the_database_is_away(
    database_url: str, quick_answers: None
) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        database = harness.store.database
        async with Ghost.connected(harness) as silent, RawClient.connected(harness) as new:
            assert await opened(silent, ada) == 101
            await hello(silent)
            async with database.transaction() as transaction:
                await transaction.execute("LOCK TABLE sessions, leases IN ACCESS EXCLUSIVE MODE")
                assert await opened(new, ada) == 101
                assert (await hello(new))["payload"]["kind"] == "hello"
            await until(lambda: len(harness.gateway) == 1)
