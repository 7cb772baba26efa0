from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Recipient
from actors.runtime.errors import ActorStopped, MailboxFull
from tests.actors.probe import (
    Do,
    Echo,
    Note,
    Outcomes,
    ProbeLog,
    Refusals,
    crash,
    hang,
    open_supervisor,
)


async def test_a_full_actor_refuses_tells_and_asks_and_loses_nothing_else(
    nursery: trio.Nursery,
) -> None:
    journal, refusals, go = ProbeLog(), Refusals(), trio.Event()
    outcomes = Outcomes(nursery)
    async with open_supervisor(refusals) as harness:
        ref = await harness.start(journal, mailbox_limit=3)
        ref.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()
        ref.tell(Note("1"))
        outcomes.ask("2", lambda: ref.ask(Echo("2")))
        await wait_all_tasks_blocked()
        ref.tell(Note("3"))
        assert ref.depth == 3
        with pytest.raises(MailboxFull):
            ref.tell(Note("refused"))
        with pytest.raises(MailboxFull):
            await ref.ask(Echo("refused"))
        assert ref.signal(Note("4"))
        assert refusals.kinds == ["probe", "probe"]
        go.set()
        await wait_all_tasks_blocked()
        ref.tell(Note("5"))
        await wait_all_tasks_blocked()
    assert journal.words == ["1", "2", "3", "4", "5"]
    assert outcomes.ended == {"2": "2"}


async def test_a_ref_stays_good_through_restarts(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        ref = await harness.start(journal)
        ref.tell(Do(crash))
        await wait_all_tasks_blocked()
        # In the back-off: it waits for the next incarnation.
        ref.tell(Note("meanwhile"))
        assert await ref.ask(Echo("anew")) == "anew"
        assert not ref.stopped
    assert journal.words == ["meanwhile", "anew"]
    assert journal.starts == 2


async def test_a_stopped_actor_says_so() -> None:
    async with open_supervisor() as harness:
        ref = await harness.start()
        ref.drain()
        ref.drain()
        await ref.wait_stopped()
        assert ref.stopped
        with pytest.raises(ActorStopped):
            ref.tell(Note("a"))
        with pytest.raises(ActorStopped):
            await ref.ask(Echo("a"))
        assert ref.signal(Note("a")) is False
        await ref.wait_stopped()


async def test_asks_of_many_are_answered_each_with_its_own(nursery: trio.Nursery) -> None:
    outcomes = Outcomes(nursery)
    async with open_supervisor() as harness:
        ref = await harness.start()
        for number in range(200):
            outcomes.ask(str(number), lambda number=number: ref.ask(Echo(str(number))))  # type: ignore[misc]
        await wait_all_tasks_blocked()
    assert outcomes.ended == {str(number): str(number) for number in range(200)}


async def test_telling_and_signalling_never_wait() -> None:
    async with open_supervisor(shutdown_s=0) as harness:
        ref = await harness.start()
        with trio.CancelScope() as scope:
            scope.cancel()
            ref.tell(Do(hang))
            ref.signal(Note("a"))
            ref.drain()
        assert not scope.cancelled_caught


async def test_a_ref_shows_its_name_and_nothing_else() -> None:
    async with open_supervisor() as harness:
        ref = await harness.start(name="probe/7")
        assert ref.name == "probe/7"
        assert repr(ref) == "<Ref probe/7>"


async def test_a_sender_may_take_any_recipient_of_what_it_sends() -> None:
    journal, other = ProbeLog(), ProbeLog()

    def note(to: Recipient[Note], word: str) -> None:
        to.tell(Note(word))
        assert to.signal(Note(f"{word}!"))

    async with open_supervisor() as harness:
        note(await harness.start(journal), "a")
        note(await harness.start(other, name="probe/2"), "b")
        await wait_all_tasks_blocked()
    assert (journal.words, other.words) == (["a", "a!"], ["b", "b!"])
