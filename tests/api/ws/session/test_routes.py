"""`/ws/user` and `/ws/autopilot`: who is let in, before the upgrade; over the application's own
test client."""

from __future__ import annotations

import json
from typing import Any

import trio
from quart.testing import WebsocketResponseError

from actors.node import Node
from api.app import ReiletaApp, create_app
from api.rate_limits import TOKEN, HttpRateLimits
from api.ws.gateway import Gateway, gateway_blueprint
from api.ws.session.routes import session_blueprint
from reileta.security.passwords import Passwords
from tests.api.clients import Client, logged_in, new_token_of
from tests.api.fakes import FakeNode


def socket(app: ReiletaApp, path: str, token: str | None, **headers: str) -> Any:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return app.test_client().websocket(path, headers=headers)


async def refused(app: ReiletaApp, path: str, token: str | None, **headers: str) -> int:
    """The status of a refused upgrade, whose answer is in the envelope as any other's."""
    status = 0
    async with socket(app, path, token, **headers) as opened:
        try:
            await opened.receive()
        except WebsocketResponseError as error:
            status = int(error.response.status_code)
            body = json.loads(await error.response.get_data())
            assert body["message"] == body["error"]["message"]
    return status


async def pilot(app: ReiletaApp, node: FakeNode) -> Client:
    user = await node.store.users.create(
        username="pilot", displayname="Pilot", password_hash=None, autopilot=True
    )
    return await logged_in(app, node, user)


async def test_endpoints_can_be_client_only_or_autopilot_only(
    lines: ReiletaApp, node: FakeNode
) -> None:
    ada, robot = await new_token_of(lines, "ada"), await pilot(lines, node)
    assert await refused(lines, "/ws/autopilot", ada.token) == 403
    assert await refused(lines, "/ws/user", robot.token) == 403
    async with socket(lines, "/ws/autopilot", robot.token) as line:
        hello = json.loads(await line.receive())
        assert hello["payload"]["session"]["user"]["autopilot"] is True


async def test_credentials_are_judged_before_the_upgrade(lines: ReiletaApp) -> None:
    ada = await new_token_of(lines, "ada")
    for path in ("/ws/user", "/ws/autopilot"):
        assert await refused(lines, path, None) == 400
        assert await refused(lines, path, None, Authorization=ada.token or "") == 400
        assert await refused(lines, path, None, Authorization=f"Basic {ada.token}") == 400
        assert await refused(lines, path, None, Cookie=f"_suid={ada.token}") == 400
        assert await refused(lines, path, "ua_" + "x" * 43) == 401


async def test_where_a_browser_can_set_no_header_the_query_will_do(lines: ReiletaApp) -> None:
    ada = await new_token_of(lines, "ada")
    async with socket(lines, f"/ws/user?authuser={ada.token}", None) as line:
        assert json.loads(await line.receive())["payload"]["kind"] == "hello"
    wrong = "ua_" + "x" * 43
    assert await refused(lines, f"/ws/user?authuser={wrong}", None) == 401
    assert await refused(lines, f"/ws/user?authuser={ada.token}", wrong) == 401


async def test_limits_are_judged_after_credentials_and_roles(
    living: Node, passwords: Passwords, nursery: trio.Nursery
) -> None:
    app, limits = create_app(living, passwords=passwords), HttpRateLimits(living.clock)
    app.register_blueprint(session_blueprint(Gateway(living, app.auth), limits))
    ada = await new_token_of(app, "ada")
    principal = await app.auth.authenticate_token(ada.token or "")
    for _ in range(TOKEN.burst):
        limits.principal(principal)
    assert await refused(app, "/ws/user", "ua_" + "x" * 43) == 401
    assert await refused(app, "/ws/autopilot", ada.token) == 403
    assert await refused(app, "/ws/user", ada.token) == 429


async def test_one_per_token_the_next_is_409(lines: ReiletaApp) -> None:
    ada = await new_token_of(lines, "ada")
    async with socket(lines, "/ws/user", ada.token) as line:
        hello = json.loads(await line.receive())
        assert hello["payload"]["session"]["id"] == ada.me["session"]["id"]
        assert await refused(lines, "/ws/user", ada.token) == 409


async def test_no_other_server_gets_a_websocket(living_app: ReiletaApp, living: Node) -> None:
    """An ASGI server's own WebSocket has none of the bounds that ours has."""
    gateway = Gateway(living, living_app.auth)
    living_app.register_blueprint(session_blueprint(gateway, living_app.limits))
    living_app.register_blueprint(gateway_blueprint(gateway))
    ada = await new_token_of(living_app, "ada")
    for path in ("/ws/user", "/api/ws"):
        assert await refused(living_app, path, ada.token) == 501
