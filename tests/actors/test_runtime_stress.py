"""Random interleavings of everything that can happen to an actor: every ask ends exactly once."""

from __future__ import annotations

import random
from collections import Counter

import outcome
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from actors.runtime.actor import Restart, Spec
from actors.runtime.errors import ActorCrashed, ActorStopped, MailboxFull
from actors.runtime.mailbox import Ref
from actors.runtime.registry import Registry
from reileta.errors import ReiletaError, UserNotFound
from tests.actors.probe import (
    Ask,
    Boom,
    Do,
    Echo,
    Note,
    Probe,
    ProbeLog,
    ProbeMessage,
    SupervisorHarness,
    crash,
    open_supervisor,
)

KEYS = ("1", "2", "3")
ASKERS, ROUNDS = 12, 25


class StressRun:
    """Askers, tellers and accidents, drawn from one seed."""

    def __init__(self, seed: int, harness: SupervisorHarness) -> None:
        self.chance = random.Random(seed)
        self.harness = harness
        self.registry: Registry[str, ProbeMessage] = Registry(harness.supervisor)
        self.journals = {key: ProbeLog(on_start=self.start, on_flush=self.flush) for key in KEYS}
        self.outcomes: Counter[str] = Counter()
        self.asked = 0
        self.signals = 0
        self.handled = 0

    async def start(self, _: Probe) -> None:
        await trio.sleep(self.chance.random() / 100)
        if self.chance.random() < 0.1:
            raise Boom

    async def flush(self, probe: Probe) -> None:
        for request in probe.requests:
            request.reply("flushed")
        probe.requests.clear()
        if self.chance.random() < 0.05:
            await trio.sleep(self.chance.random() / 20)
        if self.chance.random() < 0.03:
            raise Boom

    def spec(self, key: str) -> Spec[ProbeMessage]:
        return self.harness.spec(
            self.journals[key],
            name=f"probe/{key}",
            restart=Restart(intensity=4, period_s=1, backoff_s=0.01),
            mailbox_limit=8,
        )

    def request(self) -> Ask | Echo:
        """A request of one of the ways in which one can be answered, or not."""

        def refuse(_: Probe, __: Ask) -> None:
            raise UserNotFound

        def in_flush(probe: Probe, request: Ask) -> None:
            probe.requests.append(request)

        async def slowly(_: Probe, request: Ask) -> None:
            await trio.sleep(self.chance.random() / 10)
            request.reply("slow")

        def piped(probe: Probe, request: Ask) -> None:
            request.defer()
            failing = self.chance.random() < 0.2

            async def work() -> str:
                await trio.sleep(self.chance.random() / 10)
                if failing:
                    raise Boom
                return "worked"

            def then(result: outcome.Outcome[str]) -> None:
                request.reply(result.unwrap())

            probe.context.run(work, then)

        def unanswered(_: Probe, __: Ask) -> None:
            return None

        acts = self.chance.choices(
            [None, refuse, in_flush, slowly, piped, crash, unanswered],
            weights=[20, 5, 8, 5, 8, 1, 1],
        )
        return Echo("echo") if acts[0] is None else Ask(acts[0])

    async def ask(self) -> None:
        for _ in range(ROUNDS):
            self.asked += 1
            self.outcomes[await self.ask_once()] += 1
            await trio.sleep(self.chance.random() / 50)

    async def ask_once(self) -> str:
        patience_s = self.chance.choice([0.001, 0.02, 30.0])
        with trio.move_on_after(patience_s):
            try:
                ref = await self.get()
                return await ref.ask(self.request())
            except (MailboxFull, ActorStopped, UserNotFound, Boom) as error:
                return type(error).__name__
        # Nobody may have to wait as long as that.
        assert patience_s < 30
        return "cancelled"

    async def get(self) -> Ref[ProbeMessage]:
        key = self.chance.choice(KEYS)
        return await self.registry.get(key, lambda: self.spec(key))

    async def disturb(self) -> None:
        """Tells, signals, drains, retires, sets timers and crashes."""
        for _ in range(ROUNDS * 2):
            await trio.sleep(self.chance.random() / 50)
            with trio.move_on_after(1):
                try:
                    ref = await self.get()
                    self.disturb_once(ref)
                except (ReiletaError, Boom):
                    continue

    def disturb_once(self, ref: Ref[ProbeMessage]) -> None:
        match self.chance.randrange(12):
            case 0:
                ref.drain()
            case 1:
                ref.tell(Do(lambda probe: probe.context.retire()))
            case 2:
                ref.tell(Do(crash))
            case 3:
                ref.tell(Do(lambda probe: probe.context.after(0.01, Note("tick"))))
            case 4 | 5:
                self.signals += ref.signal(Note("signal"))
            case _:
                ref.tell(Note("note"))


@pytest.mark.parametrize("seed", range(25))
async def test_every_ask_ends_with_one_outcome_and_nothing_hangs(
    autojump_clock: MockClock, seed: int
) -> None:
    with capture_logs(), trio.fail_after(300):
        async with open_supervisor(shutdown_s=5) as harness:
            storm = StressRun(seed, harness)
            async with trio.open_nursery() as nursery:
                for _ in range(ASKERS):
                    nursery.start_soon(storm.ask)
                for _ in range(3):
                    nursery.start_soon(storm.disturb)
            # Quiet again: whatever happened, every key has an actor that answers.
            for journal in storm.journals.values():
                journal.on_start = journal.on_flush = lambda _: None
            for key in KEYS:
                await trio.sleep(10)
                ref = await storm.registry.get(key, lambda key=key: storm.spec(key))  # type: ignore[misc]
                assert await ref.ask(Echo("quiet")) == "quiet"
            children = len(harness.supervisor)
            assert children <= len(KEYS)
        assert len(harness.supervisor) == 0
        assert len(storm.registry) == 0
    assert storm.outcomes.total() == storm.asked == ASKERS * ROUNDS
    # The storm was one: it had something of everything.
    assert storm.outcomes["echo"] > 0
    assert storm.outcomes["cancelled"] > 0
    assert storm.outcomes[ActorStopped.__name__] + storm.outcomes[ActorCrashed.__name__] > 0
    for journal in storm.journals.values():
        assert len(journal.gone) <= journal.starts
        # What nobody refused and no crash of its own ended was handled once.
        assert journal.words.count("quiet") == 1
    handled = sum(journal.words.count("signal") for journal in storm.journals.values())
    assert handled <= storm.signals


def test_the_storms_together_saw_everything() -> None:
    seen: Counter[str] = Counter()

    async def run(seed: int) -> None:
        async with open_supervisor() as harness:
            storm = StressRun(seed, harness)
            async with trio.open_nursery() as nursery:
                for _ in range(ASKERS):
                    nursery.start_soon(storm.ask)
                nursery.start_soon(storm.disturb)
        seen.update(storm.outcomes)

    with capture_logs():
        for seed in range(100, 108):
            trio.run(run, seed, clock=MockClock(autojump_threshold=0))
    assert set(seen) >= {
        "echo", "flushed", "slow", "worked", "cancelled",
        "UserNotFound", "ActorStopped", "ActorCrashed", "MailboxFull", "Boom",
    }  # fmt: skip
