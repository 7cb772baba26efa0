"""The routes of the documents, and the page `/docs`."""

from __future__ import annotations

import re

from api.openapi.asyncapi import CLOSE_CODES, asyncapi, message_of, payload_of
from api.openapi.page import render
from reileta.site import Site
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


async def test_the_page_shows_every_command_event_and_close_code(anyone: Client) -> None:
    document = (await anyone.get("/asyncapi.json")).body
    page = (await anyone.get("/docs")).raw.decode()
    shown = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, re.DOTALL))
    for name, operation in document["operations"].items():
        assert f"<code>{operation['title']}</code></h3>" in shown[name]
        references = [*operation["messages"], *operation.get("reply", {}).get("messages", ())]
        for reference in references if operation["action"] == "receive" else references[:1]:
            message = message_of(document, reference)
            fields = payload_of(document, message)["properties"]
            shown_schemas = re.findall(r"schemas/(\w+)", str(fields))
            for schema in shown_schemas:
                assert f'href="#schema-{schema}"' in shown[name]
    for key, channel in document["channels"].items():
        text = page[page.index(f'id="channel-{key}"') :]
        for code in channel[CLOSE_CODES]:
            assert f"<b>{code}</b>" in text[: text.index("<section")]
    for field in ("type", "player", "user", "reason", "until"):
        assert f"<td><code>{field}</code>" in shown["receiveInstanceModerate"]
    assert "40 Invalid moderation type" in shown["receiveInstanceModerate"]
    receivers = "the candidates; owner, admins, master and moderators inside"
    assert receivers in shown["sendInstanceQueue"]


async def test_the_root_leads_to_the_page(anyone: Client) -> None:
    answer = await anyone.get("/")
    assert (answer.status, answer.headers["Location"]) == (302, "/docs")


async def test_the_page_shows_each_bodys_fields_and_each_refusals_code(anyone: Client) -> None:
    page = (await anyone.get("/docs")).raw.decode()
    (section,) = re.findall(r'<section id="create_world">.*?</section>', page, re.DOTALL)
    for field in ("title", "description", "capacity", "tags"):
        assert f"<td><code>{field}</code>" in section
    assert "integer, 1 to 1024" in section
    assert "Default: <code>32</code>" in section
    codes = re.findall(r"<td><b>(\d+)</b></td><td>(\d+)</td>", section)
    assert {("307", "10"), ("400", "38"), ("403", "4"), ("429", "102")} <= set(codes)
    assert all(int(status) >= 307 for status, _ in codes)


def test_files_that_come_and_go_are_shown_too() -> None:
    described = {
        "info": {"title": "T", "version": "1", "description": "D <b>"},
        "components": {"schemas": {}},
        "paths": {
            "/file": {
                "post": {
                    "operationId": "put_file",
                    "tags": ["files"],
                    "summary": "Give a file",
                    "description": "",
                    "security": [],
                    "parameters": [],
                    "requestBody": {
                        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}
                    },
                    "responses": {
                        "200": {"description": "OK", "content": {"image/png": {}}},
                        "304": {"description": "The asker has it"},
                        "416": {"description": "Nothing is there"},
                    },
                }
            }
        },
    }
    page = render(described, asyncapi(Site("a.example")))
    assert "<p><code>image/png</code>: string</p>" in page
    assert "<h4>Answer: 304</h4><p>The asker has it</p>" in page
    assert "Refusals: 416" in page
    assert "D &lt;b&gt;" in page
