"""Decides when, in which order and with which fault nodes' database calls are carried out.

The database is real. Calls are carried out one after another, each whole. The scheduler can hold
back calls for sessions, carry them out in any order, let them fail, or carry them out and lose the
answer. A single statement whose caller was cancelled can still be carried out later.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, Protocol

import trio

from reileta.errors import DatabaseUnavailable
from reileta.store import Store
from reileta.store.database import STATEMENT_S
from reileta.store.leases import Leases
from reileta.store.session_states import SessionStates

Verdict = Literal["answered", "failed", "unanswered"]
"""Carried out; not carried out; carried out, but the answer is lost."""

SCHEDULED: Final = ("states", "leases", "resources", "tokens", "sessions", "users", "profiles")
"""The parts of the store whose calls are scheduled."""


def name(part: str, method: Callable[..., object]) -> str:
    """The name of calls of that method: `leases.acquire`."""
    return f"{part}.{method.__name__}"


SINGLE_STATEMENTS: Final = (name("states", SessionStates.apply), name("leases", Leases.renew))
"""Calls that are one statement: it can reach the database although its caller was cancelled."""


@dataclass(eq=False)
class Call:
    """A call of a node: a method of the store and its arguments."""

    node: int
    name: str
    args: tuple[Any, ...]
    named: dict[str, Any]
    work: Callable[[], Awaitable[Any]]
    called_at: float = field(default_factory=trio.current_time)
    verdict: Verdict = "answered"
    released: trio.Event = field(default_factory=trio.Event)

    @property
    def overdue(self) -> bool:
        """Whether the store would have given up a statement of that age."""
        return trio.current_time() - self.called_at >= STATEMENT_S


class Observer(Protocol):
    """Looks at the database after each call, while nothing else is carried out."""

    async def carried_out(self, call: Call) -> None: ...


class CallScheduler:
    """The calls of all nodes to one store."""

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._lock = trio.Lock()
        self.holding: set[int] = set()
        """The nodes whose calls wait until they are released."""
        self.faults: dict[int, list[Verdict]] = {}
        """The verdicts of a node's next calls, if they are not held."""
        self.held: list[Call] = []
        self.abandoned: list[Call] = []
        """Single statements whose callers were cancelled while they were held."""
        self.trace: list[tuple[int, str]] = []
        """Node and name of each call that was carried out, in order."""

    def store(self, node: int) -> Store:
        """The store as that node has it."""
        parts: dict[str, Any] = {
            name: _ScheduledPart(getattr(self._store, name), partial(self._call, node, name))
            for name in SCHEDULED
        }
        return replace(self._store, **parts)

    def release(self, call: Call, verdict: Verdict) -> None:
        """Lets a held call go on, with that verdict."""
        self.held.remove(call)
        call.verdict = verdict
        call.released.set()

    def expire(self) -> None:
        """Fails the held calls that are overdue, and drops abandoned ones of that age."""
        for call in [call for call in self.held if call.overdue]:
            self.release(call, "failed")
        self.abandoned = [call for call in self.abandoned if not call.overdue]

    async def carry_out_abandoned(self, call: Call) -> None:
        self.abandoned.remove(call)
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
            await call.released.wait()
        except trio.Cancelled:
            if call in self.held:
                self.held.remove(call)
            if call.name in SINGLE_STATEMENTS:
                self.abandoned.append(call)
            raise

    async def _carry_out(self, call: Call) -> Any:
        # Whole, also when its caller is being cancelled.
        with trio.CancelScope(shield=True):
            async with self._lock:
                self.trace.append((call.node, call.name))
                try:
                    return await call.work()
                finally:
                    await self._observer.carried_out(call)


class _ScheduledPart:
    """A part of the store whose asynchronous methods are scheduled."""

    def __init__(self, part: object, call: Callable[..., Awaitable[Any]]) -> None:
        self._part = part
        self._call = call

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._part, name)
        if inspect.iscoroutinefunction(attribute):
            return partial(self._call, name, attribute)
        return attribute
