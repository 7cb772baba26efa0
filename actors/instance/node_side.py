"""An instance that lives on an instance node: what its actor does about that.

The actor has the rules as always: who is inside, who may enter, moderation, the queue. Only the
data of players takes a way around: to the node, which decides about its order and its content, and
back as proposals (`Fan`). The actor checks each and builds the frames itself. So a node can't speak
for others than the players of its instance, and what it says or leaves out keeps nobody inside.

| state | the node | data | new players |
|---|---|---|---|
| hosted | hosts it | over the node | enter |
| paused | has lost its link, less than `--link-grace-s` ago | refused (122) | refused (128) |
| away | is not connected | nobody is inside | refused (128) |
| here | is a dedicated one that stays away | as without a node | enter |
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from itertools import chain
from typing import Final, Literal

import trio

from actors.delivery.batch import Piece
from actors.delivery.sink import InstanceHandle, Sink
from actors.instance.messages import DirectWay, InstanceMessage, NodeChanged, SendData
from actors.instance.parts import InstanceParts
from actors.instance.recovery import Member, NodePort
from actors.instance.relay import DROPPED_DATA, DataRelay
from actors.membership import AddMember
from reileta.errors import (
    InstanceAway,
    InternalError,
    NotImplementedHere,
    Overloaded,
    ReiletaError,
)
from reileta.protocol import commands, events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, answer, encode, event, failure
from reileta.protocol.node_link import (
    Change,
    Direct,
    Enter,
    Fan,
    Host,
    Leave,
    Return,
    Say,
    Seat,
    size_of,
)
from reileta.protocol.views.instance import DirectNewsView, PausedView
from reileta.rules.instance.events import (
    AdminChanged,
    InstanceEvent,
    Joined,
    Left,
    MasterChanged,
    Muted,
    Renamed,
    RoleChanged,
    Unmuted,
)
from reileta.rules.instance.seats import Player
from reileta.security.tickets import VALID_S, Ticket, new_id

ASKED: Final = 8192
"""Messages that the node has and has not passed on yet; the oldest is refused."""
LEFT: Final = 4096
"""Players that are remembered after they have left, since the node may not have heard of it."""


AGAIN_S: Final = 0.01
"""Shortest wait for what the node said too fast."""


class _State(enum.Enum):
    HOSTED = enum.auto()
    PAUSED = enum.auto()
    AWAY = enum.auto()
    HERE = enum.auto()


class _Nowhere:
    """The sink of what a node says by itself: nobody is answered."""

    def __init__(self) -> None:
        self.seats: dict[str, InstanceHandle] = {}
        self.waiting_bytes = 0
        self.lost_frames = False
        self.left = False
        self.barred = False
        self.vanished_at: float | None = None

    @property
    def direct(self) -> None:
        return None

    async def responds(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    def write(self, pieces: Sequence[Piece]) -> None: ...

    def taken_in_part(self, pieces: Sequence[Piece], sent: int) -> None: ...

    def send(self, frame: bytes) -> None: ...

    def close(self, code: CloseCode, reason: str = "") -> None: ...


_NOWHERE: Final = _Nowhere()


class NodeRelay(DataRelay):
    """Relays players' data over the instance's node. `say` takes what goes there."""

    def __init__(self, parts: InstanceParts) -> None:
        super().__init__(parts)
        self._refuses = parts.rules.ensure_may_speak
        self.say: Callable[[SendData], None] = super().send
        self.direct: set[str] = set()
        """Players who get data from the node itself."""

    def send(self, message: SendData) -> None:
        """Passes one message of a player to the node; its socket gets the error if the rules refuse
        it, or the node has too much to do."""
        try:
            self._refuses(message.player, message.key, message.to, self._now())
            self.say(message)
        except ReiletaError as error:
            frame = failure(commands.INSTANCE_DATA, message.state, self._id, error)
            self._fanout.private(message.sink, frame)

    def _without(self, player_id: str) -> Collection[Sink]:
        """The player's own sockets, and those of players who get it from the node."""
        own = self._sinks_of(player_id)
        if not self.direct:
            return own
        others = (self._sinks_of(one) for one in self.direct if one != player_id)
        return (*own, *chain.from_iterable(others))

    def _receiving(self, player_id: str) -> Collection[Sink]:
        return () if player_id in self.direct else self._sinks_of(player_id)

    def pass_on(self, message: SendData) -> None:
        """Sends a message to its receivers, as the node said."""
        super().send(message)


class HostedOnNode:
    """The node's part in one incarnation of an instance."""

    def __init__(self, parts: InstanceParts, relay: NodeRelay, port: NodePort) -> None:
        self._parts = parts
        self._relay = relay
        self._port = port
        self._state = _State.AWAY
        self._until = 0
        self._lapses_at = 0.0
        self._was_hosted = self._moved = False
        self._offered = False
        """Whether the players know that they can connect to the node."""
        self._again_at = 0.0
        """When the rest of what the node said is looked at."""
        self._asked: OrderedDict[int, SendData] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()
        self._tickets: dict[str, int] = {}
        """How many tickets each player inside has that the node has not named yet."""
        relay.say = self._say
        parts.frames.direct = lambda: self.offers_direct

    # The link ----------------------------------------------------------------------------------

    def begin(self, *, moved: bool) -> list[InstanceEvent]:
        """The incarnation is ready; the port signals `NodeChanged` from here on. `moved`: another
        process has handed the instance over, so the players are promised what the node had."""
        ref = self._parts.context.ref
        self._moved = moved and bool(self._parts.rules.players)
        self._port.listen(lambda: ref.signal(NodeChanged()))
        self._port.begin_anew()
        return self.changed()

    def changed(self) -> list[InstanceEvent]:
        """The link came or went, or items of the node wait."""
        port = self._port
        if port.linked and not port.hosted:
            self._host()
        elif port.linked and self._state is not _State.HOSTED:
            self._resume()
        elif not port.linked and self._state in (_State.HOSTED, _State.AWAY):
            self._pause()
        out: list[InstanceEvent] = []
        if self._state is _State.PAUSED and trio.current_time() >= self._lapses_at:
            out = self._give_up()
        if self._state is _State.HOSTED:
            self._take_all()
            if port.withdrawn:
                self._end_all_direct()
        offered, self._offered = self._offered, self.offers_direct
        if self._offered and not offered and self._parts.rules.players:
            self._broadcast(self._direct_frame("offered"))
        return out

    def _host(self) -> None:
        """The node begins with the instance."""
        parts, was = self._parts, self._state
        self._refuse_asked(InternalError())
        record = parts.rules.record
        players = [self._seat(player) for player in parts.rules.players.values()]
        self._port.host(
            lambda epoch: Host(
                record.id,
                epoch,
                record.world,
                parts.rules.owner,
                record.title,
                record.capacity,
                players,
            )
        )
        self._left.clear()
        self._tickets.clear()  # the node takes none of another epoch
        self._relay.direct.clear()  # it ends these connections, too
        lost = was is _State.PAUSED or (was is _State.HOSTED and self._was_hosted) or self._moved
        self._state, self._was_hosted, self._moved = _State.HOSTED, True, False
        self._relay.say = self._say
        if lost:
            self._restore_all()

    def _resume(self) -> None:
        self._state = _State.HOSTED
        self._relay.say = self._say
        self._broadcast(event(events.INSTANCE_RESUMED, self._parts.id, EMPTY))

    def _pause(self) -> None:
        parts = self._parts
        self._relay.say = _refuse
        if not parts.rules.players and not parts.rules.entries():
            self._state = _State.AWAY
            self._go_on_here()
            return
        grace_s = self._port.grace_s
        self._state = _State.PAUSED
        self._lapses_at = trio.current_time() + grace_s
        self._until = parts.config.clock.now_ms() + int(grace_s * 1000)
        parts.context.after(grace_s, NodeChanged())
        data = encode(PausedView(self._until))
        self._broadcast(event(events.INSTANCE_PAUSED, parts.id, data))

    def _give_up(self) -> list[InstanceEvent]:
        """The node did not come back in time."""
        self._refuse_asked(InternalError())
        self._port.give_up()
        self._relay.direct.clear()
        if self._port.dedicated:
            self._state = _State.AWAY
            self._go_on_here()
            self._restore_all()
            return []
        self._state = _State.AWAY
        return self._parts.rules.lose_host(self._parts.now())

    def _go_on_here(self) -> None:
        """A dedicated node that is away: its instances go on at this server."""
        if self._port.dedicated:
            self._state = _State.HERE
            self._relay.say = self._relay.pass_on

    # Direct connections ------------------------------------------------------------------------

    @property
    def offers_direct(self) -> bool:
        """Whether players can connect to the node themselves."""
        signs = self._parts.config.sign is not None
        return signs and self._state is _State.HOSTED and self._port.direct is not None

    def _direct_frame(self, state: Literal["offered", "begun"]) -> bytes:
        return event(events.INSTANCE_DIRECT, self._parts.id, encode(DirectNewsView(state)))

    def ticket(self, member: Member) -> DirectWay:
        """A way to the node for a player. Raises NotImplementedHere."""
        sign, direct = self._parts.config.sign, self._port.direct
        if sign is None or direct is None or not self.offers_direct:
            raise NotImplementedHere.field("instance", "its node takes no direct connections now")
        if len(member.sinks) != 1:
            raise NotImplementedHere.field("instance", "the session is inside with several sockets")
        player, config = member.player, self._parts.config
        if self._tickets.get(player.id):
            self._port.doubt()  # the last ticket did not lead there
        expires_at = config.clock.now_ms() // 1000 + VALID_S
        self._tickets[player.id] = self._tickets.get(player.id, 0) + 1
        ticket = Ticket(
            server=config.address,
            node=self._port.node,
            instance=self._parts.id,
            epoch=self._port.epoch,
            player=player.id,
            user=player.user,
            name=player.displayname,
            role=self._parts.rules.role_of(player.user),
            expires_at=expires_at,
            id=new_id(),
        )
        return DirectWay(direct.address, direct.secure, sign(ticket), expires_at * 1000)

    def socket_lost(self, session: str) -> None:
        """A session inside has one socket less. What the node sent to it may be lost with it."""
        member = self._parts.recovery.seated.get(session)
        if member is not None and not member.sinks and member.player.id in self._relay.direct:
            self._end_direct(member.player.id)
            self._parts.recovery.missed.lose(member.player.id)

    def _hear_direct(self, item: Direct) -> None:
        """The node says from where a player gets data. Each time that a player gets it from the
        node takes a ticket of that player, since the way back costs a snapshot."""
        player = self._parts.rules.players.get(item.player)
        if player is None:
            if item.player not in self._left:
                self._port.breach("speaks of a player who is not inside")
            return
        member = self._parts.recovery.seated[player.session]
        if not item.on:
            if item.player in self._relay.direct:
                self._relay.direct.discard(item.player)
                self._restore(member)
            return
        tickets = self._tickets.get(item.player, 0)
        if tickets:
            self._tickets[item.player] = tickets - 1
        if not tickets or len(member.sinks) != 1 or self._port.direct is None:
            self._return(item.player)
            return
        self._relay.direct.add(item.player)
        (sink,) = member.sinks
        self._parts.fanout.private(sink, self._direct_frame("begun"))

    def _end_direct(self, player_id: str) -> None:
        self._relay.direct.discard(player_id)
        self._return(player_id)

    def _end_all_direct(self) -> None:
        """Clients can't reach the node any more: those who are connected get data over the server,
        beginning with a snapshot."""
        for player_id in tuple(self._relay.direct):
            self._end_direct(player_id)
            player = self._parts.rules.players[player_id]
            self._restore(self._parts.recovery.seated[player.session])

    def _return(self, player_id: str) -> None:
        id_ = self._parts.id
        if self._port.keeps:
            self._port.put(lambda epoch, number: Return(id_, epoch, number, player_id))

    def depart(self) -> None:
        """Before the last word here, as the instance is handed over: the next process does not
        know what the node has, and answers nobody for it."""
        self._refuse_asked(InternalError())
        self._relay.direct.clear()

    def _broadcast(self, frame: bytes) -> None:
        self._parts.fanout.broadcast(frame)

    def _restore_all(self) -> None:
        """Players may have missed data: each gets a snapshot."""
        for member in self._parts.recovery.seated.values():
            self._parts.recovery.missed.forget(member.player.id)
            self._restore(member)

    def _restore(self, member: Member, but: Sink | None = None) -> None:
        frames, fanout = self._parts.frames, self._parts.fanout
        for sink in member.sinks:
            if sink in fanout and sink is not but:
                fanout.answer(sink, frames.restored_parts(member.player))

    # To the node -------------------------------------------------------------------------------

    def ensure_takes(self, message: InstanceMessage) -> None:
        """Raises InstanceAway for a request to enter while the node does not host the instance."""
        if self._state is _State.HERE:
            return
        if self._state is _State.HOSTED:
            if self._port.draining and not self._parts.rules.players:
                raise InstanceAway.field("node", "takes no more instances")
            return
        if isinstance(message, AddMember):
            seated = self._parts.recovery.seated
            if self._state is _State.PAUSED and message.visitor.session in seated:
                return  # with another socket
        self._port.miss()
        left_s = 5.0
        if self._state is _State.PAUSED:
            left_s = max(1.0, self._lapses_at - trio.current_time())
        raise InstanceAway(retry_after_s=min(5.0, left_s))

    def greet(self, sink: Sink) -> None:
        """A session that is inside has entered again, or with another socket: it must know that the
        instance is paused. It gets data over the server again, beginning with this snapshot."""
        seat = sink.seats.get(self._parts.id)
        if seat is not None and seat.player in self._relay.direct:
            self._end_direct(seat.player)
            player = self._parts.rules.players[seat.player]
            self._restore(self._parts.recovery.seated[player.session], but=sink)
        if self._state is _State.PAUSED:
            data = encode(PausedView(self._until))
            self._parts.fanout.private(sink, event(events.INSTANCE_PAUSED, self._parts.id, data))

    def record(self, domain_event: InstanceEvent) -> None:
        """Tells the node what concerns it. It must be told of all that it is to pass on."""
        if isinstance(domain_event, Left):
            self._relay.direct.discard(domain_event.player.id)
            self._tickets.pop(domain_event.player.id, None)
            self._left[domain_event.player.id] = None
            if len(self._left) > LEFT:
                self._left.popitem(last=False)
        if self._state not in (_State.HOSTED, _State.PAUSED) or not self._port.keeps:
            return
        port, id_ = self._port, self._parts.id
        rules = self._parts.rules
        match domain_event:
            case Joined():
                seat = self._seat(domain_event.player)
                port.put(lambda epoch, number: Enter(id_, epoch, number, seat))
            case Left():
                gone, reason = domain_event.player.id, domain_event.reason
                port.put(lambda epoch, number: Leave(id_, epoch, number, gone, reason))
            case Renamed():
                self._tell_of([domain_event.player])
            case RoleChanged(user) | AdminChanged(user) | Muted(user) | Unmuted(user):
                self._tell_of(rules.players_of(user))
            case MasterChanged():
                for one in (domain_event.user, domain_event.before):
                    if one is not None:
                        self._tell_of(rules.players_of(one))
            case _:
                pass

    def _tell_of(self, players: Sequence[Player]) -> None:
        id_ = self._parts.id
        for player in players:
            self._port.put(partial(_change, id_, self._seat(player)))

    def _seat(self, player: Player) -> Seat:
        rules = self._parts.rules
        role = rules.role_of(player.user)
        muted = rules.muted(player.user, self._parts.config.clock.now_ms())
        return Seat(player.id, player.user, player.displayname, role, muted)

    def _say(self, message: SendData) -> None:
        """A player's message goes to the node, or waits by its key. Raises Overloaded."""
        if not self._port.hosted:
            raise Overloaded
        outbox, size = self._port.outbox, size_of(message)
        key: Hashable | None = None
        if message.key is not None and message.to is None:
            key = (message.player, message.key)
        if outbox.open and outbox.fits(size):
            self._put(message)
        elif outbox.offers(size, key):
            assert key is not None
            self._parts.config.metrics.link_held += 1
            replaced = outbox.hold(key, message, size)
            if isinstance(replaced, SendData):
                self._answer(replaced, EMPTY)
        else:
            self._parts.config.metrics.link_refused += 1
            raise Overloaded

    def _put(self, message: SendData) -> None:
        id_ = self._parts.id
        to = None if message.to is None else list(message.to)
        number = self._port.put(
            lambda epoch, number: Say(
                id_, epoch, number, message.player, message.data, message.key, message.at, to
            )
        )
        self._asked[number] = message
        if len(self._asked) > ASKED:
            _, oldest = self._asked.popitem(last=False)
            self._refuse(oldest, Overloaded())

    # From the node -----------------------------------------------------------------------------

    def _take_all(self) -> None:
        """Handles what the node has proposed, as fast as it may; and sends what has waited."""
        inside = self._parts.rules.players
        for held, _ in self._port.outbox.released():
            if isinstance(held, SendData) and held.player in inside:
                self._put(held)
        now = trio.current_time()
        while True:
            fan, wait_s = self._port.take(now)
            if fan is None:
                break
            if isinstance(fan, Direct):
                self._hear_direct(fan)
            else:
                self._hear(fan)
        if wait_s > 0 and now >= self._again_at:
            wait_s = max(wait_s, AGAIN_S)
            self._again_at = now + wait_s
            self._parts.context.after(wait_s, NodeChanged())

    def _hear(self, fan: Fan) -> None:
        message = self._asked.get(fan.of) if fan.of else None
        if message is not None and message.player != fan.player:
            self._port.breach("answers another player's message")
            return
        if fan.player not in self._parts.rules.players:
            if fan.player not in self._left:
                self._port.breach("speaks for a player who is not inside")
            return
        if message is not None:
            del self._asked[fan.of]
        elif fan.of and fan.of > self._port.outbox.last:
            self._port.breach("answers a message that was not sent")
            return
        if fan.kind != "data":
            if message is not None and fan.kind == "dropped":
                self._answer(message, DROPPED_DATA)
            elif message is not None:
                self._refuse(message, Overloaded())
            return
        to = None if fan.to is None else tuple(fan.to)
        if message is None:
            relayed = SendData(_NOWHERE, fan.player, fan.key, fan.at, to, fan.data, None)
        else:
            relayed = SendData(
                message.sink,
                fan.player,
                fan.key,
                fan.at,
                to,
                fan.data,
                message.state,
                message.series,
            )
        self._relay.pass_on(relayed)

    def _answer(self, message: SendData, data: bytes) -> None:
        if message.state is not None:
            frame = answer(commands.INSTANCE_DATA, message.state, self._parts.id, data)
            self._parts.fanout.private(message.sink, frame)

    def _refuse(self, message: SendData, error: ReiletaError) -> None:
        if message.state is not None:
            frame = failure(commands.INSTANCE_DATA, message.state, self._parts.id, error)
            self._parts.fanout.private(message.sink, frame)

    def _refuse_asked(self, error: ReiletaError) -> None:
        """Nobody knows what the node did with the messages that it had."""
        asked, self._asked = self._asked, OrderedDict()
        for message in asked.values():
            self._refuse(message, error)
        for held in self._port.outbox.drop_held():
            if isinstance(held, SendData):
                self._refuse(held, Overloaded())


def _change(instance: str, seat: Seat, epoch: int, number: int) -> Change:
    return Change(instance, epoch, number, seat)


def _refuse(_: SendData) -> None:
    raise Overloaded
