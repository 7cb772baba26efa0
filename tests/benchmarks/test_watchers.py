"""Judging when all watchers have a change, and whether one of them missed any."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from benchmarks.connect import Client
from benchmarks.watchers import Arrivals, Written
from reileta.protocol.frames import text_frame


def event(version: int, origin: int | None) -> bytes:
    """A frame that tells a watcher of that version."""
    data: dict[str, object] = {"version": version, "view": {}}
    if origin is not None:
        data = {"version": version, "from": origin, "patch": {"version": version}}
    text = json.dumps({"command": "resource-updated", "data": data}, separators=(",", ":"))
    return text_frame(text.encode())


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    pairs = [socket.socketpair() for _ in range(2)]
    yield [Client(theirs) for _, theirs in pairs]
    for pair in pairs:
        for one in pair:
            one.close()


def test_a_version_has_arrived_when_the_last_watcher_has_it(clients: list[Client]) -> None:
    arrivals = Arrivals(clients, 1)
    arrivals.written(Written(2, 0, 0))
    arrivals.take(clients[0], event(2, 1))
    arrivals.measure()
    assert arrivals.from_commit == []
    arrivals.take(clients[1], event(2, 1))
    arrivals.measure()
    assert not arrivals.waiting
    assert len(arrivals.from_commit) == len(arrivals.from_request) == 1
    assert (arrivals.events, arrivals.gaps) == (2, 0)


def test_a_later_version_brings_the_ones_before(clients: list[Client]) -> None:
    """Also when the answers to the writes come after the events."""
    arrivals = Arrivals(clients, 1)
    for client in clients:
        arrivals.take(client, event(4, 1))
    arrivals.measure()
    for version in (2, 3, 4):
        arrivals.written(Written(version, 0, 0))
    arrivals.measure()
    assert not arrivals.waiting
    assert len(arrivals.from_commit) == 3
    assert arrivals.gaps == 0


def test_several_events_in_one_read_and_one_in_two_reads(clients: list[Client]) -> None:
    arrivals = Arrivals(clients, 1)
    both = event(2, 1) + event(3, 2)
    arrivals.take(clients[0], both)
    arrivals.take(clients[1], both[:50])
    arrivals.take(clients[1], both[50:])
    assert (arrivals.events, arrivals.gaps) == (4, 0)
    last = event(4, 3)
    arrivals.take(clients[1], last)
    arrivals.take(clients[0], last)
    assert (arrivals.events, arrivals.gaps) == (6, 0)


def test_a_patch_of_another_version_is_a_gap_and_a_view_is_not(clients: list[Client]) -> None:
    arrivals = Arrivals(clients, 1)
    arrivals.take(clients[0], event(5, None))
    assert arrivals.gaps == 0
    arrivals.take(clients[1], event(3, 2))
    assert arrivals.gaps == 1
