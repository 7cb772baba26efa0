"""Lists and searches in a large registry: 100,000 users and 10,000 worlds.

    python -m benchmarks.registry [--users 100000] [--worlds 10000] [--seconds 2]

Starts a server of its own on a database that it fills first. Over one connection, it requests pages
at the beginning and in the middle, names that exist and that don't, and rare and frequent words.
"""

from __future__ import annotations

import http.client
import random
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
import trio
import typer

from benchmarks import worker
from benchmarks.errors import BenchmarkError
from benchmarks.machine import cores
from benchmarks.servers import REILETA, Running, Servers
from benchmarks.stats import Latency
from reileta.clock import SystemClock
from reileta.settings import Settings
from reileta.store import Store, open_store

WORDS: Final = [
    "harbour", "dusk", "forest", "winter", "glass", "engine", "river", "lantern", "meadow",
    "copper", "violet", "orbit", "signal", "marble", "thunder", "velvet", "canyon", "ember",
    "willow", "cobalt",
]  # fmt: skip
SEED: Final = 7


class Asked(msgspec.Struct, frozen=True):
    what: str
    found: int
    latency: Latency | None


class RegistryResult(msgspec.Struct, frozen=True):
    users: int
    worlds: int
    asked: list[Asked]


_USERS: Final = """
INSERT INTO users (id, username, displayname, description, created_at, updated_at)
SELECT 'u_' || gen_random_uuid(), 'user_' || n,
       initcap(($2::text[])[1 + n % 20]) || ' ' || n,
       CASE WHEN n % 3 = 0
            THEN 'Likes ' || ($2::text[])[1 + (n / 7) % 20] || ' and ' || md5(n::text) END, n, n
FROM generate_series(1, $1::integer) AS n
"""
_WORLDS: Final = """
INSERT INTO worlds (id, title, description, capacity, owner, tags, created_at, updated_at)
SELECT 'w_' || gen_random_uuid(),
       initcap(($2::text[])[1 + n % 20]) || ' ' || ($2::text[])[1 + (n / 20) % 20] || ' ' || n,
       'A place of ' || ($2::text[])[1 + (n / 3) % 20] || ', ' || md5(n::text), 32,
       (SELECT id FROM users WHERE lower(username) = 'user_' || (1 + n % 1000)),
       CASE WHEN n % 50 = 0 THEN ARRAY['avr:private'] WHEN n % 100 = 1
            THEN ARRAY['avr:official', 'avr:public'] ELSE ARRAY['avr:public'] END, n, n
FROM generate_series(1, $1::integer) AS n
"""


async def fill(store: Store, users: int, worlds: int) -> None:
    """Inserts users and worlds in a few statements, and updates the statistics."""
    step = 10_000  # a statement has a time limit of ten seconds
    for first in range(0, users, step):
        count = min(step, users - first)
        shifted = _USERS.replace("generate_series(1", f"generate_series({first + 1}").replace(
            "$1::integer", f"{first} + $1::integer"
        )
        await store.database.execute(shifted, count, WORDS)
    await store.database.execute(_WORLDS, worlds, WORDS)
    for table in ("users", "worlds"):
        await store.database.execute(f"ANALYZE {table}")


def questions(users: int, worlds: int) -> dict[str, Callable[[random.Random], str]]:
    """A request: a path, made anew each time."""
    return {
        "users, the first page": lambda _: "/api/users",
        "users, a page in the middle": lambda dice: f"/api/users?offset={dice.randrange(users)}",
        "users, by a whole name": lambda dice: f"/api/users?query=user_{dice.randrange(users)}",
        "users, by a rare word": lambda dice: f"/api/users?query={dice.randbytes(4).hex()[:7]}",
        "users, by a common word": lambda dice: f"/api/users?query={dice.choice(WORDS)}",
        "users, by what all have": lambda _: "/api/users?query=user_",
        "users, by two letters": lambda dice: f"/api/users?query={dice.choice('abcdef')}x",
        "worlds, the first page": lambda _: "/api/worlds",
        "worlds, a page in the middle": lambda dice: f"/api/worlds?offset={dice.randrange(worlds)}",
        "worlds, by two words": lambda dice: (
            "/api/worlds?query=" + quote(f"{dice.choice(WORDS)} {dice.choice(WORDS)}")
        ),
        "worlds, by a common word": lambda dice: f"/api/worlds?query={dice.choice(WORDS)}",
        "worlds, by owner": lambda dice: f"/api/worlds?owner=user_{1 + dice.randrange(1000)}",
        "worlds, by a rare tag": lambda _: "/api/worlds?tag=avr:official",
        "a user by its name": lambda dice: f"/api/users/user_{1 + dice.randrange(users)}",
    }


def ask(running: Running, path: Callable[[random.Random], str], seconds: float) -> Asked:
    """Sends one kind of request for that long."""
    dice, found, latency_ns = random.Random(SEED), 0, array("q")
    connection = http.client.HTTPConnection(running.url.split("/")[2], timeout=60)
    end = time.monotonic() + seconds
    warm = 3
    while time.monotonic() < end or not latency_ns:
        asked = path(dice)
        began_ns = time.monotonic_ns()
        connection.request("GET", asked)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"{asked}: {answer.status} {body[:200]!r}")
        if warm:
            warm -= 1
        else:
            latency_ns.append(time.monotonic_ns() - began_ns)
        found = max(found, msgspec.json.decode(body)["data"].get("total", 1))
    connection.close()
    return Asked("", found, Latency.of(latency_ns))


def measure(
    folder: Path, users: int, worlds: int, seconds: float, progress: worker.Share
) -> RegistryResult:
    pair = cores()
    servers = Servers(folder, pair[0] if pair else None)

    async def prepare() -> None:
        async with open_store(Settings(data=folder / "data"), SystemClock()) as store:
            await fill(store, users, worlds)

    (folder / "data").mkdir()
    trio.run(prepare)
    progress(0.3)
    asked = []
    with servers.run(REILETA) as running:
        kinds = questions(users, worlds)
        for number, (what, path) in enumerate(kinds.items()):
            asked.append(msgspec.structs.replace(ask(running, path, seconds), what=what))
            progress(0.3 + 0.7 * (number + 1) / len(kinds))
    return RegistryResult(users, worlds, asked)


def main(
    users: Annotated[int, typer.Option(min=1000)] = 100_000,
    worlds: Annotated[int, typer.Option(min=1000)] = 10_000,
    seconds: worker.Seconds = 2,
    json: worker.Json = False,
) -> None:
    """Lists and searches in a large registry, on a server that is started for it."""

    def job(progress: worker.Share) -> RegistryResult:
        with tempfile.TemporaryDirectory(prefix="reileta-bench-") as place:
            Path(place).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
            return measure(Path(place), users, worlds, seconds, progress)

    worker.work(f"{users} users and {worlds} worlds", job, as_json=json)


if __name__ == "__main__":
    typer.run(main)
