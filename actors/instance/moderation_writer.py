"""What hosts did to others in an instance, on its way into the database (PROTOCOL §6).

It has taken effect already; whoever ordered it is answered once it is durable. What gathers while
the database is written to goes in one transaction, in order. If the database is away the asker is
told so, and what was done is written when it is back: memory and database end up alike, also if
nobody asks again. Overflow policy: once `LIMIT` deeds wait, no more are done (`ensure_room`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import outcome

from actors.instance.recovery import PendingWrites, RecoveryState, Then
from actors.runtime.jobs import SerialJobs
from reileta.errors import Overloaded, ReiletaError
from reileta.records import Deed
from reileta.store import Store

LIMIT: Final = 1024
RETRY_S: Final = 2.0
"""How long after a failure it is tried again, unless there is something new to write before."""


class ModerationWriter:
    """One incarnation's deeds; those that wait stand in the roster, and outlive it.

    `later` has `begin` called in so many seconds.
    """

    def __init__(
        self,
        recovery: RecoveryState,
        store: Store,
        jobs: SerialJobs,
        later: Callable[[float], None],
    ) -> None:
        self._pending = recovery.deeds
        self._store = store
        self._jobs = jobs
        self._later = later
        self._writing = False
        self._batch = 0  # how many of those that wait are being written

    def resume(self) -> None:
        """Goes on where a crash ended: those who waited for an answer have got another."""
        for one in self._pending:
            one.then.clear()
        self.begin()

    def ensure_room(self) -> None:
        """Raises:
        Overloaded: too much waits to be written already.
        """
        if len(self._pending) >= LIMIT:
            raise Overloaded

    def do(self, deed: Deed) -> None:
        """It has taken effect, and is to be written down."""
        self._pending.append(PendingWrites(deed))
        self.begin()

    def settled(self, then: Then) -> None:
        """Calls `then` when all that was done until now is durable, or why it is not yet."""
        if self._pending:
            self._pending[-1].then.append(then)
        else:
            then(None)

    def begin(self) -> None:
        """Writes what waits, unless that is being done."""
        if self._pending and not self._writing:
            self._writing = True
            self._jobs.add(self._write, self._written)

    async def _write(self) -> dict[int, ReiletaError]:
        self._batch = len(self._pending)
        return await self._store.deeds.write([one.deed for one in self._pending])

    def _written(self, result: outcome.Outcome[dict[int, ReiletaError]]) -> None:
        self._writing = False
        batch = self._pending[: self._batch]
        if isinstance(result, outcome.Error):
            error = cast(ReiletaError, result.error)  # an outcome of work is no other
            for one in batch:
                waiting, one.then = one.then, []
                for then in waiting:
                    then(error)
            self._later(RETRY_S)
            return
        refused = result.unwrap()
        del self._pending[: self._batch]
        for place, one in enumerate(batch):
            for then in one.then:
                then(refused.get(place))
        self.begin()
