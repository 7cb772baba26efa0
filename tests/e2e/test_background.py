"""Faults of the database under the background tasks of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clients import connected
from tests.e2e.operator import at_the_database
from tests.e2e.processes import bots, eventually, new_instance, serving

pytestmark = pytest.mark.slow


async def test_a_database_error_in_a_background_task_ends_nothing(
    database_url: str, tmp_path: Path
) -> None:
    """Tables that background tasks use are taken away, and given back."""
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    tables = ("leases", "changes")
    (ada,) = await bots(1, tmp_path, *where[:2])
    async with (
        serving(*where, "--away-s", "0.2") as served,
        at_the_database(database_url) as database,
        served.ask() as client,
    ):
        place = await new_instance(served, ada)

        async def failing() -> str:
            answer = await client.get("/readyz")
            return answer.text if answer.status_code == 503 else ""

        async with connected(served, ada) as player:
            await player.join(place)
            for table in tables:
                await database.execute(f"ALTER TABLE {table} RENAME TO lost_{table}")

            async def named() -> bool:
                text = await failing()
                return all(table in text for table in tables)

            await eventually(named)
            metrics = (await client.get("/metrics")).text
            assert 'reileta_background_failing{task="leases"} 1.0' in metrics
            assert 'reileta_background_failing{task="sweep"} 0.0' in metrics
            assert (await client.get("/healthz")).status_code == 200
            assert (await player.ask("ping"))["command"] == "ping"
            crashed = await served.until_logged("task.crashed")
            assert crashed["task"] in tables
            for table in tables:
                await database.execute(f"ALTER TABLE lost_{table} RENAME TO {table}")

            async def ready() -> bool:
                return (await client.get("/readyz")).is_success

            await eventually(ready)
            assert (await player.ask("ping"))["command"] == "ping"
        assert served.process.poll() is None
