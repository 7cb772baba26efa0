"""Who is inside an instance, kept outside of the actor, so that a crash leaves it behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from actors.delivery.fanout import Fanout
from actors.delivery.sink import Sink
from actors.membership import SeatLost
from actors.runtime.ref import Recipient
from reileta import records
from reileta.errors import ReiletaError
from reileta.rules.identity import Visitor
from reileta.rules.instance.data_rate import InstanceRates
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.seats import Player

Then: TypeAlias = Callable[[ReiletaError | None], None]
"""Is told that something is durable, or why it is not."""


@dataclass(slots=True)
class Member:
    """A session inside: its player, and the sockets it has there now."""

    visitor: Visitor
    player: Player
    session: Recipient[SeatLost]
    sinks: dict[Sink, None] = field(default_factory=dict)


@dataclass(slots=True)
class PendingWrites:
    """A deed that is not known to be durable, and who waits for that."""

    deed: records.Deed
    then: list[Then] = field(default_factory=list)


@dataclass(slots=True)
class RecoveryState:
    """What a fresh incarnation of an instance starts from: those inside, by session in the order of
    joining; what the database last said, should it be away; and of the one before (None: there was
    none before) what it had yet to say, its rules, its deeds that may not be written yet, and how
    much its users say."""

    record: records.Instance
    bans: tuple[records.Ban, ...] = ()
    moderators: tuple[str, ...] = ()
    seated: dict[str, Member] = field(default_factory=dict)
    fanout: Fanout | None = None
    rules: Instance | None = None
    deeds: list[PendingWrites] = field(default_factory=list)
    rates: InstanceRates | None = None

    def sinks_of(self, players: Iterable[Player]) -> dict[Sink, None]:
        """The sockets of those players, each once."""
        return {
            sink: None
            for player in players
            if (seated := self.seated.get(player.session)) is not None
            for sink in seated.sinks
        }
