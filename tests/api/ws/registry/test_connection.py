from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from actors.instance.messages import SendData
from actors.instance.relay import SocketSeat
from actors.runtime.ask import ASK_TIMEOUT_S
from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.mailbox import Ref
from actors.runtime.trace import Sampler, current
from actors.session.messages import Attach, Detach, Join, Leave
from api.ws.connection_log import ConnectionLog
from api.ws.message_rate import FRAMES_PER_MESSAGE, UserRates
from api.ws.registry.commands import COMMANDS, DATA_DEPTH
from api.ws.registry.connection import RegistryConnection
from reileta.errors import (
    CredentialInvalid,
    DatabaseUnavailable,
    InternalError,
    Overloaded,
    ReiletaError,
)
from reileta.rules.resource.json_values import is_deeper
from reileta.settings import Settings
from tests.api.ws.fake_transport import (
    ADDRESS,
    FakeNode,
    FakeSession,
    FakeTransport,
    auth,
    port,
    principal,
)

PLACE = "i_00000000-0000-4000-8000-000000000001"


def connection(
    wire: FakeTransport, node: FakeNode | None = None, **known: Any
) -> RegistryConnection:
    node = node or FakeNode()
    return RegistryConnection(
        port(node),
        auth(**known),
        Sampler(0),
        wire,
        ConnectionLog(1, COMMANDS.names, node.activity, debug=True),
        UserRates(node.settings),
        COMMANDS,
    )


async def served(one: RegistryConnection, payload: bytes) -> None:
    if not one.take(payload):
        await one.handle()


def seated(wire: FakeTransport, actor: FakeSession) -> None:
    wire.seats[PLACE] = SocketSeat(cast(Ref[Any], actor), "p_1")


async def test_data_goes_straight_to_the_instance(nursery: trio.Nursery) -> None:
    wire, place = FakeTransport(nursery), FakeSession()
    one = connection(wire)
    seated(wire, place)
    for subgroup in (PLACE, f"{PLACE}@{ADDRESS}"):
        assert one.take(
            b'{"command":"instance-data","data":[1.0],"key":"k","at":2,"to":["p"],"subgroup":"%b"}'
            % subgroup.encode()
        )
    for speak in place.told:
        assert isinstance(speak, SendData)
        assert (speak.player, speak.key, speak.at, speak.to) == ("p_1", "k", 2, ("p",))
        assert speak.data == b"[1.0]"
        assert speak.state is None
    assert len(place.told) == 2
    assert not wire.frames


@pytest.mark.parametrize(("error", "code"), [(ActorStopped(), 39), (MailboxFull(), 122)])
async def test_data_that_an_instance_does_not_take_is_refused(
    nursery: trio.Nursery, error: Exception, code: int
) -> None:
    wire = FakeTransport(nursery)
    one = connection(wire)
    seated(wire, FakeSession(error))
    assert one.take(b'{"command":"instance-data","subgroup":"%b","data":1}' % PLACE.encode())
    assert [said["error"]["code"] for said in wire.said] == [code]


async def test_what_is_not_utf8_ends_it(nursery: trio.Nursery) -> None:
    wire = FakeTransport(nursery)
    assert connection(wire).take(b'{"command":"ping","state":"\xff"}')
    assert wire.closed == (1007, "not UTF-8")


async def test_what_is_no_text_is_refused(nursery: trio.Nursery) -> None:
    wire = FakeTransport(nursery)
    assert connection(wire).take(None)
    assert wire.said[0]["error"]["code"] == 119
    assert wire.close_code == 0


async def test_the_rate_of_messages(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    wire = FakeTransport(nursery)
    node = FakeNode(Settings(messages_per_s=10, messages_burst=5))
    one = connection(wire, node)
    for _ in range(5):
        await served(one, b'{"command":"ping"}')
    mock_clock.jump(0.2)
    for _ in range(2):
        await served(one, b'{"command":"ping"}')
    assert wire.close_code == 0
    one.take(b'{"command":"ping"}')
    assert wire.closed == (1008, "too many messages")


async def test_frames_that_are_no_messages_count_for_a_part_of_one(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    wire = FakeTransport(nursery)
    one = connection(wire, FakeNode(Settings(messages_per_s=10, messages_burst=5)))
    wire.overhead = 5 * FRAMES_PER_MESSAGE
    one.charge_overhead()
    assert wire.overhead == 0
    assert wire.close_code == 0
    wire.overhead = 1
    one.charge_overhead()
    assert wire.closed == (1008, "too many frames")


async def test_without_limits_there_is_no_rate(nursery: trio.Nursery) -> None:
    wire = FakeTransport(nursery)
    one = connection(wire, FakeNode(Settings(messages_burst=1, rate_limits="off")))
    wire.overhead = 10_000
    one.charge_overhead()
    for _ in range(10):
        await served(one, b'{"command":"ping"}')
    assert wire.close_code == 0


async def test_a_credential_that_came_with_the_upgrade(nursery: trio.Nursery) -> None:
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    await one.start(principal())
    assert one.principal is not None
    (attach,) = node.actor.told
    assert isinstance(attach, Attach)
    assert (attach.sink, attach.token_hash, attach.state) == (wire, b"hash", None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CredentialInvalid(), 4000),
        (Overloaded(), 1013),
        (DatabaseUnavailable(), 1013),
        (InternalError(), 1011),
    ],
)
async def test_a_greeting_that_fails_ends_it_for_the_reason_it_has(
    nursery: trio.Nursery, error: ReiletaError, code: int
) -> None:
    """Above all: a token is not said to be dead because something else is."""
    wire = FakeTransport(nursery)
    one = connection(wire, FakeNode(actor=FakeSession(error)))
    await one.start(principal())
    assert wire.said[0]["error"]["code"] == error.code
    assert wire.closed == (code, error.message)
    assert one.principal is None


async def test_a_session_that_had_just_stopped_is_started_again(nursery: trio.Nursery) -> None:
    wire, node = FakeTransport(nursery), FakeNode(stopped_sessions=1)
    one = connection(wire, node)
    await one.start(principal())
    assert one.principal is not None
    node.stopped_sessions = 2
    one = connection(wire, node)
    await one.start(principal())
    assert wire.close_code == 1013


async def test_an_invalid_credential_ends_a_socket_that_had_a_valid_one(
    nursery: trio.Nursery,
) -> None:
    wire = FakeTransport(nursery)
    one = connection(wire, None, good=principal(), other=principal(session="s_2"))
    await served(one, b'{"command":"authenticate","state":1,"data":{"token":"bad"}}')
    assert wire.said[-1]["error"]["code"] == 101
    assert wire.close_code == 0
    await served(one, b'{"command":"authenticate","data":{"token":"good"}}')
    assert one.principal == principal()
    await served(one, b'{"command":"authenticate","state":2,"data":{"token":"other"}}')
    assert wire.said[-1]["error"]["code"] == 15
    assert wire.close_code == 0
    await served(one, b'{"command":"authenticate","state":3,"data":{"token":"bad"}}')
    assert [said.get("command") for said in wire.said[-2:]] == ["authenticate", "unauthenticated"]
    assert wire.close_code == 4000


async def test_commands_go_to_the_session(nursery: trio.Nursery) -> None:
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    await one.start(principal())
    await served(one, b'{"command":"instance-join","state":[1],"data":{"instance":"room"}}')
    await served(one, b'{"command":"instance-leave","subgroup":"%b"}' % PLACE.encode())
    _, join, leave = node.actor.told
    assert isinstance(join, Join)
    assert (join.instance, join.state) == ("room", b"[1]")
    assert isinstance(leave, Leave)
    assert (leave.instance, leave.state) == (PLACE, None)


async def test_a_command_that_needs_an_instance_names_its_subgroup_before_its_data(
    nursery: trio.Nursery,
) -> None:
    wire = FakeTransport(nursery)
    one = connection(wire)
    await one.start(principal())
    for subgroup in (b"", b'"subgroup":"avr",'):
        await served(one, b'{"command":"instance-moderate","state":1,%b"data":{}}' % subgroup)
        assert [detail["field"] for detail in wire.said[-1]["error"]["details"]] == ["subgroup"]
    await served(one, b'{"command":"instance-moderate","subgroup":"%b"}' % PLACE.encode())
    assert [detail["field"] for detail in wire.said[-1]["error"]["details"]] == ["data.type"]


BAD_SUBGROUPS = (b"", rb"a\u0000b", rb"\u202e", b"x" * 513)


@pytest.mark.parametrize("subgroup", BAD_SUBGROUPS)
@pytest.mark.parametrize(
    "command",
    [
        b'"instance-join"',
        b'"instance-leave"',
        b'"instance-moderate","data":{"user":"ann","type":"warn"}',
        b'"instance-moderate","data":[]',
    ],
)
async def test_a_subgroup_that_names_no_instance_is_the_field_at_fault(
    nursery: trio.Nursery, command: bytes, subgroup: bytes
) -> None:
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    await one.start(principal())
    await served(one, b'{"command":%b,"state":1,"subgroup":"%b"}' % (command, subgroup))
    error = wire.said[-1]["error"]
    assert (error["code"], [one["field"] for one in error["details"]]) == (119, ["subgroup"])
    assert len(node.actor.told) == 1  # the attach


async def test_what_takes_too_long_is_answered(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    await one.start(principal())
    node.actor.gate = trio.Event()
    began = trio.current_time()
    await served(one, b'{"command":"instance-join","state":7,"data":{"instance":"room"}}')
    assert trio.current_time() - began == pytest.approx(ASK_TIMEOUT_S)
    assert wire.said[-1]["error"]["code"] == 122
    assert wire.said[-1]["state"] == 7


async def test_a_command_goes_on_in_the_trace_in_which_it_came(nursery: trio.Nursery) -> None:
    """Messages are taken by a task that takes those of others, too, before this one goes on."""
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    await one.start(principal())
    assert not one.take(b'{"command":"instance-join","data":{"instance":"room"}}')
    span = current.get()
    connection(wire).take(b'{"command":"ping"}')
    assert current.get() != span
    await one.handle()
    assert current.get() == span


async def test_a_target_that_is_oneself(nursery: trio.Nursery) -> None:
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    await one.start(principal())
    await served(
        one, b'{"command":"subscribe","state":1,"data":{"event":"update-user","target":"@me"}}'
    )
    assert node.hub.told[0].target == principal().user.id  # type: ignore[attr-defined]
    assert [said["command"] for said in wire.said] == ["subscribe", "subscribed"]
    assert wire.said[0]["data"] == {"event": "update-user", "target": "@me"}


async def test_its_end_is_told_to_the_session(nursery: trio.Nursery) -> None:
    wire, node = FakeTransport(nursery), FakeNode()
    one = connection(wire, node)
    one.closed()
    await one.start(principal())
    one.closed()
    detach = node.actor.told[-1]
    assert isinstance(detach, Detach)
    assert detach.sink is wire


async def test_one_cancelled_while_it_attaches_is_detached_all_the_same(
    nursery: trio.Nursery,
) -> None:
    wire, node = FakeTransport(nursery), FakeNode(actor=FakeSession(gate=trio.Event()))
    one = connection(wire, node)
    with trio.CancelScope() as scope:
        nursery.start_soon(_cancel_soon, scope)
        await one.start(principal())
    one.closed()
    assert isinstance(node.actor.told[-1], Detach)


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_large_message_counts_as_many(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    wire, place = FakeTransport(nursery), FakeSession()
    one = connection(wire, FakeNode(Settings(messages_burst=120)))
    seated(wire, place)
    large = b'{"command":"instance-data","subgroup":"%b","data":"%b"}' % (
        PLACE.encode(),
        b"x" * 60_000,
    )
    for close_code in (0, 0, 1008):
        assert one.take(large)
        assert wire.close_code == close_code
    assert len(place.told) == 2


async def test_much_that_is_nested_takes_no_time_that_grows_faster_than_it() -> None:
    """Every value counts, whatever the depth: the count of what is looked at is what matters."""
    wide, tower = b"[" + b"[]," * 20_000 + b"1]", b"[" * 60 + b"]" * 60
    assert not is_deeper(wide, DATA_DEPTH)
    assert not is_deeper(b"[" + b",".join([tower[1:-1]] * 500) + b"]", DATA_DEPTH)
    assert is_deeper(b"[" + b",".join([tower] * 500) + b"]", DATA_DEPTH)
