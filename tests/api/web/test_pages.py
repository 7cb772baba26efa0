"""The routes of the built pages, over a small build of the test's own."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from quart_trio import QuartTrio

from api.app import create_app
from api.web.pages import Pages, pages_blueprint
from reileta.site import Site
from tests.api.clients import Answer, Client
from tests.api.fakes import FakeNode

SCRIPT = b"console.log('a script');" * 100
NAME = "client-ABCD1234.js"


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """What a build leaves."""
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / NAME).write_bytes(SCRIPT)
    (assets / f"{NAME}.gz").write_bytes(gzip.compress(SCRIPT))
    (assets / "icon-ABCD1234.svg").write_bytes(b"<svg/>")
    for page in ("client", "console", "docs", "sockets"):
        html = f'<title>{page}</title><script type="module" src="{{base}}/assets/{NAME}"></script>'
        (tmp_path / f"{page}.html").write_text(html)
    return tmp_path


@pytest.fixture
def pages(dist: Path) -> Pages:
    pages = Pages.read(dist)
    assert pages is not None
    return pages


@pytest.fixture
def visitor(node: FakeNode, pages: Pages) -> Client:
    return Client(create_app(node.as_node(), pages=pages))


@pytest.mark.parametrize(
    ("path", "title"),
    [("/", b"client"), ("/console", b"console"), ("/docs/sockets", b"sockets")],
)
async def test_a_page_is_shown_and_allows_nothing_from_elsewhere(
    visitor: Client, path: str, title: bytes
) -> None:
    answer = await visitor.get(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<title>%b</title>" % title in answer.raw
    assert f'src="/assets/{NAME}"'.encode() in answer.raw
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    for loose in ("unsafe", "http", "*", "data:"):
        assert loose not in policy


async def test_the_viewer_of_endpoints_loads_nothing_from_elsewhere(visitor: Client) -> None:
    answer = await visitor.get("/docs")
    assert b"<title>docs</title>" in answer.raw
    directives = dict(
        directive.split(" ", 1)
        for directive in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert directives["default-src"] == "'none'"
    for kind in ("script", "style", "connect"):
        assert directives[f"{kind}-src"] == "'self'"
    for loose in ("unsafe", "http", "*"):
        assert loose not in answer.headers["Content-Security-Policy"]


async def test_the_plain_page_stays_with_a_build(visitor: Client, anyone: Client) -> None:
    plain = await visitor.get("/docs/plain")
    assert plain.status == 200
    assert plain.raw == (await anyone.get("/docs/plain")).raw
    assert plain.raw == (await anyone.get("/docs")).raw


async def test_browsers_ask_for_a_page_each_time_and_keep_what_is_unchanged(
    visitor: Client,
) -> None:
    first = await visitor.get("/")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await visitor.get("/", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.raw) == (304, b"")
    assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]


async def test_assets_are_kept_for_ever_and_sent_in_the_smallest_form(visitor: Client) -> None:
    async def ask(**headers: str) -> Answer:
        return await visitor.get(
            f"/assets/{NAME}", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    whole = await ask()
    assert whole.raw == SCRIPT
    assert whole.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "immutable" in whole.headers["Cache-Control"]
    assert whole.headers["Vary"] == "Accept-Encoding"
    small = await ask(Accept_Encoding="gzip, deflate, br")
    assert small.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(small.raw) == SCRIPT
    assert small.headers["ETag"] != whole.headers["ETag"]
    refused = await ask(Accept_Encoding="gzip;q=0")
    assert "Content-Encoding" not in refused.headers
    known = await ask(Accept_Encoding="gzip", If_None_Match=small.headers["ETag"])
    assert (known.status, known.raw) == (304, b"")


@pytest.mark.parametrize("name", ["client-0.js", "..%2Fclient.html", f"{NAME}.gz", "%00"])
async def test_nothing_else_is_served(visitor: Client, name: str) -> None:
    answer = await visitor.get(f"/assets/{name}")
    assert (answer.status, answer.code) == (404, 2)


async def test_head_and_wrong_methods_are_as_everywhere(visitor: Client) -> None:
    head = await visitor.ask("HEAD", f"/assets/{NAME}")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(SCRIPT)))
    assert (await visitor.ask("POST", "/")).status == 405


async def test_links_of_a_page_begin_with_the_base_path(pages: Pages) -> None:
    app = QuartTrio(__name__)
    app.register_blueprint(pages_blueprint(Site("a.example", base_path="/vr"), pages))
    answer = await app.test_client().get("/")
    assert f'src="/vr/assets/{NAME}"'.encode() in await answer.get_data(as_text=False)


async def test_without_a_build_the_start_leads_to_the_docs(tmp_path: Path, anyone: Client) -> None:
    assert Pages.read(tmp_path) is None
    answer = await anyone.get("/")
    assert (answer.status, answer.headers["Location"]) == (302, "/docs")
    for path in ("/console", "/docs/sockets"):
        assert (await anyone.get(path)).status == 404
