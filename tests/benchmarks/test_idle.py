"""Looking after idle connections."""

from __future__ import annotations

import json
import socket

import pytest
from websockets.frames import Frame, Opcode

from benchmarks.connect import Client
from benchmarks.errors import BenchmarkError, ConnectionLost
from benchmarks.idle import check_alive, tend

Pair = tuple[Client, socket.socket]


def text(**fields: object) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(fields).encode()).serialize(mask=False)


def test_pings_that_wait_are_answered(pair: Pair) -> None:
    client, server = pair
    server.sendall(Frame(Opcode.PING, b"abcd").serialize(mask=False))
    tend([client], 0)
    pong = server.recv(100)
    assert (pong[0], pong[1]) == (0x8A, 0x84)


def test_a_connection_that_is_closed_is_not_idle(pair: Pair) -> None:
    client, server = pair
    server.close()
    with pytest.raises(ConnectionLost, match="hung up"):
        tend([client], 0)


def test_a_connection_is_alive_when_it_answers(pair: Pair) -> None:
    client, server = pair
    server.sendall(text(command="authenticated", data={}) + text(state="alive", command="ping"))
    check_alive(client)
    assert server.recv(1000)


def test_a_connection_that_answers_with_an_error_is_of_no_use(pair: Pair) -> None:
    client, server = pair
    server.sendall(text(state="alive", error={"code": 3, "message": "User not logged"}))
    with pytest.raises(BenchmarkError, match="User not logged"):
        check_alive(client)
