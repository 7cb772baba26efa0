"""A mailbox: bounded, drained whole by its one reader.

Overflow policy: `put` refuses with `MailboxFull` once `limit` messages wait, and the sender decides
what becomes of its message. `put_signal` always takes the message: signals are lifecycle (leave,
lost, tick), of which there is one per socket, child or timer, so their number is bounded by those.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.instruments import Instruments, NoInstruments
from actors.runtime.trace import Span, current, next_message_id

M = TypeVar("M")


class Envelope(Span, Generic[M]):
    """A message on its way, with its id, its trace, what caused it, and when it was sent.

    `at` is in seconds of Trio's clock. A `signal` outlives a crash; one that the incarnation
    ordered for itself (`own`: its timers, its pipes) ends with it.
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
    """Messages that wait for one actor, in the order of sending."""

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
        """Queues a lifecycle message, whatever waits; False when the actor is gone.

        `own` ones are what the incarnation ordered for itself, and end with it.
        """
        if self._closed:
            return False
        self._queue.append(Envelope(message, True, own))
        if self._reader is not None:
            self._wake()
        return True

    def drain(self) -> None:
        """Refuses new messages; those that wait, and results awaited, are still handled."""
        self.draining = True
        self.poke()

    def poke(self) -> None:
        """Has the reader look again, whether or not there is anything."""
        if self._reader is not None:
            self._wake()

    def close(self) -> list[Envelope[M]]:
        """Takes no more, not even signals; returns what was left."""
        self._closed = True
        left, self._queue = self._queue, []
        return left

    def keep_signals(self) -> list[Envelope[M]]:
        """Keeps the signals that wait, for the next incarnation; returns the other messages."""
        waiting = self._queue
        self._queue = [one for one in waiting if one.signal and not one.own]
        return [one for one in waiting if not one.signal]

    def requeue(self, envelopes: list[Envelope[M]]) -> None:
        """Puts signals of a drain that failed back, before those that came since."""
        self._queue[:0] = envelopes

    async def take(self) -> list[Envelope[M]]:
        """Everything that waits, as soon as there is anything; may be empty when `draining`.

        A checkpoint always, so that those who send get their turn: what they sent meanwhile
        comes along in the same drain.
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
