"""Asking the application as a client would, with what every test wants to know of an answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from reileta.records import User
from reileta.security.credentials import digest, new_token
from tests.api.fakes import FakeNode

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer: `body` as JSON if it is some."""

    status: int
    headers: Headers
    raw: bytes

    @property
    def body(self) -> Json:
        body: Json = json.loads(self.raw)
        return body

    @property
    def data(self) -> Any:
        assert self.status == 200, self.raw
        return self.body["data"]

    @property
    def code(self) -> int:
        code: int = self.body["error"]["code"]
        return code

    @property
    def fields(self) -> set[str]:
        """The fields at fault."""
        return {detail["field"] for detail in self.body["error"].get("details", ())}


class Client:
    """One client; with `token`, a logged-in one. Cookies are sent only when a test says so."""

    def __init__(self, app: QuartTrio, token: str | None = None) -> None:
        self._client: Any = app.test_client(use_cookies=False)
        self.token = token
        self.me: Json = {}
        self.session = ""

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        client: tuple[str, int] = ("192.0.2.1", 40000),
        scheme: str = "http",
    ) -> Answer:
        sent = Headers(headers or {})
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        response = await self._client.open(
            path,
            method=method,
            headers=sent,
            data=raw,
            scheme=scheme,
            scope_base={"client": client},
        )
        return Answer(response.status_code, response.headers, await response.get_data(False))

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def put(self, path: str, body: object, **more: Any) -> Answer:
        return await self.ask("PUT", path, body, **more)

    async def post(self, path: str, body: object, **more: Any) -> Answer:
        return await self.ask("POST", path, body, **more)

    async def patch(self, path: str, body: object, **more: Any) -> Answer:
        return await self.ask("PATCH", path, body, **more)

    async def delete(self, path: str, **more: Any) -> Answer:
        return await self.ask("DELETE", path, **more)


PASSWORD = "correct horse battery staple"


async def registered(app: QuartTrio, username: str) -> Client:
    """A client that has just registered, and speaks with its token."""
    client = Client(app)
    answer = await client.post("/api/auth/register", {"username": username, "password": PASSWORD})
    client.token = answer.data["token"]
    client.me = answer.data["user"]
    client.session = answer.data["id"]
    return client


async def logged_in(app: QuartTrio, node: FakeNode, user: User) -> Client:
    """A client of an account that has no password to log in with."""
    token = new_token("ua")
    session = await node.store.sessions.open(user.id)
    expires = node.clock.now_ms() + 3_600_000
    await node.store.tokens.issue(
        session_id=session.id,
        user_id=user.id,
        access_hash=digest(token),
        refresh_hash=None,
        access_expires=expires,
        refresh_expires=expires,
        limit=32,
    )
    client = Client(app, token)
    client.me = (await client.get("/api/users/@me")).data
    return client


async def with_token(app: QuartTrio, username: str, session_id: str | None = None) -> Client:
    """A client with a Token of S, of that session or of a new one; `me` is the Token."""
    client = Client(app)
    body = {"username": username, "password": PASSWORD, "session_id": session_id}
    given = {key: value for key, value in body.items() if value is not None}
    answer = await client.post("/auth/login", given)
    assert answer.status == 200, answer.raw
    client.me = answer.body["token"]
    client.token = client.me["access"]
    return client


async def new_token_of(app: QuartTrio, username: str) -> Client:
    """An account, and a client with a Token of it."""
    await registered(app, username)
    return await with_token(app, username)
