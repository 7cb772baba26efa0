"""Links lead from what was made to what can be asked of it."""

from __future__ import annotations

from tests.api.clients import Client, Json


async def links(client: Client, method: str, path: str) -> Json:
    document = (await client.get("/openapi.json")).body
    found: Json = document["paths"][path][method]["responses"]["200"]["links"]
    ids = {one["operationId"] for paths in document["paths"].values() for one in paths.values()}
    assert {link["operationId"] for link in found.values()} <= ids
    return found


async def test_what_was_made_can_be_asked_for(anyone: Client) -> None:
    id_ = {"ref": "$response.body#/data/id"}
    worlds = await links(anyone, "put", "/api/worlds")
    assert worlds["get_world"]["parameters"] == id_
    assert worlds["set_world_thumbnail"]["parameters"] == id_
    assert "get_asset" not in worlds
    assert (await links(anyone, "put", "/api/services"))["update_service"]["parameters"] == id_
    users = await links(anyone, "post", "/api/auth/register")
    assert users["get_home"]["parameters"] == {"ref": "$response.body#/data/user/id"}


async def test_an_asset_is_found_by_its_world_and_itself(anyone: Client) -> None:
    assets = await links(anyone, "put", "/api/worlds/{ref}/assets")
    assert assets["upload_file"]["parameters"] == {
        "ref": "$request.path.ref",
        "asset": "$response.body#/data/id",
    }
