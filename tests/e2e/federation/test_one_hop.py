"""A server answers other servers and guests only for itself: no request goes in circles."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.federation.peers import PlayedServer, code_of, played_server
from tests.e2e.servers import ServerHarness, running

OTHER, FAR = "other.example", "far.example:3032"
ID = "00000000-0000-4000-8000-000000000000"
READS = [
    f"/api/{path}"
    for path in (
        f"users?server={OTHER}", f"users@{OTHER}", f"users/ada@{OTHER}", f"server@{OTHER}",
        f"worlds?server={OTHER}", f"worlds/w_{ID}@{OTHER}", f"worlds/w_{ID}@{OTHER}/assets",
        f"instances?server={OTHER}", f"instances/picnic@{OTHER}/players",
        f"services/com.example.a@{OTHER}", f"users/ada/thumbnail?server={OTHER}",
        f"users?server={FAR}", f"users/ada@{FAR}",
    )
]  # fmt: skip


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url) as harness:
        yield harness


def asked(harness: ServerHarness) -> int:
    """How many requests the server has sent to others."""
    return sum(harness.metrics.peer_requests.values())


@pytest.mark.parametrize("path", READS)
async def test_servers_and_guests_read_here_alone(harness: ServerHarness, path: str) -> None:
    far: PlayedServer = await played_server(harness, FAR)
    ann = await far.guest()
    own = await harness.account("ada")
    sent = asked(harness)
    for token in (far.token, ann.token):
        answer = await far.ask("GET", path, token=token)
        assert (answer.status_code, code_of(answer)) == (404, 5)
    async with far.client(own.token) as client:
        answer = await client.get(path, headers={"Via": f"avr/{FAR}"})
        assert (answer.status_code, code_of(answer)) == (404, 5)
    assert (await far.ask("GET", "/api/users")).status_code == 200
    assert asked(harness) == sent


async def test_neither_makes_this_server_ask_by_a_write(harness: ServerHarness) -> None:
    far = await played_server(harness, FAR)
    ann = await far.guest()
    sent = asked(harness)
    world = f"w_{ID}@{OTHER}"
    for path, body in (
        ("/api/users/@me/home", {"world": world}),
        ("/api/instances", {"world": world}),
        (f"/api/worlds?server={OTHER}", {}),
    ):
        method = "POST" if "home" in path else "PUT"
        for token in (far.token, ann.token):
            answer = await far.ask(method, path, body, token=token)
            assert answer.status_code in (401, 403, 404), (path, answer.text)
    assert asked(harness) == sent
