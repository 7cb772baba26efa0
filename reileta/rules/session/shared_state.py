"""A session's state between its sockets and the database (S `State`, PROTOCOL §8).

The state is the database's. A patch is taken in (`change`), and waits; `save` hands over all
that wait, to be written in one statement, and no other until it is known what became of that. Only
`saved` makes them the state, acknowledges them, and tells the other sockets. Then nothing was told
that a crash could take back, and every socket has the same versions in the same order:

    change, change → save → (states.apply) → saved     StateChanged for each: acknowledge, and tell
                                           → stale     someone else has written: theirs is told, and
                                                       what waits is put on top of it, to be saved
                                           → abandon   it can't be known: PatchRefused for each

A patch that was abandoned may have been written all the same; the next `save` is stale then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from reileta.errors import Overloaded, PayloadTooLarge, ReiletaError
from reileta.rules.resource.json_values import Json, encode, text_of, values_within
from reileta.rules.resource.merge_patch import apply_measured, diff

State: TypeAlias = dict[str, Json]

VALUES_LIMIT: Final = 4_000
"""Values in a state: scalars, arrays and objects, at any depth. Each write sends all of them."""


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A patch that a socket sent; `ref` is whatever its caller knows it by (an event's id)."""

    patch: State
    by: str | None
    ref: object


@dataclass(frozen=True, slots=True)
class Save:
    """What one drain writes: the state with all its changes, on top of the version `base`."""

    base: int
    version: int
    state: State
    text: str
    """The state's canonical JSON."""
    changes: tuple[StateEvent, ...]


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A change is in the database. Concerns all sockets: `change.by` has its Ack, the others the
    patch. Without `change`, someone else's changes were found there, which all are told."""

    version: int
    patch: State
    change: StateEvent | None


@dataclass(frozen=True, slots=True)
class PatchRefused:
    """A change that waited is not made after all. Concerns the socket that sent it."""

    change: StateEvent
    error: ReiletaError


StateChange: TypeAlias = StateChanged | PatchRefused


@dataclass(slots=True)
class _Waiting:
    """What is not in the database yet: what is under way there, and what came since."""

    saving: Save | None = None
    changes: list[StateEvent] = field(default_factory=list)
    state: State = field(default_factory=dict)
    """The state with all of these."""
    size: int = 2
    """Bytes of its text."""
    values: int = 1
    """How many there are in it, itself included."""


class LiveState:
    """One session's state; the module's text says how it is to be used.

    Args:
        state, version: as the database has them.
        limit_bytes: how large the state may be, as canonical JSON.
        waiting_limit: changes that may wait for the database; over it they are refused.
    """

    def __init__(self, state: State, version: int, *, limit_bytes: int, waiting_limit: int) -> None:
        self.state = state
        """As the database has it."""
        self.version = version
        self._limit_bytes: Final = limit_bytes
        self._waiting_limit: Final = waiting_limit
        self._waiting = _Waiting()
        self._rebase()

    @property
    def unsaved(self) -> int:
        """Changes that are not in the database yet."""
        saving = self._waiting.saving
        return len(self._waiting.changes) + (0 if saving is None else len(saving.changes))

    def change(self, change: StateEvent) -> None:
        """A change comes in, and waits.

        Raises:
            PayloadTooLarge: the state would be.
            Overloaded: too many changes wait for the database.
        """
        if self.unsaved >= self._waiting_limit:
            raise Overloaded
        self._put(change)

    def save(self) -> Save | None:
        """What is to be written now; None while something is, and if nothing waits."""
        waiting = self._waiting
        if waiting.saving is not None or not waiting.changes:
            return None
        changes, waiting.changes = tuple(waiting.changes), []
        text = encode(waiting.state)
        waiting.saving = Save(
            self.version, self.version + len(changes), waiting.state, text, changes
        )
        return waiting.saving

    def saved(self) -> list[StateChange]:
        """What `save` returned is in the database."""
        saving, self._waiting.saving = self._waiting.saving, None
        assert saving is not None, "nothing was being saved"
        self.state, self.version = saving.state, saving.version
        return [
            StateChanged(version, change.patch, change)
            for version, change in enumerate(saving.changes, saving.base + 1)
        ]

    def stale(self, state: State, version: int) -> list[StateChange]:
        """What `save` returned is not written, because the database has another version: this.

        All that waits is put on top of it, in its order, and is to be saved again.
        """
        out: list[StateChange] = []
        if version != self.version:
            out.append(StateChanged(version, diff(self.state, state), None))
        self.state, self.version = state, version
        again = self._take()
        self._rebase()
        for one in again:
            try:
                self._put(one)
            except PayloadTooLarge as error:
                out.append(PatchRefused(one, error))
        return out

    def abandon(self, error: ReiletaError) -> list[StateChange]:
        """The database can't be reached: nothing waits any more, and nothing is acknowledged."""
        out: list[StateChange] = [PatchRefused(one, error) for one in self._take()]
        self._rebase()
        return out

    def _take(self) -> list[StateEvent]:
        saving = self._waiting.saving
        return [*(() if saving is None else saving.changes), *self._waiting.changes]

    def _rebase(self) -> None:
        text = text_of(self.state)
        self._waiting = _Waiting(state=self.state, size=len(text), values=values_within(text))

    def _put(self, change: StateEvent) -> None:
        """Raises PayloadTooLarge, and has changed nothing then."""
        waiting, limit = self._waiting, self._limit_bytes
        state, growth = apply_measured(waiting.state, change.patch)
        size, values = waiting.size + growth.size, waiting.values + growth.values
        if size > limit and growth.size > 0:
            raise PayloadTooLarge.field("state", f"must be at most {limit} bytes")
        if values > VALUES_LIMIT and growth.values > 0:
            raise PayloadTooLarge.field("state", f"must have at most {VALUES_LIMIT} values")
        waiting.state, waiting.size, waiting.values = state, size, values
        waiting.changes.append(change)

    def clear(self, error: ReiletaError) -> list[StateChange]:
        """The session is over: the state is empty, and nothing waits any more."""
        self.state = {}
        return self.abandon(error)
