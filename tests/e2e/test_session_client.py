"""A client of the session API that knows only its documentation.

It is written from the rules for requests, models, resources and messages, on plain httpx and
trio-websocket, and goes through everything that such a client does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from tests.conftest import PATIENCE_S
from tests.e2e.servers import running

Json = dict[str, Any]

ISO_8601 = "%Y-%m-%dT%H:%M:%S.%f%z"
ACCOUNT = {"username": "ada", "password": "correct horse battery"}
USER = {"id": int, "username": str, "display_name": str | None, "email": str | None,
        "autopilot": bool, "admin": bool}  # fmt: skip
METADATA = {"id", "type", "owner", "title", "version"}


def is_time(text: object) -> bool:
    return isinstance(text, str) and bool(datetime.strptime(text, ISO_8601))  # noqa: DTZ007


def check_user(user: Json) -> None:
    assert user.keys() == USER.keys()
    for name, type_ in USER.items():
        assert isinstance(user[name], type_), name


def check_session(session: Json) -> None:
    assert session.keys() == {"id", "user", "state", "resource"}
    assert isinstance(session["id"], str)
    assert isinstance(session["state"], dict)
    check_user(session["user"])
    if session["resource"] is not None:
        check_metadata(session["resource"])


def check_metadata(resource: Json) -> None:
    assert resource.keys() == METADATA
    assert isinstance(resource["id"], int)
    check_user(resource["owner"])


def check_token(token: Json) -> None:
    assert isinstance(token["access"], str)
    assert is_time(token["access_expires"])
    assert is_time(token["refresh_expires"])
    assert token["killed_at"] is None or is_time(token["killed_at"])
    check_session(token["session"])


class DocumentedClient:
    """Sends requests with one token."""

    def __init__(self, web: httpx.AsyncClient, url: str) -> None:
        self.web, self.url = web, url
        self.token: Json = {}

    async def ask(self, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:
        headers = more.pop("headers", None)
        if headers is None:
            headers = {"Authorization": f"Bearer {self.token['access']}"}
        if body is not None:
            more["json"] = body
        response = await self.web.request(method, path, headers=headers, **more)
        answer = response.json()
        assert isinstance(answer, dict)
        assert (answer["message"] == "OK") == (response.status_code == 200)
        return response

    async def done(self, method: str, path: str, body: object = None) -> Json:
        response = await self.ask(method, path, body)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        return answer

    async def status(self, method: str, path: str, body: object = None, **more: Any) -> int:
        return (await self.ask(method, path, body, **more)).status_code

    async def login(self, **more: object) -> DocumentedClient:
        """A client with a token of its own."""
        other = DocumentedClient(self.web, self.url)
        answer = await self.ask("POST", "/auth/login", {**ACCOUNT, **more}, headers={})
        assert answer.status_code == 200
        other.token = answer.json()["token"]
        check_token(other.token)
        return other

    @asynccontextmanager
    async def socket(self, path: str = "/ws/user") -> AsyncIterator[DocumentedSocket]:
        """An open socket that was greeted."""
        host, _, port = self.url.rpartition("//")[2].rpartition(":")
        own = [(b"Authorization", f"Bearer {self.token['access']}".encode())]
        async with (
            await trio.open_tcp_stream(host, int(port)) as stream,
            trio.open_nursery() as own_,
        ):
            socket = DocumentedSocket(
                await trio_websocket.wrap_client_stream(
                    own_, stream, self.url[7:], path, extra_headers=own
                )
            )
            hello = await socket.event()
            assert hello["payload"]["kind"] == "hello"
            assert isinstance(hello["payload"]["ack_timeout_ms"], int)
            check_session(hello["payload"]["session"])
            socket.hello = hello["payload"]
            yield socket
            own_.cancel_scope.cancel()

    async def rejection(self, path: str) -> int:
        """The status with which a socket is refused."""
        with pytest.RaisesGroup(
            trio_websocket.ConnectionRejected, allow_unwrapped=True, flatten_subgroups=True
        ) as caught:
            async with self.socket(path):
                pass
        error: BaseException = caught.value
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        assert isinstance(error, trio_websocket.ConnectionRejected)
        assert json.loads(error.body or b"")["message"] != "OK"
        return int(error.status_code)


class DocumentedSocket:
    """Sends Events, and acknowledges those that come in."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self.raw = socket
        self.hello: Json = {}

    async def receive(self) -> Json:
        with trio.fail_after(PATIENCE_S):
            message: Json = json.loads(await self.raw.get_message())
        assert is_time(message["sent_at"])
        uuid.UUID(message["id"])
        return message

    async def event(self) -> Json:
        """The next message, an Event, which is acknowledged."""
        event = await self.receive()
        assert event["type"] == "event"
        assert event["status"] in ("ok", "error"), "an Event with the status fatal is a violation"
        assert isinstance(event["reason"], str | None)
        if event["payload"]["kind"] != "closing":
            ack = {"type": "ack", "id": event["id"].upper(), "sent_at": now()}
            await self.raw.send_message(json.dumps(ack))
        return event

    async def change(self, patch: Json, **more: object) -> tuple[str, Json]:
        """Sends an event without the optional `reason`; its id, and the message that follows."""
        id_ = str(uuid.uuid4())
        event = {"type": "event", "id": id_, "sent_at": now(), "status": "ok",
                 "payload": {"kind": "state", "patch": patch}, **more}  # fmt: skip
        await self.raw.send_message(json.dumps(event))
        return id_, await self.receive()

    async def changed(self, patch: Json, **more: object) -> None:
        id_, ack = await self.change(patch, **more)
        assert ack.keys() == {"type", "id", "sent_at"}
        assert (ack["type"], ack["id"]) == ("ack", id_)

    async def closed(self) -> tuple[int, list[Json]]:
        """The close code, and the messages before."""
        messages = []
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                messages.append(await self.receive())
        assert self.raw.closed is not None
        return int(self.raw.closed.code), messages


def now() -> str:
    return datetime.now(UTC).strftime(ISO_8601)


@pytest.fixture
async def ada(database_url: str) -> AsyncIterator[DocumentedClient]:
    async with (
        running(database_url, rate_limits="off") as harness,
        httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as web,
    ):
        assert (await web.post("/api/auth/register", json=ACCOUNT)).status_code == 200
        yield await DocumentedClient(web, harness.server.url).login(session_id=None)


async def test_tokens_and_the_session(ada: DocumentedClient) -> None:
    logins: list[tuple[Json, int]] = [
        ({}, 400),
        ({"username": "ada"}, 400),
        ({"username": 1, "password": "x"}, 400),
        ({"username": "ada", "password": "wrong horse"}, 401),
        ({"username": "nobody", "password": "wrong horse"}, 401),
    ]
    for body, status in logins:
        assert await ada.status("POST", "/auth/login", body, headers={}) == status, body
    for header, status in (
        (None, 400),
        ("", 400),
        ("Bearer", 400),
        ("Basic YWRhOng=", 400),
        ("Bearer two words", 400),
        (ada.token["access"], 400),
        ("Bearer x", 401),
        ("Bearer ua_x", 401),
        ("Bearer bearer", 401),
        ("Bearer eyJh.eyJz.c2ln", 401),
        (f"Bearer {'x' * 2_000}", 401),
        (f"Bearer {ada.token['refresh']}", 401),
    ):
        headers = {} if header is None else {"Authorization": header}
        for method, path in (("GET", "/session"), ("POST", "/auth/logout")):
            assert await ada.status(method, path, headers=headers) == status, header
    session = (await ada.done("GET", "/session"))["session"]
    check_session(session)
    assert session == ada.token["session"]
    assert (await ada.login(session_id=session["id"])).token["session"]["id"] == session["id"]
    for other in ("s_none", str(uuid.uuid4())):
        assert (await ada.login(session_id=other)).token["session"]["id"] != session["id"]
    refreshes: list[tuple[Json, int]] = [({}, 400), ({"refresh": 1}, 400), ({"refresh": "x"}, 401)]
    for body, status in refreshes:
        assert await ada.status("POST", "/auth/refresh", body, headers={}) == status
    refreshed = await ada.ask(
        "POST", "/auth/refresh", {"refresh": ada.token["refresh"]}, headers={}
    )
    check_token(refreshed.json()["token"])
    ada.token = refreshed.json()["token"]
    killed = (await ada.done("POST", "/auth/logout", {"unexpected": 1}))["token"]
    check_token(killed)
    assert is_time(killed["killed_at"])
    assert await ada.status("GET", "/session") == 401


async def test_resources(ada: DocumentedClient) -> None:
    twin = await ada.login(session_id=ada.token["session"]["id"])
    rival = await ada.login()
    made = (await ada.done("POST", "/resource/document", {"title": "Door", "data": [1]}))[
        "resource"
    ]
    path = f"/resource/document/{made['id']}"
    assert await ada.status("POST", f"{path}/dance") == 404
    for number, status in (("x", 400), ("1.5", 400), ("", 404), ("0", 404), ("-1", 404),
                           ("9" * 18, 404), ("9" * 19, 404), ("9" * 200, 404)):  # fmt: skip
        assert await ada.status("POST", f"/resource/document/{number}/acquire") == status, number
    assert await ada.status("POST", f"/resource/spoon/{made['id']}/acquire") == 400
    assert await ada.status("POST", f"/resource/spoon/{'9' * 30}/acquire") == 400

    assert await ada.status("GET", f"{path}/view") == 409
    released = (await ada.done("POST", f"{path}/release"))["resource"]
    check_metadata(released)  # nobody had acquired it: that is no error
    acquired = (await ada.done("POST", f"{path}/acquire"))["resource"]
    check_metadata(acquired)
    assert acquired == released
    for who in (ada, twin, rival):
        assert await who.status("POST", f"{path}/acquire") == 409
    assert await rival.status("POST", f"{path}/release") == 409
    assert await rival.status("GET", f"{path}/view") == 409
    preview = (await rival.done("GET", f"{path}/preview"))["resource"]
    assert "data" not in preview
    view = (await ada.done("GET", f"{path}/view"))["resource"]
    assert view["data"] == [1]
    for who in (ada, twin):
        session = (await who.done("GET", "/session"))["session"]
        check_session(session)
        assert session["resource"] == acquired
    assert (await twin.done("POST", f"{path}/release"))["resource"] == acquired
    assert (await ada.done("GET", "/session"))["session"]["resource"] is None
    check_metadata((await rival.done("POST", f"{path}/acquire"))["resource"])


async def test_the_sockets_of_a_session(ada: DocumentedClient) -> None:
    twin = await ada.login(session_id=ada.token["session"]["id"])
    made = (await ada.done("POST", "/resource/document", {"title": "Door", "data": [1]}))[
        "resource"
    ]
    async with ada.socket() as one, twin.socket() as two:
        assert await ada.rejection("/ws/user") == 409
        assert await ada.rejection("/ws/autopilot") == 403
        assert one.hello["session"] == (await ada.done("GET", "/session"))["session"]
        await one.changed({"door": {"width": 1}})
        await one.changed({"door": {"height": 2}}, reason=None, unknown=1)
        await one.changed({"door": {"width": None}}, reason="a correction", status="error")
        state: Json = {}
        for _ in range(3):
            patch = (await two.event())["payload"]["patch"]["door"]
            state = {k: v for k, v in {**state, **patch}.items() if v is not None}
        assert state == {"height": 2}
        assert (await ada.done("GET", "/session"))["session"]["state"] == {"door": state}

        # Every event is acknowledged exactly once: a refused one after the event that says why.
        await one.changed({"much": "x" * 40_000})
        assert (await two.event())["payload"]["kind"] == "state"
        id_, refused = await one.change({"more": "x" * 40_000})
        assert (refused["type"], refused["status"]) == ("event", "error")
        assert (refused["payload"]["kind"], refused["payload"]["event"]) == ("refused", id_)
        assert isinstance(refused["reason"], str)
        ack = await one.receive()
        assert (ack["type"], ack["id"]) == ("ack", id_)
        acked = {"type": "ack", "id": refused["id"], "sent_at": now()}
        await one.raw.send_message(json.dumps(acked))
        kept = (await ada.done("GET", "/session"))["session"]["state"]
        assert kept == {"door": state, "much": "x" * 40_000}

        path = f"/resource/document/{made['id']}"
        acquired = (await ada.done("POST", f"{path}/acquire"))["resource"]
        for each in (one, two):
            assert (await each.event())["payload"] == {"kind": "resource", "resource": acquired}
        await twin.done("POST", f"{path}/release")
        for each in (one, two):
            assert (await each.event())["payload"] == {"kind": "resource", "resource": None}

        await ada.done("POST", "/auth/logout")
        code, messages = await one.closed()
        assert code == 4000
        assert [message["status"] for message in messages] == ["error"]
        await two.changed({"still": "here"})


EVENT = {"type": "event", "id": str(uuid.uuid4()), "sent_at": "2026-09-21T14:13:20.123000+0000",
         "status": "ok", "reason": None, "payload": {"kind": "state", "patch": {}}}  # fmt: skip
ACK = {"type": "ack", "id": str(uuid.uuid4()), "sent_at": EVENT["sent_at"]}


def without(message: Json, name: str) -> Json:
    return {key: value for key, value in message.items() if key != name}


VIOLATIONS: list[tuple[Any, int]] = [
    (b"binary", 4001),
    ("no JSON", 4002),
    ("[]", 4002),
    ("null", 4002),
    ({}, 4003),
    *((without(EVENT, name), 4003) for name in EVENT if name != "reason"),
    *((without(ACK, name), 4003) for name in ACK),
    ({**EVENT, "type": 1}, 4004),
    ({**EVENT, "id": 1}, 4004),
    ({**EVENT, "sent_at": None}, 4004),
    ({**EVENT, "reason": 1}, 4004),
    ({**EVENT, "payload": []}, 4004),
    ({"type": "other"}, 4005),
    ({"type": "Event", "id": 1, "payload": 1}, 4005),
    ({**EVENT, "id": "1"}, 4005),
    ({**EVENT, "sent_at": "yesterday"}, 4005),
    ({**EVENT, "status": "good"}, 4005),
    ({**EVENT, "status": "fatal"}, 4005),
    (ACK, 4005),
]


async def test_violations_close_with_their_codes(ada: DocumentedClient) -> None:
    for sent, code in VIOLATIONS:
        client = await ada.login(session_id=ada.token["session"]["id"])
        async with client.socket() as socket:
            raw = sent if isinstance(sent, str | bytes) else json.dumps(sent)
            await socket.raw.send_message(raw)
            got, messages = await socket.closed()
            assert got == code, sent
            assert [message["status"] for message in messages] == ["error"]


async def test_autopilots(database_url: str) -> None:
    async with running(database_url) as harness:
        boss = await harness.account("boss", admin=True)
        admin = {"Authorization": f"Bearer {boss.token}"}
        account = {"username": "pilot", "password": ACCOUNT["password"], "autopilot": True}
        async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as web:
            assert (await web.post("/api/users", json=account, headers=admin)).status_code == 200
            pilot = await DocumentedClient(web, harness.server.url).login(username="pilot")
            assert pilot.token["session"]["user"]["autopilot"] is True
            made = await pilot.done("POST", "/resource/document", {"title": "Door"})
            path = f"/resource/document/{made['resource']['id']}"
            for method, operation in (("POST", "acquire"), ("POST", "release"), ("GET", "view")):
                assert await pilot.status(method, f"{path}/{operation}") == 403
            assert await pilot.rejection("/ws/user") == 403
            async with pilot.socket("/ws/autopilot") as socket:
                assert socket.hello["session"]["state"] == {}
                id_, refused = await socket.change({"x": 1})
                assert refused["payload"]["kind"] == "refused"
                assert (await socket.receive())["id"] == id_
