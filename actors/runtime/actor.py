"""The actor contract: messages, drains, work, crashes, start and stop.

An actor owns state that nothing else touches. Others reach it by messages only, through its `Ref`:

    ref.tell(message)              sends; never waits. Raises MailboxFull or ActorStopped
    ref.signal(message)            sends a lifecycle message (lost, tick); ignores the bound
    answer = await ref.ask(Ask())  sends a `Request[Answer]`; returns its answer or raises its error
    ref.drain()                    refuses new messages, handles those that wait, then stops

A sender of only a few of an actor's messages takes a `Recipient` of those.

**Drains.** The run loop takes all messages that wait, calls `receive` for each in order, then calls
`flush` once. Under light load a drain has one message, and no delay is added; under heavy load the
drains grow by themselves. `flush` is the place for work that many messages can share: one write per
receiver, one statement per drain.

**At once.** `ref.tell_now(message)` is `tell` for messages that come in great numbers. In a round
of a task that reads sockets (`actors/runtime/rounds.py`), an actor that waits for messages handles
it in the sender's task with `receive_now`, and flushes at the end of the round with `flush_now`. If
anything waits in the mailbox, the message waits behind it. So it is a drain without a mailbox: the
order, crashes and their log are the same. Messages of traces that are logged always wait.

**One thing at a time.** `receive`, `flush` and the functions given to `context.run` never overlap.
An actor may `tell` itself; asking itself raises, because it would wait for ever. `receive` does not
wait for the database or the network: `context.run` does that beside the actor.

**Work beside the actor.** `context.run(work, then)` runs `work` in a task of its own. Its outcome
is queued in the mailbox like a message, and `then(outcome)` is called in the actor, in a drain, in
the mailbox's order. A `ReiletaError` is an outcome; any other exception crashes the actor.
`SerialJobs(context)` runs one job at a time, in order. A drain that stops the actor waits for work.

**Time.** `context.after` sends one message later. `context.deadline` makes a timer that its owner
sets again and again.

**Answers.** The actor answers a `Request` in `receive` or `flush` of the drain that it came in
(`reply`, `fail`), or calls `defer` and answers later. If handling a request raises a
`ReiletaError`, that error is the answer, and the actor goes on. A request left unanswered is a bug:
the actor crashes with `NoReply`. Late answers are dropped.

**Crashes.** Any other exception ends the incarnation:

- The message at fault is answered with `ActorCrashed` if it is a request; otherwise it goes to
  `on_crash`.
- Requests that wait, and deferred ones, fail with `ActorStopped`.
- Other messages that wait are dropped and counted. Signals are kept for the next incarnation,
  except what the failed one ordered for itself: its timers and its work end with it.
- The log gets the last 64 messages: types, ids and ages, never contents.

Then the spec's `Restart` policy decides: after a back-off, the factory makes a fresh incarnation
behind the same `Ref`; after too many crashes, the actor ends. Its siblings notice nothing.

**Start and stop.** `await supervisor.start(spec)` returns the `Ref` when `on_start` has returned;
if the first start fails, it raises the exception of `on_start`. `on_stop` runs when the actor ends
in order: drained, retired, or cancelled because its supervisor's time is up. It has a bounded time,
and the mailbox is closed by then. It does not run after a crash.

**Shared structures.** A few structures are read outside of the actor that writes them. Everything
runs in one thread and no reader awaits in the middle of a read, so they need no locks. Each has one
writer, and its file says that it is shared:

    Directory        actors/directory.py: presence and occupancy; each entry has one writer
    Sink.seats       actors/delivery/sink.py: a socket's handles; each instance writes its own
    RecoveryState    actors/instance/recovery.py: outlives an instance's crash; its actor writes it
    SessionRecovery  actors/session/recovery.py: outlives a session's crash; its actor writes it
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import outcome

from actors.runtime.deadline import Deadline
from actors.runtime.mailbox import Ref
from actors.runtime.message import Message, WorkDone
from actors.runtime.rounds import Rounds
from actors.runtime.timers import Timer
from reileta.clock import Clock

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Context(Protocol[M]):
    """The runtime's services for one incarnation of an actor."""

    @property
    def ref(self) -> Ref[M]:
        """The actor's own reference."""
        ...

    def after(self, delay_s: float, message: M) -> Timer:
        """Signals `message` to the actor itself in `delay_s` seconds; a crash cancels it."""
        ...

    def deadline(self, message: M, clock: Clock) -> Deadline:
        """A timer to be set again and again, in ms of `clock`; it starts unset.

        It signals `message` to the actor itself. A crash cancels it.
        """
        ...

    def run(
        self,
        work: Callable[[], Awaitable[T]],
        then: Callable[[outcome.Outcome[T]], None],
    ) -> None:
        """Runs `work` beside the actor, then calls `then(its outcome)` in the actor.

        `then` is called in a drain, in the mailbox's order, as a message is handled: whatever it
        raises crashes the actor. A `ReiletaError` of the work is an outcome; any other exception
        crashes the actor. A crash cancels the work and drops a result that still waits; draining
        waits for both. The work and its result belong to the trace of the message that is being
        handled now. Nothing bounds how much runs at once: see `SerialJobs`.
        """
        ...

    @property
    def oldest_at(self) -> float:
        """When the oldest message of this drain was sent, in seconds of Trio's clock; now, outside
        of a drain."""
        ...

    def rest(self, seconds: float, *, again: bool = False) -> None:
        """Delays the next drain; messages that come meanwhile share it. `again`: flushes after the
        rest, even if none came."""
        ...

    def retire(self) -> bool:
        """Ends the actor after this drain unless something waits; returns whether it will end.

        Messages in the mailbox wait, those in this drain behind the one that is being handled, and
        results of work that has not ended.
        """
        ...

    def sent(self, frames: int, sockets: int) -> None:
        """Logs that so many frames went to so many sockets, if the trace is observed.

        In `receive` they count for the message, in `flush` for the whole drain.
        """
        ...


class Actor(ABC, Generic[M]):
    """One actor. Subclasses take what they need through their constructor."""

    context: Context[M]
    """The runtime sets it before `on_start`."""

    async def on_start(self) -> None:
        """Prepares the state. If the first start raises, the starter gets the exception."""

    @abstractmethod
    async def receive(self, message: M) -> None:
        """Handles one message."""

    def receive_now(self, message: M) -> bool:
        """Handles one message as `receive` does, without waiting; False: it did nothing, and
        `receive` must handle it."""
        return False

    def work_done(self, done: WorkDone[Any]) -> None:
        """Handles the outcome of work that `context.run` began: calls its `then`."""
        done.finish()

    async def flush(self) -> None:
        """Ends a drain: does the work that its messages share, once for all of them."""

    def flush_now(self) -> None:
        """As `flush`, without waiting, for messages of `receive_now`."""

    async def on_stop(self) -> None:
        """Called when the actor ends in order, after its last message."""

    def on_crash(self, message: M) -> None:
        """Handles the message at fault in the failed incarnation, if it is not a request."""

    def on_drop(self, message: M) -> None:
        """Handles a message that waited when the incarnation ended, and that no other one gets. It
        is not a request, whose sender is told, and not a signal."""

    def post_mortem(self, error: Exception) -> Mapping[str, object]:
        """Closes what the failed incarnation had open, after `on_crash`; must not wait.

        Returns more fields for the crash's log event.
        """
        return {}


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart policy: after `intensity` crashes within `period_s` the actor ends.

    Between incarnations it waits `backoff_s`, doubled with each crash within the period.
    `Restart(intensity=1)` never restarts.
    """

    intensity: int = 3
    period_s: float = 10.0
    backoff_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Spec(Generic[M]):
    """How to start an actor, and how to restart it.

    `name` is `kind` or `kind/id`. `gone` is called once, when an actor that had started has ended
    for good, with the error that ended it or None; it must not wait. In `rounds`, the actor handles
    messages at once (`receive_now`).
    """

    name: str
    factory: Callable[[], Actor[M]]
    restart: Restart = Restart()
    mailbox_limit: int = 1024
    gone: Callable[[Exception | None], Any] | None = None
    rounds: Rounds | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]
