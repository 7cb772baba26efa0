"""The state of an instance that outlives a crash of its actor.

It is shared: the instance's actor writes it, and each incarnation begins with it. The instance
manager reads and clears it once the actor has ended for good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from actors.delivery.fanout import Fanout
from actors.delivery.sink import Sink
from actors.instance.hosted import Holding
from actors.instance.missed import MissedMessages
from actors.membership import SeatLost, SessionRecipient
from reileta import records
from reileta.errors import Overloaded, ReiletaError
from reileta.protocol import commands
from reileta.protocol.frames import failure
from reileta.protocol.node_link import Direct, Fan
from reileta.protocol.views.console import InstanceHappenedView
from reileta.rules.identity import Visitor
from reileta.rules.instance.data_rate import InstanceRates
from reileta.rules.instance.events import LeaveReason
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.seats import Player
from reileta.rules.nodes.flow import Outbox

if TYPE_CHECKING:
    from actors.instance.messages import Frozen, InstanceMessage
    from actors.runtime.mailbox import Ref

HAPPENED: Final = 32
"""How many of the last events of an instance are kept for admins."""

WhenDurable: TypeAlias = Callable[[ReiletaError | None], None]
"""Called with None when a write is durable, or with the reason why it is not yet."""


@dataclass(slots=True)
class Member:
    """A session inside: its player, its actor, and its sockets in the instance."""

    visitor: Visitor
    player: Player
    session: SessionRecipient
    sinks: dict[Sink, None] = field(default_factory=dict)
    recipients: dict[str, SessionRecipient] = field(default_factory=dict)
    """All actors of the session, by the node where each runs; "" is this one."""
    complete: set[Sink] = field(default_factory=set)
    """Sockets that have got everything from the node that handed the instance over."""

    def entered_from(self, session: SessionRecipient) -> None:
        """An actor of the session has entered with a socket. It may be a fresh one."""
        self.session = session
        self.recipients[getattr(session, "gateway", "")] = session

    def seat_lost(self, instance_id: str) -> None:
        """Tells the session that its player has left."""
        for session in dict.fromkeys((self.session, *self.recipients.values())):
            session.signal(SeatLost(instance_id, self.player.id))


class RemoteReceivers(Protocol):
    """The sockets of an instance that are at other nodes (`actors/cluster/gateway_sockets.py`)."""

    async def prepare(self) -> None:
        """Before the first incarnation: finds those who were inside at another host."""
        ...

    def begun(self, ref: Ref[InstanceMessage]) -> None:
        """The first incarnation takes messages."""
        ...

    def ended(self) -> None:
        """The actor has ended for good."""
        ...

    def changed(self) -> None:
        """Seats, the queue or invitations may have changed."""
        ...

    def departed(self, left: Sequence[InstanceMessage]) -> None:
        """The instance has another host; `left` is to be told to it, in this order."""
        ...

    def publish(self, fanout: Fanout | None) -> None:
        """Sends what a flush has written to them."""
        ...


class Keeper(Protocol):
    """Keeps seats, the queue and invitations for the next run of the server
    (`actors/kept_seats.py`)."""

    def changed(self) -> None:
        """They may have changed; or the first incarnation has begun with what was kept."""
        ...

    def ended(self, *, over: bool) -> None:
        """The actor has ended for good. `over`: nothing of it is to be kept."""
        ...


class NodePort(Protocol):
    """The instance's end of the link to its node (`actors/links/port.py`)."""

    outbox: Outbox[object]
    """What the node has not handled."""
    dedicated: bool
    """Whether the node is the operator's, so that the instance goes on here without it."""
    grace_s: float
    """How long players wait for the node's link."""

    node: str
    """The node's id."""
    epoch: int
    """Of what the node hosts; another one each time that it begins anew."""
    direct: records.DirectAddress | None
    """Where clients can reach the node themselves; None: they can't."""
    withdrawn: bool
    """Whether they can't any more, and those who are connected there are to come back."""

    @property
    def linked(self) -> bool:
        """Whether the node has a link."""
        ...

    @property
    def hosted(self) -> bool:
        """Whether the node hosts the instance over the present link, or goes on with it."""
        ...

    @property
    def keeps(self) -> bool:
        """The same, or it may go on over its next link with what is put now."""
        ...

    @property
    def draining(self) -> bool:
        """Whether the node takes no more instances."""
        ...

    def listen(self, changed: Callable[[], object]) -> None:
        """`changed` is called when something has changed, or items of the node wait."""
        ...

    def begin_anew(self) -> None:
        """What was before does not count: the node is to be told anew what it hosts."""
        ...

    def host(self, make: Callable[[int], object]) -> None:
        """Sends the node what it hosts from now on; `make` gets the epoch."""
        ...

    def give_up(self) -> None:
        """The node can't go on with the instance; it begins anew when it comes back."""
        ...

    def put(self, make: Callable[[int, int], object]) -> int:
        """Sends an item; `make` gets the epoch and its number, which is returned."""
        ...

    def take(self, now: float) -> tuple[Fan | Direct | None, float]:
        """The node's next item, if it may be relayed now; else the seconds to wait (0: none
        waits)."""
        ...

    def breach(self, reason: str) -> None:
        """The node has broken the form."""
        ...

    def doubt(self) -> None:
        """A client seems not to reach the node."""
        ...

    def miss(self) -> None:
        """Somebody wants to enter, and the node has no link here: another process may have it."""
        ...

    def ended(self) -> None:
        """The actor has ended for good."""
        ...


@dataclass(slots=True)
class PendingWrite:
    """A moderation write that is not known to be durable, and the functions to call once it is.

    Each comes with the number of writes, up to this one, that it waits for.
    """

    write: records.ModerationWrite
    then: list[tuple[WhenDurable, int]] = field(default_factory=list)


@dataclass(slots=True, weakref_slot=True)
class RecoveryState:
    """The state that a fresh incarnation of an instance starts from.

    Attributes:
        record, bans, mutes, moderators: the last that was read, should the database be down.
        seated: the members by session, in the order of joining.
        fanout: frames that the previous incarnation had not sent; None before the first.
        rules: the rules of the previous incarnation; None before the first.
        moderation_writes: moderation writes that may not be durable.
        rates: how much data each user sends.
        missed: messages for players without a socket.
        holding: this node's right to host the instance; None without a cluster.
        remote: sockets at other nodes; None: there can't be any.
        keeper: keeps what only this process knows; None: nobody does, or `remote` does.
        node: the link to the instance node on which it lives; None: it lives here.
        soft: what the host knew that handed the instance over, or an earlier run of the server.
        happened: what admins see of what happened lately.
        turned_away: those who were inside at another host, and have no seat here, with the reason.
        unanswered: in a cluster, sockets and states of data whose answers are still in the fan-out,
            and are lost with it if the node falls.
    """

    record: records.InstanceRecord
    bans: tuple[records.Ban, ...] = ()
    mutes: tuple[records.MuteRecord, ...] = ()
    moderators: tuple[str, ...] = ()
    seated: dict[str, Member] = field(default_factory=dict)
    fanout: Fanout | None = None
    rules: Instance | None = None
    moderation_writes: list[PendingWrite] = field(default_factory=list)
    rates: InstanceRates | None = None
    missed: MissedMessages = field(default_factory=MissedMessages)
    holding: Holding | None = None
    remote: RemoteReceivers | None = None
    keeper: Keeper | None = None
    node: NodePort | None = None
    soft: Frozen | None = None
    happened: deque[InstanceHappenedView] = field(default_factory=lambda: deque(maxlen=HAPPENED))
    turned_away: list[tuple[Member, LeaveReason]] = field(default_factory=list)
    unanswered: list[tuple[Sink, bytes]] = field(default_factory=list)

    def refuse(self, sink: Sink, state: bytes) -> None:
        """Answers data that nobody got. A gateway does so itself for its sockets when this node is
        not the host any more."""
        lost = self.holding is not None and self.holding.lost
        if not (lost and hasattr(sink, "gateway")):
            sink.send(failure(commands.INSTANCE_DATA, state, self.record.id, Overloaded()))

    def refuse_unanswered(self) -> None:
        """Answers the data whose answers were lost with the fan-out."""
        unanswered, self.unanswered = self.unanswered, []
        for sink, state in unanswered:
            self.refuse(sink, state)

    def sinks_of(self, players: Iterable[Player]) -> dict[Sink, None]:
        """The sockets of those players, each once."""
        return {
            sink: None
            for player in players
            if (seated := self.seated.get(player.session)) is not None
            for sink in seated.sinks
        }
