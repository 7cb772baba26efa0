"""`examples/shared_document.py` in two terminals, as its text says, while the server is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.conftest import PATIENCE_S
from tests.e2e.processes import ServerProcess, serving
from tests.test_house import ROOT

LOST = "connection lost, trying again"
PASSWORD = "only an example"


class ExampleProcess:
    """A running example: what it said so far is in `said`, a line each."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self.errors = ""
        self._heard = trio.Event()

    async def type(self, *lines: str) -> None:
        """Types lines, each with its Enter."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def until(self, seen: Callable[[list[str]], bool]) -> None:
        """Waits until what it said is so."""
        with trio.move_on_after(PATIENCE_S):
            while not seen(self.said):
                assert self.process.poll() is None, (self.said, self.errors)
                await self._heard.wait()
            return
        raise AssertionError(f"it does not come: {self.said} {self.errors}")

    async def until_shown(self, lines: dict[str, str]) -> None:
        """Waits until it shows a document with these lines."""
        await self.until(lambda said: lines.items() <= shown(said).items())

    async def session(self) -> str:
        """The session that it prints first."""
        await self.until(lambda said: len(said) >= 2)
        word, id_ = self.said[0].split()
        assert word == "session"
        return id_

    async def ended(self) -> int:
        """Waits for its end; the exit status."""
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()

    async def finished(self) -> int:
        """Types Ctrl-D, and waits for its end; the exit status."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.ended()

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            self.said += [line.decode() for line in lines]
            self._heard.set()
            self._heard = trio.Event()
        self._heard.set()

    async def read_errors(self, stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            self.errors += chunk.decode()


def shown(said: list[str]) -> dict[str, str]:
    """The document that stands there last."""
    documents = [line for line in said if line.startswith("{")]
    return dict(json.loads(documents[-1])) if documents else {}


@asynccontextmanager
async def terminal(*arguments: str) -> AsyncIterator[ExampleProcess]:
    """The example, in a process of its own, whose input stays open."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(ROOT / "examples" / "shared_document.py"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    one = ExampleProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.read, process.stdout)
            nursery.start_soon(one.read_errors, process.stderr)
            yield one
            nursery.cancel_scope.cancel()
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            await trio.aclose_forcefully(stream)


async def kept(served: ServerProcess, session: str) -> object:
    """The document as the server keeps it, asked for by a login of its own."""
    account = {"username": "ann", "password": PASSWORD, "session_id": session}
    async with served.ask() as client:
        token = (await client.post("/auth/login", json=account)).json()["token"]
        assert token["session"]["id"] == session
        headers = {"Authorization": f"Bearer {token['access']}"}
        answer = await client.get("/session", headers=headers)
        return answer.json()["session"]["state"]["document"]


def lines_of(name: str, first: int, count: int) -> dict[str, str]:
    return {f"{name}{number}": str(number) for number in range(first, first + count)}


def typed(lines: dict[str, str]) -> list[str]:
    return [f"{name} {value}" for name, value in lines.items()]


async def test_two_terminals_go_on_after_the_server_was_killed(data_folder: Path) -> None:
    data = ("--data", str(data_folder / "data"))
    async with serving(*data) as served:
        port, server = str(served.port), ("--server", served.url)
        async with terminal("ann", *server) as one:
            session = await one.session()
            async with terminal("ann", *server, "--session", session) as two:
                assert await two.session() == session
                saved = {"width": "91", "height": "200"}
                await one.type("width 91")
                await two.type("height 200")
                for either in (one, two):
                    await either.until_shown(saved)
                # Both are in the midst of it when the server dies,
                expected = {**saved, **lines_of("a", 0, 40), **lines_of("b", 0, 40)}
                await one.type(*typed(lines_of("a", 0, 40)))
                await two.type(*typed(lines_of("b", 0, 40)))
                await one.until_shown({"a0": "0"})
                served.process.kill()
                assert await served.ended() == -signal.SIGKILL
                # and go on while it is away.
                for either, name in ((one, "c"), (two, "d")):
                    await either.until(lambda said: LOST in said)
                    await either.type(*typed(lines_of(name, 0, 40)), "width")
                    expected |= lines_of(name, 0, 40)
                del expected["width"]
                async with serving(*data, "--port", port) as again:
                    for either in (one, two):
                        await either.until(lambda said: shown(said) == expected)
                        lost = either.said.index(LOST)
                        assert either.said[lost + 1] == f"session {session}"
                        # What it showed was acknowledged, and it is what it finds again (but what
                        # the other took out, if that was back before).
                        acknowledged, found = shown(either.said[:lost]), either.said[lost + 2]
                        del acknowledged["width"]
                        assert acknowledged.items() <= shown([found]).items()
                    assert await kept(again, session) == expected
                    await two.type("last line")
                    await one.until_shown({"last": "line"})
                    assert await one.finished() == await two.finished() == 0
                    assert one.errors == two.errors == ""


async def test_a_terminal_outlives_the_token_that_it_began_with(data_folder: Path) -> None:
    lifetimes = ("--access-lifetime-s", "4", "--refresh-lifetime-s", "4")
    async with (
        serving("--data", str(data_folder / "data"), *lifetimes) as served,
        terminal("ann", "--server", served.url) as one,
    ):
        session = await one.session()
        begun, number = trio.current_time(), 0
        while trio.current_time() < begun + 6:
            number += 1
            await one.type(f"number {number}")
            await one.until_shown({"number": str(number)})
            await trio.sleep(0.05)
        assert LOST not in one.said
        assert await kept(served, session) == {"number": str(number)}
        assert await one.finished() == 0


async def test_what_was_typed_last_is_saved_before_the_end(data_folder: Path) -> None:
    async with serving("--data", str(data_folder / "data")) as served:
        async with terminal("ann", "--server", served.url) as one:
            session = await one.session()
            await one.type(*(f"number {number}" for number in range(1000)))
            assert await one.finished() == 0
            assert await kept(served, session) == {"number": "999"}
        async with terminal("ann", "--server", served.url, "--session", "s_none") as other:
            assert await other.ended() == 1
            assert other.errors == "refused: s_none is not an open session of ann\n"
        async with terminal("ann", "--server", served.url, "--password", "no such word") as other:
            assert await other.ended() == 1
            assert other.errors == (
                "refused: Auth invalid login; a new account is refused, too: Auth invalid input: "
                "username is taken\n"
            )
        async with terminal("ann", "--server", served.url) as one:
            await one.session()
            one.process.send_signal(signal.SIGINT)
            assert await one.ended() == 0


def edited(lines: dict[str, str], by: str) -> str:
    return f"{json.dumps(lines, sort_keys=True)} (edited by {by})"


async def document(one: ExampleProcess) -> str:
    """The number of the document that it prints first."""
    await one.until(lambda said: len(said) >= 2)
    word, number = one.said[0].split()
    assert word == "document"
    return number


async def test_several_terminals_watch_one_document_and_edit_it_in_turn(data_folder: Path) -> None:
    """Each is a session of its own; they take over in the order in which they waited, also after
    the server was killed."""
    data = ("--data", str(data_folder / "data"))
    async with serving(*data) as served:
        port, server = str(served.port), ("--server", served.url)
        async with terminal("ann", *server, "--document", "new") as one:
            number = await document(one)
            assert one.said[1] == edited({}, "nobody")
            other = ("ann", *server, "--document", number)
            async with terminal(*other) as two, terminal(*other) as three:
                await one.type("width 91")
                saved = {"width": "91"}
                for each in (one, two, three):
                    await each.until(lambda said: edited(saved, "ann") in said)
                await two.type("height 20")
                await two.until(lambda said: "waiting, position 1" in said)
                await three.type("depth 5", "width")
                await three.until(lambda said: "waiting, position 2" in said)
                assert "it is your turn" not in two.said
                await one.type("")
                await one.until(lambda said: "handed over" in said)
                await two.until(lambda said: "it is your turn" in said)
                await three.until(lambda said: "waiting, position 1" in said)
                saved["height"] = "20"
                for each in (one, two, three):
                    await each.until(lambda said: edited(saved, "ann") in said)
                assert "it is your turn" not in three.said

                served.process.kill()
                assert await served.ended() == -signal.SIGKILL
                for each in (one, two, three):
                    await each.until(lambda said: LOST in said)
                await two.type("height 30", "")
                async with serving(*data, "--port", port):
                    saved = {"height": "30", "depth": "5"}
                    await three.until(lambda said: "it is your turn" in said)
                    await three.type("")
                    for each in (one, two, three):
                        await each.until(lambda said: edited(saved, "nobody") in said)
                    await three.type("last line")
                    assert await three.finished() == 0
                    await one.until(
                        lambda said: edited({**saved, "last": "line"}, "nobody") in said
                    )
                    assert await one.finished() == await two.finished() == 0
                    assert one.errors == two.errors == three.errors == ""


async def test_a_document_that_can_not_be_watched_is_refused(data_folder: Path) -> None:
    async with (
        serving("--data", str(data_folder / "data")) as served,
        terminal("ann", "--server", served.url, "--document", "12345") as one,
    ):
        assert await one.ended() == 1
        assert one.errors.startswith("refused: ")


async def test_without_a_server_it_says_so_at_once() -> None:
    async with terminal("ann", "--server", "http://127.0.0.1:1") as one:
        assert await one.ended() == 1
        assert one.errors.startswith("no answer from http://127.0.0.1:1 ")
        assert one.errors.count("\n") == 1
