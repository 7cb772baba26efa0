"""`/api/admin/…` and the server's notice: for admins alone, and what they answer."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tests.api.clients import Client
from tests.api.fakes import FakeNode

READS = (
    "/api/admin/nodes",
    "/api/admin/figures",
    "/api/admin/instances?sort=queued&order=asc&query=a&limit=1&offset=900",
    "/api/admin/online?query=a",
    "/api/admin/resources?query=a",
    "/api/admin/actors",
    "/api/admin/traces",
)


async def test_only_admins_may_look(admin: Client, ada: Client, anyone: Client) -> None:
    for path in (*READS, "/api/admin/instances/i_1"):
        assert (await anyone.get(path)).code == 3, path
        assert (await ada.get(path)).code == 4, path
    for path in READS:
        answer = await admin.get(path)
        assert answer.status == 200, (path, answer.raw)
    assert (await admin.get("/api/admin/instances/i_1")).code == 36


@pytest.mark.parametrize(
    "query", ["sort=size", "order=up", "limit=101", "limit=0", "offset=901", "offset=-1"]
)
async def test_what_a_list_does_not_have_is_refused(admin: Client, query: str) -> None:
    assert (await admin.get(f"/api/admin/instances?{query}")).code == 29


async def test_a_node_that_does_not_exist_is_not_found(admin: Client) -> None:
    for what in ("figures", "actors", "traces"):
        assert (await admin.get(f"/api/admin/{what}?node=n_1")).code == 141


async def test_a_notice_is_told_kept_and_taken_back(
    node: FakeNode, admin: Client, ada: Client, anyone: Client
) -> None:
    now = node.clock.now_ms()
    body = {"text": "Restart", "level": "warning", "until": now + 60_000}
    assert (await ada.post("/api/server/notice", body)).code == 4
    assert (await ada.delete("/api/server/notice")).code == 4
    told = (await admin.post("/api/server/notice", body)).data
    assert told == {**body, "created_at": now}
    assert (await anyone.get("/api/server/notice")).data == told
    assert [one.notice.until for one in node.announced] == [now + 60_000]
    (entry, *_) = (await admin.get("/api/audit?action=set_notice")).data["items"]
    assert entry["details"]["text"] == "Restart"
    node.clock.advance(60_000)
    assert (await anyone.get("/api/server/notice")).data["text"] is None
    assert (await admin.delete("/api/server/notice")).data == {}
    assert node.announced[-1].notice.until is UNSET


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": "x" * 501},
        {"text": "x", "level": "loud"},
        {"text": "x", "until": 1},
        {"text": "x", "until": 2**53 - 1},
    ],
)
async def test_a_notice_is_checked(admin: Client, body: dict[str, object]) -> None:
    assert (await admin.post("/api/server/notice", body)).code == 29
