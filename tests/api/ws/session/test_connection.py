"""A line of the session API, with a wire that is none and a session that answers as it is told."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec import Raw
from trio.testing import MockClock

from actors.runtime.trace import Sampler
from actors.session.messages import Detach, OpenSocket, PatchState
from api.ws.connection_log import ConnectionLog
from api.ws.message_rate import UserRates
from api.ws.session.channel import KINDS
from api.ws.session.connection import UNANSWERED, SessionConnection
from reileta.errors import AlreadyConnected, Overloaded, PayloadTooLarge
from reileta.protocol.frames import encode
from reileta.protocol.session_frames import event_frame, iso, new_event_id
from reileta.settings import Settings
from tests.api.ws.fake_transport import EPOCH_MS, FakeNode, FakeTransport, port, principal


class Conversation:
    """A line, its wire, and what its client says."""

    def __init__(self, nursery: trio.Nursery, **settings: Any) -> None:
        self.node = FakeNode(Settings(**{"rate_limits": "off", **settings}))
        self.wire = FakeTransport(nursery)
        log = ConnectionLog(1, KINDS, self.node.activity, debug=False)
        rates = UserRates(self.node.settings)
        self.line = SessionConnection(
            port(self.node), Sampler(0), self.wire, log, principal(), rates
        )

    def say(self, id_: str, **changes: Any) -> None:
        message = {
            "type": "event",
            "id": id_,
            "sent_at": iso(EPOCH_MS),
            "status": "ok",
            "reason": None,
            "payload": {"kind": "state", "patch": {"x": 1}},
            **changes,
        }
        assert self.line.take(encode(message))

    def ack(self, id_: str) -> None:
        self.say(id_, type="ack")

    def tell(self) -> str:
        """Has the session tell the client something."""
        id_ = new_event_id()
        self.line.send_event(id_, event_frame(id_, EPOCH_MS, {"kind": "state"}))
        self.line.flush()
        return id_


@pytest.fixture
def talk(nursery: trio.Nursery) -> Conversation:
    return Conversation(nursery, ack_timeout_ms=1000)


async def test_a_line_asks_its_session_to_take_it(talk: Conversation) -> None:
    talk.node.stopped_sessions = 1  # the first was just being put away
    await talk.line.start(principal())
    (opened,) = talk.node.actor.told
    assert isinstance(opened, OpenSocket)
    assert opened.sink is talk.line
    talk.line.closed()
    assert talk.node.actor.told[-1] == Detach(talk.line)


async def test_a_session_that_refuses_closes_it(talk: Conversation) -> None:
    talk.node.actor.raises = AlreadyConnected()
    await talk.line.start(principal())
    assert talk.wire.close_code == 1013
    assert talk.wire.said[-1]["status"] == "error"


async def test_every_event_is_acknowledged_exactly_once(talk: Conversation) -> None:
    await talk.line.start(principal())
    id_ = new_event_id()
    talk.say(id_)
    assert talk.node.actor.told[-1] == PatchState(talk.line, id_, {"x": 1})
    talk.line.ack(id_)
    assert talk.wire.said == []  # until the drain is over
    talk.line.flush()
    talk.line.flush()
    assert [(one["type"], one["id"]) for one in talk.wire.said] == [("ack", id_)]


async def test_what_is_refused_is_acknowledged_after_the_event_that_says_why(
    talk: Conversation,
) -> None:
    await talk.line.start(principal())
    id_ = new_event_id()
    talk.say(id_)
    talk.line.refuse(id_, PayloadTooLarge())
    talk.line.flush()
    refused, acked = talk.wire.said
    assert (refused["type"], refused["payload"]["event"]) == ("event", id_)
    assert (acked["type"], acked["id"]) == ("ack", id_)
    talk.ack(refused["id"])
    talk.node.actor.raises = Overloaded()
    talk.say(id_)
    refused, acked = talk.wire.said[-2:]
    assert refused["payload"]["error"]["code"] == 122
    assert (acked["type"], acked["id"]) == ("ack", id_)
    assert talk.wire.close_code == 0


async def test_ids_are_the_same_in_capitals(talk: Conversation) -> None:
    await talk.line.start(principal())
    talk.ack(talk.tell().upper())
    assert talk.wire.close_code == 0
    id_ = new_event_id()
    talk.say(id_.upper())
    talk.line.ack(id_.upper())
    talk.line.flush()
    assert talk.wire.said[-1]["id"] == id_.upper(), "as the client wrote it"
    talk.say(id_)
    talk.say(id_.upper())
    assert talk.wire.close_code == 4005


async def test_a_client_must_acknowledge_in_time(
    talk: Conversation, autojump_clock: MockClock
) -> None:
    first = talk.tell()
    await trio.sleep(0.5)
    talk.tell()
    talk.ack(first)
    await trio.sleep(0.75)
    talk.line.check_deadlines(trio.current_time())
    assert talk.wire.close_code == 0
    await trio.sleep(0.5)
    talk.line.check_deadlines(trio.current_time())
    assert talk.wire.closed == (1008, "an event was not acknowledged in time")


async def test_an_ack_of_no_event_that_waits_is_a_value_not_allowed(talk: Conversation) -> None:
    id_ = talk.tell()
    talk.ack(id_)
    assert talk.wire.close_code == 0
    talk.ack(id_)
    assert talk.wire.close_code == 4005
    assert talk.wire.said[-1]["payload"] == {"kind": "closing", "code": 4005}


async def test_an_event_that_is_not_answered_yet_can_not_be_said_again(talk: Conversation) -> None:
    await talk.line.start(principal())
    id_ = new_event_id()
    talk.say(id_)
    talk.say(id_)
    assert talk.wire.close_code == 4005


async def test_too_many_events_that_wait_are_too_many(talk: Conversation) -> None:
    await talk.line.start(principal())
    for _ in range(UNANSWERED + 1):
        talk.say(new_event_id())
    assert talk.wire.close_code == 1008


async def test_too_many_messages_are_1008(nursery: trio.Nursery) -> None:
    talk = Conversation(nursery, rate_limits="on", messages_burst=2, messages_per_s=0.001)
    await talk.line.start(principal())
    for closed in (0, 0, 1008):
        talk.say(new_event_id())
        assert talk.wire.close_code == closed
    assert talk.wire.closed == (1008, "too many messages")
    told = [one["payload"]["error"]["code"] for one in talk.wire.said if one["type"] == "event"]
    assert told == [102], "once, in the last event"


async def test_what_a_client_is_told_does_not_count_against_it(nursery: trio.Nursery) -> None:
    talk = Conversation(nursery, rate_limits="on", messages_burst=2, messages_per_s=0.001)
    for _ in range(100):
        talk.ack(talk.tell())
    assert talk.wire.close_code == 0


async def test_a_binary_message_is_4001(talk: Conversation) -> None:
    assert talk.line.take(None)
    assert talk.wire.closed == (4001, "not a text frame")


async def test_a_token_no_longer_valid_is_4000(talk: Conversation) -> None:
    talk.line.expire()
    assert talk.wire.close_code == 4000


async def test_a_large_message_counts_as_many(nursery: trio.Nursery) -> None:
    talk = Conversation(nursery, rate_limits="on", messages_burst=40, messages_per_s=0.001)
    await talk.line.start(principal())
    first = talk.tell()
    for closed in (0, 1008):
        talk.say(new_event_id(), more="x" * 30_000)
        assert talk.wire.close_code == closed
    talk = Conversation(nursery, rate_limits="on", messages_burst=40, messages_per_s=0.001)
    await talk.line.start(principal())
    first, second = talk.tell(), talk.tell()
    talk.say(first, type="ack", more="x" * 30_000)
    talk.say(second, type="ack", more="x" * 30_000)
    assert talk.wire.close_code == 1008, "an Ack is not counted, but what is added to it"


async def test_what_can_not_be_kept_is_refused_where_it_stands(nursery: trio.Nursery) -> None:
    for patch, reason in (
        ('{"a":[1,1e400]}', "payload.patch.a.1 must be within the range of a 64-bit float"),
        ('{"a":{"b":1,"b":1}}', "payload.patch.a.b must not be repeated"),
        ('{"a":"\\ud800"}', "payload.patch.a must not contain a lone surrogate"),
    ):
        talk = Conversation(nursery)
        await talk.line.start(principal())
        talk.say(new_event_id(), payload={"kind": "state", "patch": Raw(patch.encode())})
        assert talk.wire.closed == (4005, reason)
