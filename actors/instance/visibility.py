"""Checks who may see an instance: before its actor is asked, and in the actor.

The rule is in `reileta/rules/visibility.py`. The first check keeps requests about an instance that
the requester may not see away from its actor; otherwise the time of the answer would show that it
exists. The second check is needed because the instance may change while a request waits in its
mailbox.
"""

from __future__ import annotations

from typing import assert_never

from actors.directory import Directory
from actors.hub.messages import RefreshObserver
from actors.instance.messages import (
    AddModerator,
    AdmitCandidate,
    CloseInstance,
    ContinueQueueRound,
    Depart,
    ExcludeServers,
    Freeze,
    GetBans,
    GetMutes,
    GetPlayers,
    GetQueue,
    GetTicket,
    GetValues,
    InstanceMessage,
    LookAgain,
    Moderate,
    NodeChanged,
    ReassignOwner,
    RecordGone,
    RejectCandidate,
    RemoveModerator,
    RequestEntry,
    RestoreMembers,
    RetryWrites,
    SendData,
    Tick,
    TransferMaster,
    UpdateInstance,
    WithdrawEntry,
)
from actors.membership import (
    AddMember,
    CandidateBarred,
    CandidateOffline,
    CandidateOnline,
    MemberSessionEnded,
    RefreshAdmin,
    RemoveMember,
    RenameUser,
    SocketLost,
)
from reileta import records
from reileta.ids import at, user_ref
from reileta.rules import visibility
from reileta.rules.identity import Visitor
from reileta.rules.instance.access import access_of
from reileta.rules.instance.instance import Instance
from reileta.rules.visibility import EVERYONE
from reileta.store import Store


class InstanceVisibility:
    """Checks for the instances of a node, whether or not they run."""

    def __init__(self, store: Store, directory: Directory, address: str) -> None:
        self._store = store
        self._directory = directory
        self._address = address

    async def admits(self, record: records.InstanceRecord, who: Visitor | None) -> bool:
        """Whether a visitor may see the instance of that record; None: it is not logged in.

        A change of the access is in the record a moment before it is in force; a user inside may be
        refused for that moment. Raises DatabaseUnavailable.
        """
        access, owner = access_of(record.tags), at(record.owner, self._address)
        user, admin = (None, False) if who is None else (who.user, who.administers)
        audience = visibility.of_instance(access, owner=owner, moderators=(), inside=())
        if user is None or audience.admits(user, admin=admin):
            return audience.admits(user, admin=admin)
        live = self._directory.live(record.id)
        if live is not None:
            return live.audience != EVERYONE and live.audience.admits(user)
        return user_ref(user, self._address) in await self._store.moderators.of(record.id)

    def runs_for(self, instance_id: str, who: Visitor) -> bool:
        """Whether the instance runs on this node and the visitor may see it."""
        live = self._directory.live(instance_id)
        return live is not None and live.audience.admits(who.user, admin=who.administers)


def ensure_visible(rules: Instance, message: InstanceMessage) -> None:
    """Raises InstanceNotFound unless the sender of a message may see the instance.

    It comes before every other check of the message.
    """
    match message:
        case AddMember(visitor=who) | RequestEntry(visitor=who):
            rules.ensure_visible(who)
        case (
            WithdrawEntry(by=who)
            | AdmitCandidate(by=who)
            | RejectCandidate(by=who)
            | GetQueue(by=who)
            | GetPlayers(by=who)
            | GetBans(by=who)
            | GetMutes(by=who)
            | GetTicket(by=who)
            | Moderate(by=who)
            | TransferMaster(by=who)
            | AddModerator(by=who)
            | RemoveModerator(by=who)
            | UpdateInstance(by=who)
            | CloseInstance(by=who)
        ):
            rules.ensure_visible(who)
        case SendData() | RemoveMember() | SocketLost() | MemberSessionEnded():
            pass  # from players, who are or were inside
        case (
            ReassignOwner()
            | ExcludeServers()
            | RestoreMembers()
            | Freeze()
            | Depart()
            | RefreshAdmin()
            | RenameUser()
            | CandidateOnline()
            | CandidateOffline()
            | CandidateBarred()
            | ContinueQueueRound()
            | RetryWrites()
            | RecordGone()
            | GetValues()
        ):
            pass  # from the server
        case RefreshObserver() | Tick() | LookAgain() | NodeChanged():
            pass  # from the server
        case _:
            assert_never(message)
