"""What admins do to accounts over a real server: suspensions, whereabouts, and the audit log."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
import trio

from reileta import cli
from reileta.records import DISABLED_TAG
from reileta.security import credentials
from reileta.store import admin_commands
from tests import logs
from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected, until
from tests.e2e.processes import eventually
from tests.e2e.servers import Account, ServerHarness, running

PASSWORD = "correct horse battery staple"
MINUTE_MS = 60_000


def header(account: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.token}"}


def client_of(harness: ServerHarness) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{harness.host}:{harness.port}", timeout=PATIENCE_S)


async def command(harness: ServerHarness, *words: str) -> int:
    """`reileta admin …`, which knows of the server's database alone."""
    assert harness.settings.database is not None
    arguments = ["admin", *words, "--database", harness.settings.database]
    return await trio.to_thread.run_sync(partial(cli.main, arguments))


async def registered(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """A new account's login."""
    account = {"username": name, "password": PASSWORD}
    answer = await client.post("/api/auth/register", json=account)
    assert answer.status_code == 200
    data: dict[str, Any] = answer.json()["data"]
    return data


async def login(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> int | None:
    """The error's code, or None; both APIs agree."""
    account = {"username": name, "password": password}
    answers = [await client.post(path, json=account) for path in ("/api/auth/login", "/auth/login")]
    codes = {one.json().get("error", {}).get("code") for one in answers}
    assert len(codes) == 1
    code: int | None = codes.pop()
    return code


async def audited(client: httpx.AsyncClient, admin: Account, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/api/audit", params=query, headers=header(admin))
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["data"]["items"]
    return items


@pytest.mark.parametrize("way", ["endpoint", "tag", "command"])
async def test_a_suspension_ends_everything_at_once_until_it_is_lifted(
    database_url: str, way: str
) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            root = await harness.account("root", admin=True)
            ann = await registered(client, "ann")
            mine = {"Authorization": f"Bearer {ann['token']}"}
            account = Account(ann["user"]["id"], "ann", ann["id"], ann["token"])
            room = (await harness.instance(root)).id
            keys = (
                await client.post("/auth/login", json={"username": "ann", "password": PASSWORD})
            ).json()["token"]
            async with connected(harness, account) as socket, connected(harness, root) as other:
                await other.join(room)
                await socket.join(room)
                path = f"/api/users/{account.id}"
                body: dict[str, Any]
                if way == "endpoint":
                    body = {"reason": "spam"}
                    answer = await client.post(
                        f"{path}/suspension", json=body, headers=header(root)
                    )
                    assert answer.status_code == 200
                    view = answer.json()["data"]
                    assert view["suspension"] == {"reason": "spam"}
                    assert view["tags"] == [DISABLED_TAG]
                elif way == "tag":
                    body = {"tags": [DISABLED_TAG]}
                    answer = await client.post(path, json=body, headers=header(root))
                    assert answer.status_code == 200
                else:
                    assert await command(harness, "suspend", "ANN", "--reason", "spam") == 0
                assert (await socket.closed())[0] == 4000
                left = await other.until(lambda one: one.get("command") == "instance-left")
                assert left["data"]["reason"] == "left"
            assert (await client.get("/api/users/@me", headers=mine)).status_code == 401
            access = {"Authorization": f"Bearer {keys['access']}"}
            assert (await client.get("/session", headers=access)).status_code == 401
            refresh = {"refresh": keys["refresh"]}
            assert (await client.post("/auth/refresh", json=refresh)).status_code == 401
            assert await login(client, "ann") == 133
            assert await login(client, "ann", "another password") == 23  # tells nothing
            if way == "endpoint":
                answer = await client.delete(f"{path}/suspension", headers=header(root))
                assert "suspension" not in answer.json()["data"]
            elif way == "tag":
                await client.post(path, json={"tags": []}, headers=header(root))
            else:
                assert await command(harness, "unsuspend", "ann") == 0
            assert await login(client, "ann") is None
            # The keys from before stay dead.
            assert (await client.get("/api/users/@me", headers=mine)).status_code == 401


@pytest.mark.parametrize("way", ["endpoint", "tag", "command", "delete", "bots"])
async def test_no_seat_is_held_for_a_candidate_that_was_suspended_or_deleted(
    database_url: str, way: str
) -> None:
    """It leaves the queue at once, and the next one gets the seat."""
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            root, bob = await harness.account("root", admin=True), await harness.account("bob")
            made = await trio.to_thread.run_sync(admin_commands.create_bots, harness.settings, 1)
            bot = await harness.store.tokens.by_access(credentials.digest(made[0]))
            assert bot is not None
            ann = Account(bot[2].id, bot[2].username, bot[1].id, made[0])
            room = (await harness.instance(root, capacity=1)).id
            path = f"/api/users/{ann.username}"
            async with (
                connected(harness, root) as host,
                connected(harness, ann),
                connected(harness, bob) as next_one,
            ):
                await host.join(room)
                for one in (ann, bob):
                    await client.post(f"/api/instances/{room}/candidate", headers=header(one))
                match way:
                    case "endpoint":
                        await client.post(f"{path}/suspension", json={}, headers=header(root))
                    case "tag":
                        body = {"tags": [DISABLED_TAG]}
                        await client.post(path, json=body, headers=header(root))
                    case "command":
                        assert await command(harness, "suspend", ann.username) == 0
                    case "delete":
                        await client.delete(path, headers=header(root))
                    case _:
                        await trio.to_thread.run_sync(
                            admin_commands.remove_bots, harness.settings, None
                        )
                gone = await host.until(
                    lambda one: one.get("data", {}).get("reason") == "withdrawn"
                )
                assert gone["data"]["entry"] is None
                assert gone["data"]["user"].startswith(ann.id)
                await host.ask("instance-leave", {"instance": room})
                await next_one.until(lambda one: one.get("data", {}).get("reason") == "admitted")
                await next_one.join(room)


async def test_a_suspension_ends_by_itself(database_url: str) -> None:
    async with running(database_url, rate_limits="off") as harness, client_of(harness) as client:
        root = await harness.account("root", admin=True)
        ann = (await registered(client, "ann"))["user"]
        path = f"/api/users/{ann['id']}/suspension"
        now = harness.server.node.clock.now_ms()
        past = await client.post(path, json={"until": now - 1}, headers=header(root))
        assert past.json()["error"]["code"] == 14
        body = {"until": now + 60 * MINUTE_MS}
        answer = await client.post(path, json=body, headers=header(root))
        assert answer.json()["data"]["suspension"] == body
        refused = await client.post(
            "/api/auth/login", json={"username": "ann", "password": PASSWORD}
        )
        details = {one["field"]: one["message"] for one in refused.json()["error"]["details"]}
        assert details == {"until": str(body["until"])}
        # The time passes, as far as the database knows.
        await harness.store.database.execute(
            "UPDATE users SET suspended_until = $1 WHERE id = $2", now, ann["id"]
        )
        assert await login(client, "ann") is None
        await harness.server.node.lift_suspensions()
        shown = await client.get(f"/api/users/{ann['id']}", headers=header(root))
        assert shown.json()["data"]["tags"] == []


async def test_no_admin_is_locked_out_for_good(database_url: str) -> None:
    """An admin can't suspend itself; nobody can suspend the main admin, who can lift the
    suspension of the last other admin."""
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            root = await harness.account("root", admin=True)
            for name, code in (("@me", 12), ("@admin", 12), ("@server", 12), ("nobody", 17)):
                for path, body in (("/suspension", {}), ("", {"tags": [DISABLED_TAG]})):
                    answer = await client.post(
                        f"/api/users/{name}{path}", json=body, headers=header(root)
                    )
                    assert answer.json()["error"]["code"] == code
            assert await command(harness, "suspend", "admin") == 1
            assert await command(harness, "suspend", "nobody") == 1
            assert await command(harness, "suspend", "root") == 0
            main = await harness.store.users.main_admin()
            by = await harness.login(main.id)
            answer = await client.delete("/api/users/root/suspension", headers=header(by))
            assert answer.status_code == 200
            assert answer.json()["data"]["tags"] == ["avr:admin"]


async def test_only_admins_suspend_look_for_users_and_read_the_audit_log(
    database_url: str,
) -> None:
    async with running(database_url, rate_limits="off") as harness, client_of(harness) as client:
        ann = await harness.account("ann")
        for method, path in (
            ("POST", "/api/users/ann/suspension"),
            ("DELETE", "/api/users/ann/suspension"),
            ("GET", "/api/users/ann/whereabouts"),
            ("GET", "/api/audit"),
        ):
            assert (await client.request(method, path)).status_code == 401
            assert (await client.request(method, path, headers=header(ann))).status_code == 403
        body = {"tags": [DISABLED_TAG]}
        answer = await client.post("/api/users/@me", json=body, headers=header(ann))
        assert answer.status_code == 403


async def test_whereabouts(database_url: str) -> None:
    async with running(database_url, rate_limits="off") as harness, client_of(harness) as client:
        root, ann = await harness.account("root", admin=True), await harness.account("ann")
        room, full = (await harness.instance(root)).id, await harness.instance(root, capacity=1)

        async def where() -> dict[str, Any]:
            answer = await client.get("/api/users/ann/whereabouts", headers=header(root))
            data: dict[str, Any] = answer.json()["data"]
            return data

        assert await where() == {"user": ann.id, "status": "offline", "sessions": [], "queues": []}
        async with connected(harness, ann) as socket, connected(harness, root) as other:
            await other.join(full.id)
            joined = await socket.join(room)
            await client.post(f"/api/instances/{full.id}/candidate", headers=header(ann))
            # Other processes hear of it a moment later.
            await until(lambda: bool(harness.registry.node.directory.candidacies(ann.id)))
            await until(lambda: harness.registry.node.directory.connected(ann.id))
            assert await where() == {
                "user": ann.id,
                "status": "online",
                "sessions": [
                    {
                        "session": ann.session,
                        "sockets": 1,
                        "instances": [{"instance": room, "player": joined["player"]}],
                    }
                ],
                "queues": [full.id],
            }
        assert [one["action"] for one in await audited(client, root)] == ["get_whereabouts"] * 2


async def test_the_audit_log_has_all_that_admins_change(database_url: str) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            root, owner = await harness.account("root", admin=True), await harness.account("own")
            await harness.account("bob")
            by = header(root)
            made = await client.post(
                "/api/users", json={"username": "ann", "password": PASSWORD}, headers=by
            )
            ann = made.json()["data"]["id"]
            await client.post(f"/api/users/{ann}", json={"tags": ["avr:admin"]}, headers=by)
            await client.post("/api/users/ann", json={"password": PASSWORD + "!"}, headers=by)
            await client.post("/api/users/nobody%00/suspension", json={}, headers=by)
            await client.post("/api/server", json={"title": "Hall"}, headers=by)
            room = (await harness.instance(owner)).id
            async with connected(harness, root) as socket, connected(harness, owner) as other:
                await other.join(room)
                await socket.join(room)
                order = {"user": "bob", "type": "ban"}
                await client.post(f"/api/instances/{room}/moderate", json=order, headers=by)
                await socket.ask("instance-moderate", {**order, "type": "unban"}, subgroup=room)
            await client.delete(f"/api/instances/{room}", headers=by)
            assert await command(harness, "revoke", "ann") == 0
            await client.delete("/api/users/ann", headers=by)
            entries = (await audited(client, root))[::-1]
            seen = [
                (one["via"], one["action"], one.get("result"), one.get("error")) for one in entries
            ]
            assert seen == [
                ("http", "create_account", "done", None),
                ("http", "update_user", "done", None),
                ("http", "update_user", "done", None),
                ("http", "suspend_user", "refused", 17),
                ("http", "update_server", "done", None),
                ("http", "moderate", "done", None),
                ("socket", "moderate", "done", None),
                ("http", "close_instance", "done", None),
                ("command", "revoke_admin", "done", None),
                ("http", "delete_user", "done", None),
            ]
            assert entries[1]["details"] == {"fields": ["tags"], "tags": ["avr:admin"]}
            assert entries[2]["details"] == {"fields": ["password"]}
            assert PASSWORD not in str(entries)
            assert entries[6]["details"] == {"type": "unban", "user": "bob"}
            assert {one.get("by") for one in entries} == {root.id, None}
            assert all("number" in one for one in entries)
            about = await audited(client, root, target=ann)
            assert [one["target_name"] for one in about] == ["ann"] * 5
            assert [one["action"] for one in await audited(client, root, by="root", limit="1")] == [
                "delete_user"
            ]
            page = (await client.get("/api/audit?limit=3", headers=by)).json()["data"]
            rest = await audited(client, root, after=page["next"], limit="3")
            assert [one["number"] for one in page["items"] + rest] == [
                one["number"] for one in entries[::-1][:6]
            ]


async def test_what_is_acknowledged_is_in_the_audit_log_even_if_it_has_no_result(
    database_url: str,
) -> None:
    """An entry comes before its action: without the one there is not the other."""
    async with running(database_url, rate_limits="off") as harness, client_of(harness) as client:
        root, ann = await harness.account("root", admin=True), await harness.account("ann")
        await harness.store.database.execute("ALTER TABLE audit_log RENAME TO away")
        answer = await client.post("/api/users/ann/suspension", json={}, headers=header(root))
        assert answer.status_code >= 500
        user = await harness.store.users.by_id(ann.id)
        assert user is not None
        assert not user.tags
        await harness.store.database.execute("ALTER TABLE away RENAME TO audit_log")


async def test_commands_change_accounts_of_a_running_server(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            client_of(harness) as client,
        ):
            ann = await registered(client, "ann")
            mine = {"Authorization": f"Bearer {ann['token']}"}
            capsys.readouterr()
            assert await command(harness, "reset-password", "ann") == 0
            password = capsys.readouterr().out.strip()
            assert len(password) >= 20

            async def refused() -> bool:
                return (await client.get("/api/users/@me", headers=mine)).status_code == 401

            await eventually(refused)
            assert await login(client, "ann") == 23
            assert await login(client, "ann", password) is None
            assert await command(harness, "reset-password", "server") == 1
            assert await command(harness, "grant", "ann") == 0
            assert await command(harness, "suspend", "ann", "--until", "2999-01-01") == 0
            capsys.readouterr()
            assert await command(harness, "list") == 0
            listed = capsys.readouterr().out
            assert "admin" in listed
            assert "suspended until 2999-01-01T00:00:00Z" in listed
            assert await command(harness, "log", "--limit", "2") == 0
            logged = [line for line in capsys.readouterr().out.splitlines() if " command " in line]
            assert [line.split()[3] for line in logged] == ["suspend_user", "grant_admin"]
            assert password not in "".join(logged)
