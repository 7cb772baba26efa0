"""What an actor is: the whole contract, on one page.

An actor owns state that nothing else touches. It is reached by messages alone, through its `Ref`:

    ref.tell(message)              sends; never waits. MailboxFull or ActorStopped
    ref.signal(message)            sends lifecycle (lost, tick): never refused for want of room
    answer = await ref.ask(Ask())  a `Request[Answer]`: its answer, or the error it is answered with
    ref.drain()                    no new messages; those that wait are handled; then it stops

**Drains.** The mailbox is drained, not popped: the run loop takes everything that waits, calls
`receive` for each message in order, then `flush` once. Under light load a drain is one message, and
no delay is added; under heavy load drains grow by themselves. Work that many messages can share
(one write per receiver, one statement per drain) belongs in `flush`.

**One thing at a time.** `receive` and `flush` never overlap. An actor may `tell` itself; asking
itself would wait for ever, and raises. `receive` awaits nothing slow: what waits for the database
or the network goes through `context.pipe`, whose result comes back as a signal.

**Answers.** A `Request` is answered in `receive` or `flush` of the drain it came in (`reply`,
`fail`), or put off with `defer`. A `ReiletaError` raised while a request is handled is its answer,
and no crash. A request left unanswered is a bug, and a crash (`NoReply`). Late answers are dropped.

**Crashes.** Any other exception ends this incarnation: the message at fault is answered with
`ActorCrashed` (or handed to `on_crash`, if it has nobody who waits); requests that wait, and those
put off, fail with `ActorStopped`; other messages that wait are dropped and counted, but signals are
kept for the next incarnation, save what the failed one ordered for itself: its timers and pipes end
with it, and the next sets its own. The last 64 messages are logged: types, ids, ages; never
contents. Then the spec's policy decides: a fresh incarnation from the spec's factory, behind the
same `Ref`, after a back-off; or, past the intensity, the end. Siblings notice nothing.

**Starting and stopping.** `await supervisor.start(spec)` returns the `Ref` once `on_start` has
returned; if the first start fails, its exception is the starter's. `on_stop` runs when the actor
ends in order (drained, retired, or cancelled when its supervisor's time is up), and is given a
bounded time; after a crash it does not run. By then the mailbox is closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import outcome

from actors.runtime.message import Message
from actors.runtime.ref import Ref
from actors.runtime.timers import Timer

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Context(Protocol[M]):
    """What the runtime does for an actor."""

    @property
    def ref(self) -> Ref[M]:
        """The actor's own reference."""
        ...

    def after(self, delay_s: float, message: M) -> Timer:
        """Signals `message` to the actor itself in `delay_s` seconds; a crash takes it back."""
        ...

    def pipe(
        self,
        work: Callable[[], Awaitable[T]],
        then: Callable[[outcome.Outcome[T]], M],
    ) -> None:
        """Runs `work` beside the actor, and signals `then(its outcome)` to it.

        A `ReiletaError` is an outcome; any other exception crashes the actor. A crash cancels the
        work, and drops a result that still waits; draining waits for it. The work, and the message
        that brings its outcome, belong to the trace of the message that is being handled.
        """
        ...

    def rest(self, seconds: float) -> None:
        """Has the next drain wait so long: what comes meanwhile shares one."""
        ...

    def retire(self) -> bool:
        """Ends the actor after this drain, unless messages wait; whether it will end.

        Messages wait in the mailbox, in this drain behind the one that is being handled, and where
        a pipe is still at work.
        """
        ...

    def sent(self, frames: int, sockets: int) -> None:
        """Has the log say that so many frames went to so many sockets, for traces looked at.

        In `receive` that is the message's doing, in `flush` the whole drain's.
        """
        ...


class Actor(ABC, Generic[M]):
    """One actor. Subclasses take what they need through their constructor."""

    context: Context[M]
    """Set by the runtime before `on_start`."""

    async def on_start(self) -> None:
        """Prepares the state. What it raises at the first start is the starter's exception."""

    @abstractmethod
    async def receive(self, message: M) -> None:
        """Handles one message."""

    async def flush(self) -> None:
        """Ends a drain: carries out what its messages left to do, once for all of them."""

    async def on_stop(self) -> None:
        """Says goodbye, when the actor ends in order."""

    def on_crash(self, message: M) -> None:
        """The last word of a failing incarnation on the message at fault, which nobody asked."""

    def post_mortem(self, error: Exception) -> Mapping[str, object]:
        """After `on_crash`: closes what the failed incarnation had open without waiting, and
        returns what the log's event of the crash is to say besides."""
        return {}


@dataclass(frozen=True, slots=True)
class Restart:
    """A policy: a fresh incarnation, but not `intensity` times within `period_s`.

    Between incarnations it waits `backoff_s`, doubled with each crash within the period.
    """

    intensity: int = 3
    period_s: float = 10.0
    backoff_s: float = 0.05


TEMPORARY = Restart(intensity=1)
"""Never restarted."""


@dataclass(frozen=True, slots=True)
class Spec(Generic[M]):
    """How to start an actor, and to start it again.

    `name` is `kind` or `kind/id`. `gone` is called once, when an actor that had started ended for
    good, with the error that ended it, or None; it must not wait.
    """

    name: str
    factory: Callable[[], Actor[M]]
    restart: Restart = Restart()
    mailbox_limit: int = 1024
    gone: Callable[[Exception | None], Any] | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]
