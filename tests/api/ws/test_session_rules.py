"""The session API's rules of states, over its sockets, one test for each rule."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from api.app import ReiletaApp
from reileta.protocol.session_frames import iso, new_event_id
from tests.api.clients import Client, logged_in, new_token_of, with_token
from tests.api.fakes import FakeNode
from tests.conftest import PATIENCE_S

Json = dict[str, Any]
EPOCH_MS = 1_790_000_000_000


class SessionSocket:
    """A socket of a session, as its client sees it."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def get(self) -> Json:
        """The next message; an event is acknowledged."""
        with trio.fail_after(PATIENCE_S):
            message: Json = json.loads(await self._socket.receive())
        if message["type"] == "event":
            await self._say({"type": "ack", "id": message["id"]})
        return message

    async def payload(self) -> Json:
        """What the next event says."""
        payload: Json = (await self.get())["payload"]
        return payload

    async def change(self, patch: Json) -> Json:
        """Changes the state; the message that answers."""
        id_ = new_event_id()
        payload = {"kind": "state", "patch": patch}
        event = {"type": "event", "id": id_, "status": "ok", "reason": None, "payload": payload}
        await self._say(event)
        answer = await self.get()
        assert id_ in (answer["id"], answer.get("payload", {}).get("event"))
        return answer

    async def _say(self, message: Json) -> None:
        await self._socket.send(json.dumps({**message, "sent_at": iso(EPOCH_MS)}))


@asynccontextmanager
async def line(
    app: ReiletaApp, client: Client, path: str = "/ws/user"
) -> AsyncIterator[SessionSocket]:
    headers = {"Authorization": f"Bearer {client.token}"}
    async with app.test_client().websocket(path, headers=headers) as socket:
        yield SessionSocket(socket)


async def state_of(client: Client) -> Json:
    state: Json = (await client.get("/session")).body["session"]["state"]
    return state


async def test_two_or_more_instances_of_the_same_user_may_share_the_same_session(
    lines: ReiletaApp,
) -> None:
    """… and "in this case, their States are automatically synced together"."""
    one = await new_token_of(lines, "ada")
    id_ = one.me["session"]["id"]
    two, three = await with_token(lines, "ada", id_), await with_token(lines, "ada", id_)
    async with line(lines, one) as first, line(lines, two) as second, line(lines, three) as third:
        instances = (first, second, third)
        assert {(await each.payload())["session"]["id"] for each in instances} == {id_}
        expected: Json = {}
        for version, instance in enumerate(instances, 1):
            patch = {f"door{version}": {"width": version}}
            expected |= patch
            assert (await instance.change(patch))["type"] == "ack"
            for other in instances:
                if other is not instance:
                    told = {"kind": "state", "version": version, "patch": patch}
                    assert await other.payload() == told
    for client in (one, two, three):
        assert await state_of(client) == expected


async def test_a_state_is_the_real_time_snapshot_of_its_session_alone(lines: ReiletaApp) -> None:
    """Each `Session` is associated with a `State` (one-to-one)."""
    one = await new_token_of(lines, "ada")
    other = await with_token(lines, "ada")
    async with line(lines, one) as first, line(lines, other) as second:
        await first.payload(), await second.payload()
        assert (await first.change({"door": {"width": 1, "open": True}}))["type"] == "ack"
        assert await state_of(one) == {"door": {"width": 1, "open": True}}
        assert (await first.change({"door": {"open": None}}))["type"] == "ack"
        assert await state_of(one) == {"door": {"width": 1}}
        assert (await second.change({"x": 1}))["type"] == "ack"
        assert await state_of(other) == {"x": 1}
        assert await state_of(one) == {"door": {"width": 1}}


async def test_a_state_is_stored_by_the_server_to_prevent_loss_of_progress(
    lines: ReiletaApp, node: FakeNode
) -> None:
    ada = await new_token_of(lines, "ada")
    id_ = ada.me["session"]["id"]
    async with line(lines, ada) as first:
        await first.payload()
        await first.change({"door": {"width": 91.5}})
    assert await node.store.states.load(id_) == ({"door": {"width": 91.5}}, 1)
    recovered = await with_token(lines, "ada", id_)
    assert recovered.me["session"]["state"] == {"door": {"width": 91.5}}
    async with line(lines, recovered) as second:
        hello = await second.payload()
        assert (hello["version"], hello["session"]) == (1, recovered.me["session"])


async def test_sessions_owned_by_an_autopilot_can_not_maintain_a_non_empty_state(
    lines: ReiletaApp, node: FakeNode
) -> None:
    user = await node.store.users.create(
        username="pilot", displayname="Pilot", password_hash=None, autopilot=True
    )
    pilot = await logged_in(lines, node, user)
    async with line(lines, pilot, "/ws/autopilot") as socket:
        assert (await socket.payload())["session"]["state"] == {}
        for patch in ({"x": 1}, {}):
            refused = await socket.change(patch)
            assert (refused["status"], refused["payload"]["kind"]) == ("error", "refused")
            assert refused["payload"]["error"]["code"] == 4
            assert (await socket.get())["id"] == refused["payload"]["event"]
        assert await state_of(pilot) == {}
    async with line(lines, pilot, "/ws/autopilot") as socket:
        hello = await socket.payload()
        assert (hello["version"], hello["session"]["state"]) == (0, {})


async def test_every_socket_of_the_session_hears_what_it_acquires_and_releases(
    lines: ReiletaApp,
) -> None:
    ada = await new_token_of(lines, "ada")
    made = await ada.post("/resource/document", {"title": "Door"})
    path = f"/resource/document/{made.body['resource']['id']}"
    twin = await with_token(lines, "ada", ada.me["session"]["id"])
    async with line(lines, ada) as first, line(lines, twin) as second:
        await first.payload(), await second.payload()
        acquired = (await ada.ask("POST", f"{path}/acquire")).body["resource"]
        await twin.patch(path, {"data": 1})
        await ada.ask("POST", f"{path}/release")
        for resource in (acquired, {**acquired, "version": 2}, None):
            told = {"kind": "resource", "resource": resource}
            assert await first.payload() == await second.payload() == told
