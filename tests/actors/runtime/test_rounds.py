"""Rounds: messages that an idle actor handles at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Actor, Restart, Spec
from actors.runtime.errors import ActorStopped
from actors.runtime.mailbox import Ref
from actors.runtime.rounds import Rounds
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timers
from actors.runtime.trace import Span, Traced
from tests.actors.probe import Boom, Note


class Book:
    """What an actor did, over all its incarnations."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.drains: list[list[str]] = []
        self.failed: list[str] = []
        self.rest_s = 0.0
        self.again = 0
        """So many of the next flushes ask for another flush."""
        self.wake: Callable[[], None] = lambda: None
        """Wakes the actor's task without a message."""


class Writer(Actor[Note]):
    """Writes each word down at once, except those that must wait; flushes may take a rest."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._words: list[str] = []

    async def on_start(self) -> None:
        self._book.wake = self.context.mailbox.poke  # type: ignore[attr-defined]

    def receive_now(self, message: Note) -> bool:
        if message.word == "later":
            return False
        self._write(message.word)
        return True

    async def receive(self, message: Note) -> None:
        self._write(f"({message.word})")

    def _write(self, word: str) -> None:
        if "bad" in word:
            raise Boom
        self._book.words.append(word)
        self._words.append(word)

    async def flush(self) -> None:
        self.flush_now()

    def flush_now(self) -> None:
        words, self._words = self._words, []
        self._book.drains.append(words)
        if "crash" in words:
            raise Boom
        again, self._book.again = self._book.again > 0, max(0, self._book.again - 1)
        if self._book.rest_s or again:
            self.context.rest(self._book.rest_s, again=again)

    def on_crash(self, message: Note) -> None:
        self._book.failed.append(message.word)


@pytest.fixture(autouse=True)
def level_info() -> Iterator[None]:
    """At level debug every message is logged, so none is handled at once."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(wrapper_class=before)


@asynccontextmanager
async def writing() -> AsyncIterator[tuple[Ref[Note], Rounds, Book]]:
    book, rounds = Book(), Rounds()
    async with Supervisor.open("root", Timers()) as supervisor:
        restart = Restart(backoff_s=0.1)
        spec: Spec[Note] = Spec("writer", lambda: Writer(book), restart, rounds=rounds)
        ref = await supervisor.start(spec)
        await wait_all_tasks_blocked()
        yield ref, rounds, book


def tell(ref: Ref[Note], rounds: Rounds, *words: str) -> float | None:
    """A round with these words."""
    rounds.begin(trio.current_time())
    for word in words:
        ref.tell_now(Note(word))
    return rounds.end()


async def test_an_idle_actor_handles_a_round_at_once_and_flushes_once(
    autojump_clock: MockClock,
) -> None:
    async with writing() as (ref, rounds, book):
        assert tell(ref, rounds, "one", "two") is None
        assert book.drains == [["one", "two"]]
        tell(ref, rounds)
        await wait_all_tasks_blocked()
        assert book.drains == [["one", "two"]]


async def test_outside_of_a_round_messages_wait_in_the_mailbox(autojump_clock: MockClock) -> None:
    async with writing() as (ref, _, book):
        ref.tell_now(Note("one"))
        assert not book.words
        await wait_all_tasks_blocked()
        assert book.words == ["(one)"]


async def test_messages_keep_their_order_behind_one_that_waits(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        tell(ref, rounds, "one", "later", "two")
        assert book.words == ["one"]
        assert not book.drains  # the drain writes all of them at once
        await wait_all_tasks_blocked()
        assert book.drains == [["one", "(later)", "(two)"]]


async def test_messages_whose_traces_are_logged_wait(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        with Traced(Span(7, True)):
            tell(ref, rounds, "one")
        await wait_all_tasks_blocked()
        assert book.words == ["(one)"]


async def test_a_message_that_fails_crashes_the_actor_alone(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        with capture_logs() as logs:
            tell(ref, rounds, "one", "bad", "two")
            assert book.words == ["one"]
            await wait_all_tasks_blocked()
        assert book.failed == ["bad"]
        (crash,) = [log for log in logs if log["event"] == "actor.crashed"]
        assert [line.split()[0] for line in crash["last_messages"]] == ["Note", "Note"]
        assert crash["dropped"] == 1
        await trio.sleep(1)
        tell(ref, rounds, "three")
        assert book.words == ["one", "three"]


async def test_a_flush_that_fails_crashes_the_actor(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        with capture_logs() as logs:
            tell(ref, rounds, "crash")
            await wait_all_tasks_blocked()
        assert [log["event"] for log in logs].count("actor.crashed") == 1
        assert not book.failed
        await trio.sleep(1)
        tell(ref, rounds, "two")
        assert book.drains == [["crash"], ["two"]]


async def test_an_actor_that_rests_flushes_when_its_rest_is_over(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        book.rest_s = 1.0
        assert tell(ref, rounds, "one") is None
        due = tell(ref, rounds, "two")
        assert due == pytest.approx(trio.current_time() + 1)
        await trio.sleep(0.5)
        assert tell(ref, rounds, "three") == due
        assert book.drains == [["one"]]
        await trio.sleep(0.5)
        assert tell(ref, rounds) is None
        assert book.drains == [["one"], ["two", "three"]]


@pytest.mark.parametrize("waits", [True, False])
async def test_an_actor_that_is_drained_flushes_before_it_ends(
    autojump_clock: MockClock, waits: bool
) -> None:
    async with writing() as (ref, rounds, book):
        book.rest_s = 1.0
        tell(ref, rounds, "one")
        tell(ref, rounds, "two", *(["later"] if waits else []))
        ref.drain()
        rounds.begin(trio.current_time())
        with pytest.raises(ActorStopped):
            ref.tell_now(Note("three"))
        rounds.end()
        await ref.wait_stopped()
        assert book.drains == [["one"], ["two", *(["(later)"] if waits else [])]]
        tell(ref, rounds)  # what was due there does nothing any more


async def test_a_rest_that_ends_while_the_actor_is_woken_is_not_forgotten(
    autojump_clock: MockClock,
) -> None:
    """Work of an actor wakes its task, also when no message came."""
    async with writing() as (ref, rounds, book):
        book.rest_s = 1.0
        tell(ref, rounds, "one")
        tell(ref, rounds, "two")
        await trio.sleep(1)
        book.wake()
        tell(ref, rounds)
        await wait_all_tasks_blocked()
        assert book.drains == [["one"], ["two"]]


@pytest.mark.parametrize("rest_s", [0.0, 0.5])
async def test_an_actor_that_has_more_to_write_flushes_again_after_its_rest(
    autojump_clock: MockClock, rest_s: float
) -> None:
    async with writing() as (ref, rounds, book):
        book.rest_s, book.again = rest_s, 2
        assert tell(ref, rounds, "one") == trio.current_time() + rest_s
        await trio.sleep(rest_s)
        assert tell(ref, rounds) == trio.current_time() + rest_s
        await trio.sleep(rest_s)
        assert tell(ref, rounds) is None
        assert book.drains == [["one"], [], []]


async def test_a_drain_writes_what_waits_for_the_end_of_a_rest(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        book.rest_s, book.again = 5.0, 1
        tell(ref, rounds, "one")
        ref.tell(Note("two"))
        await wait_all_tasks_blocked()
        assert book.drains == [["one"], ["(two)"]]
        await trio.sleep(6)
        tell(ref, rounds)
        assert book.drains == [["one"], ["(two)"]]


async def test_an_actor_that_stops_writes_the_rest_before(autojump_clock: MockClock) -> None:
    async with writing() as (ref, rounds, book):
        book.rest_s, book.again = 5.0, 1
        tell(ref, rounds, "one")
        ref.drain()
        await ref.wait_stopped()
        assert book.drains == [["one"], []]
