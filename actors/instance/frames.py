"""The frames of an instance: its events and answers, encoded.

The frames of `instance-data` are made in `actors/instance/relay.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from msgspec import UNSET, Raw

from actors.delivery.batch import Batch
from actors.instance.messages import Moderate
from reileta.protocol import commands, events
from reileta.protocol.frames import answer, encode, event, fragment, payload_of
from reileta.protocol.views.instance import (
    LeftView,
    PlaceView,
    PlayerView,
    RetainedView,
    WelcomeView,
)
from reileta.rules.instance.events import Left
from reileta.rules.instance.instance import Instance
from reileta.rules.instance.retained import RetainedValue
from reileta.rules.instance.seats import Player

SHARED_FROM_BYTES: Final = 64 * 1024
"""Larger snapshots are sent in parts that are shared. Otherwise the server would keep a copy for
each client that does not read."""
_END: Final = b"]}}"
LAST_PART: Final = Batch([fragment(_END, last=True)], snapshot=True)

Values: TypeAlias = Mapping[str, RetainedValue]
"""A player's retained values by key."""


def moderated_answer(order: Moderate, instance_id: str) -> bytes | None:
    """The answer to `instance-moderate` on its socket; None: the client wants none."""
    if order.state is None:
        return None
    return answer(commands.INSTANCE_MODERATE, order.state, instance_id)


def left_answer(state: bytes, instance_id: str, player_id: str) -> bytes:
    """The answer to `instance-leave`."""
    return answer(
        commands.INSTANCE_LEAVE, state, instance_id, encode(PlaceView(instance_id, player_id))
    )


class InstanceFrames:
    """The frames of one incarnation of an instance.

    A player's view stays the same until its role or its name changes, so its JSON is kept.
    """

    def __init__(self, rules: Instance) -> None:
        self._rules = rules
        self._id = rules.record.id
        self.direct: Callable[[], bool] = lambda: False
        """Whether clients can connect to the instance's node themselves."""
        self._player_views: dict[str, tuple[str, Raw]] = {}
        self._parts: dict[str, tuple[Values, bool, Batch]] = {}

    def forget(self, player_id: str) -> None:
        """Drops what is kept for a player that has left."""
        self._player_views.pop(player_id, None)
        self._parts.pop(player_id, None)

    def rename(self, player_id: str) -> None:
        """The player has another name now."""
        self._player_views.pop(player_id, None)

    def player_view(self, player: Player) -> Raw:
        """The player as others see it, JSON."""
        role = self._rules.role_of(player.user)
        known = self._player_views.get(player.id)
        if known is not None and known[0] == role:
            return known[1]
        view = PlayerView(player.id, player.user, player.displayname, role, player.joined_at)
        text = Raw(encode(view))
        self._player_views[player.id] = (role, text)
        return text

    def joined(self, player: Player) -> tuple[bytes, bytes]:
        """The event for the others, and its data."""
        data = bytes(self.player_view(player))
        return event(events.INSTANCE_JOINED, self._id, data), data

    def updated(self, player: Player) -> tuple[bytes, bytes]:
        """The event for everybody inside, and its data."""
        data = bytes(self.player_view(player))
        return event(events.PLAYER_UPDATED, self._id, data), data

    def left(self, left: Left) -> tuple[bytes, bytes]:
        """The event for the others, and its data."""
        data = encode(LeftView(left.player.id, left.player.user, left.reason))
        return event(events.INSTANCE_LEFT, self._id, data), data

    def left_of_player(self, left: Left) -> bytes:
        """The event for the player itself."""
        view = LeftView(left.player.id, left.player.user, left.reason, left.note or UNSET)
        return event(events.INSTANCE_LEFT, self._id, encode(view))

    def welcome(self, player: Player, state: bytes, *, gap: bool = False) -> bytes:
        """The answer to `instance-join`: a snapshot of the instance.

        `gap`: messages without key may be missing since the player's last socket.
        """
        return answer(commands.INSTANCE_JOIN, state, self._id, self._snapshot(player, gap=gap))

    def welcome_parts(self, player: Player, state: bytes, gap: bool = False) -> tuple[Batch, ...]:
        """The same, ready to be sent.

        A large one is several frames; a frame with the values of one player is shared by all who
        join until the values change.
        """
        if self._rules.values.total_bytes <= SHARED_FROM_BYTES:
            return (Batch([self.welcome(player, state, gap=gap)], snapshot=True),)
        nothing = encode(self._view(player, [], gap=gap))
        return self._in_parts(answer(commands.INSTANCE_JOIN, state, self._id, nothing))

    def restored_parts(self, player: Player) -> tuple[Batch, ...]:
        """The same snapshot as an event, for a player that has missed messages."""
        if self._rules.values.total_bytes <= SHARED_FROM_BYTES:
            return (Batch([self.restored(player)], snapshot=True),)
        nothing = encode(self._view(player, [], gap=False))
        return self._in_parts(event(events.INSTANCE_RESTORED, self._id, nothing))

    def _in_parts(self, without_values: bytes) -> tuple[Batch, ...]:
        """A frame with a snapshot, with its values added; shared parts."""
        head = fragment(payload_of(without_values).removesuffix(_END), first=True)
        values = self._rules.values.by_player()
        parts = [self._part(one, kept, first=not index) for index, (one, kept) in enumerate(values)]
        return (Batch([head], snapshot=True), *parts, LAST_PART)

    def _part(self, player_id: str, values: Values, *, first: bool) -> Batch:
        """The values of one player, in a frame that is made once."""
        known = self._parts.get(player_id)
        if known is not None and known[0] == values and known[1] == first:
            return known[2]
        views = [_retained_view(player_id, key, at, data) for key, (at, data, _) in values.items()]
        text = encode(views)[1:-1]
        batch = Batch([fragment(text if first else b"," + text)], snapshot=True)
        self._parts[player_id] = (dict(values), first, batch)
        return batch

    def restored(self, player: Player) -> bytes:
        """The same snapshot as an event, for a player that was inside before a crash."""
        return event(events.INSTANCE_RESTORED, self._id, self._snapshot(player))

    @staticmethod
    def abandoned(instance_id: str, player: Player) -> bytes:
        """The event for a player whose instance has failed too often."""
        view = LeftView(player.id, player.user, "closed", "the instance failed")
        return event(events.INSTANCE_LEFT, instance_id, encode(view))

    def farewell(self, player_id: str, state: bytes) -> bytes:
        """The answer to `instance-leave`."""
        return left_answer(state, self._id, player_id)

    def _snapshot(self, player: Player, *, gap: bool = False) -> bytes:
        retained = [
            _retained_view(one.player, one.key, one.at, one.data) for one in self._rules.retained()
        ]
        return encode(self._view(player, retained, gap=gap))

    def _view(self, player: Player, retained: list[RetainedView], *, gap: bool) -> WelcomeView:
        inside: Iterable[Player] = self._rules.players.values()
        return WelcomeView(
            instance=self._id,
            player=player.id,
            role=self._rules.role_of(player.user),
            players=[self.player_view(one) for one in inside],
            gap=gap or UNSET,
            direct=self.direct() or UNSET,
            retained=retained,
        )


def _retained_view(player: str, key: str, at: float | None, data: bytes) -> RetainedView:
    return RetainedView(player, key, Raw(data), UNSET if at is None else at)
