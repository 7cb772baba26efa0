"""R's objects as clients see them ("Objects" in R, PROTOCOL §§4-6, 9), made from the records.

HTTP responses and `update-*` events carry the same views. A field without a value is left out
(`UNSET`); a field whose value can be null says so in its type. The classes make the response
schemas of `/openapi.json`, so their docstrings and notes are read by users.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta import __version__
from reileta.ids import at
from reileta.records import Instance, User, World

T = TypeVar("T")
V = TypeVar("V")

UserId = Annotated[str, Meta(examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11"])]
UserAt = Annotated[
    str, Meta(examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11@play.example.org:3032"])
]
WorldId = Annotated[str, Meta(examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c"])]
WorldAt = Annotated[
    str, Meta(examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c@play.example.org:3032"])
]
InstanceId = Annotated[str, Meta(examples=["i_c0ffee00-1234-4321-8abc-def012345678"])]
SessionId = Annotated[str, Meta(examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"])]
Address = Annotated[
    str, Meta(examples=["play.example.org:3032"], description="`host` or `host:port`")
]
Millis = Annotated[
    int, Meta(examples=[1790000000000], description="Milliseconds since 1970 UTC", ge=0)
]
Tags = Annotated[tuple[str, ...], Meta(examples=[["avr:public"]])]
Status = Literal["online", "offline", "away", "busy"]


class UserView(Struct, kw_only=True):
    """A user, as everybody sees it."""

    id: UserId
    username: Annotated[str, Meta(examples=["ada"])]
    displayname: Annotated[str, Meta(examples=["Ada L."])]
    description: str | UnsetType = UNSET
    thumbnail: str | UnsetType = UNSET
    banner: str | UnsetType = UNSET
    tags: Tags
    server: Address
    created_at: Millis
    updated_at: Millis


class UserMeView(UserView, kw_only=True):
    """A user, as it sees itself."""

    email: str | UnsetType = UNSET
    status: str
    following: tuple[UserAt, ...]
    home: str | UnsetType = UNSET


class WorldView(Struct, kw_only=True):
    """A world that instances can be opened of."""

    id: WorldId
    title: Annotated[str, Meta(examples=["Harbour at dusk"])]
    description: str | UnsetType = UNSET
    capacity: Annotated[int, Meta(examples=[32], ge=1, le=1024)]
    owner: UserAt
    server: Address
    thumbnail: str | UnsetType = UNSET
    tags: Tags
    assets: tuple[AssetView, ...]
    created_at: Millis
    updated_at: Millis


class AssetView(Struct, kw_only=True):
    """A build of a world, for one engine and platform."""

    id: Annotated[str, Meta(examples=["f_1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9"])]
    version: Annotated[str, Meta(examples=["1.2"])]
    engine: Annotated[str, Meta(examples=["unity"])]
    platform: Annotated[str, Meta(examples=["windows"])]
    url: str | UnsetType = UNSET
    hash: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    empty: bool
    created_at: Millis
    updated_at: Millis


class InstanceView(Struct, kw_only=True):
    """A live instance of a world."""

    id: InstanceId
    name: Annotated[str, Meta(examples=["sunday-meetup"])]
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    world: WorldAt
    owner: UserAt
    master: UserAt | None
    """Who has been inside longest, or was handed it; null while nobody is inside."""
    capacity: Annotated[int, Meta(examples=[32], ge=1, le=1024)]
    connected: Annotated[int, Meta(description="Players inside", examples=[3], ge=0)]
    queued: Annotated[int, Meta(description="Candidates that wait", examples=[0], ge=0)]
    tags: Tags
    server: Address
    address: Annotated[str, Meta(description="Where to join it", examples=["play.example.org"])]
    secure: Annotated[bool, Meta(description="Whether `address` speaks TLS")]
    created_at: Millis
    updated_at: Millis


class Gateways(Struct, kw_only=True):
    """Where the server's two faces are reached."""

    http: Annotated[str, Meta(examples=["https://play.example.org:3032"])]
    ws: Annotated[str, Meta(examples=["wss://play.example.org:3032/api/ws"])]


class ServerView(Struct, kw_only=True):
    """A server."""

    id: Annotated[str, Meta(examples=["5d0c6a1e-8f3b-4f0e-9a57-6f1b2c3d4e5f"])]
    title: Annotated[str, Meta(examples=["Reileta"])]
    description: str | UnsetType = UNSET
    address: Address
    secure: bool
    version: Annotated[str, Meta(examples=["0.1.0"])]
    gateways: Gateways
    public_key: Annotated[str, Meta(description="Ed25519, base64url")]
    created_at: Millis
    updated_at: Millis
    ready_at: Millis | UnsetType = UNSET


class DiscoveryView(Struct, kw_only=True):
    """What another server needs to know first."""

    address: Address
    secure: bool
    public_key: Annotated[str, Meta(description="Ed25519, base64url")]
    version: Annotated[str, Meta(examples=["0.1.0"])]


class LoginView(Struct, kw_only=True):
    """A session, and a token that speaks for it."""

    id: SessionId
    token: Annotated[str, Meta(examples=["ua_5uqk0CZ1m0…"])]
    refresh: Annotated[str, Meta(examples=["ur_x2J0WqV7kT…"])]
    access_expires: Millis
    refresh_expires: Millis
    created_at: Millis
    user: UserMeView


class HealthView(Struct, kw_only=True):
    """How the server is."""

    status: Annotated[Literal["alive", "ready"], Meta(examples=["ready"])]


class NothingView(Struct, kw_only=True):
    """It is done; there is nothing to say about it."""


class ListView(Struct, Generic[V], kw_only=True):
    """One page of a list: `items` from `offset` on, of `total` in all."""

    items: tuple[V, ...]
    total: Annotated[int, Meta(ge=0)]
    limit: Annotated[int, Meta(ge=1, le=100)]
    offset: Annotated[int, Meta(ge=0)]


def known(value: T | None) -> T | UnsetType:
    """The value, or UNSET for None: the field is left out."""
    return UNSET if value is None else value


def user_view(
    user: User,
    status: str,
    viewer: User | None,
    address: str,
    *,
    following: Iterable[str] = (),
) -> UserView | UserMeView:
    """The user as `viewer` may see it: `UserMe` for itself, else the public object.

    `following` are `UserIDAt`s, or bare ids of users of this server; only `UserMe` shows them.
    """
    if viewer is not None and viewer.id == user.id:
        return user_me_view(user, status, address, following=following)
    return UserView(
        id=user.id,
        username=user.username,
        displayname=user.displayname,
        description=known(user.description),
        tags=tuple(sorted(user.tags)),
        server=address,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


def user_me_view(
    user: User, status: str, address: str, *, following: Iterable[str] = ()
) -> UserMeView:
    """The user as it sees itself."""
    return UserMeView(
        id=user.id,
        username=user.username,
        displayname=user.displayname,
        description=known(user.description),
        tags=tuple(sorted(user.tags)),
        server=address,
        created_at=user.created_at,
        updated_at=user.updated_at,
        email=known(user.email),
        status=status,
        following=tuple(at(other, address) for other in following),
        home=known(None if user.home is None else at(user.home, address)),
    )


def world_view(world: World, address: str) -> WorldView:
    """The world, with an absolute owner."""
    return WorldView(
        id=world.id,
        title=world.title,
        description=known(world.description),
        capacity=world.capacity,
        owner=at(world.owner, address),
        server=address,
        tags=tuple(sorted(world.tags)),
        assets=(),
        created_at=world.created_at,
        updated_at=world.updated_at,
    )


def instance_view(
    instance: Instance,
    *,
    connected: int,
    queued: int,
    master: str | None,
    address: str,
    secure: bool,
) -> InstanceView:
    """The instance with who is inside it now; `master` is a `UserIDAt` or a bare id."""
    return InstanceView(
        id=instance.id,
        name=instance.name,
        title=known(instance.title),
        description=known(instance.description),
        world=at(instance.world, address),
        owner=at(instance.owner, address),
        master=None if master is None else at(master, address),
        capacity=instance.capacity,
        connected=connected,
        queued=queued,
        tags=tuple(sorted(instance.tags)),
        server=address,
        address=address,
        secure=secure,
        created_at=instance.created_at,
        updated_at=instance.updated_at,
    )


def server_view(
    *,
    id_: str,
    title: str,
    description: str | None,
    created_at: int,
    updated_at: int,
    address: str,
    secure: bool,
    public_key: str,
    ready_at: int | None,
) -> ServerView:
    """The server itself, and where to reach it."""
    suffix = "s" if secure else ""
    return ServerView(
        id=id_,
        title=title,
        description=known(description),
        address=address,
        secure=secure,
        version=__version__,
        gateways=Gateways(http=f"http{suffix}://{address}", ws=f"ws{suffix}://{address}/api/ws"),
        public_key=public_key,
        created_at=created_at,
        updated_at=updated_at,
        ready_at=known(ready_at),
    )
