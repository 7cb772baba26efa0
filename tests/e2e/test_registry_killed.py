"""A registry is killed while its gateway passes requests on: real processes, real sockets."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import trio

from tests.conftest import PATIENCE_S
from tests.e2e.clients import RawClient, connected
from tests.e2e.processes import ServerProcess, bots, eventually, new_instance, serving
from tests.e2e.split_roles import nats_url
from tests.ports import free_port

ADDRESS = "play.example.org"
BODY = bytes(range(256)) * 8192
PART = len(BODY) // 2
SECRET = "a secret that gateways and registries share"


class Site:
    """Two registries, of which one speaks TLS, a host and a gateway; each in a process."""

    def __init__(self, folder: Path, database: str, certificate: tuple[Path, Path]) -> None:
        self.secret, self.database = folder / "secret", database
        self.secret.write_text(SECRET)
        self.certificate = certificate
        self.folder = folder
        self.files = folder / "files"
        self.common = ["--database", database, "--nats", nats_url(), "--address", ADDRESS]
        self.common += ["--cluster", urlsplit(database).path[1:], "--rate-limits", "off"]

    def options(self, name: str, *more: str) -> list[str]:
        named = ["--data", str(self.folder / name), "--node-name", name]
        return [*self.common, *named, *more]

    def eta(self, name: str, *more: str) -> list[str]:
        key = ["--key", str(self.folder / "key"), "--gateway-secret", str(self.secret)]
        files = ["--files", str(self.files), "--trusted-proxies", "127.0.0.1"]
        return self.options(name, "--role", "eta", *key, *files, *more)

    @property
    def tls(self) -> list[str]:
        cert, key = self.certificate
        return ["--tls-cert", str(cert), "--tls-key", str(key)]

    def reil(self, *etas: ServerProcess) -> list[str]:
        urls = ["--eta", ",".join(one.url for one in etas), "--eta-ca", str(self.certificate[0])]
        key = ["--key", str(self.folder / "key"), "--gateway-secret", str(self.secret)]
        return self.options("reil", "--role", "reil", *key, *urls)


async def test_a_registry_is_killed_in_the_middle_of_its_work(
    database_url: str, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    site = Site(tmp_path, database_url, certificate)
    port = str(free_port())
    async with AsyncExitStack() as stack:

        async def started(*options: str) -> ServerProcess:
            return await stack.enter_async_context(serving(*options))

        one = await started(*site.eta("one", "--port", port))
        two = await started(*site.eta("two", *site.tls))
        await started(*site.options("ins", "--role", "ins"))
        reil = await started(*site.reil(one, two))
        ada, bob = await bots(2, tmp_path, "--database", database_url)
        head = {"Authorization": f"Bearer {ada.token}"}
        room = await new_instance(reil, ada)
        web = await stack.enter_async_context(reil.ask())
        host = await stack.enter_async_context(connected(reil, ada))
        guest = await stack.enter_async_context(connected(reil, bob))
        await host.join(room)
        await guest.join(room)

        async def speak(text: str) -> None:
            """The instance lives on, with both sockets."""
            await host.say(room, text)
            await guest.until(
                lambda said: (
                    said.get("command") == "instance-data" and said["data"].get("data") == text
                )
            )

        world = (await web.put("/api/worlds", json={"title": "Files"}, headers=head)).json()["data"]

        async def upload(version: str) -> RawClient:
            """An upload of which half has come; the one in progress at each registry decides where
            the next one goes."""
            assets = f"/api/worlds/{world['id']}/assets"
            kind = {"version": version, "engine": "unity", "platform": "linux"}
            made = (await web.put(assets, json=kind, headers=head)).json()["data"]["id"]
            stream = await trio.open_tcp_stream(reil.host, reil.port)
            client = RawClient(await stack.enter_async_context(stream))
            lines = [
                f"POST {assets}/{made}/file HTTP/1.1",
                "Host: x",
                f"Content-Length: {len(BODY)}",
            ]
            lines += [
                f"Authorization: Bearer {ada.token}",
                "Content-Type: application/octet-stream",
            ]
            await client.send("\r\n".join([*lines, "", ""]).encode() + BODY[:PART])
            count = len(uploads) + 1
            with trio.fail_after(PATIENCE_S):
                while len(list((site.files / "incoming").glob("*"))) < count:
                    await trio.sleep(0.01)
            uploads.append(client)
            return client

        uploads: list[RawClient] = []
        first, second, third = [await upload(version) for version in ("1", "2", "3")]

        # A client that hangs up ends its upload at the registry, too.
        await third.stream.aclose()

        async def ended() -> bool:
            await trio.lowlevel.checkpoint()
            return len(list((site.files / "incoming").glob("*"))) == 2

        await eventually(ended)

        # One registry is killed, with an upload in progress, and while requests come.
        reads: list[int] = []
        writes: dict[str, int] = {}
        killed, over = trio.Event(), trio.Event()

        async def read() -> None:
            while not over.is_set():
                reads.append((await web.get("/api/users/@me", headers=head)).status_code)

        async def write(number: int) -> None:
            count = 0
            while not over.is_set():
                title = f"World {number}.{(count := count + 1)}"
                answer = await web.put("/api/worlds", json={"title": title}, headers=head)
                writes[title] = answer.status_code
                if answer.status_code != 200:
                    error = answer.json()["error"]["code"]
                    assert (answer.status_code, error) in ((502, 6), (503, 122))
                if killed.is_set() and count % 10 == 0:
                    over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for number in range(3):
                nursery.start_soon(write, number)
            with trio.fail_after(PATIENCE_S):
                while len(reads) < 5 or len(writes) < 5:
                    await trio.sleep(0.01)
            one.process.kill()
            await one.ended()
            killed.set()
        # None was broken off; a busy machine can make the other registry look lost for a moment.
        assert set(reads) <= {200, 503}
        assert Counter(reads)[200] > 5
        assert Counter(writes.values())[200] > 5
        # Nothing was done twice, and what was answered was done.
        titles: Counter[str] = Counter()
        after = ""
        while True:
            query = {"owner": "@me", "limit": "100", **({"after": after} if after else {})}
            page = (await web.get("/api/worlds", params=query, headers=head)).json()["data"]
            titles.update(each["title"] for each in page["items"])
            after = page.get("next") or ""
            if not after:
                break
        assert max(titles.values()) == 1
        assert {title for title, status in writes.items() if status == 200} <= set(titles)
        await reil.until_logged("registry.changed")
        assert (await web.get("/readyz")).status_code == 200
        # As a rule, each had an upload; not if a busy machine made one of them look slow.
        for client in (first, second):
            with suppress(trio.BrokenResourceError):
                await client.send(BODY[PART:])
            answer = await client.answer()
            if answer.status != 502:
                assert answer.status == 200
                assert hashlib.sha256(BODY).hexdigest().encode() in answer.body
        await speak("one registry is left")

        # Without any, the gateway says so; the instances live on.
        two.process.kill()
        await two.ended()
        lost = await web.get("/api/users/@me", headers=head)
        assert (lost.status_code, lost.json()["error"]["code"]) == (503, 122)
        assert int(lost.headers["Retry-After"]) > 0
        await speak("no registry is left")

        # One that comes back is asked again.
        await started(*site.eta("one", "--port", port))

        async def back() -> bool:
            return (await web.get("/api/users/@me", headers=head)).status_code == 200

        await eventually(back)
        await speak("a registry is back")
        await host.socket.aclose()
        await guest.socket.aclose()
