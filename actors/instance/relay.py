"""Relays players' `instance-data` to those who receive it."""

from __future__ import annotations

from typing import Final

from actors.delivery.sink import Sink
from actors.instance.messages import SendData
from actors.instance.parts import InstanceParts
from reileta.errors import Detail, ReiletaError, TooManyRequests
from reileta.protocol import commands
from reileta.protocol.frames import answer, failure
from reileta.rules.instance.data_rate import FAIR_BYTES_PER_S, DataRate, InstanceRates
from reileta.rules.instance.instance import TO_ALL, Player

TOO_MUCH_DATA: Final = (
    f"is more than others can take in: at most {FAIR_BYTES_PER_S // 1024} KiB a second"
    " and {} KiB at once for now"
)


class DataRelay:
    """The data of one incarnation of an instance goes from here into the drain's fan-out."""

    def __init__(self, parts: InstanceParts) -> None:
        # Nearly every message comes here, so each object is one lookup away.
        self._id = parts.id
        self._rules = parts.rules
        self._recovery = parts.recovery
        self._fanout = parts.fanout
        self._frames = parts.frames
        self._now = parts.config.clock.now_ms
        self._limited = parts.config.paced
        if parts.recovery.rates is None:
            parts.recovery.rates = InstanceRates(parts.config.backlog_limit_bytes)
        self._rates = parts.recovery.rates
        self._rate_of: dict[str, DataRate] = {}  # by player: its user's

    def send(self, message: SendData) -> None:
        """Relays one message of a player; its socket gets the error if the rules refuse it."""
        sink, player = message.sink, message.player
        rate = self._rate_of.get(player) or self._find_rate(player)
        try:
            if rate is not None and (rate.held or self._rates.held) and self._limited:
                self._ensure_fair(rate, len(message.data))
            spoken = self._rules.speak(
                player, message.key, message.at, message.to, message.data, self._now()
            )
        except ReiletaError as error:
            frame = failure(commands.INSTANCE_DATA, message.state, self._id, error)
            self._fanout.private(sink, frame)
            return
        if not spoken.dropped:
            frames = self._frames.of_player(player)
            key = message.key
            if key is None and message.at is None:
                frame = frames.plain(message.data)
                conflation = None
            else:
                frame = frames.keyed(key, message.at, message.data)
                conflation = None if key is None else (self._id, player, key)
            if spoken is TO_ALL or spoken.to is None:
                self._fanout.broadcast(
                    frame, conflation, without=self._sinks_of(player), data=True, pace=rate
                )
            else:
                for receiver in spoken.to:
                    if receiver != player:
                        for receiving in self._sinks_of(receiver):
                            self._fanout.private(receiving, frame, conflation, pace=rate)
        if message.state is not None:
            self._fanout.private(sink, answer(commands.INSTANCE_DATA, message.state, self._id))

    def forget(self, player: Player) -> None:
        """A player has left; the rate of its user is remembered for a while."""
        self._rate_of.pop(player.id, None)
        if not self._rules.seats.count_of(player.user):
            self._rates.went(player.user, self._now())

    def _find_rate(self, player_id: str) -> DataRate | None:
        """The rate of a player that sends for the first time; None: it is not inside."""
        player = self._rules.players.get(player_id)
        if player is None:
            return None
        rate = self._rate_of[player_id] = self._rates.of(player.user)
        return rate

    def _ensure_fair(self, rate: DataRate, size: int) -> None:
        users = len(self._rules.seats.users)
        if not self._rates.allows(rate, size, self._now(), users):
            at_once = self._rates.burst(users) // 1024
            raise TooManyRequests(1.0, Detail("data", TOO_MUCH_DATA.format(at_once)))

    def _sinks_of(self, player_id: str) -> tuple[Sink, ...]:
        """A player's own sockets."""
        player = self._rules.players.get(player_id)
        member = None if player is None else self._recovery.seated.get(player.session)
        return () if member is None else tuple(member.sinks)
