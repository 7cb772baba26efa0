"""`/api/worlds/:id/assets`, and the files of assets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from api.app import ReiletaApp, create_app
from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.api.clients import Answer, Client, Json, registered
from tests.api.fakes import ADDRESS, FakeNode
from tests.conftest import ManualClock

BUILD = {"version": "1.2", "engine": "unity", "platform": "windows"}
FILE = bytes(range(256)) * 1000


async def a_world(client: Client, **more: Any) -> str:
    return str((await client.put("/api/worlds", {"title": "Harbour", **more})).data["id"])


@pytest.fixture
async def assets(node: FakeNode, ada: Client) -> str:
    """The path of a world's assets; the world is Ada's."""
    path = f"/api/worlds/{await a_world(ada)}/assets"
    node.told.clear()
    return path


@pytest.fixture
async def file(node: FakeNode, ada: Client, assets: str) -> str:
    """The path of an empty asset's file."""
    asset = (await ada.put(assets, BUILD)).data
    node.told.clear()
    return f"{assets}/{asset['id']}/file"


async def sent(client: Client, path: str, raw: bytes = FILE, **headers: str) -> Answer:
    headers = {"Content-Type": "application/octet-stream", **headers}
    return await client.ask("POST", path, raw=raw, headers=headers)


def on_disk(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


async def test_creating(node: FakeNode, ada: Client, anyone: Client, assets: str) -> None:
    asset = (await ada.put(assets, BUILD)).data
    assert asset == {
        **BUILD,
        "id": asset["id"],
        "empty": True,
        "created_at": node.clock.now_ms(),
        "updated_at": node.clock.now_ms(),
    }
    assert (await anyone.get(f"{assets}/{asset['id']}")).data == asset
    assert (await anyone.get(assets)).data["items"] == [asset]
    world = assets.split("/")[3]
    assert (await anyone.get(f"/api/worlds/{world}")).data["assets"] == [asset]
    assert (await anyone.get("/api/worlds")).data["items"][0]["assets"] == [asset]
    assert node.told == [("world", world)]
    assert (await ada.put(assets, BUILD)).code == 45
    assert (await ada.put(assets, {**BUILD, "platform": "linux"})).status == 200
    assert (await anyone.get(f"{assets}?limit=1&offset=1")).data["total"] == 2


async def test_one_that_is_somewhere_else(ada: Client, assets: str) -> None:
    url = "https://cdn.example.org/a.bundle"
    asset = (await ada.put(assets, {**BUILD, "url": url})).data
    assert (asset["url"], asset["empty"]) == (url, False)
    path = f"{assets}/{asset['id']}"
    assert (await ada.get(f"{path}/file")).code == 46
    assert (await sent(ada, f"{path}/file")).code == 31
    emptied = (await ada.post(path, {"url": None})).data
    assert "url" not in emptied
    assert (await sent(ada, f"{path}/file")).status == 200
    assert (await ada.post(path, {"url": url})).code == 31


async def test_defaults(ada: Client, assets: str) -> None:
    asset = (await ada.put(assets, {})).data
    assert (asset["version"], asset["engine"], asset["platform"]) == ("0.0.1", "other", "other")
    nulls = {"version": "2", "engine": None, "platform": None, "url": None}
    asset = (await ada.put(assets, nulls)).data
    assert (asset["version"], asset["engine"], asset["platform"]) == ("2", "other", "other")
    assert (await ada.put(assets, {"version": "2"})).code == 45, "one of each is enough"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({**BUILD, "version": "../1"}, {"version"}),
        ({**BUILD, "version": "x" * 33}, {"version"}),
        ({**BUILD, "engine": "Unity"}, {"engine"}),
        ({**BUILD, "platform": "win\r\nX: y"}, {"platform"}),
        ({**BUILD, "url": "http://cdn.example.org/a"}, {"url"}),
        ({**BUILD, "url": "https://user:pass@cdn.example.org/a"}, {"url"}),
        ({**BUILD, "url": "https://cdn.example.org/\r\nX: y"}, {"url"}),
    ],
)
async def test_every_field_at_fault_is_named(
    node: FakeNode, ada: Client, assets: str, body: Json, fields: set[str]
) -> None:
    answer = await ada.put(assets, body)
    assert (answer.status, answer.code, answer.fields) == (400, 26, fields)
    assert node.told == []


async def test_updating(node: FakeNode, ada: Client, assets: str) -> None:
    asset = (await ada.put(assets, BUILD)).data
    other = (await ada.put(assets, {**BUILD, "version": "2.0"})).data
    node.clock.advance(5)
    path = f"{assets}/{asset['id']}"
    changed = (await ada.post(path, {"engine": "godot", "hash": "x", "size": 5})).data
    assert changed == {**asset, "engine": "godot", "updated_at": asset["updated_at"] + 5}
    assert (await ada.post(f"{assets}/{other['id']}", {"version": None})).code == 26
    taken = {"version": "1.2", "engine": "godot"}
    assert (await ada.post(f"{assets}/{other['id']}", taken)).code == 45


async def test_deleting(ada: Client, assets: str) -> None:
    asset = (await ada.put(assets, BUILD)).data
    path = f"{assets}/{asset['id']}"
    assert (await ada.delete(path)).data == {}
    for answer in (await ada.get(path), await ada.delete(path), await ada.post(path, {})):
        assert (answer.status, answer.code) == (404, 27)


async def test_others_change_nothing_and_admins_may(
    ada: Client, bob: Client, anyone: Client, admin: Client, assets: str, file: str
) -> None:
    path = file.removesuffix("/file")
    refused = [
        await bob.put(assets, {**BUILD, "version": "9"}),
        await bob.post(path, {"version": "9"}),
        await bob.delete(path),
        await sent(bob, file),
    ]
    assert {(answer.status, answer.code) for answer in refused} == {(403, 4)}
    assert (await anyone.put(assets, BUILD)).code == 3
    assert (await sent(anyone, file)).code == 3
    assert (await sent(admin, file)).status == 200


async def test_an_asset_is_found_in_its_own_world_alone(ada: Client, file: str) -> None:
    asset = file.split("/")[5]
    other = await a_world(ada)
    for path in (f"/api/worlds/{other}/assets/{asset}", f"/api/worlds/{other}/assets/{asset}/file"):
        assert (await ada.get(path)).code == 27
    for ref in ("f_1", "nonsense", "%00", "..%2f..%2fetc%2fpasswd", "' OR 1=1 --"):
        answer = await ada.get(f"{file.rpartition('/assets/')[0]}/assets/{ref}")
        assert answer.status == 404


async def test_a_private_worlds_assets_are_not_found_by_others(
    ada: Client, bob: Client, anyone: Client
) -> None:
    world = await a_world(ada, tags=["avr:private"])
    assets = f"/api/worlds/{world}/assets"
    asset = (await ada.put(assets, BUILD)).data["id"]
    await sent(ada, f"{assets}/{asset}/file")
    for client in (bob, anyone):
        for path in ("", f"/{asset}", f"/{asset}/file"):
            assert (await client.get(f"{assets}{path}")).code == 25
    answer = await ada.get(f"{assets}/{asset}/file")
    assert answer.headers["Cache-Control"] == "private, no-cache"


async def test_a_file_goes_up_and_comes_down(
    node: FakeNode, ada: Client, anyone: Client, file: str, tmp_path: Path
) -> None:
    answer = await anyone.get(file)
    assert (answer.status, answer.code) == (404, 46)
    node.clock.advance(5)
    asset = (await sent(ada, file)).data
    hash_ = hashlib.sha256(FILE).hexdigest()
    assert (asset["hash"], asset["size"], asset["empty"]) == (hash_, len(FILE), False)
    assert asset["url"] == f"http://{ADDRESS}{file}"
    assert asset["updated_at"] == node.clock.now_ms()
    assert node.told == [("world", file.split("/")[3])]
    down = await anyone.get(file)
    assert (down.status, down.raw) == (200, FILE)
    assert down.headers["Content-Type"] == "application/octet-stream"
    assert down.headers["Content-Length"] == str(len(FILE))
    assert down.headers["ETag"] == f'"{hash_}"'
    assert down.headers["Accept-Ranges"] == "bytes"
    disposition = 'attachment; filename="Harbour-1.2-unity-windows.bin"'
    assert down.headers["Content-Disposition"] == disposition
    assert [path.name for path in on_disk(tmp_path)] == [hash_]


async def test_a_file_fills_an_asset_once(ada: Client, file: str) -> None:
    await sent(ada, file)
    answer = await sent(ada, file, b"other")
    assert (answer.status, answer.code) == (409, 31)
    assert (await ada.get(file)).raw == FILE


async def test_equal_content_is_stored_once(ada: Client, assets: str, tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        asset = (await ada.put(assets, {**BUILD, "version": version})).data["id"]
        assert (await sent(ada, f"{assets}/{asset}/file")).status == 200
    assert len(on_disk(tmp_path)) == 1


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"b", end: bytes = b"--") -> bytes:
    """A multipart body of (head, content)s."""
    body = b"".join(
        b"--" + boundary + b"\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content
        + b"\r\n"
        for head, content in parts
    )  # fmt: skip
    return body + b"--" + boundary + end + b"\r\n"


FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    "name",
    [b"a.bundle", b"../../../../etc/passwd", b"..\\..\\x", b"/etc/passwd", b"", b"%00", b"a\0b"],
)
async def test_a_form_is_taken_whatever_its_file_is_called(
    ada: Client, file: str, tmp_path: Path, name: bytes
) -> None:
    other = (b'name="note"', b"hello")
    body = form(other, (b'name="file"; filename="' + name + b'"', FILE), other)
    assert (await sent(ada, file, body, **{"Content-Type": FORM})).data["size"] == len(FILE)
    down = await ada.get(file)
    assert down.raw == FILE
    assert "Harbour-1.2-unity-windows.bin" in down.headers["Content-Disposition"]
    assert [path.name for path in on_disk(tmp_path)] == [hashlib.sha256(FILE).hexdigest()]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b""),
        (FORM, b"no form at all"),
        (FORM, form((b'name="other"', b"x"))),
        (FORM, form((b'name="file"', FILE), (b'name="file"', FILE))),
        (FORM, form((b'name="file"', FILE), end=b"")),
        (FORM, form((b'name="file"', FILE))[:-20]),
        (FORM, form((b'name="file"\r\nX: ' + b"x" * 200_000, FILE))),
        (FORM, form(*[(b'name="x"', b"")] * 40, (b'name="file"', FILE))),
        (FORM, b"x" * 200_000 + form((b'name="file"', FILE))),
        (FORM, b'--b\r\nX-Nothing: 1\r\n\r\nx\r\n--b--\r\n'),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n'),
        ("multipart/form-data", form((b'name="file"', FILE))),
        ("multipart/form-data; boundary=", form((b'name="file"', FILE))),
        ("multipart/form-data; boundary=" + "b" * 71, form((b'name="file"', FILE))),
    ],
    ids=[
        "empty", "none", "no-file", "two", "open", "cut", "head-bomb", "parts-bomb", "preamble",
        "no-disposition", "no-utf8", "no-boundary", "empty-boundary", "long-boundary",
    ],
)  # fmt: skip
async def test_what_is_no_form_leaves_nothing(
    ada: Client, file: str, tmp_path: Path, kind: str, body: bytes
) -> None:
    answer = await sent(ada, file, body, **{"Content-Type": kind})
    assert (answer.status, answer.code) == (400, 32)
    assert (await ada.get(file)).code == 46
    assert on_disk(tmp_path) == []


async def test_an_empty_file_fills_nothing(ada: Client, file: str, tmp_path: Path) -> None:
    answer = await sent(ada, file, b"")
    assert (answer.status, answer.code, answer.fields) == (400, 32, {"file"})
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "multipart/mixed; boundary=b"}]
)
async def test_other_encodings_are_refused(ada: Client, file: str, headers: dict[str, str]) -> None:
    answer = await sent(ada, file, FILE, **headers)
    assert (answer.status, answer.code) == (415, 104)


async def test_a_file_over_the_limit_leaves_nothing(small: Store, tmp_path: Path) -> None:
    eve = await registered(await app_of(small), "eve")
    assets = f"/api/worlds/{await a_world(eve)}/assets"
    file = f"{assets}/{(await eve.put(assets, BUILD)).data['id']}/file"
    large = FILE * 2
    for raw, headers in (
        (large, {}),
        (large, {"Content-Length": str(len(large))}),
        (b"", {"Content-Length": str(2 * 1024**3)}),
        (form((b'name="file"', large)), {"Content-Type": FORM}),
    ):
        answer = await sent(eve, file, raw, **headers)
        assert (answer.status, answer.code) == (413, 103)
    assert on_disk(tmp_path) == []


async def test_parts_of_a_file(ada: Client, file: str) -> None:
    await sent(ada, file)
    size = len(FILE)
    for said, start, end in (
        ("bytes=0-", 0, size),
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size * 2}", 0, size),
        (f"bytes={size - 1}-", size - 1, size),
        (f"bytes=10-{size * 9}", 10, size),
    ):
        answer = await ada.get(file, headers={"Range": said})
        assert (answer.status, answer.raw) == (206, FILE[start:end]), said
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["Content-Length"] == str(end - start)
    for said in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        answer = await ada.get(file, headers={"Range": said})
        assert (answer.status, answer.code) == (416, 127)
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    for said in ("bytes=", "bytes=a-b", "lines=0-1", "bytes=0-1,5-6", "nonsense", "bytes=9-5",
                 f"bytes={'9' * 5000}-", "bytes=-0,0-1", f"bytes={'0-0,' * 2000}"):  # fmt: skip
        answer = await ada.get(file, headers={"Range": said})
        assert (answer.status, answer.raw) == (200, FILE), said
    head = await ada.ask("HEAD", file, headers={"Range": "bytes=0-4"})
    assert (head.status, "Content-Range" in head.headers) == (200, False)


async def test_any_of_many_tags_is_known(ada: Client, file: str) -> None:
    await sent(ada, file)
    tag = (await ada.get(file)).headers["ETag"]
    for said in (tag, f"W/{tag}", f'"a", {tag}', "," * 8000 + tag, "*", f'"a",W/{tag},"b"'):
        assert (await ada.get(file, headers={"If-None-Match": said})).status == 304, said
    for said in ('"a"', tag.strip('"'), tag[:-2] + '"', ""):
        assert (await ada.get(file, headers={"If-None-Match": said})).status == 200, said


async def test_a_part_of_another_version_is_the_whole(ada: Client, file: str) -> None:
    await sent(ada, file)
    tag = (await ada.get(file)).headers["ETag"]
    part = {"Range": "bytes=0-4"}
    assert (await ada.get(file, headers={**part, "If-Range": tag})).status == 206
    for other in ('"other"', f"W/{tag}", "Sat, 21 Nov 2026 00:00:00 GMT"):
        assert (await ada.get(file, headers={**part, "If-Range": other})).raw == FILE
    assert (await ada.get(file, headers={**part, "If-None-Match": tag})).status == 304


async def test_a_hostile_title_is_no_header(ada: Client) -> None:
    title = 'a"; filename=evil.html \u2028 \u00e9 ../../x'
    answer = await ada.put("/api/worlds", {"title": title.replace("\u2028", "")})
    assets = f"/api/worlds/{answer.data['id']}/assets"
    build = {**BUILD, "platform": "windows.exe"}
    asset = (await ada.put(assets, build)).data["id"]
    await sent(ada, f"{assets}/{asset}/file")
    said = (await ada.get(f"{assets}/{asset}/file")).headers["Content-Disposition"]
    name = said.removeprefix('attachment; filename="').removesuffix('"')
    assert name == "a-filename-evil.html-..-..-x-1.2-unity-windows.exe.bin"


@pytest.fixture
async def small(database_url: str, clock: ManualClock, tmp_path: Path) -> Any:
    settings = Settings(database=database_url, data=tmp_path, user_files_bytes=400_000)
    async with open_store(settings, clock) as store:
        yield store


async def app_of(store: Store) -> ReiletaApp:
    await store.users.ensure_system_accounts(_unhashed)
    return create_app(FakeNode(store, ManualClock()).as_node())


async def test_a_users_files_come_to_so_much(small: Store) -> None:
    eve = await registered(await app_of(small), "eve")
    assets = f"/api/worlds/{await a_world(eve)}/assets"
    paths = []
    for version in ("1", "2"):
        asset = (await eve.put(assets, {**BUILD, "version": version})).data["id"]
        paths.append(f"{assets}/{asset}/file")
    assert (await sent(eve, paths[0])).status == 200
    answer = await sent(eve, paths[1], FILE + b"other")
    assert (answer.status, answer.code) == (413, 103)
    assert (await sent(eve, paths[1], b"small")).status == 200


async def _unhashed(password: str) -> str:
    return "no password"
