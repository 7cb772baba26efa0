"""A client over a socket pair, for tests that need no server."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks.connect import Client
from tests.conftest import PATIENCE_S


@pytest.fixture
def pair() -> Iterator[tuple[Client, socket.socket]]:
    """A client, and the server's end of its connection."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    with ours, theirs:
        yield Client(ours), theirs


@pytest.fixture
def client(pair: tuple[Client, socket.socket]) -> Client:
    return pair[0]
