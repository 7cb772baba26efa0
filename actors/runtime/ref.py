"""A reference to an actor: all that others hold of it. It stays good through restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from actors.runtime.errors import MailboxFull
from actors.runtime.message import Message, Request

if TYPE_CHECKING:
    from actors.runtime.cell import Cell

M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)
R = TypeVar("R")


class Recipient(Protocol[M_contra]):
    """An actor that takes at least the messages of `M_contra`: a `Ref` of a wider union fits.

    An actor that knows another one by some of its messages alone holds it as a `Recipient`; so
    their packages need not import each other. Errors as for `Ref`.
    """

    def tell(self, message: M_contra) -> None: ...
    def signal(self, message: M_contra) -> bool: ...
    async def ask(self, request: Request[R]) -> R: ...


class Ref(Generic[M]):
    """Where to send messages of the union `M`."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell[M]) -> None:
        self._cell = cell

    @property
    def name(self) -> str:
        return self._cell.spec.name

    @property
    def stopped(self) -> bool:
        """Whether it takes no more messages."""
        return self._cell.mailbox.closed or self._cell.mailbox.draining

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return len(self._cell.mailbox)

    def tell(self, message: M) -> None:
        """Sends a message; never waits.

        Raises:
            MailboxFull: too many wait already; nothing was queued.
            ActorStopped: the actor stops or has stopped.
        """
        try:
            self._cell.mailbox.put(message)
        except MailboxFull:
            self._cell.refused()
            raise

    def signal(self, message: M) -> bool:
        """Sends a lifecycle message, which is never refused for want of room; never waits.

        False when the actor is gone, and the message with it.
        """
        return self._cell.mailbox.put_signal(message)

    async def ask(self, request: Request[R]) -> R:
        """Sends a request and waits for its answer. Callers bound it with `trio.fail_after`.

        The asker's cancellation leaves the actor unharmed: it handles the request all the same,
        and its answer is dropped.

        Raises:
            MailboxFull: too many wait already; nothing was queued.
            ActorStopped: the actor stopped before it handled the request.
            ActorCrashed: it failed while handling the request.
            ReiletaError: what the actor answered.
            RuntimeError: an actor asks itself, and would wait for ever.
        """
        if self._cell.task is trio.lowlevel.current_task():
            raise RuntimeError(f"{self.name} asks itself")
        try:
            self._cell.mailbox.put(request)  # type: ignore[arg-type]  # the caller's union has it
        except MailboxFull:
            self._cell.refused()
            raise
        return await request.slot.wait()

    def drain(self) -> None:
        """Has the actor refuse new messages, finish those that wait, and stop."""
        self._cell.mailbox.drain()

    async def wait_stopped(self) -> None:
        """Waits until the actor has stopped for good."""
        await self._cell.stopped.wait()

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"
