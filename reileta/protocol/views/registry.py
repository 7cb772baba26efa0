"""JSON objects of the registry API (docs/protocol.md#objects), made from records.

HTTP responses and `update-*` events use the same views. A field without a value is left out
(`UNSET`); the type of a field says whether it can be null. `/openapi.json` generates schemas from
these classes, so users read their docstrings and descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta.ids import At, at
from reileta.records import (
    DISABLED_TAG,
    NO_PROFILE,
    Asset,
    HostKind,
    HostNode,
    HostStatus,
    InstanceRecord,
    Profile,
    Service,
    User,
    World,
)
from reileta.site import Site

T = TypeVar("T")
V = TypeVar("V")

UserId = Annotated[
    str, Meta(description="A user's id", examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11"])
]
UserAt = Annotated[
    str,
    Meta(
        description="A user as `id@server`",
        examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11@play.example.org:3032"],
    ),
]
WorldId = Annotated[
    str, Meta(description="A world's id", examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c"])
]
WorldAt = Annotated[
    str,
    Meta(
        description="A world as `id@server`; a home can also have a version: `id:version@server`",
        examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c@play.example.org:3032"],
    ),
]
AssetId = Annotated[
    str, Meta(description="An asset's id", examples=["f_1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9"])
]
NodeId = Annotated[
    str,
    Meta(description="An instance node's id", examples=["n_3b9f1c2d-7e6a-4d5c-8b1f-0a2c4e6f8d7b"]),
]
ServiceId = Annotated[str, Meta(description="A service's id", examples=["com.example.voice"])]
InstanceId = Annotated[
    str, Meta(description="An instance's id", examples=["i_c0ffee00-1234-4321-8abc-def012345678"])
]
SessionId = Annotated[
    str, Meta(description="A session's id", examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"])
]
Address = Annotated[
    str, Meta(examples=["play.example.org:3032"], description="`host` or `host:port`")
]
Millis = Annotated[
    int, Meta(examples=[1790000000000], description="Milliseconds since 1970 UTC", ge=0)
]
Tags = Annotated[
    tuple[str, ...], Meta(description="Access and properties", examples=[["avr:public"]])
]
UserTags = Annotated[
    tuple[str, ...],
    Meta(
        examples=[[]],
        description="`avr:admin` for an admin, `avr:disabled` for a suspended account",
    ),
]
Secure = Annotated[bool, Meta(examples=[True], description="Whether `address` uses TLS")]
Username = Annotated[str, Meta(description="A unique name to log in with", examples=["ada"])]
DisplayName = Annotated[str, Meta(description="The name that others see", examples=["Ada L."])]
Title = Annotated[str, Meta(description="A name for people")]
Description = Annotated[str, Meta(description="A text about it, of several lines at most")]
EmailAddress = Annotated[str, Meta(description="An e-mail address", examples=["ada@example.org"])]
Capacity = Annotated[int, Meta(description="Number of seats", examples=[32], ge=1, le=1024)]
PublicKey = Annotated[
    str,
    Meta(
        examples=["9PGcCnTc3qSCt74zE1v5etMxaXgo7pycPPi9wz0CwRI"], description="Ed25519, base64url"
    ),
]
Status = Literal["online", "offline", "away", "busy"]
PictureUrl = Annotated[
    str,
    Meta(
        description="URL of its PNG",
        examples=["https://play.example.org:3032/api/users/u_7f8c2c61/thumbnail"],
    ),
]


class UserView(Struct, kw_only=True):
    """A user, as everybody sees it."""

    id: UserId
    username: Username
    displayname: DisplayName
    description: Description | UnsetType = UNSET
    thumbnail: PictureUrl | UnsetType = UNSET
    banner: PictureUrl | UnsetType = UNSET
    tags: UserTags
    temporary: (
        Annotated[
            Literal[True],
            Meta(
                description="It has no password, and is deleted some time after its last session."
                " Left out for full accounts"
            ),
        ]
        | UnsetType
    ) = UNSET
    server: Address
    created_at: Millis
    updated_at: Millis


class UserFriendView(UserView, kw_only=True):
    """A user, as a friend sees it. Friends follow each other."""

    isFriend: Annotated[Literal[True], Meta(description="They follow each other")]  # noqa: N815 - the protocol's name
    following_at: Annotated[
        int,
        Meta(ge=0, description="Since when the friend follows the user", examples=[1790000000000]),
    ]
    status: Status


class UserMeView(UserView, kw_only=True):
    """A user, as it and the server's admins see it."""

    email: EmailAddress | UnsetType = UNSET
    status: Status
    following: Annotated[tuple[UserAt, ...], Meta(description="The users whom it follows")]
    home: WorldAt | UnsetType = UNSET
    suspension: SuspensionView | UnsetType = UNSET


class SuspensionView(Struct, kw_only=True):
    """The suspension of an account: why, and until when."""

    reason: (
        Annotated[
            str,
            Meta(description="The user reads it when it tries to log in", examples=["no spam"]),
        ]
        | UnsetType
    ) = UNSET
    until: (
        Annotated[Millis, Meta(description="Left out if it ends only when it is lifted")]
        | UnsetType
    ) = UNSET


class IdentityView(Struct):
    """The user and the session that a socket authenticated as."""

    user: UserMeView
    session: SessionId


class HomeView(Struct, kw_only=True):
    """A user's home: a reference to the world, and the world itself if the caller can see it here.

    `world` holds the version of the world's assets, if one is set.
    """

    world: WorldAt
    id: WorldId
    server: Address
    title: Annotated[Title, Meta(examples=["Harbour at dusk"])] | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    capacity: Capacity | UnsetType = UNSET
    owner: UserAt | UnsetType = UNSET
    thumbnail: PictureUrl | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    assets: Annotated[tuple[AssetView, ...], Meta(description="Its builds")] | UnsetType = UNSET
    created_at: Millis | UnsetType = UNSET
    updated_at: Millis | UnsetType = UNSET


class FollowView(Struct, kw_only=True):
    """A follow: the other user, and since when."""

    user: UserAt
    following_at: Millis
    isFriend: Annotated[bool, Meta(description="Whether they follow each other")]  # noqa: N815


class WorldView(Struct, kw_only=True):
    """A world, of which instances can be opened."""

    id: WorldId
    title: Annotated[Title, Meta(examples=["Harbour at dusk"])]
    description: Description | UnsetType = UNSET
    capacity: Capacity
    owner: UserAt
    server: Address
    thumbnail: PictureUrl | UnsetType = UNSET
    tags: Tags
    assets: Annotated[tuple[AssetView, ...], Meta(description="Its builds")]
    created_at: Millis
    updated_at: Millis


class AssetView(Struct, kw_only=True):
    """A build of a world, for one engine and platform."""

    id: AssetId
    version: Annotated[str, Meta(description="Its version", examples=["1.2"])]
    engine: Annotated[str, Meta(description="What it was built for", examples=["unity"])]
    platform: Annotated[str, Meta(description="What it was built for", examples=["windows"])]
    url: (
        Annotated[str, Meta(description="URL of its file, on this or another server")] | UnsetType
    ) = UNSET
    hash: Annotated[str, Meta(description="SHA-256 of the file, in hex")] | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes of the file", ge=0)] | UnsetType = UNSET
    empty: Annotated[bool, Meta(description="Whether it has no file and no `url` yet")]
    created_at: Millis
    updated_at: Millis


class ServiceView(Struct, kw_only=True):
    """An addition to the server that clients and other servers can use."""

    id: ServiceId
    title: Annotated[Title, Meta(examples=["Voice"])]
    description: Description | UnsetType = UNSET
    url: (
        Annotated[str, Meta(description="Its address", examples=["https://voice.example.com/"])]
        | UnsetType
    ) = UNSET
    owner: UserAt
    server: Address
    tags: Tags
    created_at: Millis
    updated_at: Millis


class InstanceView(Struct, kw_only=True):
    """A live instance of a world."""

    id: InstanceId
    name: Annotated[
        str, Meta(description="Its name, unique on this server", examples=["sunday-meetup"])
    ]
    title: Title | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    world: WorldAt
    owner: UserAt
    master: Annotated[
        UserAt | None,
        Meta(
            description="The user who has been inside longest, or to whom the role was"
            " transferred; null while empty"
        ),
    ]
    capacity: Capacity
    connected: Annotated[int, Meta(description="Players inside", examples=[3], ge=0)]
    queued: Annotated[int, Meta(description="Waiting candidates", examples=[0], ge=0)]
    node: Annotated[NodeId, Meta(description="The instance node on which it lives")] | UnsetType = (
        UNSET
    )
    position_key: (
        Annotated[
            str,
            Meta(
                description="The key under which players publish their positions",
                examples=["pose"],
                min_length=1,
                max_length=64,
            ),
        ]
        | UnsetType
    ) = UNSET
    tags: Tags
    server: Address
    address: Annotated[
        str,
        Meta(description="Address of the server to join it on", examples=["play.example.org:3032"]),
    ]
    secure: Secure
    created_at: Millis
    updated_at: Millis


RegionName = Annotated[str, Meta(description="Where it is", examples=["eu-west"])]
Software = Annotated[str, Meta(description="Its software", examples=["reileta/1.0"])]


class DirectView(Struct, kw_only=True):
    """Where clients can reach an instance node themselves."""

    address: Address
    secure: Secure


class FaultView(Struct, kw_only=True):
    """Why the server has cut the link of an instance node."""

    reason: Annotated[str, Meta(description="What the node did", examples=["sends text"])]
    at: Millis


class InstanceNodeView(Struct, kw_only=True):
    """An instance node: a machine that hosts instances over a link to this server. Only its owner
    and admins see `version`, `direct` and `fault`."""

    id: NodeId
    title: Title
    owner: UserAt
    kind: Annotated[
        HostKind,
        Meta(
            description="`dedicated`: of the operator, for everybody's instances. `hosted`: of a"
            " user, for its own."
        ),
    ]
    status: Annotated[HostStatus, Meta(description="`draining`: it takes no more instances")]
    region: Annotated[str, Meta(description="Where it is", examples=["eu-west"])] | UnsetType = (
        UNSET
    )
    instances: Annotated[int, Meta(description="Instances that live on it", examples=[2], ge=0)]
    players: Annotated[int, Meta(description="Players inside these", examples=[5], ge=0)]
    capacity: Annotated[int, Meta(description="Instances that can live on it", examples=[100])]
    version: (
        Annotated[str, Meta(description="Its software", examples=["reileta/1.0"])] | UnsetType
    ) = UNSET
    direct: DirectView | UnsetType = UNSET
    fault: FaultView | UnsetType = UNSET
    created_at: Millis
    updated_at: Millis
    seen_at: (
        Annotated[Millis, Meta(description="When it was last known to be connected")] | UnsetType
    ) = UNSET


class ServiceTokenView(ServiceView, kw_only=True):
    """A service with a new token."""

    user: Annotated[UserAt, Meta(description="The user as which the service acts")]
    token: Annotated[
        str,
        Meta(
            description="What the service authenticates with. It is shown only now",
            examples=["ua_x2J0W…"],
        ),
    ]
    expires_at: Annotated[
        int, Meta(ge=0, description="When the token expires", examples=[1790000000000])
    ]


class InstanceNodeTokenView(InstanceNodeView, kw_only=True):
    """An instance node with a new token."""

    token: Annotated[
        str,
        Meta(
            description="What the node connects with. It is shown only now", examples=["na_x2J0W…"]
        ),
    ]


class LoginView(Struct, kw_only=True):
    """A session, and a token for it."""

    id: SessionId
    token: Annotated[str, Meta(description="The credential", examples=["ua_5uqk0CZ1m0…"])]
    refresh: Annotated[
        str, Meta(description="What renews the token, once", examples=["ur_x2J0WqV7kT…"])
    ]
    access_expires: Millis
    refresh_expires: Millis
    created_at: Millis
    user: UserMeView


class NothingView(Struct, kw_only=True):
    """The request succeeded; there is no further information."""


NextCursor = Annotated[
    str, Meta(description="The place behind this page, for `after`. Left out at the end")
]


class ListView(Struct, Generic[V], kw_only=True):
    """One page of a list: `items` from `offset` on, of `total` items."""

    items: Annotated[tuple[V, ...], Meta(description="The page")]
    total: Annotated[int, Meta(ge=0, description="How many objects match")]
    limit: Annotated[int, Meta(ge=1, le=100, description="As requested")]
    offset: Annotated[int, Meta(ge=0, description="As requested")]
    next: NextCursor | UnsetType = UNSET


def known(value: T | None) -> T | UnsetType:
    """The value, or UNSET for None, so that the field is left out."""
    return UNSET if value is None else value


def user_view(
    user: User,
    status: str,
    site: Site,
    *,
    viewer: str | None = None,
    admin: bool = False,
    friend_since: int | None = None,
    profile: Profile = NO_PROFILE,
) -> UserView | UserMeView | UserFriendView:
    """The user for a viewer: `UserMe` for the user itself and admins, `UserFriend` for a friend.

    Args:
        viewer: the viewer's id; None for an unspecified viewer.
        admin: whether the viewer is an admin of this server.
        friend_since: since when the viewer follows the user, if they are friends.
        profile: the user's profile; others than the user and admins only see its pictures.
    """
    if admin or viewer == user.id:
        return user_me_view(user, status, site, profile=profile)
    if friend_since is not None:
        return UserFriendView(
            **_public(user, site, profile),
            isFriend=True,
            following_at=friend_since,
            status=_status(status),
        )
    return UserView(**_public(user, site, profile))


def follow_view(user: str, following_at: int, *, friend: bool, address: str) -> FollowView:
    """One side of a follow; `user` is a `UserIDAt` or a bare id."""
    return FollowView(user=at(user, address), following_at=following_at, isFriend=friend)


def user_me_view(
    user: User, status: str, site: Site, *, profile: Profile = NO_PROFILE
) -> UserMeView:
    """The user as it sees itself."""
    return UserMeView(
        **_public(user, site, profile),
        email=known(user.email),
        status=_status(status),
        following=tuple(at(other, site.address) for other in profile.following),
        home=known(None if user.home is None else at(user.home, site.address)),
        suspension=_suspension(user),
    )


def _suspension(user: User) -> SuspensionView | UnsetType:
    if DISABLED_TAG not in user.tags:
        return UNSET
    return SuspensionView(reason=known(user.suspension_reason), until=known(user.suspended_until))


def user_thumbnail(user_id: str, profile: Profile, site: Site) -> str | None:
    """The URL of a user's thumbnail, if there is one."""
    return _picture_url(user_id, "thumbnail", site) if "thumbnail" in profile.pictures else None


def _picture_url(user_id: str, kind: str, site: Site) -> str:
    return f"{site.url}/api/users/{user_id}/{kind}"


def _public(user: User, site: Site, profile: Profile) -> dict[str, Any]:
    pictures = {kind: _picture_url(user.id, kind, site) for kind in profile.pictures}
    if profile.thumbnail is not None:
        pictures["thumbnail"] = profile.thumbnail
    named = At.parse(user.id)
    return {
        "id": named.id,
        "username": user.username,
        "displayname": user.displayname,
        "description": known(user.description),
        **pictures,
        "tags": tuple(sorted(user.tags)),
        "temporary": True if user.temporary else UNSET,
        "server": named.server or site.address,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _status(text: str) -> Status:
    """The stored status; an invalid one is not shown."""
    return text if text in get_args(Status) else "offline"  # type: ignore[return-value]


def home_view(home: str, address: str, world: WorldView | None) -> HomeView:
    """A user's home: `w_…`, or `w_…:version`, either with `@server`. `world`: None: not shown."""
    reference = At.parse(at(home, address))
    shown = (
        {}
        if world is None
        else {name: getattr(world, name) for name in WorldView.__struct_fields__}
    )
    own = {"id": reference.id.partition(":")[0], "server": reference.server or address}
    return HomeView(world=str(reference), **{**own, **shown})


def world_view(
    world: World,
    site: Site,
    *,
    assets: Sequence[Asset] = (),
    pictured: bool = False,
) -> WorldView:
    """The world, with an absolute owner; `pictured`: whether it has a thumbnail."""
    thumbnail = f"{site.url}/api/worlds/{world.id}/thumbnail"
    return WorldView(
        id=world.id,
        title=world.title,
        description=known(world.description),
        capacity=world.capacity,
        owner=at(world.owner, site.address),
        server=site.address,
        thumbnail=thumbnail if pictured else UNSET,
        tags=tuple(sorted(world.tags)),
        assets=tuple(asset_view(asset, site) for asset in assets),
        created_at=world.created_at,
        updated_at=world.updated_at,
    )


def asset_view(asset: Asset, site: Site) -> AssetView:
    """The asset; a file that is stored here gets a URL of this server."""
    url = asset.url
    if asset.hash is not None:
        url = f"{site.url}/api/worlds/{asset.world_id}/assets/{asset.id}/file"
    return AssetView(
        id=asset.id,
        version=asset.version,
        engine=asset.engine,
        platform=asset.platform,
        url=known(url),
        hash=known(asset.hash),
        size=known(asset.size),
        empty=asset.empty,
        created_at=asset.created_at,
        updated_at=asset.updated_at,
    )


def service_view(service: Service, address: str) -> ServiceView:
    """The service, with an absolute owner."""
    return ServiceView(**_service(service, address))


def service_token_view(
    service: Service, address: str, *, user: str, token: str, expires_at: int
) -> ServiceTokenView:
    """The service with a token, which acts as the user of that id."""
    return ServiceTokenView(
        **_service(service, address), user=at(user, address), token=token, expires_at=expires_at
    )


def _service(service: Service, address: str) -> dict[str, Any]:
    return {
        "id": service.id,
        "title": service.title,
        "description": known(service.description),
        "url": known(service.url),
        "owner": at(service.owner, address),
        "server": address,
        "tags": tuple(sorted(service.tags)),
        "created_at": service.created_at,
        "updated_at": service.updated_at,
    }


def node_view(host: HostNode, players: int, address: str, *, private: bool) -> InstanceNodeView:
    """The instance node; `private`: for its owner and admins."""
    return InstanceNodeView(**_node_fields(host, players, address, private=private))


def node_token_view(
    host: HostNode, players: int, address: str, token: str
) -> InstanceNodeTokenView:
    """The same with its new token, for its owner."""
    return InstanceNodeTokenView(token=token, **_node_fields(host, players, address, private=True))


def _node_fields(host: HostNode, players: int, address: str, *, private: bool) -> dict[str, Any]:
    direct = host.direct if private else None
    return {
        "id": host.id,
        "title": host.title,
        "owner": at(host.owner, address),
        "kind": host.kind,
        "status": host.status,
        "region": known(host.region),
        "instances": len(host.instances),
        "players": players,
        "capacity": host.capacity,
        "version": known(host.version if private else None),
        "direct": UNSET
        if direct is None
        else DirectView(address=direct.address, secure=direct.secure),
        "fault": UNSET
        if not private or host.fault is None or host.fault_at is None
        else FaultView(reason=host.fault, at=host.fault_at),
        "created_at": host.created_at,
        "updated_at": host.updated_at,
        "seen_at": known(host.seen_at),
    }


class Inside(Protocol):
    """The occupancy of an instance, in numbers; `master` is a `UserIDAt` or a bare id."""

    @property
    def connected(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def master(self) -> str | None: ...


def instance_view(instance: InstanceRecord, inside: Inside, site: Site) -> InstanceView:
    """The instance with its current occupancy."""
    address, master = site.address, inside.master
    return InstanceView(
        id=instance.id,
        name=instance.name,
        title=known(instance.title),
        description=known(instance.description),
        world=at(instance.world, address),
        owner=at(instance.owner, address),
        master=None if master is None else at(master, address),
        capacity=instance.capacity,
        connected=inside.connected,
        queued=inside.queued,
        node=known(instance.node),
        position_key=known(instance.position_key),
        tags=tuple(sorted(instance.tags)),
        server=address,
        address=address,
        secure=site.secure,
        created_at=instance.created_at,
        updated_at=instance.updated_at,
    )
