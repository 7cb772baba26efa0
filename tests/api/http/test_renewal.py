"""What an asker may do is judged again after whatever takes its time: bodies, files, passwords."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher
from quart.wrappers import Request

from api.app import ReiletaApp
from api.credentials import OLD_COOKIE
from api.http.bodies import ReceivedBody
from api.http.endpoint import Operation
from api.http.uploads import receive
from reileta.media.images import Picture, Pictures
from reileta.records import ADMIN_TAG
from reileta.security.credentials import digest, new_token
from reileta.security.passwords import SERVER, Passwords, Requester
from tests.api.clients import PASSWORD, Client, logged_in, registered
from tests.api.fakes import FakeNode
from tests.api.pngs import png
from tests.api.requests import WAYS, RawAnswer, Way, ask, request

Meanwhile = Callable[[], Awaitable[object]]
NEW = "another one altogether"
FAR = "far.example"


class Revocations:
    """Ways in which what mallory may do ends."""

    def __init__(self, app: ReiletaApp, node: FakeNode, mallory: Client, admin: Client) -> None:
        self._app, self._node, self._mallory, self._admin = app, node, mallory, admin

    async def logout(self) -> None:
        await self._mallory.get("/api/auth/logout")

    async def session_end(self) -> None:
        await self._mallory.delete("/api/auth/logout")

    async def session_end_by_an_admin(self) -> None:
        me = self._mallory.me["id"]
        await self._admin.delete(f"/api/users/{me}/sessions/{self._mallory.session}")

    async def new_password(self) -> None:
        await self._admin.post(f"/api/users/{self._mallory.me['id']}", {"password": NEW})

    async def deletion(self) -> None:
        await self._admin.delete(f"/api/users/{self._mallory.me['id']}")

    async def expiry(self) -> None:
        self._node.clock.advance(10 * 365 * 24 * 3600 * 1000)

    async def another_process(self) -> None:
        """Another server, or its operator, ends the session; the change feed tells."""
        await self._node.store.sessions.end(self._mallory.session)
        self._app.auth.forget_session(self._mallory.session)

    async def revoke(self) -> None:
        """`reileta admin revoke`; the change feed tells."""
        await self._node.store.users.revoke(self._mallory.me["id"], ADMIN_TAG)
        self._app.auth.forget_user(self._mallory.me["id"])


ENDINGS = [name for name in vars(Revocations) if name[0] != "_" and name != "revoke"]


@pytest.fixture
async def mallory(app: ReiletaApp, admin: Client) -> Client:
    """An admin."""
    client = await registered(app, "mallory")
    await admin.post("/api/users/mallory", {"tags": [ADMIN_TAG]})
    return client


@pytest.fixture
def endings(app: ReiletaApp, node: FakeNode, mallory: Client, admin: Client) -> Revocations:
    return Revocations(app, node, mallory, admin)


def slowly(made: Request, meanwhile: Meanwhile) -> Request:
    """The last byte of the body comes after that. It is waited for: the asker was judged before."""
    body = made.body
    assert isinstance(body, ReceivedBody)
    sent = bytes(body.take())
    body.append(sent[:-1])
    body.whole = False

    async def receive() -> None:
        await meanwhile()
        body.append(sent[-1:])
        body.set_complete()

    body.receive_with(receive)
    return made


def code(answer: RawAnswer) -> int:
    found: int = json.loads(answer.body)["error"]["code"]
    return found


async def sent_slowly(
    app: ReiletaApp,
    way: Way,
    client: Client,
    method: str,
    path: str,
    body: object,
    meanwhile: Meanwhile,
    headers: dict[str, str] | None = None,
) -> RawAnswer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = request(app, method, path, body=raw, token=client.token, headers=headers)
    return await ask(app, way, slowly(made, meanwhile))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ending", ENDINGS)
async def test_who_is_logged_out_meanwhile_changes_nothing(
    app: ReiletaApp, node: FakeNode, mallory: Client, endings: Revocations, way: Way, ending: str
) -> None:
    change = {"displayname": "Mine"}
    answer = await sent_slowly(
        app, way, mallory, "POST", "/api/users/@admin", change, getattr(endings, ending)
    )
    assert (answer.status, code(answer)) == (401, 101)
    assert (await node.store.users.main_admin()).displayname == "Admin"


@pytest.mark.parametrize("way", WAYS)
async def test_who_is_an_admin_no_more_changes_nothing(
    app: ReiletaApp, node: FakeNode, mallory: Client, endings: Revocations, way: Way
) -> None:
    answer = await sent_slowly(
        app, way, mallory, "POST", "/api/users/admin", {"password": NEW}, endings.revoke
    )
    assert (answer.status, code(answer)) == (403, 12)
    account = {"username": "eve"}
    await node.store.users.grant("mallory", ADMIN_TAG)
    app.auth.forget_user(mallory.me["id"])
    answer = await sent_slowly(app, way, mallory, "POST", "/api/users", account, endings.revoke)
    assert (answer.status, code(answer)) == (403, 4)
    assert await node.store.users.by_name("eve") is None


def with_bodies(app: ReiletaApp) -> Iterator[Operation]:
    for operation in app.operations:
        if operation.takes_body and operation.need != "none":
            yield operation


async def server_client(app: ReiletaApp, node: FakeNode) -> Client:
    """A client with the token of another server."""
    token = new_token("sa")
    await node.store.servers.learn(
        FAR,
        host=FAR,
        secure=True,
        public_key="key",
        key_since=0,
        gateway_http=None,
        gateway_ws=None,
        version=None,
    )
    await node.store.servers.issue_token(FAR, digest(token), node.clock.now_ms() + 1000)
    return Client(app, token)


async def test_every_operation_that_takes_a_body_judges_again(
    app: ReiletaApp, node: FakeNode, mallory: Client
) -> None:
    seen = 0
    for operation in with_bodies(app):
        path = re.sub(r"<\w+>", "1", operation.path)
        if operation.only == "server":
            other = await server_client(app, node)

            async def end(client: Client = other) -> None:
                await node.store.servers.revoke_all([FAR])
        else:
            other = await logged_in(app, node, await node.store.users.main_admin())

            async def end(client: Client = other) -> None:
                await client.delete("/api/auth/logout")

        answer = await sent_slowly(app, "directly", other, operation.method, path, {}, end)
        assert (answer.status, code(answer)) == (401, 101), operation
        seen += 1
    assert seen >= 18


async def test_a_cookie_that_ends_meanwhile_is_no_nobody(
    app: ReiletaApp, mallory: Client, endings: Revocations
) -> None:
    cookie = {"Cookie": f"{OLD_COOKIE}={mallory.token}", "Origin": "http://localhost"}
    made = request(app, "POST", "/api/users/@me", body=b'{"status":"busy"}', headers=cookie)
    answer = await ask(app, "directly", slowly(made, endings.session_end))
    assert (answer.status, code(answer)) == (401, 101)


async def test_what_does_not_end_goes_on(app: ReiletaApp, mallory: Client) -> None:
    async def nothing() -> None:
        pass

    for way in WAYS:
        change = {"displayname": way}
        answer = await sent_slowly(app, way, mallory, "POST", "/api/users/@me", change, nothing)
        assert answer.status == 200, answer.body
    assert (await mallory.get("/api/users/@me")).data["displayname"] == WAYS[1]


# Files -------------------------------------------------------------------------------------------


async def uploads(ada: Client) -> dict[str, bytes]:
    """Where mallory, as an admin, can put a file, and the file."""
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    build = {"version": "1", "engine": "unity", "platform": "linux"}
    asset = (await ada.put(f"/api/worlds/{world}/assets", build)).data["id"]
    return {
        f"/api/worlds/{world}/assets/{asset}/file": b"a build",
        f"/api/worlds/{world}/thumbnail": png(4, 4),
        "/api/users/ada/thumbnail": png(4, 4),
        "/api/users/ada/banner": png(4, 4),
    }


async def ensure_nothing_was_put(node: FakeNode, ada: Client, paths: dict[str, bytes]) -> None:
    assert [one for one in node.told if one[0] == "user"] == []
    for path in paths:
        assert (await ada.get(path)).code == 46
    assert await node.store.database.value("SELECT count(*) FROM blobs") == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("ending", "refused"), [("session_end", {101}), ("deletion", {101}), ("revoke", {4, 12})]
)
async def test_no_file_is_put_in_place_by_those_who_may_not_any_more(
    app: ReiletaApp,
    node: FakeNode,
    ada: Client,
    admin: Client,
    way: Way,
    ending: str,
    refused: set[int],
) -> None:
    paths = await uploads(ada)
    node.told.clear()
    for number, (path, raw) in enumerate(paths.items()):
        other = await registered(app, f"other{number}")
        await node.store.users.grant(other.me["id"], ADMIN_TAG)
        app.auth.forget_user(other.me["id"])
        end = getattr(Revocations(app, node, other, admin), ending)
        kind = {"Content-Type": "application/octet-stream"}
        answer = await sent_slowly(app, way, other, "POST", path, raw, end, headers=kind)
        assert code(answer) in refused, (path, answer)
    await ensure_nothing_was_put(node, ada, paths)


async def test_a_picture_is_judged_again_once_it_was_made_anew(
    app: ReiletaApp,
    node: FakeNode,
    ada: Client,
    mallory: Client,
    endings: Revocations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Pictures.renew

    async def renew(self: Pictures, data: bytes, *, field: str) -> Picture:
        await endings.revoke()
        return await real(self, data, field=field)

    monkeypatch.setattr(Pictures, "renew", renew)
    paths = await uploads(ada)
    node.told.clear()
    for path, raw in list(paths.items())[1:]:
        await node.store.users.grant("mallory", ADMIN_TAG)
        app.auth.forget_user(mallory.me["id"])
        answer = await mallory.ask("POST", path, raw=raw, headers={"Content-Type": "image/png"})
        assert answer.code in (4, 12), path
    await ensure_nothing_was_put(node, ada, paths)


async def test_a_file_is_judged_again_once_it_is_on_the_disk(
    app: ReiletaApp,
    node: FakeNode,
    ada: Client,
    mallory: Client,
    endings: Revocations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slow(*args: Any, **more: Any) -> None:
        await receive(*args, **more)
        await endings.revoke()

    monkeypatch.setattr("api.http.registry.assets.receive", slow)
    paths = await uploads(ada)
    node.told.clear()
    path, raw = next(iter(paths.items()))
    answer = await mallory.ask("POST", path, raw=raw)
    assert (answer.status, answer.code) == (403, 4)
    await ensure_nothing_was_put(node, ada, paths)


# Passwords ---------------------------------------------------------------------------------------


class SlowPasswords(Passwords):
    """Something happens while a hash waits for its core."""

    meanwhile: Meanwhile | None = None

    async def hash(self, password: str, by: Requester = SERVER) -> str:
        await self._happen()
        return await super().hash(password, by)

    async def verify(self, hash_: str | None, password: str, by: Requester = SERVER) -> bool:
        await self._happen()
        return await super().verify(hash_, password, by)

    async def _happen(self) -> None:
        event, self.meanwhile = self.meanwhile, None
        if event is not None:
            await event()


@pytest.fixture
def passwords() -> Passwords:
    return SlowPasswords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


OWN = [
    ("POST", "@me", {"password": NEW, "current_password": PASSWORD}),
    ("POST", "@me", {"username": "mallow", "current_password": PASSWORD}),
    ("POST", "@me", {"email": "m@example.org", "current_password": PASSWORD}),
    ("DELETE", "@me", {"current_password": PASSWORD}),
]
OTHERS = [("POST", "ada", {"password": NEW}), ("POST", "", {"username": "eve", "password": NEW})]


@pytest.mark.parametrize("ending", ["logout", "session_end", "new_password"])
@pytest.mark.parametrize(("method", "ref", "body"), [*OWN, *OTHERS])
async def test_power_that_ends_while_a_hash_is_made_changes_nothing(
    app: ReiletaApp,
    node: FakeNode,
    passwords: SlowPasswords,
    ada: Client,
    mallory: Client,
    endings: Revocations,
    ending: str,
    method: str,
    ref: str,
    body: dict[str, str],
) -> None:
    passwords.meanwhile = getattr(endings, ending)
    answer = await mallory.ask(method, f"/api/users/{ref}".rstrip("/"), body)
    assert (answer.status, answer.code) == (401, 101)
    user = await node.store.users.by_id(mallory.me["id"])
    assert user is not None
    assert (user.username, user.email) == ("mallory", None)
    assert await node.store.users.by_name("eve") is None
    login = {"username": "ada", "password": PASSWORD}
    assert (await Client(app).post("/api/auth/login", login)).status == 200


@pytest.mark.parametrize(("method", "ref", "body"), OTHERS)
async def test_an_admin_that_is_none_any_more_when_the_hash_is_made(
    node: FakeNode,
    passwords: SlowPasswords,
    ada: Client,
    mallory: Client,
    endings: Revocations,
    method: str,
    ref: str,
    body: dict[str, str],
) -> None:
    passwords.meanwhile = endings.revoke
    answer = await mallory.ask(method, f"/api/users/{ref}".rstrip("/"), body)
    assert (answer.status, answer.code in (4, 12)) == (403, True)
    assert await node.store.users.by_name("eve") is None


async def test_a_password_that_changes_while_it_is_proven_proves_nothing(
    app: ReiletaApp, node: FakeNode, passwords: SlowPasswords, ada: Client
) -> None:
    async def change() -> None:
        users = node.store.users
        hash_ = await Passwords.hash(passwords, NEW)
        token = (await node.store.tokens.of_session(ada.session))[0].id
        await users.change_password(ada.me["id"], hash_, keep=ada.session, keep_token=token)

    passwords.meanwhile = change
    body = {"username": "adah", "current_password": PASSWORD}
    answer = await ada.post("/api/users/@me", body)
    assert (answer.status, answer.code) == (401, 23)
    assert (await ada.get("/api/users/@me")).data["username"] == "ada"
