"""Supervisors: who starts actors, decides what follows a crash, and stops them in order.

Supervisors nest as the blocks in which they are opened do: the inner one stops first. A child's
crash stays where it happened (see `actors/actor.py`); only the process's own end, or a bug of the
runtime itself, passes a supervisor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
import trio

from actors.actor import Actor, Restart, Spec
from actors.cell import Cell, contain
from actors.errors import ActorStopped
from actors.instruments import Instruments, NoInstruments
from actors.message import Message
from actors.ref import Ref
from actors.timer import Timers
from actors.trace import NO_TRACE, bind

M = TypeVar("M", bound=Message)

_log = structlog.get_logger()


class Supervisor:
    """Starts and watches actors of one sort. Made by `Supervisor.open`."""

    def __init__(
        self, name: str, nursery: trio.Nursery, timers: Timers, instruments: Instruments
    ) -> None:
        self.name = name
        self.nursery = nursery
        self.timers = timers
        self._instruments = instruments
        self._cells: dict[str, Cell[Any]] = {}
        self._stopping = False

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
        """A supervisor for the block. At its end the children are drained, within `shutdown_s`."""
        async with trio.open_nursery() as nursery:
            supervisor = cls(name, nursery, timers, instruments or NoInstruments())
            try:
                yield supervisor
                await supervisor.stop(shutdown_s)
            finally:
                supervisor._stopping = True
                nursery.cancel_scope.cancel()

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def refs(self) -> tuple[Ref[Any], ...]:
        """The children that run now."""
        return tuple(cell.ref for cell in self._cells.values())

    async def start(self, spec: Spec[M]) -> Ref[M]:
        """Starts an actor, and returns once it is ready.

        Raises:
            Exception: what its `on_start` raised; nothing is left running.
            ActorStopped: the supervisor is stopping.
            ValueError: a child of that name runs already.
        """
        if self._stopping:
            raise ActorStopped
        if spec.name in self._cells:
            raise ValueError(f"{spec.name} runs already")
        cell = Cell(spec, self.nursery, self.timers, self._instruments)
        self._cells[spec.name] = cell
        failure = await self.nursery.start(self._supervise, cell, name=spec.name)
        if failure is not None:
            raise failure
        return cell.ref

    async def stop(self, within_s: float) -> None:
        """Drains all children at once; those that are not done in time are cancelled."""
        self._stopping = True
        for cell in list(self._cells.values()):
            cell.mailbox.drain()
        with trio.move_on_after(within_s) as scope:
            for cell in list(self._cells.values()):
                await cell.stopped.wait()
        if scope.cancelled_caught:
            _log.warning("supervisor.overdue", supervisor=self.name, actors=sorted(self._cells))

    async def _supervise(
        self, cell: Cell[M], *, task_status: trio.TaskStatus[Exception | None]
    ) -> None:
        error: Exception | None = None
        crashes: list[float] = []
        ready = False

        def started() -> None:
            nonlocal ready
            cell.log.debug("actor.restarted" if ready else "actor.started")
            if not ready:
                ready = True
                task_status.started(None)

        try:
            while True:
                actor = cell.spec.factory()
                with bind(NO_TRACE):
                    error = await contain(partial(cell.live, actor, started))
                    if error is None:
                        break
                    if not ready:
                        break
                    if not await self._restarts(cell, actor, error, crashes):
                        break
        finally:
            del self._cells[cell.spec.name]
            cell.end(error)
            cell.log.debug("actor.stopped")
        if not ready:
            task_status.started(error)

    async def _restarts(
        self, cell: Cell[M], actor: Actor[M], error: Exception, crashes: list[float]
    ) -> bool:
        """Cleans up after a crash and waits out the back-off; whether there is a next time."""
        policy: Restart = cell.spec.restart
        now = trio.current_time()
        crashes[:] = [*(at for at in crashes if at > now - policy.period_s), now]
        again = len(crashes) < policy.intensity and not self._stopping
        cell.crashed(actor, error)
        self._instruments.crashed(cell.spec.kind, restarted=again)
        if not again:
            cell.log.error("actor.given_up", crashes=len(crashes), period_s=policy.period_s)
            return False
        await trio.sleep(policy.backoff_s * 2 ** (len(crashes) - 1))
        return True
