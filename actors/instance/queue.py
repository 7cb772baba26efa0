"""The queue of an instance: candidates' requests, and who is notified when it changes.

**Requests** come from candidates, and from those who may invite. The rules decide them and return
events.

**Notifications** are collected in a drain and sent at its end:

- `instance-candidate` has one candidate's entry: the newest for each, at once.
- `instance-queue` has a candidate's place in line. Most changes move everybody up, so it
  goes out in rounds: at most `SLICE` users in one drain, and the rest in later drains, so that a
  long queue never delays urgent messages. Users who were not notified for longest come first. Each
  gets the state at its turn. The next round of a long queue waits for a while. In a socket's
  backlog, a newer notification replaces an older one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

import trio

from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.instance.messages import (
    AdmitCandidate,
    ContinueQueueRound,
    GetQueue,
    QueueRequest,
    QueueSnapshot,
    RejectCandidate,
    RequestEntry,
    WithdrawEntry,
)
from actors.instance.parts import InstanceParts
from reileta.errors import CredentialInvalid, UserNotFound
from reileta.ids import At, user_ref
from reileta.protocol import events
from reileta.protocol.frames import encode, event
from reileta.protocol.views.instance import CandidateView, StandingView, entry_view
from reileta.rules.instance.candidates import Candidate, State
from reileta.rules.instance.events import CandidateChanged, InstanceEvent
from reileta.rules.instance.instance import Instance

SLICE: Final = 100
"""How many users are notified of their place in one drain."""
REST_EACH_S: Final = 0.000_25
"""How long a round of more than a slice takes at least, for each user in it. A queue of 2,000 is
notified twice a second, which costs a tenth of a core."""
REST_OF_OVERSEERS_S: Final = 0.25
"""How long a list of all of a long queue is valid at least, for those who oversee: it is large."""


def notify_abandoned(rules: Instance, directory: Directory, address: str) -> None:
    """Notifies the candidates of an instance whose actor has ended for good."""
    for user in tuple(rules.candidates.users()):
        user_id = user_ref(user, address)
        directory.unqueue(user_id, rules.record.id)
        data = encode(CandidateView(user, "closed", None))
        for sink in directory.sockets(user_id):
            sink.send(event(events.INSTANCE_CANDIDATE, rules.record.id, data))


class Queue:
    """The queue of one incarnation of an instance."""

    def __init__(self, parts: InstanceParts) -> None:
        self._parts = parts
        self._changed: dict[str, CandidateChanged] = {}  # by user: what to notify in this drain
        self._stale = False  # a user was notified of a place that it no longer has
        self._overseers_stale = False
        self._round: deque[str] = deque()  # users still to be notified in this round
        self._next_round_at = 0.0
        self._next_list_at = 0.0
        self._continuing = False  # whether a `ContinueQueueRound` is on its way

    # Requests ----------------------------------------------------------------------------------

    def handle(
        self, message: QueueRequest, silent: frozenset[str] = frozenset()
    ) -> list[InstanceEvent]:
        """Answers the request; raises what the rules refuse.

        `silent`: sessions whose players give way if their user asks for a seat. A request that was
        on its way when its session ended (CredentialInvalid) or its user was deleted
        (UserNotFound) is refused, since nothing would remove the entry.
        """
        rules, now = self._parts.rules, self._parts.now()
        self._ensure_still_there(message)
        if message.deed is not None and message.deed.again and self._done(message):
            return []
        match message:
            case RequestEntry(visitor):
                entry, domain_events = rules.candidate(
                    visitor, now, online=self._online(visitor.user), silent=silent
                )
                message.reply(entry)
            case AdmitCandidate(by, user):
                guest = not At.parse(user).local_to(self._parts.config.address)
                entry, domain_events = rules.admit(
                    by, user, now, online=self._online(user), guest=guest
                )
                message.reply(entry)
            case WithdrawEntry(by):
                domain_events = rules.withdraw(by.user, now)
                message.reply(None)
            case RejectCandidate(by, user):
                domain_events = rules.refuse(by, user, now)
                message.reply(None)
            case _:
                assert_never(message)
        return domain_events

    def _done(self, message: QueueRequest) -> bool:
        """Answers a repeated request for what is so already. An invitation needs no look: to give
        it twice is as to give it once."""
        rules = self._parts.rules
        match message:
            case RequestEntry(visitor):
                entry = rules.entry_of(visitor.user)
                return entry is not None and message.reply(entry)
            case WithdrawEntry(by):
                return rules.entry_of(by.user) is None and message.reply(None)
            case RejectCandidate(by, user):
                own = by.user == user or rules.oversees(by)
                if own or rules.may_invite(by.user, admin=by.administers):
                    gone = user not in rules.invited and rules.entry_of(user) is None
                    return gone and message.reply(None)
        return False

    def _ensure_still_there(self, message: QueueRequest) -> None:
        ended = self._parts.config.ended
        if isinstance(message, RequestEntry) and message.visitor.session in ended:
            raise CredentialInvalid
        if isinstance(message, AdmitCandidate) and self._ref(message.user) in ended:
            raise UserNotFound

    def answer(self, message: GetQueue) -> None:
        """Answers with what the requester may see."""
        rules, by = self._parts.rules, message.by
        own = None if by is None else rules.entry_of(by.user)
        oversees = by is not None and rules.oversees(by)
        message.reply(QueueSnapshot(rules.queued, own, rules.entries() if oversees else None))

    def refresh_presence(self, user: str) -> None:
        """A candidate's first socket opened or its last one closed: the directory says which, since
        the message may be late."""
        if self._online(user):
            self._parts.rules.present(user)
            self._notify_one(user)
        else:
            self._parts.rules.absent(user, self._parts.now())

    def bar(self, user: str) -> list[InstanceEvent]:
        """Takes out a candidate that can't come any more, so that no seat is held for it."""
        rules = self._parts.rules
        if rules.entry_of(user) is None:
            return []
        return rules.withdraw(user, self._parts.now())

    def begun_anew(self, state: State, candidate: Candidate) -> Candidate:
        """A candidate of the last host, whose times nobody knows."""
        limits, now = self._parts.config.limits, self._parts.now()
        if state == "admitted":
            return replace(candidate, held_until=now + limits.hold_ms)
        absent = None if self._online(candidate.user) else now + limits.queue_grace_ms
        return replace(candidate, absent_until=absent)

    def _online(self, user: str) -> bool:
        return self._parts.directory.connected(self._ref(user))

    # Changes ------------------------------------------------------------------------------

    def candidate_changed(self, change: CandidateChanged) -> None:
        """Notifies those concerned at the end of the drain."""
        user, directory = change.user, self._parts.directory
        if change.entry is None:
            directory.unqueue(self._ref(user), self._parts.id)
        else:
            directory.queue(self._ref(user), self._parts.id)
        self._changed.pop(user, None)
        self._changed[user] = change
        self._overseers_stale = True

    def places_changed(self) -> None:
        """Notifies all candidates, in rounds."""
        self._stale = self._overseers_stale = True

    def resume(self, *, unchanged: bool = False) -> None:
        """After a crash, any candidate's entry may have changed. `unchanged`: all was handed over,
        and nobody has missed anything."""
        for user in self._parts.rules.candidates.users():
            self._parts.directory.queue(self._ref(user), self._parts.id)
            if not unchanged:
                self.places_changed()

    # Notifications -----------------------------------------------------------------------------

    def continue_round(self) -> None:
        """A `ContinueQueueRound` has arrived."""
        self._continuing = False

    def notify(self) -> None:
        """Ends a drain: adds the notifications that are due to the drain's frames."""
        if self._changed:
            self._notify_changes()
        if self._stale or self._round:
            self._notify_slice()
        if self._overseers_stale and not (self._stale or self._round):
            self._notify_overseers()

    def _notify_changes(self) -> None:
        changes, self._changed = self._changed, {}
        rules, recovery = self._parts.rules, self._parts.recovery
        overseers = recovery.sinks_of(rules.overseers())
        for user, change in changes.items():
            entry = None if change.entry is None else entry_view(change.entry)
            data = encode(CandidateView(user, change.why, entry))
            frame = event(events.INSTANCE_CANDIDATE, self._parts.id, data)
            sinks = dict.fromkeys((*self._sockets(user), *overseers))
            if change.entry is not None and change.entry.state == "pending":
                inviters = (one for one in rules.players.values() if rules.may_invite(one.user))
                sinks.update(recovery.sinks_of(inviters))
            for sink in sinks:
                self._parts.fanout.private(sink, frame)
            self._parts.publisher.publish(
                events.INSTANCE_CANDIDATE, data, informed=sinks, overseers=True
            )

    def _notify_slice(self) -> None:
        now = trio.current_time()
        candidates = self._parts.rules.candidates
        if not self._round:
            if now < self._next_round_at:
                self._continue_in(self._next_round_at - now)
                return
            self._stale = False
            self._round.extend(candidates.users())
            if len(self._round) > SLICE:
                self._next_round_at = now + len(self._round) * REST_EACH_S
        positions = candidates.positions()
        notified = 0
        while self._round and notified < SLICE:
            user = self._round.popleft()
            sinks = self._sockets(user)
            entry = candidates.entry(user, positions) if sinks else None
            if entry is not None:
                self._send(sinks, StandingView(self._waiting, entry_view(entry)))
                notified += 1
        if self._round:
            self._continue_in(0)
        elif self._stale:
            self._continue_in(self._next_round_at - now)

    def _notify_overseers(self) -> None:
        now = trio.current_time()
        if now < self._next_list_at:
            self._continue_in(self._next_list_at - now)
            return
        self._overseers_stale = False
        rules = self._parts.rules
        sinks = self._parts.recovery.sinks_of(rules.overseers())
        if not sinks:
            return
        entries = [entry_view(one) for one in rules.entries()]
        if len(entries) > SLICE:
            self._next_list_at = now + REST_OF_OVERSEERS_S
        self._send(sinks, StandingView(self._waiting, entries=entries))

    def _notify_one(self, user: str) -> None:
        """Tells a candidate's new socket its place."""
        entry = self._parts.rules.entry_of(user)
        if entry is not None:
            self._send(self._sockets(user), StandingView(self._waiting, entry_view(entry)))

    def _send(self, sinks: Iterable[Sink], standing: StandingView) -> None:
        id_ = self._parts.id
        frame = event(events.INSTANCE_QUEUE, id_, encode(standing))
        for sink in sinks:
            self._parts.fanout.private(sink, frame, (id_, events.INSTANCE_QUEUE))

    def _continue_in(self, delay_s: float) -> None:
        """Schedules the next `notify`, unless one is scheduled."""
        if self._continuing:
            return
        self._continuing = True
        context = self._parts.context
        if delay_s > 0:
            context.after(delay_s, ContinueQueueRound())
        else:
            context.ref.signal(ContinueQueueRound())

    @property
    def _waiting(self) -> int:
        return self._parts.rules.queued

    def _sockets(self, user: str) -> tuple[Sink, ...]:
        return self._parts.directory.sockets(self._ref(user))

    def _ref(self, user: str) -> str:
        """The user as the directory names it."""
        return user_ref(user, self._parts.config.address)
