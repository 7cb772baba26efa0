"""Who has the floor in an instance, and who hears what is said (PROTOCOL §7, "Data fan-out")."""

from __future__ import annotations

from typing import Final

from actors.delivery.fanout import Fanout
from actors.delivery.sink import SendData, Sink
from actors.directory import Directory
from actors.instance.frames import InstanceFrames
from actors.instance.recovery import RecoveryState
from reileta.clock import Clock
from reileta.errors import Detail, ReiletaError, TooManyRequests
from reileta.protocol import commands
from reileta.protocol.frames import answer, failure
from reileta.rules.instance.data_rate import FAIR_BYTES_PER_S, DataRate, InstanceRates
from reileta.rules.instance.instance import TO_ALL, Instance, Player

SAID_TOO_MUCH: Final = (
    f"is more than others can take in: at most {FAIR_BYTES_PER_S // 1024} KiB a second"
    " and {} KiB at once for now"
)


class DataRelay:
    """What is said in one instance goes from here into the drain's fan-out."""

    def __init__(
        self,
        rules: Instance,
        recovery: RecoveryState,
        fanout: Fanout,
        encoder: InstanceFrames,
        directory: Directory,
        clock: Clock,
        rates: InstanceRates,
        *,
        paced: bool,
    ) -> None:
        self._rules = rules
        self._id = rules.record.id
        self._recovery = recovery
        self._fanout = fanout
        self._encoder = encoder
        self._directory = directory
        self._clock = clock
        self._paced = paced
        self._rates = rates
        self._paces: dict[str, DataRate] = {}  # by player: its user's

    def speak(self, message: SendData) -> None:
        """One message of a player; what the rules say against it is answered to its socket."""
        sink, player = message.sink, message.player
        pace = self._paces.get(player) or self._pace_of(player)
        try:
            if pace is not None and (pace.held or self._rates.held) and self._paced:
                self._ensure_fair(pace, len(message.data))
            spoken = self._rules.speak(
                player, message.key, message.at, message.to, message.data, self._now()
            )
        except ReiletaError as error:
            self._fanout.private(
                sink, failure(commands.INSTANCE_DATA, message.state, self._id, error)
            )
            return
        if not spoken.dropped:
            voice = self._encoder.voice(player)
            key = message.key
            if key is None and message.at is None:
                frame = voice.plain(message.data)
                conflation = None
            else:
                frame = voice.keyed(key, message.at, message.data)
                conflation = None if key is None else (self._id, player, key)
            if spoken is TO_ALL or spoken.to is None:
                self._fanout.broadcast(
                    frame, conflation, without=self._own(player), data=True, pace=pace
                )
            else:
                for other in spoken.to:
                    if other != player:
                        for receiver in self._own(other):
                            self._fanout.private(receiver, frame, conflation, pace=pace)
        if message.state is not None:
            self._fanout.private(sink, answer(commands.INSTANCE_DATA, message.state, self._id))

    def forget(self, player: Player) -> None:
        """A player is gone; what its user said is remembered for a while."""
        self._paces.pop(player.id, None)
        if not self._rules.seats.count_of(player.user):
            self._rates.went(player.user, self._now())

    def _pace_of(self, player_id: str) -> DataRate | None:
        """The rate of a player that says something for the first time; None: it is not inside."""
        player = self._rules.players.get(player_id)
        if player is None:
            return None
        pace = self._paces[player_id] = self._rates.of(player.user)
        return pace

    def _ensure_fair(self, pace: DataRate, size: int) -> None:
        users = len(self._rules.seats.users)
        if not self._rates.allows(pace, size, self._now(), users):
            at_once = self._rates.burst(users) // 1024
            raise TooManyRequests(1.0, Detail("data", SAID_TOO_MUCH.format(at_once)))

    def _now(self) -> int:
        return self._clock.now_ms()

    def _own(self, player_id: str) -> tuple[Sink, ...]:
        """A player's own sockets."""
        player = self._rules.players.get(player_id)
        seated = None if player is None else self._recovery.seated.get(player.session)
        return () if seated is None else tuple(seated.sinks)

    def heed_watchers(self) -> None:
        """`heed_watcher`, for all that watch."""
        for sink in self._directory.watchers(self._id):
            self.heed_watcher(sink)

    def heed_watcher(self, sink: Sink) -> None:
        """Has a socket that is not inside get data, or not, as the directory says."""
        if self._directory.watches(sink, self._id):
            if sink not in self._fanout:
                self._fanout.add(sink, None, watcher=True)
        elif self._fanout.watched_by(sink):
            self._fanout.remove(sink)
