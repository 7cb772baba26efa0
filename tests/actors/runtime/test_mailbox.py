from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Recipient
from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.mailbox import Envelope, Mailbox
from actors.runtime.trace import Span, Traced
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


def words(batch: list[Envelope[str]]) -> list[str]:
    return [envelope.message for envelope in batch]


async def test_all_that_waits_is_taken_at_once_in_order() -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    mailbox.put("a")
    mailbox.put_signal("b")
    mailbox.put("c")
    assert len(mailbox) == 3
    batch = await mailbox.take()
    assert words(batch) == ["a", "b", "c"]
    assert [envelope.signal for envelope in batch] == [False, True, False]
    assert batch[0].id < batch[1].id < batch[2].id
    assert len(mailbox) == 0


async def test_taking_waits_for_the_first_message(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    taken: list[list[str]] = []

    async def reader() -> None:
        taken.append(words(await mailbox.take()))

    nursery.start_soon(reader)
    await wait_all_tasks_blocked()
    assert taken == []
    # Both before the reader has its turn: the second wake must find nobody to wake.
    mailbox.put("a")
    mailbox.put("b")
    await wait_all_tasks_blocked()
    assert taken == [["a", "b"]]


async def test_a_full_mailbox_refuses_and_loses_nothing_else() -> None:
    refusals = Refusals()
    mailbox: Mailbox[str] = Mailbox(2, "probe", refusals)
    mailbox.put("a")
    mailbox.put("b")
    with pytest.raises(MailboxFull):
        mailbox.put("c")
    assert refusals.kinds == ["probe"]
    assert mailbox.put_signal("s")
    assert words(await mailbox.take()) == ["a", "b", "s"]
    mailbox.put("d")
    assert words(await mailbox.take()) == ["d"]


async def test_signals_take_no_room_from_messages_already_refused() -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    for number in range(5):
        assert mailbox.put_signal(str(number))
    with pytest.raises(MailboxFull):
        mailbox.put("a")
    assert len(await mailbox.take()) == 5


async def test_a_draining_mailbox_takes_signals_alone() -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    mailbox.put("a")
    mailbox.drain()
    with pytest.raises(ActorStopped):
        mailbox.put("b")
    assert mailbox.put_signal("s")
    assert words(await mailbox.take()) == ["a", "s"]
    assert await mailbox.take() == []


async def test_draining_wakes_the_reader(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    taken: list[list[str]] = []

    async def reader() -> None:
        taken.append(words(await mailbox.take()))

    nursery.start_soon(reader)
    await wait_all_tasks_blocked()
    mailbox.drain()
    await wait_all_tasks_blocked()
    assert taken == [[]]


async def test_draining_waits_while_results_are_awaited(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    mailbox.awaited = 1
    mailbox.drain()
    taken: list[list[str]] = []

    async def reader() -> None:
        taken.append(words(await mailbox.take()))

    nursery.start_soon(reader)
    await wait_all_tasks_blocked()
    assert taken == []
    mailbox.put_signal("result", own=True)
    await wait_all_tasks_blocked()
    assert taken == [["result"]]


async def test_taking_is_a_checkpoint_whatever_waits() -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    mailbox.put("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.take()
    assert scope.cancelled_caught
    assert len(mailbox) == 1
    await mailbox.take()
    mailbox.drain()
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.take()
    assert scope.cancelled_caught


async def test_a_cancelled_reader_leaves_the_mailbox_good(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    with trio.CancelScope() as scope:
        nursery.start_soon(_cancel_when_blocked, scope)
        await mailbox.take()
    assert scope.cancelled_caught
    mailbox.put("a")
    assert words(await mailbox.take()) == ["a"]


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_closed_takes_not_even_signals() -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    mailbox.put("a")
    mailbox.put_signal("s")
    assert words(mailbox.close()) == ["a", "s"]
    assert mailbox.closed
    assert not mailbox.put_signal("t")
    with pytest.raises(ActorStopped):
        mailbox.put("b")
    assert len(mailbox) == 0


async def test_signals_of_others_are_kept_and_come_before_later_ones() -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    mailbox.put_signal("first")
    failed = await mailbox.take()
    mailbox.put("a")
    mailbox.put_signal("second")
    mailbox.put_signal("tick", own=True)
    assert words(mailbox.keep_signals()) == ["a"]
    mailbox.requeue(failed)
    assert words(await mailbox.take()) == ["first", "second"]


async def test_an_envelope_belongs_to_the_trace_it_was_sent_in() -> None:
    mailbox: Mailbox[str] = Mailbox(10)
    with Traced(Span(7, sampled=True, id=3)):
        mailbox.put("a")
    mailbox.put("b")
    inside, outside = await mailbox.take()
    assert (inside.trace, inside.sampled, inside.cause) == (7, True, 3)
    assert (outside.trace, outside.sampled, outside.cause) == (0, False, 0)


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
