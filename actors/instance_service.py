"""Requests of the APIs to live instances: queue, players, moderation.

A user is named by its id, `id@server` or username; a player by its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar, get_args

from actors.cluster.orders import Orders
from actors.delivery.interest import InterestGroups
from actors.delivery.sink import Sink
from actors.instance.manager import InstanceManager
from actors.instance.messages import (
    AddModerator,
    AdmitCandidate,
    CloseInstance,
    DirectWay,
    GetBans,
    GetMutes,
    GetPlayers,
    GetQueue,
    GetTicket,
    GetValues,
    Moderate,
    Order,
    QueueSnapshot,
    RejectCandidate,
    RemoveModerator,
    RequestEntry,
    TransferMaster,
    UpdateInstance,
    WithdrawEntry,
)
from actors.runtime.ask import ask, ask_timeout
from actors.runtime.message import Request
from actors.session.manager import SessionManager
from reileta import records
from reileta.errors import MessageInvalid, ModerationInvalid, NotInInstance, UserNotFound
from reileta.ids import At, at, banned_server, is_id, is_username
from reileta.rules.federation.addresses import covers
from reileta.rules.identity import Principal, Visitor
from reileta.rules.instance.candidates import Entry
from reileta.rules.instance.interest import Interest
from reileta.rules.instance.position import position_in_value
from reileta.rules.instance.roles import Role
from reileta.rules.instance.sanctions import Mute
from reileta.rules.instance.seats import Player
from reileta.store.instances import Instances
from reileta.store.users import Users

R = TypeVar("R")
NO_POSITIONS: Final = "must be an array of player ids: the instance names no position_key"


@dataclass(frozen=True, slots=True)
class ModerationRequest:
    """A moderation of a user, a player or all users of a server (`*@server`); see
    `reileta/rules/instance/sanctions.py`."""

    target: str
    type: str
    reason: str | None = None
    until: int | None = None


class InstanceService:
    """Requests to the instances of a node, on behalf of a principal.

    Each raises the error that the rules answer with, `InstanceNotFound` if the principal may not
    see the instance, and `Overloaded` if the answer takes too long.
    """

    def __init__(
        self,
        instances: InstanceManager,
        sessions: SessionManager,
        *,
        users: Users,
        stored: Instances,
        interests: InterestGroups,
        address: str,
    ) -> None:
        self._instances = instances
        self._sessions = sessions
        self._users = users
        self._stored = stored
        self._interests = interests
        self._address = address
        self.orders: Orders | None = None
        """Repeats orders, and knows them again, in a cluster."""

    # The instance ------------------------------------------------------------------------------

    async def update(
        self, instance_id: str, principal: Principal, changes: records.InstanceChanges
    ) -> records.InstanceRecord:
        """Changes title, description, capacity or tags; returns the record after the commit."""
        by = self._by(principal)
        return await self._ask(instance_id, by, UpdateInstance(by, changes))

    async def close(self, instance_id: str, principal: Principal) -> None:
        """Ends the instance after the commit; everybody inside is notified."""
        by = self._by(principal)
        await self._ask(instance_id, by, CloseInstance(by))

    # The queue ---------------------------------------------------------------------------------

    async def candidate(self, instance_id: str, principal: Principal) -> Entry:
        """Asks for a seat: the principal becomes a candidate."""
        # The friends are needed even if they do not matter now: the access may change later.
        friends = await self._sessions.friends(principal.user)
        by = principal.as_visitor(self._address, friends)
        return await self._instances.entered(
            instance_id, lambda: self._ask(instance_id, by, RequestEntry(by))
        )

    async def withdraw(self, instance_id: str, principal: Principal) -> None:
        """Withdraws the principal's candidacy."""
        by = self._by(principal)
        await self._ask(instance_id, by, WithdrawEntry(by))

    async def admit(self, instance_id: str, principal: Principal, user: str) -> Entry:
        """Invites a user, or admits a candidate."""
        by = self._by(principal)
        return await self._ask(instance_id, by, AdmitCandidate(by, await self._user(user)))

    async def refuse(self, instance_id: str, principal: Principal, user: str) -> None:
        """Rejects a candidate, and withdraws its invitation."""
        by = self._by(principal)
        await self._ask(instance_id, by, RejectCandidate(by, await self._user(user)))

    async def queue(self, instance_id: str, principal: Principal | None) -> QueueSnapshot:
        """The queue, as the principal may see it. An instance that does not run has none."""
        ref = await self._instances.find(instance_id)
        if ref is None:
            return QueueSnapshot(entries=())
        return await ask(ref, GetQueue(None if principal is None else self._by(principal)))

    async def players(
        self, instance_id: str, principal: Principal | None = None
    ) -> tuple[tuple[Player, Role], ...]:
        """The players, longest inside first; a principal of None is not logged in."""
        ref = await self._instances.find(instance_id)
        if ref is None:
            return ()
        return await ask(ref, GetPlayers(None if principal is None else self._by(principal)))

    async def set_interest(self, instance_id: str, sink: Sink, wanted: Interest) -> None:
        """Lets a socket inside have fewer values of the others from now on.

        Raises NotInInstance, and MessageInvalid if `wanted` has a radius, and the instance names no
        key of positions.
        """
        seat, key = sink.seats.get(instance_id), None
        if seat is not None and isinstance(wanted.near, float):
            record = await self._stored.get(instance_id)
            key = None if record is None else record.position_key
            if key is None:
                raise MessageInvalid.field("data.near", NO_POSITIONS)
            seat = sink.seats.get(instance_id)
        if seat is None:
            raise NotInInstance
        self._interests.ask(instance_id, sink, seat.player, wanted, key, held=seat.held)
        if key is not None:
            await self._place_players(instance_id, key)

    async def _place_players(self, instance_id: str, key: str) -> None:
        """Notes where the players say that they are."""
        ref = await self._instances.find(instance_id)
        for player, value in () if ref is None else await ask(ref, GetValues(key)):
            place = position_in_value(value)
            if place is not None:
                self._interests.place(instance_id, player, place)

    # Hosts -------------------------------------------------------------------------------------

    async def bans(self, instance_id: str, principal: Principal) -> tuple[records.Ban, ...]:
        """The bans in force, for those who oversee the instance."""
        by = self._by(principal)
        return await self._ask(instance_id, by, GetBans(by))

    async def mutes(self, instance_id: str, principal: Principal) -> tuple[Mute, ...]:
        """The mutes in force, for those who oversee the instance."""
        by = self._by(principal)
        return await self._ask(instance_id, by, GetMutes(by))

    async def ticket(self, instance_id: str, principal: Principal) -> DirectWay:
        """A way to the instance's node for the session's player.

        Raises NotInInstance, and NotImplementedHere if the node takes no direct connections.
        """
        by = self._by(principal)
        return await self._ask(instance_id, by, GetTicket(by))

    async def moderate(
        self,
        instance_id: str,
        principal: Principal,
        request: ModerationRequest,
        *,
        sink: Sink | None = None,
        state: bytes | None = None,
    ) -> None:
        """Moderates a user or a player; returns after the commit.

        A command on a socket (`sink`) is answered there too, in order with the other frames. The
        principal's user counts as it is now, since the socket may have been open for long. Raises
        UserNotFound for a user of this server that does not exist, and ModerationInvalid for this
        server itself.
        """
        if sink is not None:
            principal = self._sessions.current(principal)
        target, admin = request.target, False
        server = banned_server(target)
        if server is not None:
            if covers(server, self._address):
                raise ModerationInvalid.field("server", "must be another server")
        elif not is_id(target, "p"):
            target = await self._user(target)
            admin = await self._is_admin(target)
        by = self._by(principal)
        order = Moderate(
            by,
            target,
            request.type,
            request.reason,
            request.until,
            sink,
            state,
            admin,
        )
        await self._ask(instance_id, by, order)

    async def _is_admin(self, user: str) -> bool:
        """Whether a `UserIDAt` is an admin of this server. Raises UserNotFound if it is of this
        server and does not exist."""
        named = At.parse(user)
        if not named.local_to(self._address):
            return False
        # A connected user can be moderated while the database is down.
        user_record = self._sessions.user(named.id) or await self._users.by_id(named.id)
        if user_record is None:
            raise UserNotFound
        return user_record.admin

    async def transfer_master(self, instance_id: str, principal: Principal, to: str) -> None:
        """Makes a user or a player inside the master; for the owner."""
        target = to if is_id(to, "p") else await self._user(to)
        by = self._by(principal)
        await self._ask(instance_id, by, TransferMaster(by, target))

    async def add_moderator(self, instance_id: str, principal: Principal, user: str) -> None:
        """Makes a user a moderator; for the owner."""
        by = self._by(principal)
        name = await self._user(user)
        guest = not At.parse(name).local_to(self._address)
        await self._ask(instance_id, by, AddModerator(by, name, guest))

    async def remove_moderator(self, instance_id: str, principal: Principal, user: str) -> None:
        """Removes a moderator; for the owner."""
        by = self._by(principal)
        await self._ask(instance_id, by, RemoveModerator(by, await self._user(user)))

    # Helpers -----------------------------------------------------------------------------------

    async def _ask(self, instance_id: str, by: Visitor, request: Request[R]) -> R:
        if self.orders is not None and isinstance(request, get_args(Order)):
            with ask_timeout():
                answer: R = await self.orders.give(instance_id, by, request)
                return answer
        _, ref = await self._instances.live(instance_id, by)
        return await ask(ref, request)

    def _by(self, principal: Principal) -> Visitor:
        return principal.as_visitor(self._address)

    async def _user(self, text: str) -> str:
        """The `UserIDAt` of a user; only a username needs the database. Raises UserNotFound."""
        named = At.parse(text) if text else At(text)
        if is_id(named.id, "u"):
            return at(str(named), self._address)
        user = None
        if named.local_to(self._address) and is_username(named.id):
            user = await self._users.by_name(named.id)
        if user is None:
            raise UserNotFound
        return at(user.id, self._address)
