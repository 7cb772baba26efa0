"""JSON objects about a live instance: players, queue, bans, moderation log.

HTTP responses and events use the same views. `/openapi.json` generates schemas from these classes,
so users read their docstrings and descriptions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from reileta.ids import at, banned_server
from reileta.protocol.views.registry import (
    DisplayName,
    InstanceId,
    Millis,
    NextCursor,
    UserAt,
    known,
)
from reileta.records import Ban, Moderation
from reileta.rules.instance.candidates import Entry, State
from reileta.rules.instance.events import CandidateReason, LeaveReason
from reileta.rules.instance.roles import Role
from reileta.rules.instance.sanctions import ModerationAction, Mute
from reileta.rules.instance.seats import Player

LogType = Literal[
    "kick", "ban", "unban", "mute", "unmute", "warn", "moderator", "unmoderator", "master"
]
"""A moderation type, or a change of roles."""
PlayerId = Annotated[
    str, Meta(description="A player's id", examples=["p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09"])
]
BannedUserAt = Annotated[
    str,
    Meta(
        description="The user, as `id@server`; left out if it is about a server",
        examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11@play.example.org:3032"],
    ),
]
BannedServer = Annotated[
    str,
    Meta(
        description="The server whose users it is about; left out if it is about one user",
        examples=["rude.example"],
    ),
]
Reason = Annotated[str, Meta(description="For the user, up to 500 characters")]


class EntryView(Struct, kw_only=True):
    """A candidate's entry: its state, position and times."""

    user: UserAt
    state: Annotated[State, Meta(examples=["waiting"])]
    position: Annotated[int, Meta(description="In the queue, from 1", examples=[3])] | UnsetType = (
        UNSET
    )
    since: Millis
    expires_at: Millis | UnsetType = UNSET


class QueueView(Struct, kw_only=True):
    """An instance's queue: how many candidates wait, and the requester's own entry.

    `items` are all candidates (admitted, waiting in order, pending), page by page, only for the
    owner, the master, moderators and admins; `total` is their number.
    """

    queued: Annotated[int, Meta(description="Number of waiting candidates", ge=0, examples=[17])]
    entry: EntryView | UnsetType = UNSET
    items: Annotated[tuple[EntryView, ...], Meta(description="The page of entries")] | UnsetType = (
        UNSET
    )
    total: Annotated[int, Meta(description="How many entries there are")] | UnsetType = UNSET
    limit: Annotated[int, Meta(description="As requested")] | UnsetType = UNSET
    offset: Annotated[int, Meta(description="As requested")] | UnsetType = UNSET
    next: NextCursor | UnsetType = UNSET


class PlayerInsideView(Struct, kw_only=True):
    """A player inside."""

    player: PlayerId
    user: UserAt
    displayname: DisplayName
    role: Annotated[Role, Meta(examples=["normal"])]
    joined_at: Millis


class BanView(Struct, kw_only=True):
    """A banned user or server, until when (without `until`: forever), why and by whom."""

    user: BannedUserAt | UnsetType = UNSET
    server: BannedServer | UnsetType = UNSET
    until: Millis | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    by: UserAt
    created_at: Millis


class MuteView(Struct, kw_only=True):
    """A muted user, until when (without `until`: until it is unmuted), why and by whom."""

    user: UserAt
    until: Millis | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    by: UserAt
    created_at: Millis


class ModerationView(Struct, kw_only=True):
    """An entry of the moderation log."""

    type: Annotated[LogType, Meta(examples=["ban"])]
    user: BannedUserAt | UnsetType = UNSET
    server: BannedServer | UnsetType = UNSET
    by: UserAt
    reason: Reason | UnsetType = UNSET
    until: Millis | UnsetType = UNSET
    created_at: Millis


class ModeratedView(Struct, kw_only=True, omit_defaults=True):
    """The event `instance-moderated`; without `by` if a ban or mute expired."""

    type: ModerationAction
    user: BannedUserAt | UnsetType = UNSET
    server: BannedServer | UnsetType = UNSET
    by: UserAt | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    until: Millis | UnsetType = UNSET


class RoleView(Struct):
    """The event `instance-role`."""

    user: UserAt
    role: Role


class CandidateView(Struct):
    """The event `instance-candidate`: a candidate's entry is new, changed or removed (null)."""

    user: UserAt
    reason: CandidateReason
    entry: Annotated[EntryView | None, Meta(description="null: it is gone")]


class StandingView(Struct, omit_defaults=True):
    """The event `instance-queue`: the user's own entry, or all entries for overseers."""

    queued: Annotated[int, Meta(description="Number of waiting candidates")]
    entry: EntryView | UnsetType = UNSET
    entries: (
        Annotated[list[EntryView], Meta(description="All entries, for overseers")] | UnsetType
    ) = UNSET


def entry_view(entry: Entry) -> EntryView:
    """The entry of a candidate."""
    return EntryView(
        user=entry.user,
        state=entry.state,
        position=known(entry.position),
        since=entry.since,
        expires_at=known(entry.expires_at),
    )


def player_view(player: Player, role: Role) -> PlayerInsideView:
    """The player with its current role."""
    return PlayerInsideView(
        player=player.id,
        user=player.user,
        displayname=player.displayname,
        role=role,
        joined_at=player.joined_at,
    )


def target_of(user: str) -> dict[str, Any]:
    """The fields that name a moderated user (`UserIDAt`), or server (`*@server`)."""
    server = banned_server(user)
    return {"user": user} if server is None else {"server": server}


def ban_view(ban: Ban, address: str) -> BanView:
    """The ban, with absolute user references."""
    return BanView(
        **target_of(at(ban.user, address)),
        until=known(ban.until),
        reason=known(ban.reason),
        by=at(ban.by, address),
        created_at=ban.created_at,
    )


def mute_view(mute: Mute) -> MuteView:
    """The mute."""
    return MuteView(
        user=mute.user,
        until=known(mute.until),
        reason=known(mute.reason),
        by=mute.by,
        created_at=mute.created_at,
    )


def moderation_view(one: Moderation, address: str) -> ModerationView:
    """The entry, with absolute user references."""
    return ModerationView(
        type=cast(LogType, one.type),
        **target_of(at(one.user, address)),
        by=at(one.by, address),
        reason=known(one.reason),
        until=known(one.until),
        created_at=one.created_at,
    )


class PlayerView(Struct):
    """A player, as those inside see it. `PlayerInsideView` documents it."""

    player: str
    user: str
    displayname: str
    role: Role
    joined_at: int


class LeftView(Struct, omit_defaults=True):
    """A player that has left; `note` is a moderator's reason, for that player only."""

    player: PlayerId
    user: UserAt
    reason: LeaveReason
    note: Reason | UnsetType = UNSET


class PausedView(Struct, omit_defaults=True):
    """Until when a paused instance waits for its node, if it lives on one."""

    until: Annotated[Millis, Meta(description="Then the players leave")] | UnsetType = UNSET


class RetainedView(Struct, omit_defaults=True):
    """A retained value of a player."""

    player: PlayerId
    key: Annotated[str, Meta(description="As the player sent it")]
    data: Annotated[Raw, Meta(description="As the player sent it")]
    at: Annotated[float, Meta(description="As the player sent it")] | UnsetType = UNSET


class WelcomeView(Struct, kw_only=True):
    """The answer to `instance-join`."""

    instance: InstanceId
    player: PlayerId
    role: Role
    players: Annotated[list[Raw], Meta(description="All players inside")]
    gap: (
        Annotated[
            bool,
            Meta(
                description="True: messages without `key` may be missing, of the time in which the"
                " player had no working socket"
            ),
        ]
        | UnsetType
    ) = UNSET
    direct: (
        Annotated[
            bool,
            Meta(
                description="True: `instance-ticket` gives a way to the instance's node, over which"
                " data comes sooner"
            ),
        ]
        | UnsetType
    ) = UNSET
    retained: Annotated[list[RetainedView], Meta(description="Their retained values")]


class DirectWayView(Struct, kw_only=True):
    """The answer to `instance-ticket`: how to connect to the instance's node."""

    address: Annotated[str, Meta(description="`host` or `host:port`", examples=["attic.example"])]
    secure: Annotated[bool, Meta(description="Whether it uses TLS")]
    ticket: Annotated[str, Meta(description="Valid once", examples=["eyJhbGciOiJFZDI1NTE5Ii…"])]
    expires_at: Millis


DirectState = Literal["offered", "begun"]


class DirectNewsView(Struct):
    """The event `instance-direct`."""

    state: Annotated[
        DirectState,
        Meta(
            description="`offered`: `instance-ticket` gives a way to the instance's node. `begun`:"
            " from here on, the instance's data comes over the player's connection to the node, in"
            " place of this socket; `instance-restored`, or another answer to `instance-join`, ends"
            " that",
        ),
    ]


class AcceptedView(Struct, kw_only=True):
    """The answer to `instance-data`."""

    dropped: (
        Annotated[
            bool,
            Meta(
                description="True: nobody gets the value, because its `at` is below that of the"
                " retained value"
            ),
        ]
        | UnsetType
    ) = UNSET


class PlaceView(Struct):
    """The answer to `instance-leave`."""

    instance: InstanceId
    player: PlayerId
