"""Thumbnails and banners: what comes out is a PNG that this server wrote."""

from __future__ import annotations

import hashlib

import pytest

from reileta.media.images import LIMIT_BYTES
from tests.api.clients import Answer, Client
from tests.api.fakes import ADDRESS, FakeNode
from tests.api.pngs import chunk, png

THUMBNAIL = "/api/users/@me/thumbnail"
SCRIPT = b"<script>alert(1)</script>"


async def sent(client: Client, path: str, raw: bytes, kind: str = "image/png") -> Answer:
    return await client.ask("POST", path, raw=raw, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", ["thumbnail", "banner"])
async def test_a_users_picture_comes_and_goes(
    node: FakeNode, ada: Client, anyone: Client, kind: str
) -> None:
    path, public = f"/api/users/@me/{kind}", f"/api/users/{ada.me['id']}/{kind}"
    answer = await anyone.get(public)
    assert (answer.status, answer.code) == (404, 46)
    me = (await sent(ada, path, png())).data
    assert me[kind] == f"http://{ADDRESS}{public}"
    assert (await anyone.get("/api/users/ada")).data[kind] == me[kind]
    picture = await anyone.get(public)
    assert picture.status == 200
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.headers["Content-Length"] == str(len(picture.raw))
    assert picture.headers["ETag"] == f'"{hashlib.sha256(picture.raw).hexdigest()}"'
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert picture.headers["Cache-Control"] == "no-cache"
    assert "sandbox" in picture.headers["Content-Security-Policy"]
    assert (await ada.delete(path)).data == {}
    for answer in (await anyone.get(public), await ada.delete(path)):
        assert (answer.status, answer.code) == (404, 46)
    assert kind not in (await ada.get("/api/users/@me")).data
    assert node.told == [("user", ada.me["id"])] * 2


async def test_a_worlds_thumbnail_comes_and_goes(
    node: FakeNode, ada: Client, bob: Client, anyone: Client
) -> None:
    world = (await ada.put("/api/worlds", {"title": "Harbour", "tags": ["avr:private"]})).data
    path = f"/api/worlds/{world['id']}/thumbnail"
    assert (await ada.get(path)).code == 46
    for answer in (await sent(bob, path, png()), await bob.get(path), await bob.delete(path)):
        assert (answer.status, answer.code) == (404, 25)
    shown = (await sent(ada, path, png())).data
    assert shown["thumbnail"] == f"http://{ADDRESS}{path}"
    assert (await ada.get("/api/worlds")).data["items"] == [shown]
    assert (await ada.get(path)).headers["Cache-Control"] == "private, no-cache"
    assert (await anyone.get(path)).code == 25
    assert (await ada.delete(path)).data == {}
    assert (await ada.get(path)).code == 46
    assert node.told == [("world", world["id"])] * 3


async def test_who_has_it_is_told_so(ada: Client, anyone: Client) -> None:
    await sent(ada, THUMBNAIL, png())
    path = f"/api/users/{ada.me['id']}/thumbnail"
    tag = (await anyone.get(path)).headers["ETag"]
    for said in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = await anyone.get(path, headers={"If-None-Match": said})
        assert (answer.status, answer.raw, answer.headers["ETag"]) == (304, b"", tag)
    await sent(ada, THUMBNAIL, png(5, 5))
    answer = await anyone.get(path, headers={"If-None-Match": tag})
    assert answer.status == 200
    assert answer.headers["ETag"] != tag


async def test_a_form_is_taken_as_well(ada: Client) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body += png() + b"\r\n--b--\r\n"
    assert (await sent(ada, THUMBNAIL, body, "multipart/form-data; boundary=b")).status == 200
    assert (await ada.get(THUMBNAIL)).raw.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GIF89a" + b"\0" * 100,
        SCRIPT,
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        png()[:-20],
        png(said=60_000),
        png(said=2**31 - 1),
        png(said=4097),
    ],
    ids=["empty", "gif", "html", "svg", "cut", "bomb", "huge", "large"],
)
async def test_what_is_no_picture_is_refused(node: FakeNode, ada: Client, raw: bytes) -> None:
    answer = await sent(ada, THUMBNAIL, raw)
    assert (answer.status, answer.code, answer.fields) == (400, 124, {"thumbnail"})
    assert (await ada.get(THUMBNAIL)).code == 46
    assert node.told == []


async def test_nothing_that_was_hidden_in_it_comes_out(ada: Client) -> None:
    hidden = png(extra=chunk(b"tEXt", b"Comment\0" + SCRIPT)) + SCRIPT
    assert (await sent(ada, THUMBNAIL, hidden)).status == 200
    assert SCRIPT not in (await ada.get(THUMBNAIL)).raw


async def test_one_that_is_too_large_is_refused(ada: Client) -> None:
    for headers in ({}, {"Content-Length": str(LIMIT_BYTES + 1)}):
        answer = await ada.ask(
            "POST",
            THUMBNAIL,
            raw=b"\x89" * (LIMIT_BYTES + 1),
            headers={"Content-Type": "image/png", **headers},
        )
        assert (answer.status, answer.code) == (413, 103)


@pytest.mark.parametrize("kind", ["image/jpeg", "text/html", "application/json", "multipart/mixed"])
async def test_other_content_types_are_refused(ada: Client, kind: str) -> None:
    answer = await sent(ada, THUMBNAIL, png(), kind)
    assert (answer.status, answer.code) == (415, 104)


async def test_others_change_nothing_and_admins_may(
    ada: Client, bob: Client, anyone: Client, admin: Client
) -> None:
    path = "/api/users/ada/banner"
    answer = await sent(bob, path, png())
    assert (answer.status, answer.code) == (403, 12)
    assert (await bob.delete(path)).code == 12
    assert (await sent(anyone, path, png())).code == 3
    assert (await sent(admin, path, png())).status == 200
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    answer = await sent(bob, f"/api/worlds/{world}/thumbnail", png())
    assert (answer.status, answer.code) == (403, 4)
    for kind in ("thumbnail", "banner"):
        assert (await anyone.get(f"/api/users/nobody/{kind}")).code == 17
