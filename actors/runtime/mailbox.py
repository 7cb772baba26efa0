"""Mailboxes: bounded queues of messages, each with one reader that takes all at once.

Overflow policy: `put` raises `MailboxFull` while `limit` messages wait, and the sender decides what
to do with its message. `put_signal` always takes the message: there is one signal for each socket,
child, timer or job, so their number is bounded.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.instruments import Instruments, NoInstruments
from actors.runtime.trace import Span, current, next_message_id

M = TypeVar("M")


class Envelope(Span, Generic[M]):
    """A message in a mailbox, with its id, its trace, its cause, and the time it was sent.

    `at` is in seconds of Trio's clock. A `signal` outlives a crash, unless it is the incarnation's
    `own`: from its timers or its work.
    """

    __slots__ = ("at", "cause", "message", "own", "signal")

    def __init__(self, message: M, signal: bool, own: bool = False) -> None:
        cause = current.get()
        self.trace = cause.trace
        self.sampled = cause.sampled
        self.id = next_message_id()
        self.cause = cause.id
        self.message = message
        self.signal = signal
        self.own = own
        self.at = trio.current_time()


class Mailbox(Generic[M]):
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
        self._queue: list[Envelope[M]] = []
        self._reader: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, message: M) -> None:
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
        self._queue.append(Envelope(message, False))
        if self._reader is not None:
            self._wake()

    def put_signal(self, message: M, own: bool = False) -> bool:
        """Queues a lifecycle message, also over the limit; False when the actor is gone.

        An `own` one ends with the incarnation that it is from.
        """
        if self._closed:
            return False
        self._queue.append(Envelope(message, True, own))
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

    def close(self) -> list[Envelope[M]]:
        """Refuses all messages from now on, signals too; returns those that waited."""
        self._closed = True
        left, self._queue = self._queue, []
        return left

    def keep_signals(self) -> list[Envelope[M]]:
        """Drops all but the signals for the next incarnation; returns the messages dropped."""
        waiting = self._queue
        self._queue = [envelope for envelope in waiting if envelope.signal and not envelope.own]
        return [envelope for envelope in waiting if not envelope.signal]

    def requeue(self, envelopes: list[Envelope[M]]) -> None:
        """Puts signals of a failed drain back, before those that came since."""
        self._queue[:0] = envelopes

    async def take(self) -> list[Envelope[M]]:
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
