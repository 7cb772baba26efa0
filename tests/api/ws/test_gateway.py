from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.ask import ASK_TIMEOUT_S
from actors.session.messages import Detach
from api.ws import gateway
from api.ws.gateway import RETURN_SPREAD_S, WATCH_S, Gateway, come_back_reason
from api.ws.transport.base import CLOSE_TIMEOUT_S
from reileta.rules.identity import Principal
from reileta.settings import Settings
from tests.api.ws.fake_transport import EPOCH_MS, FakeNode, FakeTransport, auth, port, principal


class Watched:
    """A gateway with its watch running, and one socket."""

    def __init__(self, nursery: trio.Nursery, node: FakeNode, who: Principal | None) -> None:
        self.node = node
        self.gateway = Gateway(port(node), auth())
        self.wire = FakeTransport(nursery)
        nursery.start_soon(self.gateway.watch)
        nursery.start_soon(self.gateway.serve, self.wire, who)


async def test_silence_is_asked_about_and_then_cut(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    settings = Settings(keepalive_interval_s=20, keepalive_timeout_s=10)
    one = Watched(nursery, FakeNode(settings), principal())
    await trio.sleep(20 - WATCH_S)
    assert one.wire.pings == 0
    await trio.sleep(3 * WATCH_S)
    assert one.wire.pings == 1
    await trio.sleep(10 - 3 * WATCH_S)
    assert one.wire.finishes == 0
    await trio.sleep(4 * WATCH_S)
    assert one.wire.finishes == 1
    assert len(one.gateway) == 0
    assert isinstance(one.node.actor.told[-1], Detach)


async def test_what_came_while_the_process_could_not_run_is_read_first(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    settings = Settings(keepalive_interval_s=20, keepalive_timeout_s=10)
    one = Watched(nursery, FakeNode(settings), principal())
    for late in (False, True):
        await trio.sleep(20 + 2 * WATCH_S)
        assert one.wire.pings == 1 + late
        autojump_clock.jump(60)
        await wait_all_tasks_blocked()
        if not late:
            await one.wire.inbox.send([])
        await trio.sleep(2 * WATCH_S)
        assert one.wire.finishes == late


async def test_others_run_while_many_sockets_are_looked_at(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that end meanwhile are passed over."""
    monkeypatch.setattr(gateway, "WATCHED_AT_ONCE", 1)
    settings = Settings(keepalive_interval_s=20, keepalive_timeout_s=10)
    first = Watched(nursery, FakeNode(settings), principal())
    wires = [first.wire, *(FakeTransport(nursery) for _ in range(3))]
    await wait_all_tasks_blocked()
    for wire in wires[1:]:
        nursery.start_soon(first.gateway.serve, wire, principal())
        await wait_all_tasks_blocked()
    seen = []

    def cut_the_last() -> None:
        seen.append([one.pings for one in wires])
        wires[-1].cut()

    monkeypatch.setattr(wires[0], "ping", cut_the_last)
    await trio.sleep(20 + 2 * WATCH_S)
    assert seen[0] == [0, 0, 0, 0]
    assert [one.pings for one in wires[1:]] == [1, 1, 0]


async def test_whoever_says_anything_is_there(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    settings = Settings(keepalive_interval_s=5, keepalive_timeout_s=5)
    one = Watched(nursery, FakeNode(settings), principal())
    for _ in range(20):
        await trio.sleep(4)
        await one.wire.inbox.send([])
    assert one.wire.pings == 0
    await trio.sleep(8)
    assert one.wire.pings == 1
    await one.wire.inbox.send([])
    await trio.sleep(2)
    assert one.wire.finishes == 0


async def test_who_never_says_who_it_is(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    one = Watched(nursery, FakeNode(Settings(credential_deadline_s=10)), None)
    await trio.sleep(10 - WATCH_S)
    assert one.wire.close_code == 0
    await trio.sleep(3 * WATCH_S)
    assert one.wire.closed == (4001, "no credential")
    assert one.wire.finishes == 0
    await trio.sleep(CLOSE_TIMEOUT_S + 2 * WATCH_S)
    assert one.wire.finishes == 1, "one that does not answer the close frame is cut"


async def test_the_deadline_is_for_clients_and_not_for_a_busy_session(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = FakeNode(Settings(credential_deadline_s=10))
    node.actor.gate = trio.Event()
    one = Watched(nursery, node, principal())
    await trio.sleep(10 + 3 * WATCH_S)
    assert one.wire.closed is None
    node.actor.gate.set()
    await trio.sleep(3 * WATCH_S)
    assert one.wire.closed is None


async def test_a_session_that_does_not_answer_is_not_waited_for_for_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = FakeNode(Settings(keepalive_interval_s=60))
    node.actor.gate = trio.Event()
    one = Watched(nursery, node, principal())
    await trio.sleep(ASK_TIMEOUT_S + 1)
    assert one.wire.close_code == 1013


async def test_a_credential_that_runs_out(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    begins = EPOCH_MS + round(trio.current_time() * 1000)
    one = Watched(nursery, FakeNode(), principal(expires_at=begins + 5_000))
    await trio.sleep(4)
    assert one.wire.close_code == 0
    await trio.sleep(3)
    assert one.wire.close_code == 4000
    assert [said["command"] for said in one.wire.said] == ["unauthenticated"]


async def test_a_goodbye_ends_it(nursery: trio.Nursery) -> None:
    one = Watched(nursery, FakeNode(), principal())
    await wait_all_tasks_blocked()
    assert len(one.gateway) == one.node.metrics.connections == 1
    one.wire.inbox.close()
    await wait_all_tasks_blocked()
    assert one.wire.finishes == 1
    assert len(one.gateway) == one.node.metrics.connections == 0
    assert one.node.metrics.connections_total == 1


async def test_messages_are_taken_until_it_is_closed(nursery: trio.Nursery) -> None:
    one = Watched(nursery, FakeNode(), principal())
    ping = b'{"command":"ping"}'
    await one.wire.inbox.send([ping, b"\xff", ping])
    await wait_all_tasks_blocked()
    assert one.node.metrics.messages_in == 2
    assert [said["command"] for said in one.wire.said] == ["ping"]
    assert one.wire.close_code == 1007


async def test_frames_that_are_no_messages_are_counted(nursery: trio.Nursery) -> None:
    one = Watched(nursery, FakeNode(), principal())
    one.wire.overhead = 100_000
    await one.wire.inbox.send([])
    await wait_all_tasks_blocked()
    assert one.wire.closed == (1008, "too many frames")


async def test_too_many_connections(nursery: trio.Nursery) -> None:
    gateway = Gateway(port(FakeNode()), auth())
    first, second = FakeTransport(nursery), FakeTransport(nursery)
    second.over_limit = True
    nursery.start_soon(gateway.serve, first, principal())
    await wait_all_tasks_blocked()
    nursery.start_soon(gateway.serve, second, principal())
    await wait_all_tasks_blocked()
    assert first.closed is None
    assert second.closed == (1013, "too many connections")


async def test_who_comes_while_it_stops_is_sent_away(nursery: trio.Nursery) -> None:
    one = Watched(nursery, FakeNode(draining=True), principal())
    await wait_all_tasks_blocked()
    assert one.wire.close_code == 1001
    assert not one.node.actor.told


async def test_draining(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gateway = Gateway(port(FakeNode(Settings(sockets_per_user=0))), auth())
    wires = [FakeTransport(nursery) for _ in range(500)]
    for wire in wires:
        nursery.start_soon(gateway.serve, wire, principal())
    await wait_all_tasks_blocked()
    for polite in wires[:400]:
        polite.inbox.close()
    began = trio.current_time()
    await gateway.drain(3)
    assert trio.current_time() - began == pytest.approx(3, abs=0.1)
    assert {wire.closed[0] for wire in wires if wire.closed} == {1001}
    await wait_all_tasks_blocked()
    assert len(gateway) == 0
    assert all(wire.finishes == 1 for wire in wires)


async def test_draining_ends_with_the_last(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = Gateway(port(FakeNode()), auth())
    began = trio.current_time()
    await gateway.drain(3)
    assert trio.current_time() - began < 0.1


def test_clients_come_back_at_different_times() -> None:
    reasons = {come_back_reason() for _ in range(200)}
    assert reasons <= {f"come back in {s} s" for s in range(1, RETURN_SPREAD_S + 1)}
    assert len(reasons) > RETURN_SPREAD_S / 2


async def test_opening_sockets_one_after_the_other_lifts_no_limit(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    node = FakeNode(Settings(messages_burst=10, messages_per_s=1))
    gateway = Gateway(port(node), auth())
    codes = []
    for _ in range(4):
        wire = FakeTransport(nursery)
        nursery.start_soon(gateway.serve, wire, principal())
        await wire.inbox.send([b'{"command":"ping","data":{"time":1}}'] * 10)
        await wait_all_tasks_blocked()
        codes.append(wire.close_code)
        await wire.inbox.aclose()
        await wait_all_tasks_blocked()
    assert codes == [0, 0, 1008, 1008]
    assert (len(gateway), len(gateway.rates)) == (0, 1)
    mock_clock.jump(10)
    wire = FakeTransport(nursery)
    nursery.start_soon(gateway.serve, wire, principal())
    await wire.inbox.send([b'{"command":"ping","data":{"time":1}}'] * 10)
    await wait_all_tasks_blocked()
    assert wire.close_code == 0


async def test_a_socket_whose_check_fails_is_cut_and_the_others_are_still_watched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class BrokenTransport(FakeTransport):
        def ping(self) -> None:
            raise ValueError

    settings = Settings(keepalive_interval_s=5, keepalive_timeout_s=5)
    one = Watched(nursery, FakeNode(settings), principal())
    broken = BrokenTransport(nursery)
    nursery.start_soon(one.gateway.serve, broken, principal())
    await trio.sleep(8)
    assert broken.finishes == 1
    assert one.wire.pings == 1
