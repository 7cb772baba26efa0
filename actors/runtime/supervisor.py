"""Supervisors start actors, restart them after crashes, and stop them in order.

Supervisors nest like the blocks in which they are opened: the inner one stops first. A child's
crash does not leave its supervisor (see `actors/runtime/actor.py`); only the end of the process, or
a bug of the runtime itself, does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import structlog
import trio

from actors.runtime.actor import Restart, Spec
from actors.runtime.cell import Cell
from actors.runtime.errors import ActorStopped
from actors.runtime.failures import capture_failure
from actors.runtime.instruments import Instruments, NoInstruments
from actors.runtime.mailbox import Ref
from actors.runtime.message import Message
from actors.runtime.meter import ActorFigures, Crash
from actors.runtime.timers import Timers
from actors.runtime.trace import NO_TRACE, current
from reileta.observability import log_events

M = TypeVar("M", bound=Message)

CRASHES: Final = 16
"""How many of the last crashes a supervisor remembers."""


class Supervisor:
    """Starts and watches actors of one kind. Made by `Supervisor.open`."""

    def __init__(
        self, name: str, nursery: trio.Nursery, timers: Timers, instruments: Instruments
    ) -> None:
        self.name = name
        self.nursery = nursery
        self.timers = timers
        self._instruments = instruments
        self._cells: dict[str, Cell[Any]] = {}
        self._stopping = False
        self._measures = False
        self.crashes: deque[Crash] = deque(maxlen=CRASHES)
        """The last crashes of its children, also of those that have ended."""
        self._log = structlog.get_logger().bind(supervisor=name)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        name: str,
        timers: Timers,
        instruments: Instruments | None = None,
        *,
        shutdown_s: float = 5.0,
    ) -> AsyncIterator[Supervisor]:
        """A supervisor for the block. At its end the children are drained, within `shutdown_s`.

        An exception of the block is raised as it is, not in a group.
        """
        try:
            async with trio.open_nursery() as nursery:
                supervisor = cls(name, nursery, timers, instruments or NoInstruments())
                try:
                    yield supervisor
                    await supervisor.stop(shutdown_s)
                finally:
                    supervisor._cancel()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            _raise_alone(group.exceptions[0])

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def stopping(self) -> bool:
        """Whether it starts no more actors."""
        return self._stopping

    @property
    def deepest_mailbox(self) -> int:
        """The number of messages that wait for the busiest child."""
        return max((len(cell.mailbox) for cell in self._cells.values()), default=0)

    def children(self) -> list[ActorFigures]:
        """The actors as they are now."""
        return [cell.figures for cell in self._cells.values()]

    def measure(self, *, on: bool) -> None:
        """Begins or ends to count what each child handles; it costs a little while it is on."""
        if on != self._measures:
            self._measures = on
            for cell in self._cells.values():
                cell.measure(self._instruments, on=on)

    async def start(self, spec: Spec[M]) -> Ref[M]:
        """Starts an actor, and returns once it is ready.

        Raises:
            Exception: the exception of its `on_start`; nothing is left running.
            ActorStopped: the supervisor is stopping.
            ValueError: a child of that name runs already.
        """
        if self._stopping:
            raise ActorStopped
        if spec.name in self._cells:
            raise ValueError(f"{spec.name} runs already")
        cell = Cell(spec, self.nursery, self.timers, self._instruments)
        cell.measure(self._instruments, on=self._measures)
        self._cells[spec.name] = cell
        failure = await self.nursery.start(self._supervise, cell, name=spec.name)
        if failure is not None:
            raise failure
        return cell.ref

    def abandon(self, name: str) -> None:
        """Ends a child at once, whatever waits for it; its requests fail, and `gone` is called."""
        cell = self._cells.get(name)
        if cell is not None:
            cell.mailbox.drain()
            cell.scope.cancel()

    async def stop(self, within_s: float) -> None:
        """Drains all children at once; cancels those that have not ended in time."""
        self._stopping = True
        for cell in list(self._cells.values()):
            cell.mailbox.drain()
        with trio.move_on_after(within_s) as scope:
            await self._wait_stopped()
        if scope.cancelled_caught:
            self._log.warning(log_events.SUPERVISOR_OVERDUE, actors=sorted(self._cells))
            self._cancel()
            await self._wait_stopped()

    def _cancel(self) -> None:
        self._stopping = True
        # One by one: a child that is starting runs in its starter's nursery, not in this one.
        for cell in self._cells.values():
            cell.scope.cancel()

    async def _wait_stopped(self) -> None:
        for cell in list(self._cells.values()):
            await cell.stopped.wait()

    async def _supervise(
        self, cell: Cell[M], *, task_status: trio.TaskStatus[Exception | None]
    ) -> None:
        # The actor does not belong to the trace of the request that started it, nor to the log
        # context of that request.
        current.set(NO_TRACE)
        structlog.contextvars.clear_contextvars()
        error: Exception | None = None
        crashes: list[float] = []
        ready = False

        def started() -> None:
            nonlocal ready
            cell.log.debug(log_events.ACTOR_RESTARTED if ready else log_events.ACTOR_STARTED)
            if not ready:
                ready = True
                task_status.started(None)

        try:
            with cell.scope:
                while True:
                    error = None
                    error = await capture_failure(partial(cell.live, started))
                    if error is None or not ready:
                        break
                    if not await self._restarts(cell, error, crashes):
                        break
        finally:
            del self._cells[cell.spec.name]
            cell.end(error, started=ready)
            cell.log.debug(log_events.ACTOR_STOPPED)
        if not ready:
            task_status.started(error or ActorStopped())

    async def _restarts(self, cell: Cell[M], error: Exception, crashes: list[float]) -> bool:
        """Cleans up after a crash and waits for the back-off; returns whether to restart."""
        policy: Restart = cell.spec.restart
        now = trio.current_time()
        crashes[:] = [*(at for at in crashes if at > now - policy.period_s), now]
        again = len(crashes) < policy.intensity and not (self._stopping or cell.ending)
        cell.crashed(error)
        cell.restarts += again
        self.crashes.append(cell.crash(error, restarted=again))
        self._instruments.crashed(cell.spec.kind, restarted=again)
        if not again:
            if len(crashes) >= policy.intensity:
                cell.log.error(
                    log_events.ACTOR_ABANDONED, crashes=len(crashes), period_s=policy.period_s
                )
            return False
        await trio.sleep(policy.backoff_s * 2 ** (len(crashes) - 1))
        return True


def _raise_alone(error: BaseException) -> NoReturn:
    """Raises an exception from a group alone, with its original context."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context
