"""What accounts may do, over a real server: admins who are made and revoked from another process,
quotas over both faces, and passwords that are guessed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from api.rate_limits import GUESSES
from reileta import cli
from reileta.clock import SystemClock
from reileta.settings import Settings
from reileta.store import open_store
from reileta.store.database_clock import DatabaseClock
from tests import logs
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected, until
from tests.e2e.processes import eventually, serving
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.test_sessions import line

PASSWORD = "correct horse battery staple"


def header(account: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.token}"}


def client_of(harness: ServerHarness) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{harness.host}:{harness.port}", timeout=PATIENCE_S)


async def command(harness: ServerHarness, *words: str) -> int:
    """`reileta admin …`, which knows of the server's database alone."""
    assert harness.settings.database is not None
    arguments = ["admin", *words, "--database", harness.settings.database]
    return await trio.to_thread.run_sync(partial(cli.main, arguments))


async def moderate(player: Player, room: str, target: str, type_: str) -> int | None:
    """The error's code, or None."""
    answer = await player.ask("instance-moderate", {"user": target, "type": type_}, subgroup=room)
    return answer["error"]["code"] if "error" in answer else None


async def role(player: Player, user: str) -> str:
    """The next role that the player is told of a user."""

    def wanted(message: Json) -> bool:
        if message.get("command") != "instance-role":
            return False
        return str(message["data"]["user"]).startswith(user)

    return str((await player.until(wanted))["data"]["role"])


@pytest.mark.parametrize("read_cache", ["on", "off"])
async def test_granting_and_revoking_reach_sockets_tokens_and_roles_at_once(
    database_url: str, read_cache: str
) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off", read_cache=read_cache) as harness,
            client_of(harness) as client,
        ):
            owner, ann, bob = [await harness.account(name) for name in ("owner", "ann", "bob")]
            room = (await harness.instance(owner)).id
            async with connected(harness, ann) as one, connected(harness, bob) as two:
                await two.join(room)
                await one.join(room)

                async def allowed() -> int:
                    """By a token that the server remembers, to do what admins may."""
                    answer = await client.post(
                        "/api/server", json={"title": "Hall"}, headers=header(ann)
                    )
                    return answer.status_code

                target = f"{bob.id}@{harness.address}"
                assert await allowed() == 403
                assert await moderate(one, room, target, "warn") == 49
                assert await command(harness, "grant", "ann") == 0
                assert await role(two, ann.id) == "admin"
                assert await allowed() == 200
                assert await moderate(one, room, target, "warn") is None
                answer = await one.ask("subscribe", {"event": "instance-data"})
                assert "error" not in answer

                assert await command(harness, "revoke", "ANN") == 0
                assert await role(two, ann.id) == "normal"
                assert await allowed() == 403
                assert await moderate(one, room, target, "warn") == 49
                answer = await one.ask("subscribe", {"event": "instance-data"})
                assert answer["error"]["code"] == 4
                # Still inside, and of a rank that others may moderate.
                async with connected(harness, owner) as host:
                    await host.join(room)
                    assert await moderate(host, room, f"{ann.id}@{harness.address}", "warn") is None
            # Who comes back is none either.
            async with connected(harness, ann) as one:
                await one.join(room)
                assert await moderate(one, room, target, "warn") == 49
            assert await command(harness, "revoke", "admin") == 1
            assert (await harness.store.users.main_admin()).admin


async def test_what_is_changed_by_hand_is_heeded_after_the_database_was_away(
    database_url: str,
) -> None:
    async with running(database_url) as harness:
        ann, bob = await harness.account("ann", admin=True), await harness.account("bob")
        async with connected(harness, ann) as one, connected(harness, bob) as two:
            database = harness.store.database
            # All connections but the one that says so are cut, and the tags are changed with them.
            await database.execute(
                "SET application_name = 'by hand'; "
                "UPDATE users SET tags = '{}' WHERE username = 'ann'; "
                "UPDATE sessions SET ended_at = 1 WHERE user_id = "
                "(SELECT id FROM users WHERE username = 'bob'); "
                "RESET application_name; "
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert (await two.closed())[0] == 4000

            async def refused() -> bool:
                answer = await one.ask("subscribe", {"event": "instance-data"})
                return bool(answer.get("error", {}).get("code") == 4)

            await eventually(refused)


@pytest.mark.parametrize(
    ("setting", "path", "method", "body", "quota"),
    [
        ("worlds_per_user", "/api/worlds", "PUT", {"title": "Sea"}, "worlds"),
        ("worlds_per_user", "/resource/world", "POST", {"title": "Sea"}, "worlds"),
        ("documents_per_user", "/resource/document", "POST", {"title": "Notes"}, "documents"),
        ("services_per_user", "/api/services", "PUT", {"title": "Voice"}, "services"),
        ("instances_per_user", "/api/instances", "PUT", {}, "instances"),
    ],
)
async def test_many_requests_at_once_do_not_pass_a_quota(
    database_url: str, setting: str, path: str, method: str, body: Json, quota: str
) -> None:
    changes: Json = {"rate_limits": "off", setting: 3}
    async with (
        running(database_url, **changes) as harness,
        client_of(harness) as client,
    ):
        ann, root = await harness.account("ann"), await harness.account("root", admin=True)
        world = await client.put("/api/worlds", json={"title": "Sea"}, headers=header(root))
        answers: list[httpx.Response] = []

        async def make(who: Account, number: int) -> None:
            given = dict(body)
            if quota == "services":
                given["id"] = f"com.example.{who.username}{number}"
            if quota == "instances":
                given["world"] = world.json()["data"]["id"]
            answers.append(await client.request(method, path, json=given, headers=header(who)))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(make, ann, number)
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] * 3 + [409] * 7
        error = next(one for one in answers if one.status_code == 409).json()["error"]
        assert (error["code"], error["message"]) == (134, "Quota reached")
        (detail,) = error["details"]
        assert detail["field"] == quota
        assert "3" in detail["message"]
        answers.clear()
        for number in range(4):
            await make(root, number)
        assert [one.status_code for one in answers] == [200] * 4


async def test_the_bytes_of_documents_are_bounded(database_url: str) -> None:
    async with (
        running(database_url, rate_limits="off", user_documents_bytes=100_000) as harness,
        client_of(harness) as client,
    ):
        ann = await harness.account("ann")
        codes = []
        for _ in range(4):
            body = {"title": "Notes", "data": "x" * 40_000}
            answer = await client.post("/resource/document", json=body, headers=header(ann))
            codes.append(answer.json().get("error", {}).get("code"))
        assert codes == [None, None, 134, 134]


async def test_a_login_over_the_quota_of_sessions_closes_the_one_that_was_idle(
    database_url: str,
) -> None:
    async with running(database_url, sessions_per_user=2) as harness, client_of(harness) as client:
        account = {"username": "ann", "password": PASSWORD}
        first = (await client.post("/api/auth/register", json=account)).json()["data"]
        used = Account(first["user"]["id"], "ann", first["id"], first["token"])
        async with connected(harness, used) as one:
            second = (await client.post("/api/auth/login", json=account)).json()["data"]
            third = (await client.post("/auth/login", json=account)).json()["token"]
            assert "error" not in await one.ask("ping")  # it has a socket, and the second has none
            idle = {"Authorization": f"Bearer {second['token']}"}
            assert (await client.get("/api/users/@me", headers=idle)).status_code == 401
            alive = {"Authorization": f"Bearer {third['access']}"}
            assert (await client.get("/session", headers=alive)).status_code == 200


async def test_a_stranger_who_guesses_is_refused_and_others_are_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(database_url) as harness, client_of(harness) as client:
        now_ms = harness.server.node.clock.now_ms()
        monkeypatch.setattr(DatabaseClock, "now_ms", lambda _: now_ms)  # nothing is given back
        account = {"username": "ann", "password": PASSWORD}
        assert (await client.post("/api/auth/register", json=account)).status_code == 200
        wrong = {**account, "password": "not the password"}
        statuses = [
            (await client.post("/api/auth/login", json=wrong)).status_code
            for _ in range(GUESSES.burst + 1)
        ]
        assert statuses == [401] * GUESSES.burst + [429]
        other = {**account, "username": "bob"}
        assert (await client.post("/api/auth/register", json=other)).status_code == 200


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["user", "admin", "another process"])
async def test_a_new_name_reaches_those_inside_and_those_who_come_later(
    database_url: str, by: str
) -> None:
    async with running(database_url) as harness, client_of(harness) as client:
        ann, bob, root = (
            await harness.account("ann"),
            await harness.account("bob"),
            await harness.account("root", admin=True),
        )
        room = (await harness.instance(bob)).id
        async with connected(harness, ann) as one, connected(harness, bob) as two:
            await one.join(room)
            await two.join(room)
            if by == "another process":
                settings = Settings(database=database_url)
                async with open_store(settings, SystemClock()) as other:
                    await other.users.update(ann.id, displayname="Anna")
            else:
                who, path = (ann, "@me") if by == "user" else (root, "ann")
                answer = await client.post(
                    f"/api/users/{path}", json={"displayname": "Anna"}, headers=header(who)
                )
                assert answer.status_code == 200
            for player in (one, two):
                told = await player.event("player-updated")
                assert told["subgroup"] == room
                assert told["data"]["player"] == one.id
                assert told["data"]["displayname"] == "Anna"
            async with connected(harness, root) as late:
                players = (await late.join(room))["players"]
            assert [each["displayname"] for each in players] == ["Anna", "bob", "root"]
            listed = await client.get(f"/api/instances/{room}/players", headers=header(bob))
            assert listed.json()["data"]["items"][0]["displayname"] == "Anna"


# Sockets -----------------------------------------------------------------------------------------


async def test_one_account_does_not_take_all_sockets(database_url: str) -> None:
    async with running(database_url, sockets_per_user=2) as harness, AsyncExitStack() as stack:
        ada, bob = await harness.account(), await harness.account()
        more = [await harness.login(ada.id) for _ in range(3)]
        first = await stack.enter_async_context(connected(harness, ada))
        await stack.enter_async_context(line(harness, more[0].token))
        for path in ("/api/ws", "/ws/user"):
            async with client_of(harness) as client:
                headers = {
                    **header(more[1]),
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                }
                refused = await client.get(path, headers=headers)
                assert refused.status_code == 409
                assert refused.json()["error"]["code"] == 134
        async with connected(harness) as late:
            answer = await late.ask("authenticate", {"token": more[1].token})
            assert answer["error"]["code"] == 134
            answer = await late.ask("authenticate", {"token": bob.token})
            assert "error" not in answer
        await first.socket.aclose()
        async with connected(harness) as late:

            async def taken() -> bool:
                answer = await late.ask("authenticate", {"token": more[1].token})
                return "error" not in answer

            await eventually(taken)


@pytest.mark.parametrize("path", ["/api/ws", "/ws/user"])
async def test_of_many_upgrades_at_once_as_many_open_as_may(database_url: str, path: str) -> None:
    async with running(database_url, sockets_per_user=3) as harness:
        ada = await harness.account()
        tokens = [(await harness.login(ada.id)).token for _ in range(8)]
        served: list[str] = []
        done = trio.Event()

        async def one(token: str) -> None:
            headers = [(b"Authorization", f"Bearer {token}".encode())]
            try:
                async with connected(harness, path=path, headers=headers) as player:
                    message = await player.receive()
                    if "error" in message:
                        assert message["error"]["code"] == 134
                        return
                    if message.get("payload", {}).get("kind") == "closing":
                        assert message["payload"]["code"] == 1013
                        return
                    served.append(token)
                    await done.wait()
            except* (ConnectionRejected, ConnectionClosed):
                pass
            finally:
                ended.append(token)

        ended: list[str] = []
        async with trio.open_nursery() as nursery:
            for token in tokens:
                nursery.start_soon(one, token)
            await until(lambda: len(served) + len(ended) == 8)
            assert len(served) == 3
            done.set()


async def test_without_rate_limits_a_user_has_any_number_of_sockets(database_url: str) -> None:
    async with (
        running(database_url, sockets_per_user=1, rate_limits="off") as harness,
        AsyncExitStack() as stack,
    ):
        ada = await harness.account()
        for _ in range(3):
            await stack.enter_async_context(connected(harness, ada))


# Two tabs ----------------------------------------------------------------------------------------


async def test_tabs_that_refresh_at_the_same_time_stay_logged_in(database_url: str) -> None:
    async with running(database_url) as harness, client_of(harness) as client:
        account = {"username": "ada", "password": PASSWORD}
        await client.post("/api/auth/register", json=account)
        token = (await client.post("/auth/login", json=account)).json()["token"]
        answers: list[httpx.Response] = []

        async def tab() -> None:
            """Refreshes with the key that all tabs share, and goes on with what it got."""
            async with client_of(harness) as own:
                answer = await own.post("/auth/refresh", json={"refresh": token["refresh"]})
                answers.append(answer)
                access = answer.json()["token"]["access"]
                used = await own.get("/session", headers={"Authorization": f"Bearer {access}"})
                assert used.status_code == 200, used.text

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(tab)
        assert len({answer.json()["token"]["access"] for answer in answers}) == 1
        assert len({answer.json()["token"]["refresh"] for answer in answers}) == 1


async def test_a_tab_gets_the_same_keys_after_a_kill_of_the_server(
    database_url: str, tmp_path: Path
) -> None:
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    account = {"username": "ada", "password": PASSWORD}
    async with serving(*where) as served, served.ask() as client:
        await client.post("/api/auth/register", json=account)
        key = (await client.post("/auth/login", json=account)).json()["token"]["refresh"]
        first = (await client.post("/auth/refresh", json={"refresh": key})).json()["token"]
        bearer = {"Authorization": f"Bearer {first['access']}"}
        assert (await client.get("/session", headers=bearer)).status_code == 200
        served.process.kill()
        await served.ended()
    # However long the start takes: the refresh was just now.
    async with serving(*where) as again, again.ask() as client:
        async with open_store(Settings(database=database_url), SystemClock()) as store:
            await store.database.execute(
                "UPDATE spent_refreshes SET rotated_at = extract(epoch FROM now()) * 1000"
            )
        second = (await client.post("/auth/refresh", json={"refresh": key})).json()["token"]
        assert (second["access"], second["refresh"]) == (first["access"], first["refresh"])
        assert (await client.get("/session", headers=bearer)).status_code == 200
