"""What hosts do with an instance: change it, close it, moderate, give roles (PROTOCOL §6).

Changes of the record take effect once they are in the database. Moderation takes effect at once, in
one order with the data; who ordered it is answered when it is durable
(`actors/instance/moderation_writer.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import outcome

from actors.delivery.fanout import Fanout
from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.instance.messages import (
    AddModerator,
    CloseInstance,
    GetBans,
    Moderate,
    ReassignOwner,
    RemoveModerator,
    TransferMaster,
    UpdateInstance,
)
from actors.instance.moderation_writer import ModerationWriter
from actors.instance.persistence import Persistence
from actors.instance.publisher import Publisher
from actors.instance.recovery import RecoveryState, Then
from actors.membership import Administers
from reileta.clock import Clock
from reileta.errors import InstanceNotFound, NotAllowed, ReiletaError
from reileta.ids import at, ref
from reileta.protocol import commands, events
from reileta.protocol.frames import answer, encode, event
from reileta.protocol.views.instance import ModeratedView, RoleView
from reileta.protocol.views.registry import known
from reileta.records import Ban, LiftBan, Moderation, ModeratorAddition, ModeratorRemoval
from reileta.rules.identity import Visitor
from reileta.rules.instance.events import (
    AdminChanged,
    BannedUser,
    Happening,
    MasterChanged,
    Muted,
    RoleChanged,
    Unbanned,
    Unmuted,
    Updated,
    Warned,
)
from reileta.rules.instance.instance import Instance

Ruling = (
    BannedUser
    | Unbanned
    | Muted
    | Unmuted
    | Warned
    | RoleChanged
    | AdminChanged
    | MasterChanged
    | Updated
)
"""What happens by what hosts do, and is told here."""
HostMessage: TypeAlias = (
    UpdateInstance
    | CloseInstance
    | Moderate
    | TransferMaster
    | AddModerator
    | RemoveModerator
    | GetBans
)
"""What hosts ask for."""


class ModerationRequests:
    """The hosts' side of one instance. `carry_out` tells everyone what happened; `settle`
    writes down how full it is, which was put off while it was to be closed."""

    def __init__(
        self,
        rules: Instance,
        recovery: RecoveryState,
        fanout: Fanout,
        publisher: Publisher,
        *,
        persistence: Persistence,
        moderation_writer: ModerationWriter,
        directory: Directory,
        clock: Clock,
        address: str,
        carry_out: Callable[[Sequence[Happening]], None],
        settle: Callable[[], None],
    ) -> None:
        self._rules = rules
        self._id = rules.record.id
        self._recovery = recovery
        self._fanout = fanout
        self._publisher = publisher
        self._persistence = persistence
        self._moderation_writer = moderation_writer
        self._directory = directory
        self._clock = clock
        self._address = address
        self._carry_out = carry_out
        self._settle = settle
        self._master = rules.master
        self._by: str | None = None  # whose order is being carried out
        self._knew: str | None = None  # whom it is about, if that one could see the instance before
        self.closing = False
        """Whether its end is decided."""

    def obey(self, message: HostMessage) -> None:
        """Does what a host asks for, if it may."""
        match message:
            case UpdateInstance():
                self.change(message)
            case CloseInstance():
                self.close(message)
            case Moderate():
                self.moderate(message)
            case TransferMaster():
                self.hand_over(message)
            case AddModerator():
                self.name(message)
            case RemoveModerator():
                self.dismiss(message)
            case GetBans():
                self.tell_bans(message)

    # The instance itself -----------------------------------------------------------------------

    def change(self, message: UpdateInstance) -> None:
        """Writes the change down, then lets it take effect."""
        planned = self._rules.plan(message.by, message.changes)
        message.defer()

        def written(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                message.slot.put(result)
                return
            try:
                record, happenings = self._rules.update(message.by, message.changes, self._now())
            except ReiletaError as error:  # people came in while it was written, or it ended
                if not self._rules.closed:
                    self._persistence.restore(lambda: self._rules.record)
                message.fail(error)
                return
            self._recovery.record = record
            self._carry_out(happenings)
            message.reply(record)

        self._persistence.change(planned, message.changes, written)

    def close(self, message: CloseInstance) -> None:
        """Ends it, once the database knows it no longer."""
        self._rules.ensure_governs(message.by)
        if self.closing:
            raise InstanceNotFound
        self.closing = True
        message.defer()

        def written(result: outcome.Outcome[object]) -> None:
            if isinstance(result, outcome.Error):
                self.closing = False
                self._settle()
                message.slot.put(result)
                return
            self._carry_out(self._rules.close(None, self._now()))
            message.reply(None)

        self._persistence.delete(written)

    def vanish(self) -> None:
        """The database knows it no longer: it is over, and whoever is inside is told."""
        if self.closing:
            return
        self.closing = True
        self._carry_out(self._rules.close(None, self._now()))

    def inherit(self, message: ReassignOwner) -> None:
        """The owner's account was deleted: the record has another owner."""
        owner = message.owner
        record, happenings = self._rules.inherit(owner, at(owner, self._address), self._now())
        self._recovery.record = record
        self._carry_out(happenings)

    def heed_admin(self, message: Administers) -> None:
        """A user became an admin of the server, or is one no longer."""
        self._carry_out(self._rules.administers(message.user, message.admin, self._now()))

    # Orders ------------------------------------------------------------------------------------

    def moderate(self, message: Moderate) -> None:
        """A measure; see `Instance.moderate` for what it raises."""
        by, now = message.by, self._now()
        player = self._rules.players.get(message.target)
        user = message.target if player is None else player.user

        def order() -> list[Happening]:
            return self._rules.moderate(
                by,
                message.target,
                message.type,
                message.reason,
                message.until,
                now,
                admin=message.admin,
            )

        def durable(error: ReiletaError | None) -> None:
            if error is not None:
                message.fail(error)
                return
            if message.sink is not None and message.state is not None:
                said = answer(commands.INSTANCE_MODERATE, message.state, self._id)
                self._fanout.private(message.sink, said)
            message.reply(None)

        message.defer()
        until = message.until
        self._order(by, order, message.type, user, message.reason, until, durable)

    def hand_over(self, message: TransferMaster) -> None:
        """The owner makes another the master."""
        player = self._rules.players.get(message.to)
        user = message.to if player is None else player.user
        self._change_role(
            message, lambda: self._rules.hand_over(message.by, message.to, self._now()), user
        )

    def name(self, message: AddModerator) -> None:
        """The owner names a moderator."""
        self._change_role(
            message,
            lambda: self._rules.name_moderator(message.by, message.user, self._now()),
            message.user,
        )

    def dismiss(self, message: RemoveModerator) -> None:
        """The owner dismisses a moderator."""
        self._change_role(
            message,
            lambda: self._rules.dismiss_moderator(message.by, message.user, self._now()),
            message.user,
        )

    def tell_bans(self, message: GetBans) -> None:
        """The bans in force, the oldest first."""
        if not self._rules.oversees(message.by):
            raise NotAllowed
        now = self._now()
        bans = self._rules.bans.values()
        message.reply(tuple(ban for ban in bans if ban.until is None or now < ban.until))

    def _change_role(
        self,
        message: TransferMaster | AddModerator | RemoveModerator,
        order: Callable[[], list[Happening]],
        user: str,
    ) -> None:
        types = {
            TransferMaster: "master",
            AddModerator: "moderator",
            RemoveModerator: "unmoderator",
        }

        def durable(error: ReiletaError | None) -> None:
            if error is None:
                message.reply(None)
            else:
                message.fail(error)

        message.defer()
        self._order(message.by, order, types[type(message)], user, None, None, durable)

    def _order(
        self,
        by: Visitor,
        order: Callable[[], list[Happening]],
        type_: str,
        user: str,
        reason: str | None,
        until: int | None,
        durable: Then,
    ) -> None:
        """Gives an order, has it take effect, and writes it down. What is so already is not done
        again, but may have to become durable yet."""
        self._moderation_writer.ensure_room()
        knew = self._rules.audience.admits(user)
        happenings = order()
        self._by, self._knew = by.user, user if knew else None
        self._carry_out(happenings)
        self._by = self._knew = None
        if happenings:
            self._moderation_writer.do(
                Moderation(
                    instance_id=self._id,
                    owner=self._rules.record.owner,
                    type=type_,
                    user=ref(user, self._address),
                    by=ref(by.user, self._address),
                    reason=reason,
                    until=until,
                    created_at=self._now(),
                )
            )
        self._moderation_writer.settled(durable)

    # What happened -----------------------------------------------------------------------------

    def tell(self, happening: Ruling) -> None:
        """Tells those concerned, and writes down what is to last."""
        match happening:
            case BannedUser(ban):
                self._moderation_writer.do(self._stored(ban))
                said = ModeratedView(
                    type="ban",
                    user=ban.user,
                    by=ban.by,
                    reason=known(ban.reason),
                    until=known(ban.until),
                )
                self._tell_moderated(said, overseers=True)
            case Unbanned(user, by):
                self._moderation_writer.do(LiftBan(self._id, ref(user, self._address)))
                said = ModeratedView(type="unban", user=user, by=known(by))
                self._tell_moderated(said, overseers=True)
            case Muted(user, until, reason, by):
                said = ModeratedView(
                    type="mute", user=user, by=by, reason=known(reason), until=known(until)
                )
                self._tell_moderated(said, overseers=True)
            case Unmuted(user, by):
                said = ModeratedView(type="unmute", user=user, by=known(by))
                self._tell_moderated(said, overseers=True)
            case Warned(user, reason, by):
                said = ModeratedView(type="warn", user=user, by=by, reason=known(reason))
                self._tell_moderated(said, overseers=False)
            case RoleChanged(user):
                self._note_moderator(user)
                self._tell_role(user)
            case AdminChanged(user):
                self._tell_role(user)
            case MasterChanged(user):
                before, self._master = self._master, user
                if before is not None and before in self._rules.seats.users:
                    self._tell_role(before)
                if user is not None:
                    self._tell_role(user)
            case Updated():
                pass  # those who watch the object are told at the end of the drain

    def _tell_moderated(self, said: ModeratedView, *, overseers: bool) -> None:
        data = encode(said)
        frame = event(events.INSTANCE_MODERATED, self._id, data)
        rules = self._rules
        players = rules.players_of(said.user)
        own: tuple[Sink, ...] = ()
        # Who is not inside hears of it only with a right to know of the instance, now or until now.
        knows = said.user == self._knew or rules.audience.admits(said.user)
        if not players and knows:
            own = self._directory.sockets(ref(said.user, self._address))
        if overseers:
            players += rules.overseers()
        sinks = (*self._recovery.sinks_of(players), *own)
        for sink in sinks:
            self._fanout.private(sink, frame)
        if overseers:
            self._publisher.tell(events.INSTANCE_MODERATED, data, told=sinks, overseers=True)

    def _tell_role(self, user: str) -> None:
        """Everyone inside, for they were told its role; and the user, inside or not."""
        data = encode(RoleView(user, self._rules.role_of(user)))
        frame = event(events.INSTANCE_ROLE, self._id, data)
        self._fanout.broadcast(frame)
        own: tuple[Sink, ...] = ()
        if user not in self._rules.seats.users:
            own = self._directory.sockets(ref(user, self._address))
        for sink in own:
            self._fanout.private(sink, frame)
        self._publisher.tell(events.INSTANCE_ROLE, data, told=own)

    def _note_moderator(self, user: str) -> None:
        stored = ref(user, self._address)
        if user in self._rules.roles.moderators:
            by = ref(self._by or self._rules.owner, self._address)
            self._moderation_writer.do(ModeratorAddition(self._id, stored, by, self._now()))
        else:
            self._moderation_writer.do(ModeratorRemoval(self._id, stored))

    def _stored(self, ban: Ban) -> Ban:
        """The ban as records keep it."""
        return Ban(
            ban.instance_id,
            ref(ban.user, self._address),
            ban.until,
            ban.reason,
            ref(ban.by, self._address),
            ban.created_at,
        )

    def _now(self) -> int:
        return self._clock.now_ms()
