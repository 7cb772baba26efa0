"""A server that is killed, or stops, holds the seats of those who were inside when it is back."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from actors.cluster.soft_state import found_in
from reileta.cluster.key_value import Entry
from reileta.observability import log_events
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected
from tests.e2e.operator import at_the_database
from tests.e2e.processes import Bot, ServerProcess, bots, eventually, serving

CAPACITY = 3
WAITING = 3


@dataclass
class Hall:
    """A full instance, those inside and those in line, and the server that runs."""

    database_url: str
    options: tuple[str, ...]
    inside: list[Bot]
    line: list[Bot]
    late: Bot
    """A user who was neither inside nor in line."""
    owner: Bot
    instance: str = ""
    players: dict[Bot, str] = field(default_factory=dict)

    @asynccontextmanager
    async def served(self, *more: str) -> AsyncIterator[ServerProcess]:
        async with serving(*self.options, *more) as server:
            yield server

    async def post(self, server: ServerProcess, bot: Bot, path: str, **body: Any) -> httpx.Response:
        async with server.ask() as client:
            headers = {"Authorization": f"Bearer {bot.token}"}
            return await client.post(
                f"/api/instances/{self.instance}/{path}", json=body or None, headers=headers
            )

    async def get(self, server: ServerProcess, bot: Bot, path: str = "") -> Json:
        async with server.ask() as client:
            headers = {"Authorization": f"Bearer {bot.token}"}
            answer = await client.get(f"/api/instances/{self.instance}{path}", headers=headers)
            found: Json = answer.json()["data"]
            return found

    async def places(self, server: ServerProcess) -> dict[Bot, tuple[str, int | None] | None]:
        """The state and the place of each who was in line."""
        out: dict[Bot, tuple[str, int | None] | None] = {}
        for bot in self.line:
            entry = (await self.get(server, bot, "/queue")).get("entry")
            out[bot] = None if entry is None else (entry["state"], entry.get("position"))
        return out

    async def open(self, server: ServerProcess) -> None:
        headers = {"Authorization": f"Bearer {self.owner.token}"}
        async with server.ask() as client:
            made = await client.put("/api/worlds", json={"title": "Hall"}, headers=headers)
            wanted = {
                "world": made.json()["data"]["id"],
                "capacity": CAPACITY,
                "tags": ["avr:public"],
            }
            made = await client.put("/api/instances", json=wanted, headers=headers)
            assert made.status_code == 200, made.text
            self.instance = made.json()["data"]["id"]

    async def fill(self, server: ServerProcess, stack: AsyncExitStack) -> None:
        """All who are inside join, and the others get in line."""
        for bot in self.inside:
            player = await stack.enter_async_context(connected(server, bot))
            self.players[bot] = (await player.join(self.instance))["player"]
        for bot in self.line:
            await stack.enter_async_context(connected(server, bot))
            assert (await self.post(server, bot, "candidate")).status_code == 200

    async def kept(self, waiting: int = WAITING) -> None:
        """Until all who are inside, and so many in line, are written."""
        async with at_the_database(self.database_url) as database:
            while True:
                rows = await database.fetch("SELECT part, revision, value FROM soft_states")
                entries = {
                    f"{self.instance}.{row['part']}": Entry(row["value"], row["revision"])
                    for row in rows
                }
                found = found_in(self.instance, entries, 2**62)
                line = () if found.frozen is None else found.frozen.candidates
                if (len(found.seats), len(line)) == (len(self.players), waiting):
                    return
                await trio.sleep(0.05)

    async def come(self, server: ServerProcess, stack: AsyncExitStack, bot: Bot) -> Player:
        """A client that was inside, or in line, and goes on with that; it does not get a seat of
        those inside."""
        player = await stack.enter_async_context(connected(server, bot))
        await self.claim(player, bot)
        return player

    async def claim(self, player: Player, bot: Bot) -> None:
        if bot in self.players:
            assert (await player.join(self.instance))["player"] == self.players[bot]
        else:
            answer = await player.ask("instance-join", {"instance": self.instance})
            assert answer["error"]["code"] == 48, answer


async def hall(database_url: str, tmp_path: Path, *options: str) -> Hall:
    where = ("--database", database_url, "--data", str(tmp_path / "data"), "--rate-limits", "off")
    made = await bots(CAPACITY + WAITING + 2, tmp_path, *where[:2])
    return Hall(
        database_url,
        (*where, "--address", "play.example.org", *options),
        made[:CAPACITY],
        made[CAPACITY:-2],
        made[-2],
        made[-1],
    )


async def killed_when_full(database_url: str, tmp_path: Path, *options: str) -> Hall:
    """A hall whose server was killed when all was written of those inside and in line."""
    place = await hall(database_url, tmp_path, *options)
    async with place.served() as server, AsyncExitStack() as stack:
        await place.open(server)
        await place.fill(server, stack)
        await place.kept()
        await kill(server)
    return place


async def kill(server: ServerProcess) -> None:
    server.process.kill()
    assert await server.ended() == -signal.SIGKILL


ORDERS = [("line", 1), ("line", 2), ("inside", 3), ("mixed", 4), ("mixed", 5), ("at once", 6)]
CASES = [
    *(("killed", *order) for order in ORDERS),
    *(("stopped", *order) for order in ORDERS if order[0] != "mixed"),
]


@pytest.mark.parametrize(("how", "order", "seed"), CASES)
async def test_a_full_instance_stays_with_those_inside(
    database_url: str, tmp_path: Path, how: str, order: str, seed: int
) -> None:
    """In whatever order clients come back: those inside are the same players, and the line is the
    same."""
    chance, place = random.Random(seed), await hall(database_url, tmp_path)
    async with place.served() as server, AsyncExitStack() as stack:
        await place.open(server)
        await place.fill(server, stack)
        line = await place.places(server)
        assert list(line.values()) == [("waiting", number) for number in (1, 2, 3)]
        if how == "killed":
            await place.kept()
            await kill(server)
        else:
            server.process.terminate()
            assert await server.ended() == 0
    async with place.served() as server, AsyncExitStack() as stack:
        held = await server.until_logged(log_events.SEATS_HELD)
        assert (held["instances"], held["seats"]) == (1, CAPACITY)
        inside, waiting = list(place.inside), [*place.line, place.late]
        chance.shuffle(inside)
        chance.shuffle(waiting)
        coming = [*waiting, *inside] if order == "line" else [*inside, *waiting]
        if order == "mixed":
            chance.shuffle(coming)
        if order == "at once":
            clients = [await stack.enter_async_context(connected(server, one)) for one in coming]
            async with trio.open_nursery() as nursery:
                for player, bot in zip(clients, coming, strict=True):
                    nursery.start_soon(place.claim, player, bot)
        else:
            for bot in coming:
                await place.come(server, stack, bot)
        assert await place.places(server) == line
        assert (await place.get(server, place.owner))["connected"] == CAPACITY


async def test_a_player_that_does_not_come_back_leaves_and_the_first_in_line_is_admitted(
    database_url: str, tmp_path: Path
) -> None:
    place = await killed_when_full(database_url, tmp_path, "--seat-grace-s", "8")
    async with place.served() as server, AsyncExitStack() as stack:
        first = await place.come(server, stack, place.line[0])
        second = await place.come(server, stack, place.line[1])
        one, two, gone = place.inside
        back = await place.come(server, stack, two)
        again = await place.come(server, stack, one)
        left = await back.event("instance-left")
        assert (left["data"]["player"], left["data"]["reason"]) == (
            place.players[gone],
            "disconnected",
        )
        assert (await again.event("instance-left"))["data"]["player"] == place.players[gone]
        admitted = await first.until(
            lambda one: (
                one.get("command") == "instance-candidate"
                and (one["data"]["entry"] or {}).get("state") == "admitted"
            )
        )
        assert admitted["subgroup"] == place.instance
        assert (await place.get(server, place.line[1], "/queue"))["entry"]["position"] == 1
        await first.join(place.instance)
        late = await stack.enter_async_context(connected(server, gone))
        answer = await late.ask("instance-join", {"instance": place.instance})
        assert answer["error"]["code"] == 48
        assert not any(
            one.get("command") == "instance-left" for one in [*back.skipped, *second.skipped]
        )


async def test_nothing_is_held_if_the_server_was_away_for_too_long(
    database_url: str, tmp_path: Path
) -> None:
    place = await killed_when_full(database_url, tmp_path)
    async with at_the_database(database_url) as database:
        await database.execute("UPDATE server_runs SET alive_at = alive_at - 660000")
    async with place.served() as server, AsyncExitStack() as stack:
        assert (await place.get(server, place.owner))["connected"] == 0
        assert set((await place.places(server)).values()) == {None}
        player = await stack.enter_async_context(connected(server, place.late))
        assert len((await player.join(place.instance))["players"]) == 1
        assert not server.events(log_events.SEATS_HELD)


async def test_what_has_changed_meanwhile_counts(database_url: str, tmp_path: Path) -> None:
    """A session was revoked, a user suspended, another one banned, and the capacity lowered."""
    place = await hall(database_url, tmp_path)
    async with place.served() as server, AsyncExitStack() as stack:
        await place.open(server)
        await place.fill(server, stack)
        ids = {}
        for bot in [*place.inside, *place.line]:
            async with server.ask() as client:
                headers = {"Authorization": f"Bearer {bot.token}"}
                mine = await client.get("/api/users/@me", headers=headers)
                ids[bot] = mine.json()["data"]["id"]
        await place.kept()
        await kill(server)
    one, two, three = place.inside
    async with at_the_database(database_url) as database:
        await database.execute(
            "UPDATE sessions SET ended_at = created_at WHERE user_id = $1", ids[one]
        )
        await database.execute(
            "UPDATE users SET tags = array_append(tags, 'avr:disabled') WHERE id = $1",
            ids[place.line[0]],
        )
        await database.execute(
            "INSERT INTO bans (instance_id, user_ref, by_ref, created_at) VALUES ($1, $2, $3, 0)",
            place.instance,
            ids[place.line[1]],
            ids[two],
        )
        await database.execute("UPDATE instances SET capacity = 1 WHERE id = $1", place.instance)
    async with place.served() as server, AsyncExitStack() as stack:
        held = await server.until_logged(log_events.SEATS_HELD)
        assert held["seats"] == 2

        async def seated() -> bool:
            return bool((await place.get(server, place.owner))["connected"] == 1)

        await eventually(seated)
        await place.come(server, stack, two)
        late = await stack.enter_async_context(connected(server, three))
        answer = await late.ask("instance-join", {"instance": place.instance})
        assert answer["error"]["code"] == 48
        entry = (await place.get(server, place.line[2], "/queue"))["entry"]
        assert (entry["state"], entry["position"]) == ("waiting", 1)


async def test_a_slow_database_delays_nobody_and_the_next_run_holds_what_was_written(
    database_url: str, tmp_path: Path
) -> None:
    """The table is locked: nothing can be kept while the last players come and go."""
    place = await hall(database_url, tmp_path)
    async with (
        at_the_database(database_url) as database,
        place.served() as server,
        AsyncExitStack() as stack,
    ):
        await place.open(server)
        first, second, third = place.inside
        player = await stack.enter_async_context(connected(server, first))
        place.players[first] = (await player.join(place.instance))["player"]
        await place.kept(waiting=0)
        async with database.transaction() as transaction:
            await transaction.execute("LOCK TABLE soft_states IN ACCESS EXCLUSIVE MODE")
            for bot in (second, third):
                other = await stack.enter_async_context(connected(server, bot))
                begun = trio.current_time()
                await other.join(place.instance)
                assert trio.current_time() - begun < PATIENCE_S / 4
            await kill(server)
    async with place.served() as server, AsyncExitStack() as stack:
        assert (await server.until_logged(log_events.SEATS_HELD))["seats"] == 1
        for bot in (third, second):
            other = await stack.enter_async_context(connected(server, bot))
            await other.join(place.instance)
        late = await stack.enter_async_context(connected(server, place.late))
        answer = await late.ask("instance-join", {"instance": place.instance})
        assert answer["error"]["code"] == 48
        await place.come(server, stack, first)


async def test_a_session_that_is_revoked_while_its_seat_is_held_loses_it(
    database_url: str, tmp_path: Path
) -> None:
    place = await killed_when_full(database_url, tmp_path, "--seat-grace-s", "60")
    async with place.served() as server, AsyncExitStack() as stack:
        back = await place.come(server, stack, place.inside[0])
        async with server.ask() as client:
            headers = {"Authorization": f"Bearer {place.inside[1].token}"}
            ended = await client.delete("/api/auth/logout", headers=headers)
            assert ended.status_code == 200, ended.text
        left = await back.event("instance-left")
        assert left["data"]["player"] == place.players[place.inside[1]]
