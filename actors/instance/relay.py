"""Relays players' `instance-data`, from the socket's seat to the fan-out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from actors.delivery.sink import Sink
from actors.instance.messages import InstanceMessage, SendData
from actors.instance.missed import EVERYBODY
from actors.instance.parts import InstanceParts
from actors.membership import SocketLost
from actors.runtime import Ref
from reileta.errors import Detail, NotInInstance, Overloaded, ReiletaError, TooManyRequests
from reileta.protocol import commands
from reileta.protocol.frames import EMPTY, DataFrames, answer, encode, failure
from reileta.protocol.views.instance import AcceptedView
from reileta.rules.instance.data_rate import FAIR_BYTES_PER_S, DataRate, InstanceRates
from reileta.rules.instance.instance import TO_ALL, Player

TOO_MUCH_DATA: Final = (
    f"is more than others can take in: at most {FAIR_BYTES_PER_S // 1024} KiB a second"
    " and {} KiB at once for now"
)
REFUSED: Final = 1024
"""So many messages of a suspended instance are answered; further ones are dropped."""
DROPPED_DATA: Final = encode(AcceptedView(dropped=True))
"""The answer's `data` for a value that is older than the retained one."""


class SocketSeat:
    """A socket's seat in an instance: the `InstanceHandle` of its player, in `Sink.seats`."""

    __slots__ = ("_instance", "_session", "_tell", "player", "series")

    def __init__(
        self, instance: Ref[InstanceMessage], player: str, session: str = "", series: int = 0
    ) -> None:
        self.player = player
        self._session = session
        self._instance = instance
        self._tell = instance.tell_now
        self.series = series

    @property
    def held(self) -> bool:
        """As `InstanceHandle.held`."""
        return False

    def send_data(
        self,
        sink: Sink,
        data: bytes,
        key: str | None,
        at: float | None,
        to: tuple[str, ...] | None,
        state: bytes | None,
    ) -> None:
        """As `InstanceHandle.send_data`: the command `instance-data` calls it."""
        self._tell(SendData(sink, self.player, key, at, to, data, state, self.series))

    def lose(self, sink: Sink) -> None:
        """As `InstanceHandle.lose`: the socket's connection calls it."""
        self._instance.signal(SocketLost(self._session, sink))


@dataclass(frozen=True, slots=True)
class _Sender:
    """A player inside that has sent data: the rate of its user, and its frames."""

    rate: DataRate
    frames: DataFrames


class DataRelay:
    """The data of one incarnation of an instance goes from here into the drain's fan-out."""

    def __init__(self, parts: InstanceParts) -> None:
        # Nearly every message comes here, so each object is one lookup away.
        self._id = parts.id
        self._rules = parts.rules
        self._recovery = parts.recovery
        self._fanout = parts.fanout
        self._now = parts.config.clock.now_ms
        self._steady = parts.config.clock.steady_ms  # of the rates, which no one else compares
        self._limited = parts.config.paced
        if parts.recovery.rates is None:
            parts.recovery.rates = InstanceRates(parts.config.backlog_limit_bytes)
        self._rates = parts.recovery.rates
        self._missed = parts.recovery.missed
        self._away = parts.recovery.missed.away
        self._players = parts.rules.seats.players
        self._seated = parts.recovery.seated
        self._senders: dict[str, _Sender] = {}  # by player
        self._refused = 0
        self._keeps = parts.recovery.holding is not None
        self.speaker: str | None = None
        """Who has sent messages without a key in this drain: a player, or `EVERYBODY`."""

    def send(self, message: SendData) -> None:
        """Relays one message of a player; its socket gets the error if the rules refuse it."""
        sink, player = message.sink, message.player
        sender = self._senders.get(player) or self._find_sender(player)
        try:
            if sender is None:
                raise NotInInstance
            rate = sender.rate
            if (rate.held or self._rates.held) and self._limited:
                self._ensure_fair(rate, len(message.data))
            spoken = self._rules.speak(
                player,
                message.key,
                message.at,
                message.to,
                message.data,
                self._now(),
                message.series,
            )
        except ReiletaError as error:
            frame = failure(commands.INSTANCE_DATA, message.state, self._id, error)
            self._fanout.private(sink, frame)
            self._keep(sink, message.state)
            return
        if not spoken.dropped:
            key = message.key
            if key is None and message.at is None:
                frame = sender.frames.plain(message.data)
                conflation = None
            else:
                frame = sender.frames.keyed(key, message.at, message.data)
                conflation = None if key is None else (self._id, player, key)
            if (key is None or message.to is not None) and self.speaker != player:
                self.speaker = player if self.speaker is None else EVERYBODY
            if spoken is TO_ALL or spoken.to is None:
                self._fanout.relay(frame, conflation, self._without(player), rate)
                if self._away and key is None:
                    self._missed.add(frame)
            else:
                for receiver in spoken.to:
                    if receiver != player:
                        for receiving in self._receiving(receiver):
                            self._fanout.private(receiving, frame, conflation, pace=rate)
                        if self._away:
                            self._missed.add_for(receiver, frame)
        if message.state is not None:
            data = DROPPED_DATA if spoken.dropped else EMPTY
            frame = answer(commands.INSTANCE_DATA, message.state, self._id, data)
            self._fanout.private(sink, frame)
            if self._keeps:
                self._keep(sink, message.state)

    def refuse(self, message: SendData) -> None:
        """Refuses a message, because the instance is suspended. The answer waits in the fan-out."""
        self._refused += 1
        if self._refused <= REFUSED:
            frame = failure(commands.INSTANCE_DATA, message.state, self._id, Overloaded())
            self._fanout.private(message.sink, frame)
            self._keep(message.sink, message.state)

    def _keep(self, sink: Sink, state: bytes | None) -> None:
        """The answer waits in the fan-out, and may be lost with it."""
        if self._keeps and state is not None:
            self._recovery.unanswered.append((sink, state))

    def resume(self) -> None:
        """The instance is not suspended any more."""
        self._refused = 0

    def forget(self, player: Player) -> None:
        """A player has left; the rate of its user is remembered for a while."""
        self._senders.pop(player.id, None)
        if not self._rules.seats.count_of(player.user):
            self._rates.went(player.user, self._steady())

    def __len__(self) -> int:
        """How many players have sent data and are still inside."""
        return len(self._senders)

    def _find_sender(self, player_id: str) -> _Sender | None:
        """A player that sends for the first time; None: it is not inside."""
        player = self._rules.players.get(player_id)
        if player is None:
            return None
        sender = _Sender(self._rates.of(player.user), DataFrames(self._id, player_id))
        self._senders[player_id] = sender
        return sender

    def _ensure_fair(self, rate: DataRate, size: int) -> None:
        users = len(self._rules.seats.users)
        if not self._rates.allows(rate, size, self._steady(), users):
            at_once = self._rates.burst(users) // 1024
            raise TooManyRequests(1.0, Detail("data", TOO_MUCH_DATA.format(at_once)))

    def _sinks_of(self, player_id: str) -> Collection[Sink]:
        """A player's own sockets."""
        player = self._players.get(player_id)
        member = None if player is None else self._seated.get(player.session)
        return () if member is None else member.sinks

    _without = _sinks_of
    """The sockets that don't get what a player says."""
    _receiving = _sinks_of
    """The sockets of a player that get what is said to it."""
