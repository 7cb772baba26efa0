"""Frames that a client got, as values that tests compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from reileta.rules.resource.json_values import Json

ROLES: Final = frozenset({"instance-role"})
"""What most joins and leaves bring along: who is the master now."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame; parts that it does not have are None.

    Attributes:
        command: `instance-data`, `update-world` …
        state: the `state` of the command that it answers.
        error: the code of the error.
        name: the display name of the user that it is about.
        players: the display names of the players that it lists.
        reason: why someone left or was moderated.
        role: the role that someone has now.
        data: what a player sent.
    """

    command: str
    state: Json = None
    error: int | None = None
    name: str | None = None
    players: tuple[str, ...] | None = None
    reason: str | None = None
    role: str | None = None
    data: Json = None

    @classmethod
    def of(cls, message: dict[str, Any]) -> Frame:
        content = message.get("data")
        fields = content if isinstance(content, dict) else {}
        players = fields.get("players")
        return cls(
            message["command"],
            state=message.get("state"),
            error=message["error"]["code"] if "error" in message else None,
            name=fields.get("displayname"),
            players=None if players is None else tuple(one["displayname"] for one in players),
            reason=fields.get("reason"),
            role=fields.get("role") if message["command"] == "instance-role" else None,
            data=fields.get("data"),
        )


def frame(command: str) -> Frame:
    return Frame(command)


def data(value: Json = None, *, state: Json = None) -> Frame:
    """Data of a player; or, with `state` alone, the answer to a player's own."""
    return Frame("instance-data", data=value, state=state)


def join(*players: str, state: Json = None) -> Frame:
    """The answer to a join: all players, the new one included."""
    return Frame("instance-join", players=players, state=state)


def restored(*players: str) -> Frame:
    return Frame("instance-restored", players=players)


def leave(*, state: Json = None) -> Frame:
    return Frame("instance-leave", state=state)


def joined(name: str) -> Frame:
    return Frame("instance-joined", name=name)


def left(reason: str) -> Frame:
    return Frame("instance-left", reason=reason)


def moderated(reason: str | None = None) -> Frame:
    return Frame("instance-moderated", reason=reason)


def update(noun: str, name: str | None = None, *, reason: str | None = None) -> Frame:
    """An update of a record; the hub's tests publish updates that are nothing but a `reason`."""
    return Frame(f"update-{noun}", name=name, reason=reason)


def failed(command: str, error: int, *, state: Json = None) -> Frame:
    """The error that answers an instance's command, given without `instance-`."""
    return Frame(f"instance-{command}", error=error, state=state)
