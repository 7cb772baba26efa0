"""Judging a line that moves: who was told what, and when its turn came."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.connect import Client
from benchmarks.dialects import JOIN_STATE
from benchmarks.errors import BenchmarkError
from benchmarks.queue import Candidate, Turnover
from reileta.protocol.frames import text_frame
from tests.conftest import PATIENCE_S

HERE = "i_1b4e28ba-2fa1-4d2b-883f-0016d3cca427"


class CandidateConnections:
    """Candidates, each with the server's end of its connection."""

    def __init__(self, count: int) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        self.servers = [ours for ours, _ in pairs]
        self.clients = [theirs for _, theirs in pairs]
        self.candidates = [
            Candidate(Client(theirs), place) for place, theirs in enumerate(self.clients)
        ]

    def say(self, place: int, command: str, **data: object) -> None:
        self._send(place, {"command": command, "subgroup": HERE, "data": data})

    def answer_join(self, place: int) -> None:
        answer: dict[str, object] = {
            "state": JOIN_STATE,
            "command": "instance-join",
            "subgroup": HERE,
            "data": {},
        }
        self._send(place, answer)

    def _send(self, place: int, message: dict[str, object]) -> None:
        self.servers[place].sendall(text_frame(json.dumps(message, separators=(",", ":")).encode()))

    def close(self) -> None:
        for one in (*self.servers, *self.clients):
            one.close()


@pytest.fixture
def ends() -> Iterator[CandidateConnections]:
    ends = CandidateConnections(3)
    yield ends
    ends.close()


def test_a_line_of_two_for_one_seat(ends: CandidateConnections) -> None:
    turnover = Turnover(ends.candidates, HERE)
    ends.say(0, "instance-candidate", entry={"state": "admitted"})
    ends.say(1, "instance-candidate", entry={"state": "waiting", "position": 1})
    ends.say(2, "instance-candidate", entry={"state": "waiting", "position": 2})
    ends.say(2, "instance-queue", entry={"state": "waiting", "position": 2}, total=2)
    ends.answer_join(0)
    turnover.fill(1)

    def serve() -> None:
        for place in (1, 2):
            ends.servers[place - 1].recv(4096)  # the one before leaves (or has asked to join)
            ends.say(place, "instance-candidate", entry={"state": "admitted"})
            ends.servers[place].recv(4096)
            ends.answer_join(place)

    server = threading.Thread(target=serve)
    server.start()
    turnover.run(2, 1000, lambda _: None)
    server.join(PATIENCE_S)
    turnover.close()
    assert turnover.admissions == [1, 2]
    assert len(turnover.waited_ns) == 2
    assert min(turnover.waited_ns) > 0
    assert [one.waits for one in ends.candidates] == [False, True, True]
    assert [one.told for one in ends.candidates] == [0, 0, 1]
    assert all(one.inside for one in ends.candidates)


def test_a_server_that_hangs_up_is_said(ends: CandidateConnections) -> None:
    turnover = Turnover(ends.candidates, HERE)
    ends.servers[1].close()
    with pytest.raises(BenchmarkError, match="hung up"):
        turnover.read()
    turnover.close()
