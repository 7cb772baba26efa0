"""An actor that does what its messages say, and a harness for it to live in."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, assert_never

import outcome
import trio
from trio.testing import wait_all_tasks_blocked

from actors.runtime.actor import Actor, Restart, Spec
from actors.runtime.instruments import Instruments
from actors.runtime.mailbox import Ref
from actors.runtime.message import Message, Request
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timers
from reileta.errors import ReiletaError

T = TypeVar("T")


class Boom(Exception):
    """What a failing handler raises."""


@dataclass(frozen=True, slots=True)
class Note(Message):
    """To be written into the journal."""

    word: str


@dataclass(frozen=True, slots=True)
class Do(Message):
    """To be done by the actor; what it returns is awaited, if it can be."""

    act: Callable[[Probe], object]


@dataclass(frozen=True, slots=True)
class Echo(Request[str]):
    """Answered with its word, which is written into the journal."""

    word: str


@dataclass(frozen=True, slots=True)
class Ask(Request[str]):
    """A request whose act answers it, or doesn't."""

    act: Callable[[Probe, Ask], object]


ProbeMessage = Note | Do | Echo | Ask
Hook = Callable[["Probe"], object]


def nothing(_probe: Probe) -> None:
    """A hook that does nothing."""


def crash(_probe: Probe, _request: object = None) -> None:
    """An act that fails."""
    raise Boom


async def hang(_probe: Probe, _request: object = None) -> None:
    """An act that never ends."""
    await trio.sleep_forever()


async def _act(result: object) -> None:
    if inspect.isawaitable(result):
        await result


@dataclass
class ProbeLog:
    """What all incarnations of a probe did, and how they are to behave."""

    words: list[str] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    """How many messages each drain had."""
    starts: int = 0
    stops: int = 0
    crashed_on: list[str] = field(default_factory=list)
    gone: list[Exception | None] = field(default_factory=list)
    on_start: Hook = nothing
    on_stop: Hook = nothing
    on_crash: Hook = nothing
    on_flush: Hook = nothing


class Probe(Actor[ProbeMessage]):
    """One incarnation."""

    def __init__(self, journal: ProbeLog) -> None:
        self.journal = journal
        self.handled = 0
        self.requests: list[Ask] = []

    async def on_start(self) -> None:
        self.journal.starts += 1
        await _act(self.journal.on_start(self))

    async def receive(self, message: ProbeMessage) -> None:
        self.handled += 1
        match message:
            case Note(word):
                self.journal.words.append(word)
            case Do(act):
                await _act(act(self))
            case Echo(word=word):
                self.journal.words.append(word)
                message.reply(word)
            case Ask(act=act):
                await _act(act(self, message))
            case _:
                assert_never(message)

    async def flush(self) -> None:
        handled, self.handled = self.handled, 0
        self.journal.drains.append(handled)
        await _act(self.journal.on_flush(self))

    async def on_stop(self) -> None:
        self.journal.stops += 1
        await _act(self.journal.on_stop(self))

    def on_crash(self, message: ProbeMessage) -> None:
        self.journal.crashed_on.append(type(message).__name__)
        self.journal.on_crash(self)


@dataclass
class SupervisorHarness:
    """A supervisor with its timers."""

    supervisor: Supervisor
    timers: Timers

    def spec(
        self,
        journal: ProbeLog | None = None,
        *,
        name: str = "probe/1",
        restart: Restart | None = None,
        mailbox_limit: int = 1024,
    ) -> Spec[ProbeMessage]:
        journal = journal or ProbeLog()
        return Spec(
            name,
            lambda: Probe(journal),
            restart=restart or Restart(),
            mailbox_limit=mailbox_limit,
            gone=journal.gone.append,
        )

    async def start(
        self,
        journal: ProbeLog | None = None,
        *,
        name: str = "probe/1",
        restart: Restart | None = None,
        mailbox_limit: int = 1024,
    ) -> Ref[ProbeMessage]:
        """Starts a probe that keeps its journal here."""
        return await self.supervisor.start(
            self.spec(journal, name=name, restart=restart, mailbox_limit=mailbox_limit)
        )


@asynccontextmanager
async def open_supervisor(
    instruments: Instruments | None = None, *, shutdown_s: float = 5.0
) -> AsyncIterator[SupervisorHarness]:
    """A harness for the block; its actors are drained at the end."""
    async with trio.open_nursery() as nursery:
        timers = Timers()
        nursery.start_soon(timers.run)
        async with Supervisor.open(
            "probes", timers, instruments, shutdown_s=shutdown_s
        ) as supervisor:
            yield SupervisorHarness(supervisor, timers)
        nursery.cancel_scope.cancel()


class Refusals:
    """Instruments that count what was refused."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def drained(self, kind: str, messages: int, waited_s: float) -> None: ...

    def crashed(self, kind: str, *, restarted: bool) -> None: ...

    def refused(self, kind: str) -> None:
        self.kinds.append(kind)


class HeldWork:
    """A context whose work is done when a test says so."""

    def __init__(self) -> None:
        self._begun: deque[
            tuple[Callable[[], Awaitable[Any]], Callable[[outcome.Outcome[Any]], None]]
        ] = deque()

    def __len__(self) -> int:
        """How much was begun and is not done."""
        return len(self._begun)

    def run(
        self, work: Callable[[], Awaitable[T]], then: Callable[[outcome.Outcome[T]], None]
    ) -> None:
        self._begun.append((work, then))

    async def finish(self) -> None:
        """Does what was begun first, and brings back its outcome."""
        work, then = self._begun.popleft()
        result: outcome.Outcome[Any]
        try:
            result = outcome.Value(await work())
        except ReiletaError as error:
            result = outcome.Error(error)
        then(result)


@asynccontextmanager
async def full_actor(instruments: Instruments) -> AsyncIterator[Ref[Any]]:
    """An actor whose mailbox has no room until the block ends."""
    go = trio.Event()
    async with open_supervisor(instruments) as harness:
        ref = await harness.start(mailbox_limit=1)
        ref.tell(Do(lambda _: go.wait()))
        await wait_all_tasks_blocked()
        ref.tell(Note("the last that there was room for"))
        yield ref
        go.set()


class Outcomes:
    """Asks in the background, and how each ended: its answer, or its error's class."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.ended: dict[str, str | type[BaseException]] = {}

    def ask(self, name: str, asked: Callable[[], Awaitable[str]]) -> None:
        async def run() -> None:
            assert name not in self.ended
            try:
                answer: str | type[BaseException] = await asked()
            except (Exception, trio.Cancelled) as error:
                self.ended[name] = type(error)
                if isinstance(error, trio.Cancelled):
                    raise
            else:
                assert name not in self.ended
                self.ended[name] = answer

        self._nursery.start_soon(run)
