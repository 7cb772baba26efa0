"""Mailboxes and references: the two ends of an actor's bounded queue of messages.

Senders hold a `Ref`, which stays good through restarts. The actor's loop (`cell.py`) takes all
messages that wait at once.

Overflow policy: `put` raises `MailboxFull` while `limit` messages wait, and the sender decides what
to do with its message. `put_signal` always takes the message: there is one signal for each socket,
child, timer or job, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.instruments import Instruments, NoInstruments
from actors.runtime.message import Message, Request
from actors.runtime.trace import Span, current, next_message_id

T = TypeVar("T")
M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R = TypeVar("R")


class Envelope(Span, Generic[T], eq=False, gc=True, kw_only=True):
    """A message in a mailbox, with its id, its trace, its cause, and the time it was sent.

    `at` is in seconds of Trio's clock. A `signal` outlives a crash, unless it is the incarnation's
    `own`: from its timers or its work.
    """

    message: T
    cause: int
    at: float
    signal: bool
    own: bool


def _enclosed(message: T, *, signal: bool, own: bool = False) -> Envelope[T]:
    """The message in its envelope: the current span caused it."""
    cause = current.get()
    return Envelope(
        cause.trace,
        cause.sampled,
        next_message_id(),
        message=message,
        cause=cause.id,
        at=trio.current_time(),
        signal=signal,
        own=own,
    )


class Mailbox(Generic[T]):
    """The messages that wait for one actor, in the order of sending."""

    __slots__ = (
        "_closed",
        "_instruments",
        "_kind",
        "_queue",
        "_reader",
        "awaited",
        "draining",
        "limit",
        "now",
        "task",
    )

    def __init__(self, limit: int, kind: str = "", instruments: Instruments | None = None) -> None:
        self.limit = limit
        self.draining = False
        self.awaited = 0
        """How many results of the actor's own background work are still to come."""
        self.task: trio.lowlevel.Task | None = None
        """The task that runs the actor. If it asked its own actor, it would wait for ever."""
        self._kind = kind
        self._instruments = instruments or NoInstruments()
        self._closed = False
        self._queue: list[Envelope[T]] = []
        self._reader: trio.lowlevel.Task | None = None
        self.now: Callable[[T], bool] | None = None
        """Handles a message at once; returns False if it must wait in the mailbox."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and the actor does nothing but wait for a message."""
        return self._reader is not None and not self.draining

    def put(self, message: T) -> None:
        """Queues the message.

        Raises:
            MailboxFull: `limit` messages wait already; the instruments count the refusal.
            ActorStopped: the actor stops or has stopped.
        """
        if self.draining or self._closed:
            raise ActorStopped
        if len(self._queue) >= self.limit:
            self._instruments.refused(self._kind)
            raise MailboxFull
        self._queue.append(_enclosed(message, signal=False))
        if self._reader is not None:
            self._wake()

    def put_signal(self, message: T, own: bool = False) -> bool:
        """Queues a lifecycle message, also over the limit; False when the actor is gone.

        An `own` one ends with the incarnation that it is from.
        """
        if self._closed:
            return False
        self._queue.append(_enclosed(message, signal=True, own=own))
        if self._reader is not None:
            self._wake()
        return True

    def drain(self) -> None:
        """Refuses new messages; those that wait and results of work are still handled."""
        self.draining = True
        self.poke()

    def poke(self) -> None:
        """Wakes the reader, even if nothing waits."""
        if self._reader is not None:
            self._wake()

    def close(self) -> list[Envelope[T]]:
        """Refuses all messages from now on, signals too; returns those that waited."""
        self._closed = True
        left, self._queue = self._queue, []
        return left

    def keep_signals(self) -> list[Envelope[T]]:
        """Drops all but the signals for the next incarnation; returns the messages dropped."""
        waiting = self._queue
        self._queue = [envelope for envelope in waiting if envelope.signal and not envelope.own]
        return [envelope for envelope in waiting if not envelope.signal]

    def requeue(self, envelopes: list[Envelope[T]]) -> None:
        """Puts signals of a failed drain back, before those that came since."""
        self._queue[:0] = envelopes

    async def take(self) -> list[Envelope[T]]:
        """Waits until a message is there, and takes all; the result may be empty if `draining`.

        This is always a checkpoint, so that senders get their turn: what they send meanwhile is
        part of the same drain.
        """
        if self._queue or (self.draining and not self.awaited):
            await trio.lowlevel.checkpoint()
        else:
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        batch, self._queue = self._queue, []
        return batch

    def _wake(self) -> None:
        assert self._reader is not None
        trio.lowlevel.reschedule(self._reader)
        self._reader = None

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED


class Recipient(Protocol[M_contra]):
    """An actor as senders of a few of its messages see it. Every `Ref` is one.

    A sender that needs `Recipient[SeatLost]` works with any actor whose union has `SeatLost`, and
    does not import the rest of that union.
    """

    def tell(self, message: M_contra) -> None:
        """As `Ref.tell`."""
        ...

    def signal(self, message: M_contra) -> bool:
        """As `Ref.signal`."""
        ...

    async def ask(self, request: Request[R]) -> R:
        """As `Ref.ask`."""
        ...


class Ref(Generic[M]):
    """Where to send messages of the union `M`."""

    __slots__ = ("_mailbox", "_stopped", "_successor", "name")

    def __init__(self, name: str, mailbox: Mailbox[M], stopped: trio.Event) -> None:
        self.name = name
        self._mailbox = mailbox
        self._stopped = stopped
        self._successor: Recipient[M] | None = None

    def forward(self, successor: Recipient[M]) -> None:
        """Sends to another recipient whatever the actor takes no more, once it stops."""
        self._successor = successor

    @property
    def stopped(self) -> bool:
        """Whether it takes no more messages."""
        return self._mailbox.closed or self._mailbox.draining

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return len(self._mailbox)

    def tell(self, message: M) -> None:
        """Sends a message; never waits.

        Raises:
            MailboxFull: too many wait already; nothing was queued.
            ActorStopped: the actor stops or has stopped.
        """
        try:
            self._mailbox.put(message)
        except ActorStopped:
            if self._successor is None:
                raise
            self._successor.tell(message)

    def tell_now(self, message: M) -> None:
        """As `tell`. In a round (`rounds.py`), an actor that is idle handles it before this
        returns."""
        now = self._mailbox.now
        if now is None or not now(message):
            self.tell(message)

    def signal(self, message: M) -> bool:
        """Sends a lifecycle message, which is never refused for want of room; never waits.

        Returns False if the actor is gone; the message is lost.
        """
        if self._successor is not None and self.stopped:
            return self._successor.signal(message)
        return self._mailbox.put_signal(message)

    async def ask(self, request: Request[R]) -> R:
        """Sends a request and waits for its answer. Callers bound it with `trio.fail_after`.

        If the caller is cancelled, the actor handles the request anyway, and the answer is
        dropped.

        Raises:
            MailboxFull: too many wait already; nothing was queued.
            ActorStopped: the actor stopped before it handled the request.
            ActorCrashed: it failed while handling the request.
            ReiletaError: the error that the actor answered with.
            RuntimeError: an actor asks itself: it would wait for ever.
        """
        if self._mailbox.task is trio.lowlevel.current_task():
            raise RuntimeError(f"{self.name} asks itself")
        try:
            self._mailbox.put(request)  # type: ignore[arg-type]  # the caller's union has it
        except ActorStopped:
            if self._successor is None:
                raise
            return await self._successor.ask(request)
        return await request.slot.wait()

    def drain(self) -> None:
        """Stops the actor: it refuses new messages and handles those that wait first."""
        self._mailbox.drain()

    async def wait_stopped(self) -> None:
        """Waits until the actor has stopped for good."""
        await self._stopped.wait()

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"
