"""The rules of the lease, each broken in one way. Each mutant must lead to two hosts somewhere."""

from __future__ import annotations

from typing import Final

from reileta.rules.cluster.lease import (
    NEVER,
    LeaseTimes,
    NodeLease,
    PeerWatch,
    Record,
)
from tests.reileta.rules.cluster.world import Rules


class TakesAnyAnswer(NodeLease):
    """Rule 1: it takes the answer of a call that it gave up for that of the newest call."""

    def row_renewed(self, call: int, now_ms: int) -> None:
        newest = self._row_call
        super().row_renewed(call if newest is None else newest.request.call, now_ms)


class CountsFromAnswer(NodeLease):
    """Rule 2: confirmations count from their answer."""

    def _counts_from(self, sent: object, now_ms: int) -> int:
        return now_ms


class NeverSilent(NodeLease):
    """Rule 3: it acts until it knows that it has fallen."""

    def may_act(self, now_ms: int) -> bool:
        return not self.fallen and self.valid_until_ms > NEVER


class KeepsActingWhenRefused(NodeLease):
    """Rules 4 and 6: a refused renewal counts like a confirmed one."""

    def row_refused(self) -> None:
        if self._row_call is not None:
            self.row_renewed(self._row_call.request.call, self._row_call.sent_ms)


class TakesBurialForGhost(NodeLease):
    """Rule 5: every record counts as its own."""

    def _is_own(self, record: Record) -> bool:
        return True


class RisesBlindly(NodeLease):
    """Rule 6: it rises without a renewal in PostgreSQL."""

    def _may_rise(self, missed_ms: int, now_ms: int) -> bool:
        return True


class RisesOnOldWord(NodeLease):
    """Rule 6: a renewal from before the burial is enough, and never grows old.

    Either condition alone prevented two hosts in all runs that were tried: both are kept, because
    each rests on another one of the rules.
    """

    def _may_rise(self, missed_ms: int, now_ms: int) -> bool:
        return self._row_sent_ms > NEVER


class KeepsRevisions(NodeLease):
    """Rule 7: it goes on with its revision after a reconnect."""

    def _forget_revision(self) -> None:
        pass


class IgnoresRecords(PeerWatch):
    """Rule 8: a node that is silent in PostgreSQL is overdue."""

    def _record_silent(self, node: str, now_ms: int, silent_ms: int) -> bool:
        return node in self._records


class IgnoresRows(PeerWatch):
    """Rule 8: a node that is silent in NATS is overdue."""

    def _row_silent(self, node: str, now_ms: int, silent_ms: int) -> bool:
        return True


class TakesGoneForBuried(PeerWatch):
    """Rule 8: a record that is gone counts as silent at once."""

    def _record_silent(self, node: str, now_ms: int, silent_ms: int) -> bool:
        seen = self._records.get(node)
        gone = seen is not None and seen[0] is None
        return gone or super()._record_silent(node, now_ms, silent_ms)


def _hasty() -> LeaseTimes:
    """Times that `LeaseTimes` refuses: others take over before the owner is silent."""
    times = LeaseTimes()
    object.__setattr__(times, "take_ms", 1_500)
    return times


MUTANTS: Final = {
    "1 takes the answer of a call that was given up": Rules(lease=TakesAnyAnswer),
    "2 counts from the answer": Rules(lease=CountsFromAnswer),
    "3 never silent": Rules(lease=NeverSilent),
    "4 a refusal counts": Rules(lease=KeepsActingWhenRefused),
    "5 takes a burial for a ghost": Rules(lease=TakesBurialForGhost),
    "6 rises blindly": Rules(lease=RisesBlindly),
    "6 rises on an old word": Rules(lease=RisesOnOldWord),
    "7 keeps revisions": Rules(lease=KeepsRevisions),
    "8 ignores records": Rules(watch=IgnoresRecords),
    "8 ignores rows": Rules(watch=IgnoresRows),
    "8 takes gone for buried": Rules(watch=TakesGoneForBuried),
    "8 buries any revision": Rules(buries_by_revision=False),
    "8 fences any beat": Rules(fences_by_beat=False),
    "8 fences first": Rules(fences_first=True),
    "8 takes before the owner is silent": Rules(times=_hasty()),
    "9 gives back first": Rules(gives_back_first=True),
}
