"""`/api/users`: accounts as others see them, and as they see themselves (PROTOCOL §4)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import AliasChoices, Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_user, own_server
from api.http.pagination import Search, shown
from api.http.password_check import PasswordCheck
from api.http.presenters import ANY_USER, AnyUserView, show_user, show_users
from reileta.errors import (
    LoginInvalid,
    NotLoggedIn,
    PermissionDenied,
    ServerNotFound,
    TagUnknown,
    UserCannotDelete,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
)
from reileta.protocol.input_types import (
    Description,
    DisplayName,
    Email,
    GivenPassword,
    Input,
    Password,
    TagList,
    Username,
)
from reileta.protocol.views.registry import ListView, NothingView, UserView
from reileta.records import ADMIN_TAG, User
from reileta.rules.tags import USER_TAGS
from reileta.security.passwords import Passwords

_SHOWN: Final = Cached(("users", "follows", "images"), live=True)
_PROVEN: Final = ("username", "email")
"""What a user changes of its own with its password only, like the password itself."""
_PROVEN_NAMES: Final = "the username, the password or the e-mail address"


class UserUpdate(Input):
    """What to change; a field that is left out stays as it is."""

    username: Username = Field(default_factory=str)
    displayname: DisplayName = Field(
        default_factory=str,
        validation_alias=AliasChoices("displayname", "display"),
        description="`display` is another name of this field.",
    )
    description: Description | None = Field(default=None, description="null empties it.")
    email: Email | None = Field(default=None, repr=False, description="null empties it.")
    status: Literal["online", "away", "busy"] = Field(
        default="online", description="What friends see while a WebSocket is open."
    )
    password: Password = Field(
        default_factory=str,
        repr=False,
        description="Ends all sessions of the user's but the one that asks, of which only the token"
        " in use lives on.",
    )
    current_password: GivenPassword = Field(
        default_factory=str,
        repr=False,
        description="The password as it is, which a user that has one needs to change its own"
        " username, password or e-mail address.",
    )
    tags: TagList = Field(
        default=(),
        description="All tags: they replace the old ones. Admins alone set them.",
        json_schema_extra=USER_TAGS.schema(),
    )


class UserDelete(Input):
    """The proof that it is the user who deletes its account."""

    current_password: GivenPassword | None = Field(
        default=None,
        repr=False,
        description="The password, which a user that has one needs to delete its own account."
        " Admins need none to delete another's.",
    )


def user_routes(edge: ApiDeps, passwords: Passwords) -> Routes:
    """The endpoints that read, change and delete users."""
    node, auth = edge.node, edge.auth
    users = node.store.users
    proofs = PasswordCheck(edge, passwords)
    routes = Routes("users", edge, invalid=UserInvalid)

    @routes.add(
        "GET",
        "/api/users",
        summary="Search users",
        takes=Search,
        gives=ListView[UserView],
        errors=(ServerNotFound,),
        shows=_SHOWN,
    )
    async def get_users(call: RequestContext, given: Search) -> ListView[AnyUserView]:
        """Users whose username, displayname or description holds `query`."""
        own_server(node, call)
        page = await users.search(query=given.query, limit=given.limit, offset=given.offset)
        return shown(page, await show_users(node, call, page.items))

    @routes.add(
        "GET",
        "/api/users/<ref>",
        summary="Get a user",
        gives=ANY_USER,
        errors=(UserNotFound, ServerNotFound, NotLoggedIn),
        shows=_SHOWN,
    )
    async def get_user(call: RequestContext) -> AnyUserView:
        """A user by its id or username, or `@me`, `@server`, `@admin`.

        Itself and admins see it as `UserMe`, its friends as `UserFriend`, all others as `User`.
        """
        return await show_user(node, call, await find_user(node, call, call.args["ref"]))

    @routes.add(
        "POST",
        "/api/users/<ref>",
        summary="Update a user",
        takes=UserUpdate,
        gives=ANY_USER,
        need="required",
        errors=(
            UserNotFound,
            ServerNotFound,
            UserCannotUpdate,
            PermissionDenied,
            TagUnknown,
            LoginInvalid,
        ),
    )
    async def update_user(call: RequestContext, given: UserUpdate) -> AnyUserView:
        """Changes what is given; the user itself and admins may."""
        changes: dict[str, Any] = given.given()
        current = changes.pop("current_password", None)
        password = changes.pop("password", None)
        if "description" in changes:
            changes["description"] = given.description or None
        user = await judged(call, given)
        hash_ = None
        if password is not None or any(
            changes.get(name, getattr(user, name)) != getattr(user, name) for name in _PROVEN
        ):
            await ensure_proven(call, user, current, f"to change {_PROVEN_NAMES}")
            if password is not None:
                hash_ = await proofs.hashed(call, password)
            user = await judged(call, given)  # passwords take their time
        if "tags" in changes:
            changes["tags"] = await settled_tags(call, user, given.tags)
        if changes:
            user = await users.update(user.id, **changes)
        if hash_ is not None:
            user = await changed_password(call, user, hash_)
        if changes or hash_ is not None:
            auth.forget_user(user.id)
            node.changed("user", user)
        return await show_user(node, call, user)

    async def judged(call: RequestContext, given: UserUpdate) -> User:
        """The user of the path, if the asker may change it in that way."""
        user = await find_user(node, call, call.args["ref"])
        ensure_may_change(call, user)
        if "tags" in given.given():
            await settled_tags(call, user, given.tags)
        if "password" in given.given() and user.id == (await users.server_account()).id:
            raise UserCannotUpdate.field("password", "is none that anyone may have")
        return user

    async def settled_tags(
        call: RequestContext, user: User, tags: tuple[str, ...]
    ) -> frozenset[str]:
        settled = USER_TAGS.settle(tags, admin=call.admin, before=user.tags)
        if ADMIN_TAG in user.tags - settled and user.id == (await users.main_admin()).id:
            raise UserCannotUpdate.field("tags", f"the main admin keeps {ADMIN_TAG}")
        return settled

    async def ensure_proven(
        call: RequestContext, user: User, current: str | None, why: str
    ) -> None:
        """Has a user prove who it is: a token that was left lying about is not enough for what
        would take the account away. Others, who may, are admins, and don't know it."""
        if call.by.user.id != user.id or await users.credentials(user.username) is None:
            return
        if current is None:
            raise UserInvalid.field("current_password", f"is required {why}")
        await proofs.of_asker(call, current)

    async def changed_password(call: RequestContext, user: User, hash_: str) -> User:
        own = call.by.user.id == user.id
        revoked = await users.change_password(
            user.id,
            hash_,
            keep=call.by.session_id if own else None,
            keep_token=call.by.token_hash if own else None,
        )
        for session_id in revoked.sessions:
            auth.forget_session(session_id)
            await node.end_session(session_id)
        for token in revoked.tokens:
            auth.forget_token(token)
            node.credential_killed(token)
        return await users.by_id(user.id) or user

    async def deletable(call: RequestContext) -> User:
        """The user of the path, if the asker may delete it."""
        user = await find_user(node, call, call.args["ref"])
        own = {(await users.server_account()).id, (await users.main_admin()).id}
        if not may_change(call, user) or user.id in own:
            raise UserCannotDelete
        return user

    @routes.add(
        "DELETE",
        "/api/users/<ref>",
        summary="Delete a user",
        takes=UserDelete,
        body=True,
        gives=NothingView,
        need="required",
        errors=(UserNotFound, ServerNotFound, UserCannotDelete, LoginInvalid),
    )
    async def delete_user(call: RequestContext, given: UserDelete) -> NothingView:
        """Deletes an account and all that is private of it; the user itself and admins may.

        Its worlds, instances and services become the server's own account's. The server's own
        account and its main administrator can't be deleted.
        """
        user = await deletable(call)
        await ensure_proven(call, user, given.current_password, "to delete one's own account")
        user = await deletable(call)  # a password takes its time
        async with node.store.blobs.releasing() as loose:
            deleted = await users.delete(user.id)
            loose.update(deleted.files)
            auth.forget_user(user.id)
            await node.user_deleted(deleted)
        return NothingView()

    return routes


def may_change(call: RequestContext, user: User) -> bool:
    """Whether the asker is the user, or an admin."""
    return call.admin or (call.by.user.id == user.id and not call.by.guest)


def ensure_may_change(call: RequestContext, user: User) -> None:
    """Raises UserCannotUpdate for who is neither the user nor an admin."""
    if not may_change(call, user):
        raise UserCannotUpdate
