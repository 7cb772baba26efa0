"""The rules that all endpoints of the session API share, one test for each rule.

Those of its WebSockets are in `tests/api/ws/session/test_routes.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from api.app import SESSION_PATHS, ReiletaApp, create_app
from api.http.endpoint import ApiDeps, Operation
from api.http.session.resources import resource_routes
from api.http.session.session import session_routes
from api.http.session.tokens import token_routes
from api.rate_limits import ACCOUNT, ADDRESS, LOGIN, READ, TOKEN
from reileta.errors import DatabaseUnavailable
from reileta.security.passwords import Passwords
from reileta.settings import Settings
from tests.api.clients import PASSWORD, Answer, Client, new_token_of, with_token
from tests.api.fakes import FakeNode
from tests.api.http.session.test_session import autopilot

Json = dict[str, Any]
UNKNOWN = {"Authorization": "Bearer ua_" + "x" * 43}


@pytest.fixture
def operations(app: ReiletaApp, node: FakeNode, passwords: Passwords) -> tuple[Operation, ...]:
    """Every endpoint of S but its WebSockets."""
    deps = ApiDeps(node.as_node(), app.auth, app.limits)
    nouns = (token_routes(deps, passwords), session_routes(deps), resource_routes(deps))
    declared = tuple(one for routes in nouns for one in routes.operations)
    served = {rule.rule for rule in app.url_map.iter_rules() if rule.rule.startswith(SESSION_PATHS)}
    assert {one.path for one in declared} == served
    return declared


@pytest.fixture
def guarded(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Those that need a credential."""
    found = tuple(one for one in operations if one.need != "none")
    assert len(found) == len(operations) - 2  # all but login and refresh
    return found


@pytest.fixture
def limited(node: FakeNode, passwords: Passwords) -> ReiletaApp:
    node.settings = Settings()
    return create_app(node.as_node(), passwords=passwords)


def bad(operation: Operation) -> str:
    """A path of the endpoint at which nothing is right."""
    return operation.path.replace("<type>", "cupboard").replace("<number>", "one")


async def spend(client: Client, where: tuple[str, int] = ("192.0.2.1", 40000)) -> None:
    """Uses up what its token may ask."""
    for _ in range(TOKEN.burst + 1):
        if (await client.get("/session", client=where)).status == 429:
            return
    raise AssertionError("it is not limited")


# Response structure and success ------------------------------------------------------------------


@pytest.fixture
async def successes(
    living_app: ReiletaApp, operations: tuple[Operation, ...]
) -> dict[str, tuple[Answer, set[str]]]:
    """One success of every endpoint, and what it is to hold beside `message`."""
    ada, bob = await new_token_of(living_app, "ada"), await new_token_of(living_app, "bob")
    login = await Client(living_app).post("/auth/login", {"username": "ada", "password": PASSWORD})
    refreshed = await Client(living_app).post(
        "/auth/refresh", {"refresh": login.body["token"]["refresh"]}
    )
    made = await ada.post("/resource/document", {"title": "Door"})
    path, one, many = "/resource/<type>", {"resource"}, {"resources", "total", "limit", "offset"}
    here = f"/resource/document/{made.body['resource']['id']}"
    found = {
        "POST /auth/login": (login, {"token"}),
        "POST /auth/refresh": (refreshed, {"token"}),
        "GET /session": (await ada.get("/session"), {"session"}),
        f"POST {path}": (made, one),
        f"GET {path}": (await ada.get("/resource/document"), many),
        f"POST {path}/<number>/acquire": (await ada.ask("POST", f"{here}/acquire"), one),
        f"GET {path}/<number>/preview": (await ada.get(f"{here}/preview"), one),
        f"GET {path}/<number>/view": (await ada.get(f"{here}/view"), one),
        f"PATCH {path}/<number>": (await ada.patch(here, {"data": 1}), one),
        f"POST {path}/<number>/share": (await ada.post(f"{here}/share", {"user": "bob"}), one),
        f"POST {path}/<number>/unshare": (await bob.post(f"{here}/unshare", {"user": "bob"}), one),
        f"POST {path}/<number>/release": (await ada.ask("POST", f"{here}/release"), one),
        f"POST {path}/<number>/queue": (await ada.ask("POST", f"{here}/queue"), {"queue"}),
        f"DELETE {path}/<number>/queue": (await ada.ask("DELETE", f"{here}/queue"), {"queue"}),
    }
    assert (await ada.ask("POST", f"{here}/acquire")).status == 200
    found[f"DELETE {path}/<number>"] = await ada.delete(here), one
    found["POST /auth/logout"] = await ada.ask("POST", "/auth/logout"), {"token"}
    assert set(found) == {f"{one.method} {one.path}" for one in operations}
    return found


async def test_if_a_request_is_considered_successful_the_api_will_return_200_ok(
    successes: dict[str, tuple[Answer, set[str]]],
) -> None:
    assert {name for name, (answer, _) in successes.items() if answer.status != 200} == set()


async def test_successful_requests_say_message_ok_along_with_the_relevant_information(
    successes: dict[str, tuple[Answer, set[str]]],
) -> None:
    for name, (answer, relevant) in successes.items():
        assert answer.headers["Content-Type"] == "application/json", name
        assert answer.body["message"] == "OK", name
        assert set(answer.body) - {"request", "time", "message"} == relevant, name


async def failures(
    app: ReiletaApp, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> list[Answer]:
    """One failure of each kind."""
    ada, pilot = await new_token_of(app, "ada"), await autopilot(app, node)
    anyone = Client(app)
    found = [
        await anyone.get("/session"),
        await anyone.get("/session", headers=UNKNOWN),
        await anyone.post("/auth/login", {"username": "ada", "password": "not that one"}),
        await pilot.ask("POST", "/resource/document/1/acquire"),
        await ada.get("/auth/nothing"),
        await ada.get("/resource/document/1/preview"),
        await ada.get("/ws/user"),
        await ada.ask("PUT", "/session"),
        await ada.get("/resource/document/1/view"),
        await ada.post("/resource/document", {"title": "x", "data": "x" * 300_000}),
        await ada.ask("POST", "/resource/document", raw=b"x", headers={"Content-Type": "a/b"}),
    ]
    for failure in (RuntimeError("secret"), DatabaseUnavailable()):

        async def load(id_: str, failure: Exception = failure) -> Any:
            raise failure

        monkeypatch.setattr(node.store.states, "load", load)
        found.append(await ada.get("/session"))
    return found


async def test_the_api_will_return_a_json_object_with_every_response(
    app: ReiletaApp, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = set()
    for answer in await failures(app, node, monkeypatch):
        statuses.add(answer.status)
        assert answer.headers["Content-Type"] == "application/json"
        assert isinstance(answer.body, dict)
        # It describes what went wrong, and gives nothing away.
        assert answer.body["message"] == answer.body["error"]["message"]
        assert answer.body["message"] not in ("", "OK")
        assert b"secret" not in answer.raw
    assert statuses == {400, 401, 403, 404, 405, 413, 415, 500, 503}


# Authentication ----------------------------------------------------------------------------------


async def test_every_endpoint_requires_an_authorization_header_of_the_type_bearer(
    app: ReiletaApp, guarded: tuple[Operation, ...]
) -> None:
    ada = await new_token_of(app, "ada")
    anyone, token = Client(app), ada.token
    for operation in guarded:
        for headers, query in (
            ({}, ""),
            ({"Authorization": f"{token}"}, ""),
            ({"Authorization": f"Basic {token}"}, ""),
            ({"Cookie": f"_suid={token}"}, ""),
            ({}, f"?authuser={token}"),
            ({}, f"?authserver={token}"),
        ):
            answer = await anyone.ask(operation.method, bad(operation) + query, headers=headers)
            assert (answer.status, answer.code, answer.fields) == (400, 100, {"Authorization"})


async def test_except_for_login_and_refresh(app: ReiletaApp) -> None:
    ada = await new_token_of(app, "ada")
    for headers in ({}, {"Authorization": "Basic nothing"}, UNKNOWN):
        account = {"username": "ada", "password": PASSWORD}
        assert (await Client(app).post("/auth/login", account, headers=headers)).status == 200
        keys = {"refresh": ada.me["refresh"]}
        answer = await Client(app).post("/auth/refresh", keys, headers=headers)
        assert answer.status == 200
        ada.me = answer.body["token"]


async def test_if_the_header_is_incorrect_the_api_will_return_401(
    app: ReiletaApp, node: FakeNode, guarded: tuple[Operation, ...]
) -> None:
    ada = await new_token_of(app, "ada")
    killed, ended = await with_token(app, "ada"), await with_token(app, "ada")
    assert (await killed.ask("POST", "/auth/logout")).status == 200
    assert await node.store.sessions.end(ended.me["session"]["id"])
    wrong = ["ua_" + "x" * 43, ada.me["refresh"], f"{ada.token}x", killed.token, ended.token]
    for operation in guarded:
        for token in wrong:
            answer = await Client(app, token).ask(operation.method, bad(operation))
            assert (answer.status, answer.code) == (401, 101)


# Roles, limits, precedence -----------------------------------------------------------------------


async def test_endpoints_can_be_client_only_autopilot_only_or_admin_only(
    app: ReiletaApp, node: FakeNode, admin: Client, operations: tuple[Operation, ...]
) -> None:
    """`/ws/user` and `/ws/autopilot` are in `tests/api/ws/session/test_routes.py`."""
    ada, pilot = await new_token_of(app, "ada"), await autopilot(app, node)
    clients_only = [one for one in operations if one.only == "client"]
    assert {one.name.partition("_")[0] for one in clients_only} == {
        "acquire", "release", "queue", "leave", "view", "write", "delete",
    }  # fmt: skip
    for operation in clients_only:
        assert (await pilot.ask(operation.method, bad(operation))).status == 403
        for client in (ada, admin):
            assert (await client.ask(operation.method, bad(operation))).status == 400
    for client, status in ((ada, 403), (pilot, 403), (admin, 400)):
        assert (await client.post("/api/users", {})).status == status
        assert (await client.post("/api/server", {"title": ""})).status == status


async def test_every_endpoint_is_rate_limited(
    limited: ReiletaApp, operations: tuple[Operation, ...]
) -> None:
    ada = await new_token_of(limited, "ada")
    await spend(ada)
    for operation in operations:
        many = LOGIN.burst + 1 if operation.need == "none" else 1
        answers = [await ada.ask(operation.method, bad(operation)) for _ in range(many)]
        assert (answers[-1].status, answers[-1].code) == (429, 102), operation.path
        assert int(answers[-1].headers["Retry-After"]) >= 1


class ReadRequests:
    """Requests that read, from clients, at endpoints and addresses of one's choice in turn."""

    PATHS = ("/session", "/resource/x", "/resource/x/1/preview", "/resource/x/1/view")

    async def ask(self, client: Client, path: int = 0, address: int = 0) -> int:
        """One; its status."""
        where = (f"192.0.2.{100 + address}", 40000)
        return (await client.get(self.PATHS[path], client=where)).status

    async def spend(self, burst: int, clients: list[Client], paths: int, addresses: int) -> None:
        """As many as are allowed."""
        for number in range(burst):
            client = clients[number % len(clients)]
            assert await self.ask(client, number % paths, number % addresses) != 429


async def test_ratelimits_can_be_applied_per_endpoint(limited: ReiletaApp) -> None:
    ada, bob, asking = (
        await new_token_of(limited, "ada"),
        await new_token_of(limited, "bob"),
        ReadRequests(),
    )
    await asking.spend(READ.burst, [ada, bob], paths=1, addresses=1)
    assert await asking.ask(ada) == await asking.ask(bob) == 429
    assert await asking.ask(ada, path=1) == 400
    assert await asking.ask(ada, address=1) == 200


async def test_ratelimits_can_be_applied_per_token(limited: ReiletaApp) -> None:
    ada, asking = await new_token_of(limited, "ada"), ReadRequests()
    sibling = await with_token(limited, "ada", ada.me["session"]["id"])
    await asking.spend(TOKEN.burst, [ada], paths=4, addresses=4)
    assert await asking.ask(ada) == await asking.ask(ada, path=1, address=5) == 429
    assert await asking.ask(sibling) == 200


async def test_ratelimits_can_be_applied_per_user(limited: ReiletaApp) -> None:
    ada, bob, asking = (
        await new_token_of(limited, "ada"),
        await new_token_of(limited, "bob"),
        ReadRequests(),
    )
    twin, rest = await with_token(limited, "ada"), await with_token(limited, "ada")
    await asking.spend(ACCOUNT.burst, [ada, twin], paths=4, addresses=4)
    assert await asking.ask(rest) == await asking.ask(rest, path=1, address=5) == 429
    assert await asking.ask(bob) == 200


async def test_ratelimits_can_be_applied_per_ip_address(limited: ReiletaApp) -> None:
    users, asking = (
        [await new_token_of(limited, f"user{number}") for number in range(5)],
        ReadRequests(),
    )
    *users, rest = users
    await asking.spend(ADDRESS.burst, users, paths=4, addresses=1)
    assert await asking.ask(rest) == await asking.ask(rest, path=1) == 429
    assert await asking.ask(rest, address=1) == 200


async def test_the_rules_are_listed_in_descending_order_of_precedence_for_every_endpoint(
    limited: ReiletaApp, node: FakeNode, guarded: tuple[Operation, ...]
) -> None:
    """Everything is wrong with each request but what is said."""
    ada, pilot = await new_token_of(limited, "ada"), await autopilot(limited, node)
    elsewhere = ("192.0.2.9", 40000)
    await spend(ada)
    await spend(pilot, elsewhere)

    async def judged(who: Client, one: Operation, **more: Any) -> int:
        raw = b"no JSON" if one.takes_body else None
        return (await who.ask(one.method, bad(one), raw=raw, **more)).status

    for operation in guarded:
        assert await judged(Client(limited), operation) == 400
        assert await judged(Client(limited), operation, headers=UNKNOWN) == 401
        role = 403 if operation.only == "client" else 429
        assert await judged(pilot, operation, client=elsewhere) == role
        assert await judged(ada, operation) == 429
    node.clock.advance(60_000)
    for operation in guarded:
        if operation.path.startswith("/resource/"):
            assert await judged(ada, operation) == 400
