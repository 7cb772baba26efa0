"""One session with sockets at two nodes, as the session API's documentation says."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection

from benchmarks.killable import event
from tests.cluster.conftest import Ground
from tests.cluster.test_shared import PASSWORD, bearer, data_of, registered
from tests.conftest import PATIENCE_S
from tests.e2e.processes import ServerProcess, eventually
from tests.e2e.test_sessions import get, line

Json = dict[str, Any]


async def another_token(node: ServerProcess, name: str, session: str) -> str:
    """A further token of the session."""
    async with node.ask() as client:
        body = {"username": name, "password": PASSWORD, "session_id": session}
        answer = await client.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["data"]["token"]
        return token


async def of_kind(socket: WebSocketConnection, kind: str) -> Json:
    """The next event of that kind."""
    with trio.fail_after(PATIENCE_S):
        while True:
            message = await get(socket)
            if message["type"] == "event" and message["payload"]["kind"] == kind:
                payload: Json = message["payload"]
                return payload


async def test_a_session_is_one_at_two_nodes(ground: Ground) -> None:
    async with ground.node("a") as a, ground.node("b") as b:
        account = await registered(a, "ada")
        first = account["token"]
        sessions = await data_of(a, "/api/users/@me/sessions", first)
        second = await another_token(b, "ada", sessions["items"][0]["id"])
        async with line(a, first) as one, line(b, second) as two:
            hello = await of_kind(one, "hello")
            assert (await of_kind(two, "hello"))["session"]["id"] == hello["session"]["id"]
            await one_socket_a_token(b, first)
            await states(one, two)
            await a_resource(a, b, first, second, one, two)
        # Its socket at the other node is closed, or will be as soon as that is noticed.
        await eventually(partial(greeted, b, first))
        async with line(a, second):
            a.process.kill()
            await a.ended()
            await eventually(partial(greeted, b, second))


async def greeted(node: ServerProcess, token: str) -> bool:
    """Whether the token gets a socket at the node."""
    try:
        async with line(node, token) as socket:
            return bool(await of_kind(socket, "hello"))
    except BaseExceptionGroup as group:
        if group.subgroup(ConnectionRejected) is None:
            raise
        return False


async def states(one: WebSocketConnection, two: WebSocketConnection) -> None:
    """Patches at both at once end as one state, with the same last version."""
    known: list[Json] = [{}, {}]
    versions = [0, 0]
    sockets = (one, two)

    async def speak(me: int) -> None:
        for number in range(20):
            await sockets[me].send_message(json.dumps(event({f"{me}.{number}": number})))

    async def listen(me: int) -> None:
        while len(known[me]) < 20 or versions[me] < 20:
            payload = await of_kind(sockets[me], "state")
            assert payload["version"] > versions[me]
            versions[me] = payload["version"]
            known[me] |= {
                name: value for name, value in payload["patch"].items() if name[0] != str(me)
            }

    async with trio.open_nursery() as nursery:
        for me in (0, 1):
            nursery.start_soon(speak, me)
            nursery.start_soon(listen, me)
    for me in (0, 1):
        assert known[me] == {f"{1 - me}.{number}": number for number in range(20)}


async def one_socket_a_token(node: ServerProcess, token: str) -> None:
    """Its client reads and answers, so it keeps its socket at the other node."""
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True, allow_unwrapped=True):
        async with line(node, token):
            pass


async def a_resource(
    a: ServerProcess,
    b: ServerProcess,
    first: str,
    second: str,
    one: WebSocketConnection,
    two: WebSocketConnection,
) -> None:
    """What is acquired at one node is the session's at the other, too."""
    async with a.ask() as here, b.ask() as there:
        made = await here.post("/resource/document", json={"title": "Door"}, headers=bearer(first))
        assert made.status_code < 300, made.text
        id_ = made.json()["id"] if "id" in made.json() else made.json()["resource"]["id"]
        path = f"/resource/document/{id_}"
        answer = await here.post(f"{path}/acquire", headers=bearer(first))
        assert answer.status_code == 200, answer.text
        for socket in (one, two):
            held = await of_kind(socket, "resource")
            assert held["resource"]["id"] == id_
        written = await there.patch(path, json={"title": "Gate"}, headers=bearer(second))
        assert written.status_code == 200, written.text
        answer = await there.post(f"{path}/release", headers=bearer(second))
        assert answer.status_code == 200, answer.text
        for socket in (one, two):
            while (await of_kind(socket, "resource"))["resource"] is not None:
                pass


async def test_nodes_with_different_folders_of_files_refuse_to_start(ground: Ground) -> None:
    async with ground.node("a"):
        with pytest.RaisesGroup(AssertionError, flatten_subgroups=True, allow_unwrapped=True) as no:
            async with ground.node("b", "--files", str(ground.folder / "other")):
                pass
        assert "--files" in repr(no.value)
