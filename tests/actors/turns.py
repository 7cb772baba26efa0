"""A real database that answers when a test wants it to.

What nodes ask it is carried out one thing after another, each whole, so that nothing hangs on which
connection is the quicker one. What a node asks for sessions can be held back, carried out in any
order, fail, or be carried out while its answer is lost; of a single statement whose asker is gone,
it can be carried out all the same, later.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, Protocol, cast

import trio
import trio.testing

from reileta.errors import DatabaseUnavailable
from reileta.store import Store
from reileta.store.database import STATEMENT_S
from reileta.store.instances import Instances
from tests.actors.nodes import FakeInstances

Verdict = Literal["answered", "failed", "unanswered"]
"""Carried out; not carried out; carried out, with an answer that nobody gets."""

PARTS: Final = ("states", "leases", "resources", "tokens", "sessions", "users", "profiles")
STRAYING: Final = ("states.apply", "leases.keep")
"""What is one statement: it can reach the database though its asker has gone."""


@dataclass(eq=False)
class Call:
    """What a node asks: a method of the store, and what it was called with."""

    node: int
    name: str
    args: tuple[Any, ...]
    named: dict[str, Any]
    work: Callable[[], Awaitable[Any]]
    asked_at: float = field(default_factory=trio.current_time)
    verdict: Verdict = "answered"
    turn: trio.Event = field(default_factory=trio.Event)

    @property
    def overdue(self) -> bool:
        """Whether a statement would have been given up by now."""
        return trio.current_time() - self.asked_at >= STATEMENT_S


class Observer(Protocol):
    """Looks at the database after each call, while nothing else is carried out."""

    async def carried_out(self, call: Call) -> None: ...


class Turns:
    """What waits for the database, of all its nodes."""

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._lock = trio.Lock()
        self._under_way = 0
        self._idle = trio.Event()
        self.holding: set[int] = set()
        """The nodes whose calls wait until they are let go."""
        self.faults: dict[int, list[Verdict]] = {}
        """What becomes of a node's next calls, if they are not held."""
        self.held: list[Call] = []
        self.strays: list[Call] = []

    def store(self, node: int) -> Store:
        """The store as that node has it; without instances."""
        parts: dict[str, Any] = {
            name: _Part(getattr(self._store, name), partial(self._call, node, name))
            for name in PARTS
        }
        return replace(self._store, instances=cast(Instances, FakeInstances()), **parts)

    async def settle(self) -> None:
        """Until everyone waits, be it for a call that is held."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if not self._under_way:
                return
            await self._idle.wait()

    def let_go(self, call: Call, verdict: Verdict) -> None:
        """Decides what becomes of a call that is held."""
        self.held.remove(call)
        call.verdict = verdict
        call.turn.set()

    def forget_overdue(self) -> None:
        """Nobody waits for the database for ever, nor is anything carried out after ages."""
        for call in [one for one in self.held if one.overdue]:
            self.let_go(call, "failed")
        self.strays = [one for one in self.strays if not one.overdue]

    async def straggle(self, call: Call) -> None:
        """Carries out what nobody waits for any more."""
        self.strays.remove(call)
        await self._carry_out(call)

    async def _call(
        self,
        node: int,
        part: str,
        name: str,
        work: Callable[..., Awaitable[Any]],
        *args: Any,
        **named: Any,
    ) -> Any:
        call = Call(node, f"{part}.{name}", args, named, partial(work, *args, **named))
        if node in self.holding:
            await self._hold(call)
        elif self.faults.get(node):
            call.verdict = self.faults[node].pop()
        if call.verdict == "failed":
            raise DatabaseUnavailable
        answer = await self._carry_out(call)
        if call.verdict == "unanswered":
            raise DatabaseUnavailable
        return answer

    async def _hold(self, call: Call) -> None:
        self.held.append(call)
        try:
            await call.turn.wait()
        except trio.Cancelled:
            if call in self.held:
                self.held.remove(call)
            if call.name in STRAYING:
                self.strays.append(call)
            raise

    async def _carry_out(self, call: Call) -> Any:
        self._under_way += 1
        try:
            # Whole, also when its asker is being cancelled.
            with trio.CancelScope(shield=True):
                async with self._lock:
                    try:
                        return await call.work()
                    finally:
                        await self._observer.carried_out(call)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
                self._idle = trio.Event()


class _Part:
    """One noun of the store, whose methods wait for their turn."""

    def __init__(self, part: object, call: Callable[..., Awaitable[Any]]) -> None:
        self._part = part
        self._call = call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return partial(self._call, name, found) if inspect.iscoroutinefunction(found) else found
