"""The load's rules: what counts as sustained, and a run against a relay."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.connect import Client
from benchmarks.frames import MASK, Template, masked, payload
from benchmarks.load import Load, Plan, Player
from tests.benchmarks.reports import load_result


def test_a_rate_that_is_delivered_in_time_is_sustained() -> None:
    assert load_result().sustained


@pytest.mark.parametrize(
    "run",
    [
        load_result(share=0.998),
        load_result(p99_ms=1000.0),
        load_result(p99_ms=None),
        load_result(pace=0.96),
    ],
    ids=["lost", "late", "no samples", "falling behind"],
)
def test_a_rate_is_not_sustained_when_messages_are(run: object) -> None:
    assert not getattr(run, "sustained", True)


PLAYERS = 6


@contextmanager
def relayed() -> Iterator[list[Player]]:
    """Players in one room of a server that relays each frame to all others."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        clients, ends = [], []
        for _ in range(PLAYERS):
            sock = socket.create_connection(listener.getsockname())
            clients.append(stack.enter_context(sock))
            ends.append(stack.enter_context(listener.accept()[0]))
        over = threading.Event()
        server = threading.Thread(target=relay, args=(ends, over))
        server.start()
        stack.callback(server.join)
        stack.callback(over.set)
        yield [
            Player(Client(sock), Template(payload(number, 150)), PLAYERS - 1)
            for number, sock in enumerate(clients)
        ]


def relay(ends: list[socket.socket], over: threading.Event) -> None:
    """Passes frames on: two bytes, two of the length, the mask, and 150 bytes."""
    waiting = {end: bytearray() for end in ends}
    while not over.is_set():
        for end in select.select(ends, (), (), 0.05)[0]:
            data = waiting[end]
            data += end.recv(1 << 16)
            while len(data) >= 158:
                text = masked(bytes(data[8:158]), MASK)
                del data[:158]
                for other in ends:
                    if other is not end:
                        other.sendall(b"\x81\x7e\x00\x96" + text)


@pytest.mark.parametrize("read_every", [1, 2, PLAYERS])
def test_each_delivery_counts_whether_it_is_read_or_discarded(read_every: int) -> None:
    plan = Plan(20, 0.5, warm_up_s=0.1, drain_s=20, read_every=read_every)
    with relayed() as players:
        result = Load(players, plan).run()
    assert result.delivered == result.expected > 0
    assert result.share == 1
    assert result.lost_connections == 0
    assert sum(player.discards for player in players) == PLAYERS - PLAYERS // read_every
