"""Operations: what a declaration makes of a handler."""

from __future__ import annotations

import pytest
from quart_trio import QuartTrio

from api.app import ReiletaApp
from api.http.endpoint import ApiDeps, HttpReply, RequestContext, Routes
from api.rate_limits import READ, WRITE
from reileta.errors import NotLoggedIn, WorldInvalid
from reileta.protocol.input_types import Input, Limit, Title
from reileta.rules.ratelimit import Rate
from tests.api.clients import Client
from tests.api.fakes import FakeNode


class Named(Input):
    title: Title
    limit: Limit = 5


@pytest.fixture
def deps(app: ReiletaApp, node: FakeNode) -> ApiDeps:
    return ApiDeps(node.as_node(), app.auth, app.limits)


@pytest.fixture
def served(deps: ApiDeps) -> tuple[QuartTrio, Routes]:
    routes = Routes("things", deps, invalid=WorldInvalid)

    @routes.add("GET", "/things", summary="List", takes=Named, gives=str, need="none")
    async def get_things(call: RequestContext, given: Named) -> str:
        """Lists   what
        there is."""
        return f"{given.title} {given.limit}"

    @routes.add("PUT", "/things", summary="Make", takes=Named, gives=str, rate=Rate(1, 1))
    async def put_things(call: RequestContext, given: Named) -> HttpReply:
        return HttpReply(call.by.user.username, {"X-Made": "yes"})

    @routes.add("GET", "/things/<ref>", summary="One", gives=str, need="none")
    async def get_thing(call: RequestContext) -> str:
        return f"{call.args['ref']} {call.ip} {call.user} {call.admin}"

    app = QuartTrio(__name__, static_folder=None)
    app.register_blueprint(routes.blueprint)
    return app, routes


async def test_a_read_takes_its_input_from_the_query(served: tuple[QuartTrio, Routes]) -> None:
    answer = await Client(served[0]).get("/things?title=a&title=b&limit=7")
    assert answer.data == "a 7"
    assert answer.body["request"] == "/things?title=a&title=b&limit=7"


async def test_a_write_takes_its_input_from_the_body(
    served: tuple[QuartTrio, Routes], ada: Client
) -> None:
    answer = await Client(served[0], ada.token).put("/things", {"title": "a"})
    assert (answer.data, answer.headers["X-Made"]) == ("ada", "yes")


async def test_a_call_knows_its_path_and_address(served: tuple[QuartTrio, Routes]) -> None:
    answer = await Client(served[0]).get("/things/a%20b", headers={"X-Forwarded-For": "1.1.1.1"})
    assert answer.data == "a b 192.0.2.1 None False"


async def test_a_declaration_is_an_operation(served: tuple[QuartTrio, Routes]) -> None:
    first, second, third = served[1].operations
    assert (first.name, first.noun, first.takes) == ("get_things", "things", Named)
    assert first.description == "Lists what there is."
    assert (first.rate, second.rate, third.rate) == (READ, Rate(1, 1), READ)
    assert (first.takes_body, second.takes_body, third.takes_body) == (False, True, False)
    assert (first.need, second.need) == ("none", "optional")
    assert WRITE.per_s < READ.per_s


async def test_nobody_is_not_somebody() -> None:
    call = RequestContext(None, None, {}, "local")  # type: ignore[arg-type]
    assert call.user is None
    assert not call.admin
    with pytest.raises(NotLoggedIn):
        _ = call.by
