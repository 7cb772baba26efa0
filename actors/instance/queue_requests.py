"""How users come to stand in an instance's queue, and what can be asked about it (PROTOCOL §6)."""

from __future__ import annotations

from actors.directory import Directory
from actors.instance.messages import (
    AdmitCandidate,
    GetPlayers,
    GetQueue,
    QueueSnapshot,
    RejectCandidate,
    RequestEntry,
    WithdrawEntry,
)
from actors.instance.queue_notifier import QueueNotifier
from actors.membership import CandidateOffline, CandidateOnline
from reileta.clock import Clock
from reileta.ids import ref
from reileta.rules.instance.events import Happening
from reileta.rules.instance.instance import Instance


class QueueRequests:
    """The candidates' side of one instance; `lines` tells of what comes of it."""

    def __init__(
        self,
        rules: Instance,
        lines: QueueNotifier,
        directory: Directory,
        clock: Clock,
        address: str,
    ) -> None:
        self._rules = rules
        self._lines = lines
        self._directory = directory
        self._clock = clock
        self._address = address

    def line_up(
        self, message: RequestEntry | WithdrawEntry | AdmitCandidate | RejectCandidate
    ) -> list[Happening]:
        """Answers the request, and returns what happened."""
        rules, now = self._rules, self._clock.now_ms()
        match message:
            case RequestEntry(visitor):
                entry, happenings = rules.candidate(visitor, now, online=self._online(visitor.user))
                message.reply(entry)
                return happenings
            case AdmitCandidate(by, user):
                entry, happenings = rules.admit(by, user, now, online=self._online(user))
                message.reply(entry)
                return happenings
            case WithdrawEntry(by):
                happenings = rules.withdraw(by.user, now)
                message.reply(None)
                return happenings
            case RejectCandidate(by, user):
                happenings = rules.refuse(by, user, now)
                message.reply(None)
                return happenings

    def heed(self, message: CandidateOnline | CandidateOffline) -> None:
        """A candidate's sockets: by what is so now, for the news may be older than another."""
        if self._online(message.user):
            self._rules.present(message.user)
            self._lines.greet(message.user)
        else:
            self._rules.absent(message.user, self._clock.now_ms())

    def answer(self, message: GetQueue | GetPlayers) -> None:
        """What anybody may know; all of the queue, for those who oversee."""
        rules = self._rules
        match message:
            case GetQueue(by):
                own = None if by is None else rules.entry_of(by.user)
                oversees = by is not None and rules.oversees(by)
                message.reply(
                    QueueSnapshot(rules.queued, own, rules.entries() if oversees else None)
                )
            case GetPlayers():
                players = rules.players.values()
                message.reply(tuple((one, rules.role_of(one.user)) for one in players))

    def _online(self, user: str) -> bool:
        return self._directory.connected(ref(user, self._address))
