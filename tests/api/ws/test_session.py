"""`/ws/user` and `/ws/autopilot`: who is let in, before the upgrade; over the application's own
test client, whose sockets take the slow way."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from quart.testing import WebsocketResponseError

from actors.node import Node
from api.app import ReiletaApp
from api.ws.gateway import Gateway
from api.ws.session import session_blueprint
from tests.api.clients import Client, logged_in, new_token_of
from tests.api.fakes import FakeNode


@pytest.fixture
def lines(living_app: ReiletaApp, living: Node, nursery: trio.Nursery) -> ReiletaApp:
    gateway = Gateway(living, living_app.auth)
    living_app.register_blueprint(session_blueprint(gateway, living_app.limits, lambda: nursery))
    return living_app


def socket(app: ReiletaApp, path: str, token: str | None) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return app.test_client().websocket(path, headers=headers)


async def refused(app: ReiletaApp, path: str, token: str | None) -> int:
    status = 0
    async with socket(app, path, token) as opened:
        try:
            await opened.receive()
        except WebsocketResponseError as error:
            status = int(error.response.status_code)
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
    assert await refused(lines, "/ws/user", None) == 400
    assert await refused(lines, "/ws/user", "ua_" + "x" * 43) == 401


async def test_one_per_token_the_next_is_409(lines: ReiletaApp) -> None:
    ada = await new_token_of(lines, "ada")
    async with socket(lines, "/ws/user", ada.token) as line:
        hello = json.loads(await line.receive())
        assert hello["payload"]["session"]["id"] == ada.me["session"]["id"]
        assert await refused(lines, "/ws/user", ada.token) == 409
