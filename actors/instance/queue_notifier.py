"""Who hears of an instance's queue (PROTOCOL §6): candidates at once, those in line in turn.

What becomes of a candidate (`instance-candidate`) is told at the end of the drain, the newest of
each. Most changes move everybody up, so `instance-queue` goes out in rounds: `SLICE` people a drain
at most, the rest by a message to the actor itself, so that a long line never keeps it from what is
urgent; who was not told for longest comes first; and a long line is told again after a rest. Each
hears what is so when its turn comes. A newer one replaces an older one that still waits for a
socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import trio

from actors.delivery.fanout import Fanout
from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.instance.publisher import Publisher
from actors.instance.recovery import RecoveryState
from reileta.ids import ref
from reileta.protocol import events
from reileta.protocol.frames import encode, event
from reileta.protocol.views.instance import CandidateView, StandingView, entry_view
from reileta.rules.instance.events import CandidateChanged
from reileta.rules.instance.instance import Instance

SLICE: Final = 100
"""Who is told of the queue in one drain."""
REST_EACH_S: Final = 0.000_25
"""From the beginning of a round of more than a slice to the next one's, for each who is told: a
line of 2,000 hears twice a second where it stands, which costs a tenth of a core."""
REST_OF_OVERSEERS_S: Final = 0.25
"""From one account of all of a long queue to the next: it is large."""


def give_up(rules: Instance, directory: Directory, address: str) -> None:
    """Tells those who still wait for an instance that is gone for good: it failed too often."""
    for user in tuple(rules.candidates.users()):
        user_id = ref(user, address)
        directory.unqueue(user_id, rules.record.id)
        data = encode(CandidateView(user, "closed", None))
        for sink in directory.sockets(user_id):
            sink.send(event(events.INSTANCE_CANDIDATE, rules.record.id, data))


class QueueNotifier:
    """The candidates of one instance, as its actor tells of them.

    `later` has `tell` called in so many seconds; 0: in the next drain.
    """

    def __init__(
        self,
        rules: Instance,
        recovery: RecoveryState,
        fanout: Fanout,
        publisher: Publisher,
        *,
        directory: Directory,
        address: str,
        later: Callable[[float], None],
    ) -> None:
        self._rules = rules
        self._id = rules.record.id
        self._recovery = recovery
        self._fanout = fanout
        self._publisher = publisher
        self._directory = directory
        self._address = address
        self._later = later
        self._changed: dict[str, CandidateChanged] = {}
        self._stale = False  # someone was told what is not so any more
        self._overseers_stale = False
        self._round: deque[str] = deque()  # who is still to be told in this one
        self._not_before = 0.0
        self._overseers_not_before = 0.0
        self._asked = False  # whether `tell` will be called

    # What is noted during a drain --------------------------------------------------------------

    def changed(self, happening: CandidateChanged) -> None:
        """A candidate's entry is new, another, or gone."""
        user = happening.user
        if happening.entry is None:
            self._directory.unqueue(ref(user, self._address), self._id)
        else:
            self._directory.queue(ref(user, self._address), self._id)
        self._changed.pop(user, None)
        self._changed[user] = happening
        self._overseers_stale = True

    def moved(self) -> None:
        """Positions are others."""
        self._stale = self._overseers_stale = True

    def resume(self) -> None:
        """After a crash, everyone's entry may be another."""
        for user in self._rules.candidates.users():
            self._directory.queue(ref(user, self._address), self._id)
            self.moved()

    def greet(self, user: str) -> None:
        """A candidate has a socket again, which knows nothing yet."""
        entry = self._rules.entry_of(user)
        if entry is not None:
            self._tell_standing(self._sockets(user), StandingView(self._waiting, entry_view(entry)))

    # What is told at its end -------------------------------------------------------------------

    def on(self) -> None:
        """The call that was asked for has come."""
        self._asked = False

    def tell(self) -> None:
        """Says what is due, into the drain's fan-out."""
        if self._changed:
            self._tell_changes()
        if self._stale or self._round:
            self._tell_round()
        if self._overseers_stale and not (self._stale or self._round):
            self._tell_overseers()

    def _tell_changes(self) -> None:
        changes, self._changed = self._changed, {}
        rules = self._rules
        overseers = self._recovery.sinks_of(rules.overseers())
        for user, change in changes.items():
            entry = None if change.entry is None else entry_view(change.entry)
            data = encode(CandidateView(user, change.why, entry))
            frame = event(events.INSTANCE_CANDIDATE, self._id, data)
            sinks = dict.fromkeys((*self._sockets(user), *overseers))
            if change.entry is not None and change.entry.state == "pending":
                inviters = (one for one in rules.players.values() if rules.may_invite(one.user))
                sinks.update(self._recovery.sinks_of(inviters))
            for sink in sinks:
                self._fanout.private(sink, frame)
            self._publisher.tell(events.INSTANCE_CANDIDATE, data, told=sinks, overseers=True)

    def _tell_round(self) -> None:
        now = trio.current_time()
        if not self._round:
            if now < self._not_before:
                self._ask(self._not_before - now)
                return
            self._stale = False
            self._round.extend(self._rules.candidates.users())
            if len(self._round) > SLICE:
                self._not_before = now + len(self._round) * REST_EACH_S
        candidates = self._rules.candidates
        positions = candidates.positions()
        told = 0
        while self._round and told < SLICE:
            user = self._round.popleft()
            sinks = self._sockets(user)
            entry = candidates.entry(user, positions) if sinks else None
            if entry is not None:
                self._tell_standing(sinks, StandingView(self._waiting, entry_view(entry)))
                told += 1
        if self._round:
            self._ask(0)
        elif self._stale:
            self._ask(max(0.0, self._not_before - now))

    def _tell_overseers(self) -> None:
        now = trio.current_time()
        if now < self._overseers_not_before:
            self._ask(self._overseers_not_before - now)
            return
        self._overseers_stale = False
        sinks = self._recovery.sinks_of(self._rules.overseers())
        if not sinks:
            return
        entries = [entry_view(one) for one in self._rules.entries()]
        if len(entries) > SLICE:
            self._overseers_not_before = now + REST_OF_OVERSEERS_S
        self._tell_standing(sinks, StandingView(self._waiting, entries=entries))

    def _tell_standing(self, sinks: Iterable[Sink], standing: StandingView) -> None:
        frame = event(events.INSTANCE_QUEUE, self._id, encode(standing))
        for sink in sinks:
            self._fanout.private(sink, frame, (self._id, events.INSTANCE_QUEUE))

    def _ask(self, delay_s: float) -> None:
        """Has `tell` called again, unless it will be anyway."""
        if not self._asked:
            self._asked = True
            self._later(delay_s)

    @property
    def _waiting(self) -> int:
        return self._rules.queued

    def _sockets(self, user: str) -> tuple[Sink, ...]:
        return self._directory.sockets(ref(user, self._address))
