"""The sessions inside an instance: their seats and sockets, and sockets that observe.

An observer is an admin's socket that gets all players' data without being inside.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import trio

from actors.delivery.batch import Batch
from actors.delivery.sink import Sink
from actors.instance.liveness import SilentSinks
from actors.instance.messages import Absent, GetPlayers, GetValues, RestoreMembers
from actors.instance.parts import InstanceParts
from actors.instance.recovery import Member
from actors.instance.relay import DataRelay, SocketSeat
from actors.membership import AddMember, RemoveMember, SocketLost
from reileta.errors import NotInInstance, Overloaded
from reileta.rules.instance.events import InstanceEvent, Joined, LeaveReason, Left
from reileta.rules.instance.seats import Player


class Members:
    """The members of one instance. It is the one place that writes `RecoveryState.seated` and the
    instance's entries in `Sink.seats`, as long as the actor lives."""

    def __init__(self, parts: InstanceParts, relay: DataRelay) -> None:
        self._parts = parts
        self._relay = relay
        self._series = itertools.count(1)
        self._reserved: dict[str, int] = {}
        self.all_complete = False
        """Whether all sockets have got everything from the node that handed the instance over."""

    # Joining -----------------------------------------------------------------------------------

    def siblings(self, message: AddMember) -> list[Sink]:
        """The sockets that the session has inside already, if this one is new."""
        member = self._parts.recovery.seated.get(message.visitor.session)
        if member is None or message.sink in member.sinks:
            return []
        return list(member.sinks)

    def sockets_of(self, user: str) -> list[Sink]:
        """The sockets of all of a user's sessions inside."""
        return list(self._parts.recovery.sinks_of(self._parts.rules.players_of(user)))

    def silent_sessions(self, user: str, silent: SilentSinks) -> frozenset[str]:
        """The sessions of a user whose sockets are all silent. One may have a new socket since."""
        seated = self._parts.recovery.seated
        members = (seated.get(one.session) for one in self._parts.rules.players_of(user))
        return frozenset(
            one.player.session
            for one in members
            if one is not None and one.sinks and silent.issuperset(one.sinks)
        )

    def join(self, message: AddMember, silent: frozenset[str] = frozenset()) -> list[InstanceEvent]:
        """Gives the session a seat, or finds the one it has; `welcome` follows.

        Sessions of the same user in `silent` give way to it.

        Raises:
            Overloaded: the socket is inside, and has not read all it was sent.
            ReiletaError: what the rules refuse, as `Instance.join` does.
        """
        seated, sink, visitor = self._parts.recovery.seated, message.sink, message.visitor
        member = seated.get(visitor.session)
        if member is not None and sink in member.sinks and sink.waiting_bytes:
            raise Overloaded
        player, domain_events = self._parts.rules.join(visitor, self._parts.now(), silent)
        if member is None:
            member = seated[visitor.session] = Member(visitor, player, message.session)
        # The session's actor may have stopped, and another one started.
        member.entered_from(message.session)
        self.refresh_observers()  # a socket may have subscribed before this instance ran
        return domain_events

    def welcome(self, message: AddMember, *, gap: bool = False) -> None:
        """Seats the socket, sends it all that it must know, and answers the request.

        The events of the join go out before, so they do not reach a new socket. A player that had
        no socket gets the messages that it missed. `gap`: some of those before may be lost.
        """
        fanout, sink = self._parts.fanout, message.sink
        member = self._parts.recovery.seated[message.visitor.session]
        missed = self._parts.recovery.missed.take(member.player.id, trio.current_time())
        snapshot: tuple[Batch, ...] = ()
        if message.state is not None:
            gap = gap or missed.gap
            snapshot = self._parts.frames.welcome_parts(member.player, message.state, gap)
        again = sink in member.sinks
        self._seat(sink, member)
        if not again:
            fanout.add(sink, (*snapshot, *missed.batches))
        elif snapshot:
            fanout.answer(sink, snapshot)
        message.reply(member.player.id)

    def reserve_series(self, player_id: str) -> int:
        """The series that the only socket of a player will get in `restore`."""
        if player_id not in self._reserved:
            self._reserved[player_id] = next(self._series)
        return self._reserved[player_id]

    def restore(self, absent: Mapping[str, Absent] = MappingProxyType({})) -> list[str]:
        """After a crash, or at another node, gives all members their seats back. Sends each a fresh
        snapshot, unless it has got everything until now.

        `absent`: those who had no socket at the other node, by player. Returns the sessions that
        have no socket now, for `Instance.disconnect`.
        """
        rules, frames, fanout = self._parts.rules, self._parts.frames, self._parts.fanout
        now = self._parts.now()
        self.all_complete = all(
            member.complete.issuperset(member.sinks)
            for member in self._parts.recovery.seated.values()
        )
        for member in tuple(self._parts.recovery.seated.values()):
            if rules.may_return(member.visitor, now):
                rules.restore(member.visitor, member.player, now)
            else:  # it was inside at another host, and not everything was known there
                self._turn_away(member, "disconnected")
        for member, reason in self._parts.recovery.turned_away:
            self._turn_away(member, reason)
        self._parts.recovery.turned_away.clear()
        members = tuple(self._parts.recovery.seated.values())
        for member in members:
            series = self._reserved.get(member.player.id) if len(member.sinks) == 1 else None
            for sink in member.sinks:
                self._seat(sink, member, series)
                complete = sink in member.complete
                fanout.add(sink, None if complete else frames.restored_parts(member.player))
            member.complete.clear()
        self._reserved.clear()
        lost = [member for member in members if not member.sinks]
        missed = self._parts.recovery.missed
        for member in lost:
            known = absent.get(member.player.id)
            if known is not None:
                missed.resume(member.player.id, known.frames, gap=known.gap)
            else:
                # Known already, unless the crash was in the middle of losing or seating its socket.
                missed.begin(member.player.id, gap=True)
        return [member.visitor.session for member in lost]

    def _turn_away(self, member: Member, reason: LeaveReason) -> None:
        """Ends the seat of a member that the rules don't know."""
        left = Left(member.player, reason, None)
        frame = self._parts.frames.left_of_player(left)
        for sink in member.sinks:
            sink.seats.pop(self._parts.id, None)
            self._parts.fanout.private(sink, frame)
        self._parts.recovery.seated.pop(member.player.session, None)
        member.seat_lost(self._parts.id)

    def readmit(self, message: RestoreMembers) -> list[InstanceEvent]:
        """Gives those who were inside at an earlier host their seats back. The events are for the
        others: apply them before `restore_remote`, whose snapshots name these players."""
        rules, now = self._parts.rules, self._parts.now()
        seated, out = self._parts.recovery.seated, list[InstanceEvent]()
        for given in message.members if message.returning else ():
            session = given.player.session
            if session not in seated and rules.may_return(given.visitor, now):
                # Its sockets take their places in `restore_remote`.
                seated[session] = replace(given, sinks={})
                rules.restore(given.visitor, given.player, now)
                out.append(Joined(given.player, rules.role_of(given.player.user)))
        return out

    def restore_remote(self, message: RestoreMembers) -> list[InstanceEvent]:
        """Sends a snapshot to sockets at another node that have missed messages, and answers the
        request."""
        rules, now = self._parts.rules, self._parts.now()
        seated, out, lost = self._parts.recovery.seated, list[InstanceEvent](), []
        for given in message.members:
            member = seated.get(given.player.session)
            if member is None or member.player.id != given.player.id:
                lost.append((given.player.session, given.player.id))
                continue
            member.entered_from(given.session)
            self._parts.recovery.missed.forget(member.player.id)
            if given.sinks:
                out += rules.join(member.visitor, now)[1]  # it has a socket again
            for sink in given.sinks:
                self._seat(sink, member)
                self._parts.fanout.add(sink, self._parts.frames.restored_parts(member.player))
            if not member.sinks:
                out += rules.disconnect(member.player.session, now)
        message.reply(tuple(lost))
        return out

    def _seat(self, sink: Sink, member: Member, series: int | None = None) -> None:
        member.sinks[sink] = None
        if series is None:
            series = next(self._series)
        sink.seats[self._parts.id] = SocketSeat(
            self._parts.context.ref, member.player.id, member.player.session, series
        )

    # Leaving -----------------------------------------------------------------------------------

    def player_of(self, session: str) -> Player:
        """The session's player. Raises NotInInstance."""
        member = self._parts.recovery.seated.get(session)
        if member is None:
            raise NotInInstance
        return member.player

    def farewell(self, message: RemoveMember, player: Player) -> None:
        """Answers a session that has left, on its socket too if the client wants that."""
        if message.state is not None:
            frame = self._parts.frames.farewell(player.id, message.state)
            self._parts.fanout.private(message.sink, frame)
        message.reply(None)

    def lose_socket(self, message: SocketLost) -> list[InstanceEvent]:
        """Forgets a socket that has closed; the last one of a session starts its grace, or ends its
        seat if a rule refuses the client."""
        sink = message.sink
        self._parts.fanout.remove(sink)
        sink.seats.pop(self._parts.id, None)
        member = self._parts.recovery.seated.get(message.session)
        if member is None or sink not in member.sinks:
            return []
        del member.sinks[sink]
        if member.sinks:
            return []
        if sink.barred:
            return self._parts.rules.leave(message.session, self._parts.now())
        missed, vanished_at = self._parts.recovery.missed, sink.vanished_at
        gap = (
            sink.lost_frames
            # Said in this drain, and so written to a socket that is closed.
            or self._relay.speaker not in (None, member.player.id)
            or (vanished_at is not None and missed.underway(member.player.id, vanished_at))
        )
        missed.begin(member.player.id, gap=gap)
        return self._parts.rules.disconnect(message.session, self._parts.now(), closed=sink.left)

    def series_of(self, sink: Sink) -> int:
        """The series of a socket's seat; 0: it has none."""
        seat = sink.seats.get(self._parts.id)
        return seat.series if isinstance(seat, SocketSeat) else 0

    def replace(self, player: Player) -> None:
        """A player that is inside has another name now."""
        self._parts.frames.rename(player.id)
        member = self._parts.recovery.seated.get(player.session)
        if member is not None:
            member.player = player
            member.visitor = replace(member.visitor, displayname=player.displayname)

    def remove(self, player: Player) -> Member | None:
        """Forgets a player that has left, with its sockets; returns its member, if it had one."""
        self._parts.frames.forget(player.id)
        self._parts.recovery.missed.forget(player.id)
        self._relay.forget(player)
        member = self._parts.recovery.seated.pop(player.session, None)
        for sink in () if member is None else member.sinks:
            self._parts.fanout.remove(sink)
            sink.seats.pop(self._parts.id, None)
        return member

    # Queries -----------------------------------------------------------------------------------

    def list_players(self, message: GetPlayers) -> None:
        """Answers with the players and their roles, longest inside first."""
        rules = self._parts.rules
        players = rules.players.values()
        message.reply(tuple((player, rules.role_of(player.user)) for player in players))

    def list_values(self, message: GetValues, key: str) -> None:
        """Answers with the retained values of a key."""
        kept = self._parts.rules.values.by_player()
        message.reply(tuple((player, values[key][1]) for player, values in kept if key in values))

    # Observers ---------------------------------------------------------------------------------

    def refresh_observers(self) -> None:
        """Starts or stops sending data to each observing socket, as the directory says."""
        for sink in self._parts.directory.watchers(self._parts.id):
            self.refresh_observer(sink)

    def refresh_observer(self, sink: Sink) -> None:
        """Starts or stops sending data to a socket that is not inside, as the directory says."""
        fanout = self._parts.fanout
        if self._parts.directory.watches(sink, self._parts.id):
            if sink not in fanout:
                fanout.add(sink, None, watcher=True)
        elif fanout.watched_by(sink):
            fanout.remove(sink)
