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
from reileta.security.passwords import Passwords, Requester, default_hasher
from tests.conftest import PATIENCE_S


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


class HashQueue:
    """Hashes that wait for one core, which the first holds until `served`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.hasher = GatedHasher()
        self.passwords = Passwords(self.hasher, cores=1)  # makes a hash itself
        self.hasher.gate.clear()
        self.order: list[str] = []
        self.sent_away: list[str] = []
        self._nursery = nursery

    async def ask(self, name: str, network: str = "", *, known: bool = False) -> None:
        """Has a hash made for someone; it waits."""

        async def wait() -> None:
            try:
                await self.passwords.hash("x", Requester(network, known))
            except Overloaded:
                self.sent_away.append(name)
            else:
                self.order.append(name)

        self._nursery.start_soon(wait)
        await wait_all_tasks_blocked()

    async def served(self) -> list[str]:
        """In which order the others had their turn."""
        self.hasher.gate.set()
        while self._nursery.child_tasks:
            await trio.sleep(0)
        return self.order[1:]


async def test_when_too_many_wait_the_next_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_LIMIT", 3)
    async with trio.open_nursery() as nursery:
        line = HashQueue(nursery)
        for _ in range(4):
            await line.ask("early")
        await line.ask("late")
        assert line.sent_away == ["late"]
        await line.served()
    assert await line.passwords.hash("x")


async def test_networks_take_turns() -> None:
    async with trio.open_nursery() as nursery:
        line = HashQueue(nursery)
        for name in ("first", "a1", "a2", "a3", "b1"):
            await line.ask(name, name[0])
        assert await line.served() == ["a1", "b1", "a2", "a3"]


async def test_the_known_have_every_other_turn_however_many_strangers_wait() -> None:
    async with trio.open_nursery() as nursery:
        line = HashQueue(nursery)
        await line.ask("first")
        for one in range(4):
            await line.ask(f"s{one}", f"stranger {one}")
        for one in range(3):
            await line.ask(f"k{one}", "home", known=True)
        assert await line.served() == ["k0", "s0", "k1", "s1", "k2", "s2", "s3"]


@pytest.mark.parametrize("networks", [1, 37, 400])
async def test_strangers_take_no_place_of_the_known(
    monkeypatch: pytest.MonkeyPatch, networks: int
) -> None:
    monkeypatch.setattr(passwords, "WAITING_LIMIT", 8)
    monkeypatch.setattr(passwords, "NETWORK_LIMIT", 4)
    async with trio.open_nursery() as nursery:
        line = HashQueue(nursery)
        await line.ask("first")
        for one in range(40):
            await line.ask("s", f"stranger {one % networks}")
        await line.ask("ada", "home", known=True)
        assert "ada" not in line.sent_away
        assert (await line.served())[0] == "ada"


async def test_a_newcomer_takes_the_place_of_a_network_that_has_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords, "WAITING_LIMIT", 4)
    async with trio.open_nursery() as nursery:
        line = HashQueue(nursery)
        for name in ("first", "a1", "a2", "a3", "a4", "b1"):
            await line.ask(name, name[0])
        assert line.sent_away == ["a4"]
        assert await line.served() == ["a1", "b1", "a2", "a3"]


async def test_who_goes_away_leaves_the_core_to_the_next() -> None:
    hasher = GatedHasher()
    it = Passwords(hasher, cores=1)
    hasher.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.hash, "x")
        await wait_all_tasks_blocked()
        for _ in range(3):
            with trio.move_on_after(0):
                await it.hash("x", Requester("a"))
        hasher.gate.set()
    with trio.fail_after(PATIENCE_S):
        assert await it.hash("x")


async def test_who_goes_away_when_it_is_called_leaves_the_core_to_the_next() -> None:
    hasher = GatedHasher()
    it = Passwords(hasher, cores=1)
    scope = trio.CancelScope()
    hashed: list[str] = []

    async def first() -> None:
        await it.hash("x")
        scope.cancel()  # the core is the second one's by now

    async def second() -> None:
        with scope:
            await it.hash("x")

    async def third() -> None:
        hashed.append(await it.hash("x"))

    hasher.gate.clear()
    async with trio.open_nursery() as nursery:
        for one in (first, second, third):
            nursery.start_soon(one)
            await wait_all_tasks_blocked()
        hasher.gate.set()
    assert len(hashed) == 1


@pytest.mark.parametrize(("one", "other"), [("Zoë", "Zoe\u0308"), ("a b", "a\u00a0b")])
async def test_a_password_fits_however_a_keyboard_sends_it(one: str, other: str) -> None:
    it = Passwords(quick())
    assert await it.verify(await it.hash(one), other)
    assert await it.verify(await it.hash(other), one)
    assert not await it.verify(await it.hash(one), "Zoe")


@pytest.mark.parametrize("password", ["Zoe\u0308", "a\u00a0b", "\ttab", "👩\u200d🚀", "\ufb01"])
async def test_a_hash_of_a_password_as_it_was_sent_stays_valid(password: str) -> None:
    it = Passwords(quick())
    old = quick().hash(password.encode())
    assert await it.verify(old, password)
    assert not await it.verify(old, password + "x")
