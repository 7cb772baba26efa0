"""References to actors, which stay good through restarts."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import trio

from actors.runtime.mailbox import Mailbox
from actors.runtime.message import Message, Request

M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R = TypeVar("R")


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

    __slots__ = ("_mailbox", "_stopped", "name")

    def __init__(self, name: str, mailbox: Mailbox[M], stopped: trio.Event) -> None:
        self.name = name
        self._mailbox = mailbox
        self._stopped = stopped

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
        self._mailbox.put(message)

    def signal(self, message: M) -> bool:
        """Sends a lifecycle message, which is never refused for want of room; never waits.

        Returns False if the actor is gone; the message is lost.
        """
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
        self._mailbox.put(request)  # type: ignore[arg-type]  # the caller's union has it
        return await request.slot.wait()

    def drain(self) -> None:
        """Stops the actor: it refuses new messages and handles those that wait first."""
        self._mailbox.drain()

    async def wait_stopped(self) -> None:
        """Waits until the actor has stopped for good."""
        await self._stopped.wait()

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"
