"""Requests of hosts: change an instance, moderate users, give roles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import assert_never

import outcome

from actors.instance.frames import moderated_answer
from actors.instance.messages import (
    AddModerator,
    GetBans,
    GetMutes,
    Moderate,
    ModerationMessage,
    ReassignOwner,
    RemoveModerator,
    TransferMaster,
    UpdateInstance,
)
from actors.instance.parts import InstanceParts
from actors.instance.persistence import Persistence
from reileta.errors import NotAllowed, ReiletaError
from reileta.ids import at, user_ref
from reileta.records import Moderation
from reileta.rules.instance.events import InstanceEvent


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a moderation request: events, and an entry for the moderation log.

    There is neither if the request changes nothing; it may still have to become durable.
    """

    domain_events: list[InstanceEvent]
    log_entry: Moderation | None


class ModerationRequests:
    """The hosts' requests to one instance.

    Moderation takes effect at once, in one order with the data; its requester is answered after the
    commit.
    """

    def __init__(self, parts: InstanceParts, persistence: Persistence) -> None:
        self._parts = parts
        self._persistence = persistence
        self._logged_at = 0

    # The instance itself -----------------------------------------------------------------------

    def updated(
        self, message: UpdateInstance, result: outcome.Outcome[object]
    ) -> list[InstanceEvent]:
        """Lets an update that was written take effect, and answers it."""
        if isinstance(result, outcome.Error):
            message.slot.put(result)
            return []
        rules = self._parts.rules
        try:
            record, domain_events = rules.update(message.by, message.changes, self._parts.now())
        except ReiletaError as error:  # players joined while it was written, or the instance ended
            if not rules.closed:
                self._persistence.restore()
            message.fail(error)
            return []
        self._parts.recovery.record = record
        message.reply(record)
        return domain_events

    def reassign_owner(self, message: ReassignOwner) -> list[InstanceEvent]:
        """The owner's account was deleted: the instance has a new owner."""
        owner = message.owner
        owner_at = at(owner, self._parts.config.address)
        record, domain_events = self._parts.rules.reassign_owner(owner, owner_at, self._parts.now())
        self._parts.recovery.record = record
        return domain_events

    # Users -------------------------------------------------------------------------------------

    def decide(self, message: ModerationMessage) -> Decision:
        """Decides a request; `finish` follows, once the events are applied.

        Raises:
            Overloaded: too many moderation writes are pending.
            ReiletaError: what the rules refuse, as `Instance.moderate` does.
        """
        self._persistence.ensure_room()
        rules, by, now = self._parts.rules, message.by, self._parts.now()
        reason: str | None = None
        until: int | None = None
        match message:
            case Moderate():
                type_, reason, until = message.type, message.reason, message.until
                user = self._user(message.target)
                domain_events = rules.moderate(
                    by, message.target, type_, reason, until, now, admin=message.admin
                )
            case TransferMaster(to=to):
                type_, user = "master", self._user(to)
                domain_events = rules.transfer_master(by, to, now)
            case AddModerator(user=user, guest=guest):
                type_ = "moderator"
                domain_events = rules.add_moderator(by, user, now, guest=guest)
            case RemoveModerator(user=user):
                type_ = "unmoderator"
                domain_events = rules.remove_moderator(by, user, now)
            case _:
                assert_never(message)
        if not domain_events:
            return Decision([], None)
        address = self._parts.config.address
        entry = Moderation(
            instance_id=self._parts.id,
            owner=rules.record.owner,
            type=type_,
            user=user_ref(user, address),
            by=user_ref(by.user, address),
            reason=reason,
            until=until,
            created_at=self._log_time(now),
            deed=None if message.deed is None else message.deed.id,
        )
        return Decision(domain_events, entry)

    def _log_time(self, now: int) -> int:
        """The time of the next log entry. Each has its own, since the log takes an entry with the
        same time, type and users as a repetition of a write whose result was lost."""
        self._logged_at = max(now, self._logged_at + 1)
        return self._logged_at

    def finish(self, message: ModerationMessage, decision: Decision, before: int) -> None:
        """Writes the log entry, and answers the request once all of it is durable.

        `before`: the number of writes that were pending before the decision.
        """
        message.defer()
        if decision.log_entry is not None:
            self._persistence.add(decision.log_entry)
        writes = self._persistence.pending - before
        self._persistence.when_durable(writes, partial(self.answer, message))

    def answer(self, message: ModerationMessage, error: ReiletaError | None) -> None:
        """Answers a request whose writes are durable, or are not yet."""
        if error is not None:
            message.fail(error)
            return
        if isinstance(message, Moderate) and message.sink is not None:
            frame = moderated_answer(message, self._parts.id)
            if frame is not None:
                self._parts.fanout.private(message.sink, frame)
        message.reply(None)

    def list_bans(self, message: GetBans) -> None:
        """Answers with the bans in force, the oldest first. Raises NotAllowed, and
        GuestNotAllowed for a guest who is not the owner."""
        rules, now = self._parts.rules, self._parts.now()
        rules.ensure_hosts(message.by)
        if not rules.oversees(message.by):
            raise NotAllowed
        message.reply(
            tuple(ban for ban in rules.bans.values() if ban.until is None or now < ban.until)
        )

    def list_mutes(self, message: GetMutes) -> None:
        """Answers with the mutes in force, the oldest first. Raises NotAllowed."""
        rules, now = self._parts.rules, self._parts.now()
        if not rules.oversees(message.by):
            raise NotAllowed
        message.reply(tuple(mute for mute in rules.mutes.values() if rules.muted(mute.user, now)))

    def _user(self, target: str) -> str:
        """The user of a player inside, or the user itself."""
        player = self._parts.rules.players.get(target)
        return target if player is None else player.user
