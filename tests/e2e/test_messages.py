"""What clients say on an open socket: broken messages, answers, and what is relayed."""

from __future__ import annotations

import json

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.clients import (
    CONT,
    PING,
    PONG,
    TEXT,
    Json,
    Player,
    RawClient,
    connected,
    frame,
    text,
    until,
)
from tests.e2e.hostile import REFUSED, UNREADABLE, pour
from tests.e2e.servers import running


async def test_every_broken_message_gets_its_code(database_url: str) -> None:
    async with running(database_url, rate_limits="off") as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, ada) as player, connected(harness, bob) as other:
            await player.join(place.id)
            await other.join(place.id)

            async def refused(sent: str) -> Json:
                await player.socket.send_message(sent)
                answer = await player.until(lambda one: "error" in one)
                pong = await player.ask("ping", {"time": "still here"})
                assert pong["data"]["client"] == "still here"
                return answer

            for sent in UNREADABLE:
                answer = await refused(sent)
                assert answer["error"]["code"] == 119, sent[:99]
                assert answer["error"]["details"][0]["field"] == "message", sent[:99]
                assert "state" not in answer
            for fields, code, field in REFUSED:
                sent = '{"state":[7],' + fields.replace("PLACE", f'"{place.id}"') + "}"
                answer = await refused(sent)
                details = answer["error"].get("details", [])
                named = field if field is None else [one["field"] for one in details]
                assert (answer["error"]["code"], named) == (code, field and [field]), fields[:99]
                assert answer["state"] == [7], fields[:99]
                assert all(one["message"] for one in details)
            assert (await other.ask("ping", {"time": 1}))["data"]["client"] == 1
            assert not [one for one in other.skipped if one["command"] == "instance-data"]
            assert not harness.metrics.actor_crashes


async def test_without_a_credential_there_is_little_to_do(database_url: str) -> None:
    async with running(database_url) as harness, connected(harness) as player:
        for command in (
            "subscribe",
            "unsubscribe",
            "instance-join",
            "instance-leave",
            "instance-data",
        ):
            answer = await player.ask(command, {"event": "all", "instance": "i_x"})
            assert answer["error"]["code"] == 3, command
        assert "error" not in await player.ask("ping")


async def test_authenticating_on_the_socket(database_url: str) -> None:
    async with running(database_url) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        async with connected(harness) as player:
            answer = await player.ask("authenticate", {"token": "ua_" + "x" * 43})
            assert answer["error"]["code"] == 101
            answer = await player.ask("authenticate", {"integrity": "ia_" + "x" * 43})
            assert answer["error"]["code"] == 101
            answer = await player.ask("authenticate", {"token": ada.token})
            assert answer["data"]["session"] == ada.session
            assert (await player.event("authenticated"))["data"]["user"]["id"].startswith(ada.id)
            answer = await player.ask("authenticate", {"token": ada.token})
            assert answer["data"]["session"] == ada.session
            answer = await player.ask("authenticate", {"token": bob.token})
            assert answer["error"]["code"] == 15


async def test_a_ping_is_answered_with_state_and_without(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        async with connected(harness, ada) as player:
            answer = await player.ask("ping", {"time": {"any": ["thing"]}})
            assert answer["data"]["client"] == {"any": ["thing"]}
            assert isinstance(answer["data"]["server"], int)
            await player.send("ping", {"time": 5})
            event = await player.event("ping")
            assert event["data"]["client"] == 5
            assert "state" not in event
            await player.send("ping")
            assert (await player.event("ping"))["data"]["client"] is None


async def test_without_state_only_errors_are_answered(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        place = await harness.instance(ada)
        async with connected(harness, ada) as player:
            await player.send("instance-join", {"instance": place.id})
            await player.say(place.id, 1)
            await player.send("instance-leave", {"instance": place.id})
            await player.send("instance-leave", {"instance": place.id})
            error = await player.until(lambda one: "error" in one)
            assert error["error"]["code"] == 39
            assert error["command"] == "instance-leave"
            assert not [one for one in player.skipped if one["command"].startswith("instance-")]


async def test_an_instance_by_any_of_its_names(database_url: str) -> None:
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        place = await harness.instance(ada)
        async with connected(harness, ada) as player:
            for name in (
                place.name,
                f"{place.id}@{harness.address}",
                f"{place.name}@{harness.address}",
            ):
                assert (await player.join(name))["instance"] == place.id
                answer = await player.ask(
                    "instance-data", 1, subgroup=f"{place.id}@{harness.address}"
                )
                assert "error" not in answer
                await player.ask("instance-leave", {"instance": f"{place.id}@{harness.address}"})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
messages = st.fixed_dictionaries(
    {"data": values},
    optional={
        "key": st.text(max_size=70),
        "at": st.integers() | st.floats(allow_nan=False),
        "state": values,
    },
)


async def relay(sender: Player, receiver: Player, place: str, message: Json, ascii: bool) -> None:  # noqa: A002
    payload = json.dumps(
        {"command": "instance-data", "subgroup": place, **message}, ensure_ascii=ascii
    )
    try:
        payload.encode()
    except UnicodeEncodeError:
        return  # the client itself could not send it
    await sender.socket.send_message(payload)
    end = await sender.ask("instance-data", "end", subgroup=place)
    assert "error" not in end
    heard = await receiver.hear()
    if heard["data"] == "end" and message["data"] != "end":
        refusals = [one for one in sender.skipped if "error" in one]
        assert refusals, "neither passed on nor refused"
        sender.skipped.clear()
        return
    assert heard["data"] == message["data"]
    assert heard.get("key") == message.get("key")
    assert heard.get("at") == message.get("at")
    assert (await receiver.hear())["data"] == "end"
    answers = [one for one in sender.skipped if "state" in one]
    assert [one["state"] for one in answers] == [
        message["state"] for _ in range(1) if message.get("state") is not None
    ]
    sender.skipped.clear()


async def test_what_is_relayed_is_what_was_sent(database_url: str) -> None:
    examples: list[tuple[Json, bool]] = []

    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    @given(messages, st.booleans())
    def collect(message: Json, ascii_: bool) -> None:
        examples.append((message, ascii_))

    collect()
    async with running(database_url, rate_limits="off") as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, ada) as sender, connected(harness, bob) as receiver:
            await receiver.join(place.id)
            await sender.join(place.id)
            for number, (message, ascii_) in enumerate(examples):
                if 1 <= len(message.get("key", "")) <= 60:
                    message["key"] += str(number)  # or an older `at` of its own would roll it back
                await relay(sender, receiver, place.id, message, ascii_)
            assert not harness.metrics.actor_crashes


async def test_floods_of_subscriptions_are_bounded(database_url: str) -> None:
    async with running(database_url, rate_limits="off") as harness:
        ada = await harness.account("ada")
        async with connected(harness, ada) as player:
            refused = None
            for number in range(600):
                answer = await player.ask(
                    "subscribe", {"event": "update-user", "target": f"u_{number}"}
                )
                if "error" in answer:
                    refused = number
                    break
            assert refused == 512
            answer = await player.ask("unsubscribe", {"event": "update-user", "target": "u_0"})
            assert "error" not in answer
            answer = await player.ask("subscribe", {"event": "update-user", "target": "u_new"})
            assert "error" not in answer
        await until(lambda: len(harness.gateway) == 0)


async def test_too_many_messages(database_url: str) -> None:
    async with running(database_url, messages_per_s=0.001, messages_burst=20) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = await harness.instance(ada)
        async with connected(harness, bob) as other, RawClient.connected(harness) as client:
            await other.join(place.id)
            await client.enter(ada, place.id)
            say = {"command": "instance-data", "subgroup": place.id}
            await client.send(b"".join(text(dict(say, data=n)) for n in range(60)))
            closed = await client.close_frame()
            assert (closed.close_code, closed.payload[2:]) == (1008, b"too many messages")
            heard = [(await other.hear())["data"] for _ in range(19)]
            assert heard == list(range(19))
            assert (await other.ask("ping"))["command"] == "ping"


async def test_the_rate_is_made_good_in_time(database_url: str) -> None:
    async with running(database_url, messages_per_s=1_000, messages_burst=2) as harness:
        ada = await harness.account("ada")
        async with connected(harness, ada) as player:
            for _ in range(20):
                await player.ask("ping")
                await trio.sleep(0.002)


async def test_empty_frames_and_control_frames_count_as_well(database_url: str) -> None:
    """Floods that are no messages: pings, and fragments of nothing, which are never too large."""
    async with running(database_url) as harness:
        ada = await harness.account("ada")
        for flood in (
            frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 30_000,
            frame(PING) * 30_000,
            frame(PONG) * 30_000,
        ):
            async with RawClient.connected(harness) as client:
                await client.enter(ada)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pour, client, flood)
                    assert (await client.close_frame()).close_code == 1008
                    nursery.cancel_scope.cancel()


async def test_null_and_no_data_at_all_delete_a_key(database_url: str) -> None:
    """The others inside get the null, those who join later get nothing, and the place is free."""
    async with running(database_url, rate_limits="off", retained_keys_per_player=1) as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        room = (await harness.instance(ada)).id
        async with connected(harness, ada) as player, connected(harness, bob) as other:
            await player.join(room)
            await other.join(room)
            message = {"command": "instance-data", "subgroup": room}
            for key, nothing in (("a", ', "data": null'), ("b", ', "data":  null '), ("c", "")):
                kept = await player.ask("instance-data", 1, subgroup=room, key=key)
                assert kept["data"] == {}
                assert [one["key"] for one in (await other.join(room))["retained"]] == [key]
                await player.ask("instance-data", subgroup=room, key=key, to=[other.id])
                assert (await other.join(room))["retained"]  # with `to`, nothing is retained
                head = json.dumps({**message, "key": key})[:-1]
                await player.socket.send_message(head + nothing + "}")
                while (heard := await other.hear())["data"] is not None or heard["key"] != key:
                    pass
                await player.ask("ping")
                assert (await other.join(room))["retained"] == []
