"""An instance that this session is inside, with its players and the values that they keep."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio

from reileta_client.connection import Connection
from reileta_client.direct import Direct
from reileta_client.emitter import Emitter
from reileta_client.errors import Disconnected, ErrorCode, Refused, ReiletaError

PER_SECOND: Final = 20.0
MESSAGE_TOO_LARGE: Final = 1009
PASSING: Final = frozenset(
    {ErrorCode.INTERNAL_ERROR, ErrorCode.TOO_MANY_REQUESTS, ErrorCode.OVERLOADED}
)
"""Refusals that say nothing about the player: the next attempt may succeed."""
MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Player:
    """A player inside. `role`: owner, admin, master, moderator or normal."""

    id: str
    user: str
    displayname: str
    role: str
    joined_at: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Player:
        return cls(
            data["player"], data["user"], data["displayname"], data["role"], data["joined_at"]
        )


@dataclass(slots=True)
class _Own:
    """A value of this player: the newest, and when it may be sent."""

    value: Any
    due: float
    pause: float
    waiting: bool = True


class Room(Emitter):
    """Made by `Client.join`.

    Events, with their values: `joined` (player), `left` (player, reason), `updated` (player),
    `message` (sender's id, player or None, data), `value` (sender's id, player or None, key, data
    or None: it is gone), `moderated` (the notice), `away`, `back` (gap, whether it is the same
    player), `ended` (reason, note, error): this player is no longer inside.
    """

    def __init__(self, connection: Connection, welcome: Mapping[str, Any]) -> None:
        super().__init__()
        self.id: str = welcome["instance"]
        self.player = ""
        """The own player's id. Another one if the session came back too late."""
        self.role = "normal"
        self.players: dict[str, Player] = {}
        """The players inside by id, with the own one, in the order of joining; only to be read."""
        self.inside = True
        self._connection = connection
        self._values: dict[str, dict[str, Any]] = {}
        self._own: dict[str, _Own] = {}
        self._wake = anyio.Event()
        self._last_at = 0.0
        self._interest: dict[str, Any] | None = None
        self._unlisten: list[Callable[[], None]] = []
        self._direct = Direct(connection, self.id, self._data, self._rejoin)
        self._take(welcome, first=True)
        self._listen()

    @property
    def me(self) -> Player | None:
        """The own player, as the others see it."""
        return self.players.get(self.player)

    def value(self, player: str, key: str) -> Any:
        """The newest value of a player under a key; None: there is none."""
        return self._values.get(player, {}).get(key)

    def values_of(self, player: str) -> Mapping[str, Any]:
        """All values of a player by key."""
        return self._values.get(player, {})

    async def send(self, data: Any, *, to: Sequence[str] | None = None) -> None:
        """Sends a message to all others inside, or to those in `to`. Returns when the instance has
        taken it. Messages are never dropped: use `set` for what changes often."""
        self._ensure_inside()
        await self._direct.request(data, to=to)

    def set(self, key: str, value: Any, *, per_second: float = PER_SECOND) -> None:
        """Keeps a value under a key, for all who are inside and who join later; None takes it
        away. Of values that come faster than `per_second`, the newest is sent. After a new
        connection it is sent again."""
        self._ensure_inside()
        own = self._own.get(key)
        if own is None:
            self._own[key] = _Own(value, anyio.current_time(), 1 / per_second)
        else:
            own.value, own.waiting, own.pause = value, True, 1 / per_second
        self._wake.set()

    async def interest(
        self,
        *,
        rate: float | None = None,
        near: Sequence[str] | float | None = None,
        far_rate: float | None = None,
    ) -> None:
        """Asks for fewer values of other players: always the newest, but of each key at most `rate`
        in a second; with `near`, at most `far_rate` of players who are not near. `near` are
        players' ids, or a radius, in an instance with a `position_key`. Messages without a key are
        not affected. It replaces what was asked for before, and is asked for again after a new
        connection; without arguments it ends. Meanwhile nothing comes over a direct connection."""
        self._ensure_inside()
        given = {"rate": rate, "near": near, "far_rate": far_rate}
        before = self._interest
        self._interest = {name: value for name, value in given.items() if value is not None}
        self._direct.want(not self._interest)
        try:
            await self._ask_for_interest()
        except Refused:
            self._interest = before
            self._direct.want(not before)
            raise
        if self._interest and self._direct.begun:  # the node sends everything
            with suppress(ReiletaError):  # then it comes back by itself
                await self._rejoin()

    async def _ask_for_interest(self) -> None:
        await self._connection.request("instance-interest", self._interest, subgroup=self.id)

    async def moderate(
        self,
        type: str,  # noqa: A002 - the protocol's name
        *,
        player: str | None = None,
        user: str | None = None,
        reason: str | None = None,
        until: int | None = None,
    ) -> None:
        """Kicks, mutes, … a player or a user. Returns when it is stored."""
        given = {"player": player, "user": user, "reason": reason, "until": until}
        data = {name: value for name, value in given.items() if value is not None}
        await self._connection.request(
            "instance-moderate", {**data, "type": type}, subgroup=self.id
        )

    async def leave(self) -> None:
        """Leaves, and frees the seat."""
        if not self.inside:
            return
        self._finish()
        try:
            await self._connection.request("instance-leave", {"instance": self.id})
        except Disconnected:
            pass
        except Refused as refused:
            if refused.code != ErrorCode.NOT_IN_INSTANCE:
                raise
        self._emit("ended", {"reason": "left", "note": None, "error": None})

    @property
    def direct(self) -> bool:
        """Whether what players say comes over a connection to the instance's own node."""
        return self._direct.begun

    async def run(self) -> None:
        """Sends the values of `set`, and keeps a direct connection to the instance's node, if the
        node takes one. Returns when the player has left."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._direct.run)
            await self._send_values()
            tasks.cancel_scope.cancel()

    async def _send_values(self) -> None:
        while self.inside:
            self._wake = anyio.Event()
            waiting = [(one.due, key) for key, one in self._own.items() if one.waiting]
            if not waiting or not self._connection.open:
                await self._wake.wait()
                continue
            due, key = min(waiting)
            pause = due - anyio.current_time()
            if pause > 0:
                with anyio.move_on_after(pause):
                    await self._wake.wait()
                continue
            own = self._own[key]
            own.waiting, own.due = False, anyio.current_time() + own.pause
            if own.value is None:
                del self._own[key]
            await self._direct.tell(own.value, key=key, at=self._next_at())

    # The snapshot --------------------------------------------------------------------------------

    def _take(self, welcome: Mapping[str, Any], *, first: bool = False) -> None:
        """Takes a whole snapshot, and tells what is different in it."""
        self._direct.snapshot(offered=bool(welcome.get("direct")))
        before, values = dict(self.players), self._values
        self.player, self.role = welcome["player"], welcome["role"]
        players = {one["player"]: Player.of(one) for one in welcome["players"]}
        for id_, player in before.items():
            if id_ not in players:
                self._remove(player, "disconnected")
        self.players.clear()
        self.players.update(players)
        self._values = {}
        for one in welcome["retained"]:
            self._values.setdefault(one["player"], {})[one["key"]] = one["data"]
        if first:
            return
        for id_, player in players.items():
            if id_ not in before:
                self._emit("joined", player)
            elif player != before[id_]:
                self._emit("updated", player)
        for id_, own in self._values.items():
            for key, data in own.items():
                if values.get(id_, {}).get(key, MISSING) != data:
                    self._tell_value(id_, key, data)
        for id_, own in values.items():
            for key in own.keys() - self._values.get(id_, {}).keys():
                if id_ in players:
                    self._tell_value(id_, key, None)

    # Events --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "instance-joined": self._joined,
            "instance-left": self._left,
            "instance-data": self._data,
            "player-updated": lambda data: self._update(Player.of(data)),
            "instance-role": self._role_changed,
            "instance-moderated": lambda data: self._emit("moderated", data),
            "instance-restored": self._restored,
            "instance-direct": lambda data: self._direct.hear(data["state"]),
        }

        def listener(handle: Callable[[dict[str, Any]], None]) -> Callable[[Any], None]:
            def call(message: dict[str, Any]) -> None:
                if message.get("subgroup") == self.id:
                    handle(message["data"])

            return call

        connection = self._connection
        self._unlisten = [connection.on(name, listener(one)) for name, one in handlers.items()]
        self._unlisten += [
            connection.on("connection-lost", self._lost),
            connection.on("connection-closed", lambda _: self._thrown_out("disconnected")),
        ]
        connection.openers.append(self._come_back)
        self._unlisten.append(lambda: connection.openers.remove(self._come_back))

    def _joined(self, data: dict[str, Any]) -> None:
        player = self.players[data["player"]] = Player.of(data)
        self._emit("joined", player)

    def _left(self, data: dict[str, Any]) -> None:
        if data["player"] == self.player:
            self._thrown_out(data["reason"], data.get("note"))
            return
        player = self.players.get(data["player"])
        if player is not None:
            self._remove(player, data["reason"])

    def _data(self, message: dict[str, Any]) -> None:
        sender, key, data = message["player"], message.get("key"), message.get("data")
        if key is None:
            self._emit("message", (sender, self.players.get(sender), data))
            return
        if data is None:
            self._values.get(sender, {}).pop(key, None)
        elif sender in self.players:
            self._values.setdefault(sender, {})[key] = data
        self._tell_value(sender, key, data)

    def _tell_value(self, sender: str, key: str, data: Any) -> None:
        self._emit("value", (sender, self.players.get(sender), key, data))

    def _role_changed(self, data: dict[str, Any]) -> None:
        for one in tuple(self.players.values()):
            if one.user == data["user"]:
                self._update(Player(one.id, one.user, one.displayname, data["role"], one.joined_at))

    def _update(self, player: Player) -> None:
        self.players[player.id] = player
        if player.id == self.player:
            self.role = player.role
        self._emit("updated", player)

    def _remove(self, player: Player, reason: str) -> None:
        self._values.pop(player.id, None)
        self.players.pop(player.id, None)
        self._emit("left", (player, reason))

    def _restored(self, welcome: dict[str, Any]) -> None:
        self._take(welcome)
        self._send_all_again()
        self._emit("back", {"gap": True, "same_player": True})

    def _lost(self, lost: dict[str, Any]) -> None:
        if lost["code"] == MESSAGE_TOO_LARGE and self._own:
            # The server takes no message of that size: sent again, it would close the next socket.
            del self._own[max(self._own, key=lambda key: len(json.dumps(self._own[key].value)))]
        self._direct.snapshot(offered=False)
        self._emit("away")

    def _thrown_out(
        self, reason: str, note: str | None = None, error: Refused | None = None
    ) -> None:
        if self.inside:
            self._finish()
            self._emit("ended", {"reason": reason, "note": note, "error": error})

    def _finish(self) -> None:
        self.inside = False
        for unlisten in self._unlisten:
            with suppress(ValueError):
                unlisten()
        self._wake.set()

    async def _come_back(self, again: bool) -> None:
        if again:
            await self._rejoin()

    async def _rejoin(self) -> None:
        """Gets a snapshot, and all that comes after it over the server."""
        if not self.inside:
            return
        was_direct, before = self._direct.begun, self.player

        def answered(welcome: Mapping[str, Any]) -> None:
            self._take(welcome)
            self._send_all_again()
            same = self.player == before
            gap = bool(welcome.get("gap")) or was_direct or not same
            self._emit("back", {"gap": gap, "same_player": same})

        try:
            await self._connection.request(
                "instance-join", {"instance": self.id}, answered=answered
            )
            if self._interest is not None:
                await self._ask_for_interest()
        except Refused as refused:
            if refused.code in PASSING:
                raise Disconnected(str(refused)) from refused  # it connects again
            self._thrown_out("refused", str(refused), refused)

    def _send_all_again(self) -> None:
        for own in self._own.values():
            own.waiting = True
        self._wake.set()

    def _next_at(self) -> float:
        """Seconds that only grow, also over a restart of the program."""
        self._last_at = max(self._last_at + 0.000_001, time.time())
        return self._last_at

    def _ensure_inside(self) -> None:
        if not self.inside:
            raise Disconnected(f"not inside {self.id} any more")
