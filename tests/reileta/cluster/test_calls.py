"""Calls between nodes: answers, errors, silence, large arguments, other versions."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
import trio
import trio.testing

from actors.runtime.failures import capture_failure
from reileta.cluster.bus import BusMessage
from reileta.cluster.calls import Calls, CallUnknown, NodeUnreachable, pack
from reileta.errors import (
    Detail,
    InternalError,
    NotAllowed,
    Overloaded,
    Redirected,
    ReiletaError,
    TooManyRequests,
)
from tests.reileta.cluster.memory_bus import MemoryBus, MemoryNats


class Echo(msgspec.Struct, array_like=True):
    text: str
    times: int = 1


@dataclass
class FakeMember:
    """A node of the cluster `test`."""

    bus: MemoryBus
    node: str
    alive: bool = True
    subjects: list[str] = field(default_factory=list)

    def subject(self, *parts: str) -> str:
        return ".".join(("avr", "test", *parts))

    def valid(self) -> bool:
        return self.alive


@dataclass
class Pair:
    """A node that calls, and one that answers."""

    nats: MemoryNats
    here: Calls
    there: Calls
    caller: FakeMember
    member: FakeMember
    """Of the one that answers."""
    nursery: trio.Nursery


@asynccontextmanager
async def a_pair(*, max_data_bytes: int = 1024 * 1024) -> AsyncIterator[Pair]:
    nats = MemoryNats(max_data_bytes=max_data_bytes)
    members = [FakeMember(nats.bus(name), f"c_{name}") for name in ("here", "there")]
    here, there = (Calls(member, capture_failure) for member in members)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        nursery.start_soon(there.run)
        await here.listening.wait()
        await there.listening.wait()
        yield Pair(nats, here, there, members[0], members[1], nursery)
        nursery.cancel_scope.cancel()


async def echo(argument: Echo, caller: str) -> Echo:
    return Echo(f"{caller}: {argument.text * argument.times}")


async def test_a_call_is_answered() -> None:
    async with a_pair() as pair:
        pair.there.serve("echo", Echo, echo)
        answer = await pair.here.call("c_there", "echo", Echo("ha", 2), Echo, 30)
        assert answer == Echo("c_here: haha")


@pytest.mark.parametrize(
    "error",
    [
        NotAllowed(Detail("by", "must be the owner")),
        Overloaded(retry_after_s=7.0),
        TooManyRequests(3.0, Detail("data", "is too much")),
        Redirected("b.example.org", secure=True),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_is_raised_as_the_other_side_raised_it(error: ReiletaError) -> None:
    async def refuse(argument: Echo, caller: str) -> Echo:
        raise error

    async with a_pair() as pair:
        pair.there.serve("refuse", Echo, refuse)
        with pytest.raises(type(error)) as raised:
            await pair.here.call("c_there", "refuse", Echo(""), Echo, 30)
        assert raised.value.details == error.details
        assert (raised.value.code, raised.value.message) == (error.code, error.message)
        assert vars(raised.value) == vars(error)


async def test_an_error_that_this_version_does_not_know_is_told_by_its_code() -> None:
    class NewOne(NotAllowed):
        pass

    async def refuse(argument: Echo, caller: str) -> Echo:
        raise NewOne

    async with a_pair() as pair:
        pair.there.serve("refuse", Echo, refuse)
        NewOne.__name__ = "OfTheNextVersion"
        with pytest.raises(ReiletaError) as raised:
            await pair.here.call("c_there", "refuse", Echo(""), Echo, 30)
        assert raised.value.code == NotAllowed.code


async def test_a_failure_of_one_handler_leaves_the_others_working() -> None:
    async def fail(argument: Echo, caller: str) -> Echo:
        raise ZeroDivisionError

    async with a_pair() as pair:
        pair.there.serve("fail", Echo, fail)
        pair.there.serve("echo", Echo, echo)
        with pytest.raises(InternalError):
            await pair.here.call("c_there", "fail", Echo(""), Echo, 30)
        answer = await pair.here.call("c_there", "echo", Echo("a"), Echo, 30)
        assert answer.text == "c_here: a"


async def test_nobody_there_is_known_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with a_pair() as pair:
        began = trio.current_time()
        with pytest.raises(NodeUnreachable) as raised:
            await pair.here.call("c_gone", "echo", Echo(""), Echo, 5)
        assert raised.value.absent
        assert trio.current_time() == began


async def test_silence_ends_after_the_time(autojump_clock: trio.testing.MockClock) -> None:
    async def wait(argument: Echo, caller: str) -> Echo:
        await trio.sleep(math.inf)
        return argument

    async with a_pair() as pair:
        pair.there.serve("wait", Echo, wait)
        with pytest.raises(NodeUnreachable) as raised, trio.fail_after(2):
            await pair.here.call("c_there", "wait", Echo(""), Echo, 1)
        assert not raised.value.absent


async def test_a_call_that_the_other_version_does_not_know_was_not_carried_out() -> None:
    async with a_pair() as pair:
        with pytest.raises(CallUnknown) as raised:
            await pair.here.call("c_there", "of the next version", Echo(""), Echo, 30)
        assert raised.value.absent


async def test_fields_of_a_newer_version_are_ignored_and_of_an_older_one_have_defaults() -> None:
    class Newer(msgspec.Struct, array_like=True):
        text: str
        times: int
        colour: str

    class Older(msgspec.Struct, array_like=True):
        text: str

    async with a_pair() as pair:
        pair.there.serve("echo", Echo, echo)
        for argument in (Newer("ha", 2, "red"), Older("haha")):
            answer = await pair.here.call("c_there", "echo", argument, Echo, 30)
            assert answer == Echo("c_here: haha")


async def test_large_arguments_and_answers_go_in_parts() -> None:
    text = "abcdefghij" * 50_000
    async with a_pair(max_data_bytes=8 * 1024) as pair:
        pair.there.serve("echo", Echo, echo)
        answer = await pair.here.call("c_there", "echo", Echo(text, 2), Echo, 30)
        assert answer.text == f"c_here: {text * 2}"
        assert pair.there.debug_counts() == {"calls": 0, "call parts": 0}
        assert max(size for _, _, size in pair.nats.published) <= 8 * 1024


async def test_a_lost_part_fails_the_call_and_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_pair(max_data_bytes=8 * 1024) as pair:
        pair.there.serve("echo", Echo, echo)
        seen = 0

        def loses(bus: str, message: BusMessage) -> bool:
            nonlocal seen
            seen += message.subject.endswith(".rpc")
            return seen == 3

        pair.nats.loses = loses
        with pytest.raises(NodeUnreachable):
            await pair.here.call("c_there", "echo", Echo("a" * 50_000), Echo, 1)
        await trio.sleep(20)
        answer = await pair.here.call("c_there", "echo", Echo("b" * 50_000), Echo, 1)
        assert answer.text.endswith("b" * 50_000)
        assert pair.there.debug_counts() == {"calls": 0, "call parts": 0}


async def test_a_suspended_node_answers_nothing() -> None:
    async with a_pair() as pair:
        pair.there.serve("echo", Echo, echo)
        pair.member.alive = False
        with pytest.raises(NodeUnreachable):
            await pair.here.call("c_there", "echo", Echo(""), Echo, 30)


async def test_a_node_that_fell_answers_under_its_new_id_alone() -> None:
    async with a_pair() as pair:
        pair.there.serve("echo", Echo, echo)
        pair.member.node = "c_again"
        pair.there.fell("c_there")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NodeUnreachable):
            await pair.here.call("c_there", "echo", Echo(""), Echo, 30)
        answer = await pair.here.call("c_again", "echo", Echo("a"), Echo, 30)
        assert answer.text == "c_here: a"


async def test_a_cut_connection_fails_the_call_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def wait(argument: Echo, caller: str) -> Echo:
        await trio.sleep(math.inf)
        return argument

    async with a_pair() as pair:
        pair.there.serve("wait", Echo, wait)
        pair.nursery.start_soon(_cut_later, pair.caller)
        began = trio.current_time()
        with pytest.raises(NodeUnreachable):
            await pair.here.call("c_there", "wait", Echo(""), Echo, 60)
        assert trio.current_time() - began < 2


async def _cut_later(member: FakeMember) -> None:
    await trio.sleep(1)
    member.bus.cut()


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x01", b"\x01\xc1", b"\x01\x93\x01\x02\x03"])
async def test_rubbish_is_ignored(data: bytes) -> None:
    async with a_pair() as pair:
        pair.there.serve("echo", Echo, echo)
        pair.member.bus.publish("avr.test.n.c_there.rpc", data, reply="x")
        pair.member.bus.publish("avr.test.n.c_there.rpc", pack(["c_here", 1, "echo", b"\xc1"]))
        answer = await pair.here.call("c_there", "echo", Echo("a"), Echo, 30)
        assert answer.text == "c_here: a"


async def test_a_call_that_comes_before_the_bus_says_that_it_is_connected_is_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_pair() as pair:
        pair.there.serve("echo", Echo, echo)
        pair.nats.hold()
        answers: list[Echo] = []

        async def ask() -> None:
            answers.append(await pair.here.call("c_there", "echo", Echo("ha"), Echo, 30))

        pair.nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        pair.member.bus.cut()
        pair.nats.release()
        await trio.sleep(0.5)
        pair.member.bus.mend()
        await trio.sleep(0.5)
        assert len(answers) == 1
