"""Who is inside an instance, kept outside of the actor, so that a crash leaves it behind."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.fanout import Fanout
from actors.messages import SessionMessage
from actors.ref import Ref
from actors.sink import Sink
from reileta import records
from reileta.access import Visitor
from reileta.seats import Player


@dataclass(slots=True)
class Seated:
    """A session inside: its player, and the sockets it has there now."""

    visitor: Visitor
    player: Player
    session: Ref[SessionMessage]
    sinks: dict[Sink, None] = field(default_factory=dict)


@dataclass(slots=True)
class Roster:
    """What a fresh incarnation of an instance starts from: those inside, by session in the order of
    joining; what the database last said, should it be away; and what the one before had yet to say
    (None: there was none before)."""

    record: records.Instance
    bans: tuple[records.Ban, ...] = ()
    seated: dict[str, Seated] = field(default_factory=dict)
    fanout: Fanout | None = None
