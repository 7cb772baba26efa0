"""The Python SDK in clients/python, with asyncio and with Trio, against real servers."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from reileta_client import (
    Client,
    Disconnected,
    ErrorCode,
    ProtocolError,
    Refused,
    Room,
    Standing,
    connect,
)

from tests.clients.cutting_proxy import CuttingProxy
from tests.conftest import PATIENCE_S
from tests.server_process import serving
from tests.test_house import ROOT

pytestmark = pytest.mark.slow

SDK = ROOT / "clients" / "python"
SHOWN = "http://127.0.0.1:3032"
PASSWORD = "only an example"
LIMIT_S = 4 * PATIENCE_S
_names = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("server") / "data"
    with serving(
        data, "--rate-limits", "off", "--seat-grace-s", "20", "--temporary-accounts", "50"
    ) as (url, _):
        yield url


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a test's coroutine, in bounded time."""

    def runner(work: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            with anyio.fail_after(LIMIT_S):
                await work()

        # In a thread of its own: what other tests left behind in this one does not matter there.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: anyio.run(bounded, backend=request.param)).result()

    return runner


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await anyio.sleep(0.01)


async def entered(stack: AsyncExitStack, server: str, name: str) -> Client:
    client = await stack.enter_async_context(connect(server))
    await client.register(f"{name.lower()}_{os.getpid()}_{next(_names)}", PASSWORD, name)
    return client


async def instance(owner: Client, **fields: Any) -> str:
    world = await owner.http.put("/api/worlds", {"title": "A meadow"})
    made = await owner.http.put("/api/instances", {"world": world["id"], **fields})
    return str(made["id"])


async def closed_for_slowness(http: httpx.AsyncClient) -> float:
    """How many sockets the server closed because too much waited for them."""
    text = (await http.get("/metrics")).text
    return float(re.findall(r"^reileta_too_slow_total (\S+)$", text, re.MULTILINE)[0])


def recorded(room: Room, *names: str) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []
    for name in names:
        room.on(name, lambda value, name=name: seen.append((name, value)))  # type: ignore[misc]
    return seen


def test_a_temporary_account_plays_and_becomes_a_full_one(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann = await entered(stack, server, "Ann")
            eve = await stack.enter_async_context(connect(server))
            assert (await eve.register_temporarily("Eve"))["temporary"] is True
            room = await eve.join(await instance(ann))
            await room.send({"say": "hello"})
            document = {"type": "document", "id": 999_999}

            async def refusal(command: str) -> int:
                with pytest.raises(Refused) as refused:
                    await eve.connection.request(command, document)
                return refused.value.code

            for command in ("watch", "unwatch", "admin-watch"):
                assert await refusal(command) == ErrorCode.PERMISSION_DENIED
            name = f"eve_{os.getpid()}_{next(_names)}"
            user = await eve.keep_account(name, PASSWORD, "Eve E.")
            assert (user["username"], user["displayname"]) == (name, "Eve E.")
            assert "temporary" not in user
            # The same socket may ask as soon as it has heard of it.
            while await refusal("watch") == ErrorCode.PERMISSION_DENIED:
                await anyio.sleep(0.01)
            assert await refusal("watch") == 111  # not found

    run(work)


def test_two_players_meet(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann, ben = [await entered(stack, server, name) for name in ("Ann", "Ben")]
            id_ = await instance(ann)
            first = await ann.join(id_)
            first.set("pose", {"x": 1})
            look = await ben.join(id_)
            await until(lambda: look.value(first.player, "pose"))
            await look.leave()
            await until(lambda: len(first.players) == 1)
            seen = recorded(first, "joined", "left", "message", "value")
            second = await ben.join(id_)
            assert [one.displayname for one in second.players.values()] == ["Ann", "Ben"]
            assert second.value(first.player, "pose") == {"x": 1}
            await second.send({"say": "hello"})
            for x in range(300):
                second.set("pose", {"x": x})
            await until(lambda: first.value(second.player, "pose") == {"x": 299})
            assert len([name for name, _ in seen if name == "value"]) <= 3
            with pytest.raises(Refused):
                await first.interest(near=["nobody"], far_rate=1)
            with pytest.raises(Refused):
                await first.interest(near=8, far_rate=1)  # the instance names no position_key
            placed = await ann.join(await instance(ann, position_key="pose"))
            await placed.interest(near=8, far_rate=1)
            await placed.leave()
            with pytest.raises(Refused) as refused:
                await instance(ann, position_key="")
            assert refused.value.details[0].field == "position_key"
            await first.interest(near=[], far_rate=5)
            second.set("pose", {"x": -1})
            await until(lambda: first.value(second.player, "pose") == {"x": -1})
            await first.interest()
            second.set("pose", None)
            await until(lambda: first.value(second.player, "pose") is None)
            await second.leave()
            await until(lambda: seen[-1][0] == "left")
            assert [name for name, _ in seen if name != "value"] == ["joined", "message", "left"]
            assert list(first.players) == [first.player]
            with pytest.raises(Disconnected):
                second.set("pose", 1)

    run(work)


def test_a_refusal_has_a_code_and_fields(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann = await entered(stack, server, "Ann")
            with pytest.raises(Refused) as refused:
                await instance(ann, capacity=0)
            assert refused.value.code == ErrorCode.INSTANCE_INVALID
            assert refused.value.status == 400
            assert refused.value.details[0].field == "capacity"
            with pytest.raises(Refused) as refused:
                await ann.join("nowhere-at-all")
            assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND

    run(work)


def test_whoever_waits_in_line_comes_in_when_a_seat_is_free(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann, ben, cleo = [await entered(stack, server, name) for name in ("Ann", "Ben", "Cleo")]
            id_ = await instance(ann, capacity=1)
            inside = await ann.join(id_)
            places: dict[str, list[int | None]] = {"Ben": [], "Cleo": []}
            rooms: list[Room] = []

            async def wait(client: Client, name: str) -> None:
                def told(standing: Standing) -> None:
                    places[name].append(standing.position)

                rooms.append(await client.join(id_, wait=True, on_queue=told))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, ben, "Ben")
                await until(lambda: 1 in places["Ben"])
                with anyio.CancelScope() as gives_up:
                    async with anyio.create_task_group() as others:
                        others.start_soon(wait, cleo, "Cleo")
                        await until(lambda: 2 in places["Cleo"])
                        gives_up.cancel()
                queue = await ann.http.get(f"/api/instances/{id_}/queue")
                assert queue["queued"] == 1
                await inside.leave()
                await until(lambda: rooms)
            me = rooms[0].me
            assert me is not None
            assert me.displayname == "Ben"

    run(work)


def test_a_cut_connection_comes_back_as_the_same_player(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(CuttingProxy.to(server))
            ann, ben = (
                await entered(stack, server, "Ann"),
                await entered(stack, proxy.url, "Ben"),
            )
            id_ = await instance(ann)
            first, second = await ann.join(id_), await ben.join(id_)
            await ben.connection.subscribe("update-world")
            second.set("pose", {"x": 1})
            await until(lambda: first.value(second.player, "pose"))
            player, others = second.player, recorded(first, "joined", "left")
            own = recorded(second, "away", "back", "joined", "left", "message")
            proxy.cut()
            await until(lambda: own)
            await first.send("while you were away")
            await until(lambda: len(own) == 3 or (len(own) == 2 and own[1][1]["gap"]))
            assert (second.player, others) == (player, [])
            # If the server wrote it before it knew of the cut, nobody has it: that is the gap.
            rest = [] if own[1][1]["gap"] else ["message"]
            assert [name for name, _ in own] == ["away", "back", *rest]
            assert own[1][1]["same_player"]
            news: list[Any] = []
            ben.connection.on("update-world", news.append)
            await ann.http.put("/api/worlds", {"title": "Another"})
            await until(lambda: news)
            assert news[0]["data"]["title"] == "Another"

    run(work)


def test_a_slow_reader_gets_the_newest_values_and_comes_back(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(CuttingProxy.to(server))
            ann, cleo, dan = [await entered(stack, server, one) for one in ("Ann", "Cleo", "Dan")]
            ben = await entered(stack, proxy.url, "Ben")
            id_ = await instance(ann)
            first, second, third = [await one.join(id_) for one in (ann, ben, cleo)]
            await until(lambda: len(second.players) == 3)
            player, session = second.player, ben.connection.session
            others = recorded(first, "joined", "left")
            own = recorded(second, "away", "back", "joined", "left", "value", "message")
            filler = "x" * 60_000

            async def pose(x: int) -> None:
                data = {"x": x, "filler": filler}
                await ann.connection.request("instance-data", data, subgroup=id_, key="pose", at=x)

            proxy.pause()
            for x in range(1, 41):
                await pose(x)
            proxy.resume()
            await until(lambda: own and own[-1][1][-1]["x"] == 40)
            assert {name for name, _ in own} == {"value"}, "the connection held"
            values = [value[-1]["x"] for _, value in own]
            assert len(values) < 40, "older values made room for newer ones"
            assert values == sorted(values)
            own.clear()

            proxy.pause()
            lost: list[Any] = []
            ben.connection.on("connection-lost", lost.append)
            figures = await stack.enter_async_context(
                httpx.AsyncClient(base_url=server, verify=False, timeout=PATIENCE_S)
            )
            before = await closed_for_slowness(figures)
            for number in range(400):
                if await closed_for_slowness(figures) > before:
                    break
                await first.send({"n": number, "filler": filler})
            else:
                pytest.fail("the server closes a socket for which too much waits")
            await third.leave()
            fourth = await dan.join(id_)
            await pose(41)
            await dan.connection.request("instance-data", 7, subgroup=id_, key="pose", at=1)
            proxy.resume()
            await until(lambda: any(name == "back" for name, _ in own))
            # 1006: the server waits only a while for somebody to read why.
            assert lost[0]["code"] in (4008, 1006)
            (back,) = [value for name, value in own if name == "back"]
            assert back == {"gap": True, "same_player": True}
            assert (second.player, ben.connection.session) == (player, session)
            names = [one.displayname for one in second.players.values()]
            assert names == [one.displayname for one in first.players.values()]
            assert names == ["Ann", "Ben", "Dan"]
            assert second.value(first.player, "pose")["x"] == 41
            assert second.value(fourth.player, "pose") == 7
            assert second.value(third.player, "pose") is None
            numbers = [value[-1]["n"] for name, value in own if name == "message"]
            assert numbers == list(range(len(numbers))), "in order, and none twice"
            assert [name for name, _ in others] == ["left", "joined"], "nobody saw Ben go"
            await second.send("here again")

    run(work)


def test_a_kicked_player_is_told_why(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann, ben = [await entered(stack, server, name) for name in ("Ann", "Ben")]
            id_ = await instance(ann)
            first, second = await ann.join(id_), await ben.join(id_)
            ended = recorded(second, "ended")
            await first.moderate("kick", player=second.player, reason="too loud")
            await until(lambda: ended)
            assert (ended[0][1]["reason"], ended[0][1]["note"]) == ("kicked", "too loud")
            assert not second.inside

    run(work)


def test_a_logout_ends_rooms_and_keys_are_refreshed(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann = await entered(stack, server, "Ann")
            room = await ann.join(await instance(ann))
            ended = recorded(room, "ended")
            before = ann.token
            await ann.credentials.refresh(ann.http)
            assert ann.token not in (None, before)
            await ann.http.whole("GET", "/session")
            await ann.connection.request("ping", {})
            await ann.logout()
            await until(lambda: ended)
            assert ann.token is None

    run(work)


def test_the_state_and_resources_of_sessions(run: Any, server: str) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            ann, ben = [await entered(stack, server, name) for name in ("Ann", "Ben")]
            await ann.session.patch({"door": {"width": 91.5}, "light": True})
            await ann.session.patch({"light": None})
            assert ann.session.state == {"door": {"width": 91.5}}
            with pytest.raises(ProtocolError):
                await ann.session.patch({f"n{index}": 1 for index in range(4500)})
            await ann.session.patch({"light": True})
            assert ann.session.state == {"door": {"width": 91.5}, "light": True}
            made = await ann.http.whole(
                "POST", "/resource/document", body={"title": "Door", "data": {"width": 80}}
            )
            number = made["resource"]["id"]
            user = (await ben.http.get("/api/users/@me"))["username"]
            share = f"/resource/document/{number}/share"
            await ann.http.whole("POST", share, body={"user": user})
            watched = await ben.session.watch("document", number)
            assert watched.view is not None
            assert watched.view["data"] == {"width": 80}
            await ann.session.acquire("document", number)
            await ann.session.write("document", number, data={"height": 20})
            await until(lambda: watched.view and watched.view["data"].get("height") == 20)
            places: list[Any] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    lambda: ben.session.acquire(
                        "document", number, wait=True, on_queue=places.append
                    )
                )
                await until(lambda: watched.current["holder"] and places)
                await ann.session.release("document", number)
            await ben.session.write("document", number, data={"width": 91})
            await until(lambda: watched.view and watched.view["data"]["width"] == 91)

    run(work)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_lines_of_the_readme_work_as_printed(server: str, backend: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (SDK / "README.md").read_text("utf-8"), re.DOTALL)
    program = tmp_path / "lines.py"
    program.write_text(
        code.replace(SHOWN, server)
        .replace("import asyncio", f"import {backend}")
        .replace(
            "asyncio.run(main())", "trio.run(main)" if backend == "trio" else "asyncio.run(main())"
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": str(SDK)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "players: ann_example\n"), done.stderr
