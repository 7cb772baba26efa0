from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.actor import Restart, Spec
from actors.runtime.errors import ActorStopped
from actors.runtime.mailbox import Ref
from actors.runtime.registry import Registry
from tests.actors.probe import (
    Ask,
    Boom,
    Do,
    Echo,
    Note,
    Outcomes,
    Probe,
    ProbeLog,
    ProbeMessage,
    SupervisorHarness,
    crash,
    hang,
    open_supervisor,
)


class Keyed:
    """A registry of probes that all keep one journal."""

    def __init__(self, harness: SupervisorHarness, journal: ProbeLog) -> None:
        self.harness = harness
        self.journal = journal
        self.registry: Registry[str, ProbeMessage] = Registry(harness.supervisor)

    def spec(self, key: str = "1") -> Spec[ProbeMessage]:
        return self.harness.spec(self.journal, name=f"probe/{key}", restart=Restart(intensity=1))

    async def get(self, key: str = "1") -> Ref[ProbeMessage]:
        return await self.registry.get(key, lambda: self.spec(key))

    async def hello(self, key: str = "1") -> str:
        """Gets the actor, and its answer."""
        return await (await self.get(key)).ask(Echo(key))


async def test_many_at_the_same_time_start_it_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(on_start=lambda _: trio.sleep(1)), Outcomes(nursery)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        for number in range(100):
            outcomes.ask(str(number), lambda: keyed.hello("1"))
        await trio.sleep(2)
        assert journal.starts == 1
        assert len(keyed.registry) == 1
    assert list(outcomes.ended.values()) == ["1"] * 100


async def test_each_key_has_its_own() -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        first, second = await keyed.get("1"), await keyed.get("2")
        assert first is not second
        assert await keyed.get("1") is first
        assert keyed.registry.find("1") is first
        assert keyed.registry.find("3") is None
        assert keyed.registry.running() == {"1": first, "2": second}
    assert journal.starts == 2


async def test_a_cancelled_getter_does_not_hurt_the_others(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(on_start=lambda _: trio.sleep(2)), Outcomes(nursery)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        with trio.move_on_after(1) as scope:
            # The first to ask, whose start the others wait for.
            nursery.start_soon(_ask_later, outcomes, keyed)
            await keyed.get()
        assert scope.cancelled_caught
        await trio.sleep(5)
        assert keyed.registry.find("1") is not None
    assert outcomes.ended == {"other": "1"}
    assert journal.starts == 1


async def _ask_later(outcomes: Outcomes, keyed: Keyed) -> None:
    await trio.sleep(0.5)
    outcomes.ask("other", keyed.hello)


async def test_a_failing_start_fails_all_who_wait_and_lets_the_next_try(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def fail(_: Probe) -> None:
        await trio.sleep(1)
        raise Boom

    journal, outcomes = ProbeLog(on_start=fail), Outcomes(nursery)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        for name in "abc":
            outcomes.ask(name, keyed.hello)
        await trio.sleep(2)
        assert outcomes.ended == {"a": Boom, "b": Boom, "c": Boom}
        assert journal.starts == 1
        assert len(keyed.registry) == 0
        journal.on_start = lambda _: None
        assert await keyed.hello() == "1"


async def test_a_spec_that_cannot_be_made_fails_those_who_ask() -> None:
    def spec() -> Spec[ProbeMessage]:
        raise Boom

    async with open_supervisor() as harness:
        keyed = Keyed(harness, ProbeLog())
        with pytest.raises(Boom):
            await keyed.registry.get("1", spec)
        assert await keyed.hello() == "1"


async def test_one_that_is_stopping_is_waited_for_and_started_anew(
    autojump_clock: MockClock,
) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        first = await keyed.get()
        first.tell(Do(lambda _: trio.sleep(1)))
        first.drain()
        assert keyed.registry.find("1") is None
        assert keyed.registry.running() == {}
        second = await keyed.get()
        assert second is not first
        assert journal.starts == 2
        assert journal.stops == 1
        assert await second.ask(Echo("anew")) == "anew"


async def test_many_who_wait_for_one_that_is_stopping_start_it_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(on_stop=lambda _: trio.sleep(1)), Outcomes(nursery)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        (await keyed.get()).drain()
        for number in range(20):
            outcomes.ask(str(number), keyed.hello)
        await trio.sleep(1.5)
        assert journal.starts == 2
    assert list(outcomes.ended.values()) == ["1"] * 20


async def test_one_that_crashed_for_good_is_started_anew(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        first = await keyed.get()
        first.tell(Do(crash))
        await first.wait_stopped()
        assert await keyed.hello() == "1"
    assert journal.starts == 2
    # The spec's own `gone` is told as well.
    assert [type(error) for error in journal.gone] == [Boom, type(None)]


@pytest.mark.parametrize("how", ["retire", "drain"])
async def test_one_that_ends_as_soon_as_it_began_is_not_kept(
    autojump_clock: MockClock, how: str
) -> None:
    def end(probe: Probe) -> None:
        if how == "retire":
            assert probe.context.retire()
        else:
            probe.context.ref.drain()

    journal = ProbeLog(on_start=end)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        with trio.fail_after(1):
            ref = await keyed.get()
            await ref.wait_stopped()
        with pytest.raises(ActorStopped):
            await ref.ask(Echo("a"))
        assert len(keyed.registry) == 0
        journal.on_start = lambda _: None
        with trio.fail_after(1):
            assert await keyed.hello() == "1"


async def test_retiring_races_with_those_who_get_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(), Outcomes(nursery)

    def retire(probe: Probe) -> None:
        probe.context.retire()

    async def hello(keyed: Keyed) -> str:
        while True:
            ref = await keyed.get()
            try:
                return await ref.ask(Echo("hello"))
            except ActorStopped:
                # It retired in between; the next get starts it anew.
                continue

    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        for number in range(50):
            ref = await keyed.get()
            ref.tell(Do(retire))
            outcomes.ask(f"{number}", lambda: hello(keyed))
            for _ in range(number % 7):
                await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        assert len(keyed.registry) <= 1
    assert list(outcomes.ended.values()) == ["hello"] * 50
    assert len(journal.gone) == journal.starts


async def test_those_who_wait_at_the_end_are_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    outcomes = Outcomes(nursery)
    begun = trio.current_time()
    async with open_supervisor(shutdown_s=1) as harness:
        keyed = Keyed(harness, ProbeLog(on_start=hang))
        outcomes.ask("a", keyed.hello)
        outcomes.ask("b", keyed.hello)
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert trio.current_time() - begun == pytest.approx(1)
    assert outcomes.ended == {"a": ActorStopped, "b": ActorStopped}
    for _ in range(2):
        with pytest.raises(ActorStopped):
            await keyed.get()


async def test_a_start_outlives_the_request_that_caused_it(autojump_clock: MockClock) -> None:
    journal = ProbeLog()
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        async with trio.open_nursery() as request:
            request.start_soon(keyed.get)
        ref = keyed.registry.find("1")
        assert ref is not None
        ref.tell(Note("still here"))
        await wait_all_tasks_blocked()
    assert journal.words == ["still here"]


async def test_an_actor_does_not_keep_the_message_that_caused_its_start() -> None:
    class Cause:
        """A message's content."""

    async with open_supervisor() as harness:
        registry = Registry[str, ProbeMessage](harness.supervisor)
        starter = await harness.start(name="starter")
        kept: list[weakref.ref[Cause]] = []

        def cause() -> Callable[[Probe, Ask], Awaitable[None]]:
            content = Cause()
            kept.append(weakref.ref(content))

            async def start(_: Probe, request: Ask) -> None:
                await registry.get("one", lambda: harness.spec(name="one"))
                request.reply(type(content).__name__)

            return start

        await starter.ask(Ask(cause()))
        await starter.ask(Echo("next"))
        gc.collect()
        assert registry.find("one") is not None
        assert kept[0]() is None


async def test_a_key_that_is_kept_vacant_is_started_afterwards(nursery: trio.Nursery) -> None:
    journal, outcomes = ProbeLog(), Outcomes(nursery)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        async with keyed.registry.vacant("1") as vacant:
            assert vacant
            outcomes.ask("1", lambda: keyed.hello("1"))
            await wait_all_tasks_blocked()
            assert journal.starts == 0
            assert await keyed.hello("2") == "2"
            async with keyed.registry.vacant("1") as again:
                assert not again
        await wait_all_tasks_blocked()
        assert outcomes.ended == {"1": "1"}
        async with keyed.registry.vacant("1") as vacant:
            assert not vacant
            assert await keyed.hello("1") == "1"


async def test_a_key_is_not_vacant_while_its_actor_starts(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    journal, outcomes = ProbeLog(on_start=lambda _: trio.sleep(1)), Outcomes(nursery)
    async with open_supervisor() as harness:
        keyed = Keyed(harness, journal)
        outcomes.ask("1", lambda: keyed.hello("1"))
        await trio.sleep(0.5)
        async with keyed.registry.vacant("1") as vacant:
            assert not vacant
