from __future__ import annotations

import threading
import time
from typing import Literal

import pytest
import trio
from argon2 import PasswordHasher
from trio.testing import wait_all_tasks_blocked

from reileta.errors import Overloaded
from reileta.security import passwords
from reileta.security.passwords import Passwords, default_hasher


def quick() -> PasswordHasher:
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class GatedHasher(PasswordHasher):
    """Counts how many hashes run at once, and holds them until the gate opens."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.gate = threading.Event()
        self.gate.set()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(10)
        try:
            return super().hash(password, salt=salt)
        finally:
            with self._lock:
                self.running -= 1


async def test_a_password_is_verified_against_its_hash() -> None:
    it = Passwords(quick())
    hash_ = await it.hash("correct horse")
    assert hash_.startswith("$argon2id$")
    assert "correct horse" not in hash_
    assert await it.verify(hash_, "correct horse")
    assert not await it.verify(hash_, "correct horsf")


async def test_equal_passwords_have_different_hashes() -> None:
    it = Passwords(quick())
    assert await it.hash("same") != await it.hash("same")


async def test_no_password_fits_an_account_without_one() -> None:
    assert not await Passwords(quick()).verify(None, "anything")


async def test_an_unknown_account_costs_a_hash_like_a_known_one() -> None:
    verified: list[str] = []

    class Recorder(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            verified.append(str(hash))
            return super().verify(hash, password)

    it = Passwords(Recorder(time_cost=1, memory_cost=8, parallelism=1))
    known = await it.hash("x")
    await it.verify(known, "y")
    await it.verify(None, "y")
    parameters = [text.rsplit("$", 2)[0] for text in verified]
    assert len(parameters) == 2
    assert parameters[0] == parameters[1]


async def test_a_broken_hash_fits_nothing() -> None:
    assert not await Passwords(quick()).verify("no hash at all", "x")


@pytest.mark.parametrize("password", ["\ud800", "\x00", "é" * 300, ""])
async def test_any_text_is_a_password(password: str) -> None:
    it = Passwords(quick())
    assert await it.verify(await it.hash(password), password)


def test_the_usual_hash_takes_one_lane() -> None:
    hasher = default_hasher()
    assert hasher.parallelism == 1
    assert hasher.memory_cost >= 19 * 1024
    assert hasher.type.name == "ID"


async def test_no_more_hashes_run_at_once_than_there_are_cores() -> None:
    hasher = GatedHasher()
    it = Passwords(hasher, cores=2)
    hasher.gate.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(it.hash, "x")
        await wait_all_tasks_blocked()
        while hasher.running < 2:  # threads have begun, but may not have come this far
            time.sleep(0.001)
        hasher.gate.set()
    assert hasher.most == 2


async def test_when_too_many_wait_the_next_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_LIMIT", 3)
    hasher = GatedHasher()
    it = Passwords(hasher, cores=1)
    hasher.gate.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(it.hash, "x")
        await wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await it.hash("x")
        hasher.gate.set()
    assert await it.hash("x")
