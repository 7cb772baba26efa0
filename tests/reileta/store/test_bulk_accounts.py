from __future__ import annotations

import re
from typing import cast

import pytest

from reileta.security import credentials
from reileta.store import bulk_accounts
from reileta.store.database import Database


class Recorder:
    """In the place of a database: keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def execute(self, sql: str, *args: object) -> int:
        highest = max(int(number) for number in re.findall(r"\$(\d+)", sql))
        assert highest == len(args)
        self.asked.append(args)
        return 0


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (5_000, [5_000]), (5_001, [5_000, 1])])
async def test_many_accounts_take_few_statements(count: int, sizes: list[int]) -> None:
    recorder = Recorder()
    tokens = await bulk_accounts.create(cast(Database, recorder), count=count, now_ms=1)
    assert len(set(tokens)) == count
    assert [len(cast(list[str], asked[0])) for asked in recorder.asked] == sizes


async def test_names_go_on_over_statements_and_runs_do_not_meet() -> None:
    names: list[str] = []
    for _ in range(2):
        recorder = Recorder()
        await bulk_accounts.create(cast(Database, recorder), count=5_002, now_ms=1)
        names += [name for asked in recorder.asked for name in cast(list[str], asked[1])]
    assert len(set(names)) == 2 * 5_002
    assert names[5_001].endswith("_5002")


async def test_only_digests_of_tokens_are_kept_and_they_live_for_a_year() -> None:
    recorder = Recorder()
    (token,) = await bulk_accounts.create(cast(Database, recorder), count=1, now_ms=1_000)
    ((*_, hashes, created, expires, autopilot, _batch),) = recorder.asked
    assert autopilot is False
    assert hashes == [credentials.digest(token)]
    assert (created, expires) == (1_000, 1_000 + bulk_accounts.LIFETIME_MS)
    assert token not in str(recorder.asked)


async def test_they_can_be_autopilots() -> None:
    recorder = Recorder()
    await bulk_accounts.create(cast(Database, recorder), count=1, now_ms=1, autopilot=True)
    ((*_, autopilot, _batch),) = recorder.asked
    assert autopilot is True
