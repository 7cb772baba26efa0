"""`/openapi.json` and `/docs`."""

from __future__ import annotations

import re

from tests.api.clients import Client


async def test_the_document_is_served_as_it_is(anyone: Client) -> None:
    answer = await anyone.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body["openapi"] == "3.1.0"
    assert "/api/users/{ref}" in answer.body["paths"]


async def test_the_page_brings_all_it_needs_with_it(anyone: Client) -> None:
    answer = await anyone.get("/docs")
    page = answer.raw.decode()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in page
    assert "style=" not in page
    loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', page)
    assert loaded == ["/docs/docs.css"]
    assert (await anyone.get("/docs/docs.css")).headers["Content-Type"].startswith("text/css")


async def test_the_page_shows_every_operation_and_schema(anyone: Client) -> None:
    document = (await anyone.get("/openapi.json")).body
    page = (await anyone.get("/docs")).raw.decode()
    anchors = re.findall(r' id="([^"]*)"', page)
    assert len(anchors) == len(set(anchors))
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["operationId"] in anchors
    for name in document["components"]["schemas"]:
        assert f"schema-{name}" in anchors
    for link in re.findall(r'href="#([^"]*)"', page):
        assert link in anchors


async def test_the_root_leads_to_the_page(anyone: Client) -> None:
    answer = await anyone.get("/")
    assert (answer.status, answer.headers["Location"]) == (302, "/docs")
