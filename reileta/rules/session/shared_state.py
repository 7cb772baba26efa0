"""A session's state, shared by its sockets and stored in the database.

A patch first waits (`change`). `save` returns all waiting patches, to be written in one statement,
and nothing more until the result is known. Only `saved` makes them the state, acknowledges them,
and notifies the other sockets. So no socket gets a change that a crash could undo, and every
socket sees the same versions in the same order:

    change, change → save → (states.apply) → saved     StateChanged for each: acknowledge, notify
                                           → stale     another writer was first: its state is
                                                       sent, and waiting patches apply on top
                                           → abandon   the result is unknown: PatchRefused for each

An abandoned patch may have been written; then the next `save` is stale.
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
    """A patch from a socket; `ref` is the caller's reference to it (an event's id)."""

    patch: State
    by: str | None
    ref: object


@dataclass(frozen=True, slots=True)
class Save:
    """The write of one drain: the state with all its changes, on top of the version `base`."""

    base: int
    version: int
    state: State
    text: str
    """The state's canonical JSON."""
    changes: tuple[StateEvent, ...]


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A change is in the database. Recipients: all sockets; `change.by` gets its acknowledgement,
    the others the patch. Without `change`, another writer's changes were found there, for all
    sockets."""

    version: int
    patch: State
    change: StateEvent | None


@dataclass(frozen=True, slots=True)
class PatchRefused:
    """A waiting change was dropped. Recipient: the socket that sent it."""

    change: StateEvent
    error: ReiletaError


StateChange: TypeAlias = StateChanged | PatchRefused


@dataclass(slots=True)
class _Waiting:
    """Changes that are not in the database yet: those being written, and those after them."""

    saving: Save | None = None
    changes: list[StateEvent] = field(default_factory=list)
    state: State = field(default_factory=dict)
    """The state with all of these applied."""
    size: int = 2
    """Bytes of its text."""
    values: int = 1
    """The number of values in it, including itself."""


class LiveState:
    """One session's state; the module's docstring explains its use.

    Args:
        state, version: from the database.
        limit_bytes: the largest state, as canonical JSON.
        waiting_limit: changes that can wait for the database; further ones are refused.
    """

    def __init__(self, state: State, version: int, *, limit_bytes: int, waiting_limit: int) -> None:
        self.state = state
        """The state in the database."""
        self.version = version
        self._limit_bytes: Final = limit_bytes
        self._waiting_limit: Final = waiting_limit
        self._waiting = _Waiting()
        self._rebase()

    @property
    def unsaved(self) -> int:
        """The number of changes that are not in the database yet."""
        saving = self._waiting.saving
        return len(self._waiting.changes) + (0 if saving is None else len(saving.changes))

    @property
    def saving(self) -> bool:
        """Whether a write is in progress."""
        return self._waiting.saving is not None

    def change(self, change: StateEvent) -> None:
        """Adds a change to the waiting ones.

        Raises:
            PayloadTooLarge: the state would be too large.
            Overloaded: too many changes wait for the database.
        """
        if self.unsaved >= self._waiting_limit:
            raise Overloaded
        self._put(change)

    def save(self) -> Save | None:
        """The state to write now; None while a write is in progress, or if nothing waits."""
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
        """The result of `save` is in the database."""
        saving, self._waiting.saving = self._waiting.saving, None
        assert saving is not None, "nothing was being saved"
        self.state, self.version = saving.state, saving.version
        return [
            StateChanged(version, change.patch, change)
            for version, change in enumerate(saving.changes, saving.base + 1)
        ]

    def stale(self, state: State, version: int) -> list[StateChange]:
        """The result of `save` was not written, because the database has this other version.

        All waiting changes are applied on top of it, in order, and must be saved again.
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
        """The database can't be reached: all waiting changes are dropped without
        acknowledgement."""
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
        """Applies a change. Raises PayloadTooLarge, and then changes nothing."""
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
        """The session has ended: the state is empty, and waiting changes are dropped."""
        self.state = {}
        return self.abandon(error)
