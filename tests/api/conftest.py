"""The application over the real database, with a fake of the actors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from actors.node import Node
from api.app import ReiletaApp, create_app
from api.ws.gateway import Gateway
from api.ws.session.routes import session_blueprint
from reileta.security.passwords import Passwords
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.api.asgi_transport import with_transports
from tests.api.clients import Client, logged_in, registered
from tests.api.fakes import FakeNode
from tests.conftest import ManualClock, lease_time
from tests.known_databases import know_copy
from tests.quick_start import cheap_hasher, quick_start

ADMIN_PASSWORD_HASH = "set by no test: the admin logs in with a token"


@pytest.fixture(scope="session", autouse=True)
def _quick_start() -> Iterator[None]:
    with quick_start():
        yield


@pytest.fixture
async def store(database_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Store]:
    """The store, with its files in the test's own folder."""
    settings = Settings(database=database_url, data=tmp_path)
    know_copy(database_url)
    async with open_store(settings, clock, lease_time=lease_time(clock)) as store:
        yield store


@pytest.fixture
async def node(store: Store, clock: ManualClock) -> FakeNode:
    async def unhashed(password: str) -> str:
        return ADMIN_PASSWORD_HASH

    await store.users.ensure_system_accounts(unhashed)
    return FakeNode(store, clock)


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(cheap_hasher())


@pytest.fixture
def app(node: FakeNode, passwords: Passwords) -> ReiletaApp:
    return create_app(node.as_node(), passwords=passwords)


@pytest.fixture
async def anyone(app: ReiletaApp) -> Client:
    """Somebody who is not logged in."""
    return Client(app)


@pytest.fixture
async def ada(app: ReiletaApp) -> Client:
    return await registered(app, "ada")


@pytest.fixture
async def bob(app: ReiletaApp) -> Client:
    return await registered(app, "bob")


@pytest.fixture
async def admin(app: ReiletaApp, node: FakeNode) -> Client:
    return await logged_in(app, node, await node.store.users.main_admin())


@pytest.fixture
async def living(node: FakeNode) -> AsyncIterator[Node]:
    """Real actors over the real database, in the place of the fake of them."""
    async with Node.open(
        settings=node.settings,
        store=node.store,
        clock=node.clock,
        metrics=node.metrics,
        instruments=node.metrics,
        address=node.address,
        key=ServerKey.generate(),
    ) as living:
        yield living


@pytest.fixture
def living_app(living: Node, passwords: Passwords) -> ReiletaApp:
    return create_app(living, passwords=passwords)


@pytest.fixture
def lines(living_app: ReiletaApp, living: Node, nursery: trio.Nursery) -> ReiletaApp:
    """The application with the WebSockets of the session API, for its own test client."""
    gateway = Gateway(living, living_app.auth)
    living_app.register_blueprint(session_blueprint(gateway, living_app.limits))
    with_transports(living_app, nursery)
    return living_app
