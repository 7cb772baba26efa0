"""User endpoints: `/api/users`."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import AliasChoices, Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import ensure_own_server, find_user, find_user_or_guest
from api.http.pagination import Search, list_of
from api.http.password_check import PasswordCheck
from api.http.presenters import ANY_USER, AnyUserView, show_user, show_users
from api.http.suspensions import Suspensions
from reileta.errors import (
    LoginInvalid,
    NotLoggedIn,
    PermissionDenied,
    ServerNotFound,
    ServiceDisabled,
    TagUnknown,
    UserCannotDelete,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
)
from reileta.observability import log_events
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
from reileta.records import ADMIN_TAG, DISABLED_TAG, DeletedUser, User
from reileta.rules.tags import USER_TAGS
from reileta.security.passwords import Passwords

ChosenStatus = Literal["online", "away", "busy"]
_CACHED: Final = Cached(
    (
        *("users", "follows", "images"),
        *("guests", "integrity_tokens", "server_rules", "vouched_follows"),
    ),
    live=True,
)
_PROVEN: Final = ("username", "email")
"""Fields that a user can change only with its password, besides the password itself."""
_PROVEN_NAMES: Final = "the username, the password or the e-mail address"


class UserUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    username: Username = Field(default_factory=str)
    displayname: DisplayName = Field(
        default_factory=str,
        validation_alias=AliasChoices("displayname", "display"),
        description="`display` is accepted as another name of this field.",
    )
    description: Description | None = Field(default=None, description="null removes it.")
    email: Email | None = Field(default=None, repr=False, description="null removes it.")
    status: ChosenStatus = Field(
        default_factory=lambda: "online",
        description="Status that friends see while a WebSocket is open.",
    )
    password: Password = Field(
        default_factory=str,
        repr=False,
        description="Changing it ends the user's other sessions, and revokes the other tokens of"
        " the calling session.",
    )
    current_password: GivenPassword = Field(
        default_factory=str,
        repr=False,
        description="The present password. A user that has one needs it to change its own"
        " username, password or e-mail address.",
    )
    tags: TagList = Field(
        default=(),
        description="The complete new list of tags. Only admins can change it.",
        json_schema_extra=USER_TAGS.schema(),
    )


class UserDelete(Input):
    """The proof that the user itself deletes its account."""

    current_password: GivenPassword | None = Field(
        default=None,
        repr=False,
        description="The present password. A user that has one needs it to delete its own account."
        " Admins don't need it to delete another account.",
    )


def user_routes(deps: ApiDeps, passwords: Passwords) -> Routes:
    """Declares the endpoints that read, change and delete users."""
    node, auth, settings = deps.node, deps.auth, deps.node.settings
    users = node.store.users
    password_check = PasswordCheck(deps, passwords)
    suspensions = Suspensions(deps)
    routes = Routes("users", deps, invalid=UserInvalid)

    @routes.add(
        "GET",
        "/api/users",
        summary="Search users",
        takes=Search,
        gives=ListView[UserView],
        errors=(ServerNotFound,),
        cached=_CACHED,
        remote=ListView[UserView],
    )
    async def get_users(call: RequestContext, params: Search) -> ListView[AnyUserView]:
        """Lists users whose username, displayname or description contains `query`."""
        ensure_own_server(node, call)
        page = await users.search(
            query=params.query, limit=params.limit, offset=params.offset, after=params.after
        )
        return list_of(page, await show_users(node, call, page.items))

    @routes.add(
        "GET",
        "/api/users/<ref>",
        summary="Get a user",
        gives=ANY_USER,
        errors=(UserNotFound, ServerNotFound, NotLoggedIn),
        cached=_CACHED,
        remote=UserView,
        about_guests=True,
    )
    async def get_user(call: RequestContext) -> AnyUserView:
        """Returns a user by its id or username, or `@me`, `@server`, `@admin`; or a guest by
        `id@server`.

        The user itself and admins get `UserMe`, friends get `UserFriend`, all others get `User`.
        """
        return await show_user(node, call, await find_user_or_guest(node, call))

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
            ServiceDisabled,
        ),
        temporary=True,
    )
    async def update_user(call: RequestContext, params: UserUpdate) -> AnyUserView:
        """Changes the given fields. The user itself and admins may do this. A `username` and a
        `password`, together, make a temporary account a full one."""
        changes: dict[str, Any] = params.given()
        current = changes.pop("current_password", None)
        password = changes.pop("password", None)
        if "description" in changes:
            changes["description"] = params.description or None
        user = await updatable(call, params)
        call.audit.about(user)
        hash_ = None
        temporary = user.temporary
        if temporary:
            ensure_kept_whole(call, params)
        if password is not None or any(
            changes.get(name, getattr(user, name)) != getattr(user, name) for name in _PROVEN
        ):
            await ensure_proven(call, user, current, f"to change {_PROVEN_NAMES}")
            if password is not None:
                hash_ = await password_check.hashed(call, password)
            user = await updatable(call, params)  # rights can change while a password is hashed
        before = user.tags
        changed = bool(changes) or hash_ is not None
        if "tags" in changes:
            changes["tags"] = await checked_tags(call, user, params.tags)
            call.audit.add(tags=sorted(changes["tags"]))
        if temporary and hash_ is not None:
            user = await users.keep(user.id, changes.pop("username"), hash_)
            hash_ = None
            note(log_events.ACCOUNT_KEPT, call, user)
        if changes:
            user = await users.update(user.id, **changes)
        if hash_ is not None:
            user = await change_password(call, user, hash_)
        if DISABLED_TAG in user.tags - before:
            user = await suspensions.suspend(call, user, until=None, reason=None)
        note_tags(call, user, before)
        if changed:
            auth.forget_user(user.id)
            node.changed("user", user)
        return await show_user(node, call, user)

    def ensure_kept_whole(call: RequestContext, params: UserUpdate) -> None:
        """Checks a change of a temporary account. The name and the password come together, and
        make it a full account, which only admins can do where registration is closed."""
        given = params.given()
        both = {"username", "password"}
        missing = both - given.keys()
        if len(missing) == 1 and not (call.admin and missing == {"password"}):
            (name,) = missing
            raise UserInvalid.field(name, "is required: both make the account a full one")
        if not missing and settings.registration == "closed" and not call.admin:
            raise ServiceDisabled.field("registration", "is closed on this server")

    def note_tags(call: RequestContext, user: User, before: frozenset[str]) -> None:
        """Logs roles that were given and taken."""
        for event, tags in (
            (log_events.ADMIN_GRANTED, user.tags - before),
            (log_events.ADMIN_REVOKED, before - user.tags),
        ):
            if ADMIN_TAG in tags:
                note(event, call, user)
        if DISABLED_TAG in before - user.tags:
            note(log_events.ACCOUNT_UNSUSPENDED, call, user)

    def note(event: str, call: RequestContext, user: User) -> None:
        by = call.by.user
        node.activity.note(
            event,
            by.id,
            user=user.id,
            username=user.username,
            by=by.id,
            by_username=by.username,
        )

    async def updatable(call: RequestContext, params: UserUpdate) -> User:
        """The user of the path, if the caller may change these fields. Raises otherwise."""
        user = await find_user(node, call, call.args["ref"])
        ensure_may_change(call, user)
        if "tags" in params.given():
            await checked_tags(call, user, params.tags)
        if "password" in params.given() and user.id == (await users.server_account()).id:
            raise UserCannotUpdate.field("password", "can't be set for the server's own account")
        return user

    async def checked_tags(
        call: RequestContext, user: User, tags: tuple[str, ...]
    ) -> frozenset[str]:
        """The user's new tags. Raises if the caller may not set them."""
        checked = USER_TAGS.resolve(tags, admin=call.admin, before=user.tags)
        if ADMIN_TAG in checked and user.temporary:
            raise UserCannotUpdate.field("tags", f"a temporary account can't have {ADMIN_TAG}")
        if DISABLED_TAG in checked - user.tags:
            suspensions.ensure_allowed(call, user)
            if user.id in {(await users.server_account()).id, (await users.main_admin()).id}:
                raise UserCannotUpdate.field("tags", "the server's own accounts can't be suspended")
        if ADMIN_TAG in user.tags - checked and user.id == (await users.main_admin()).id:
            raise UserCannotUpdate.field("tags", f"must include {ADMIN_TAG} for the main admin")
        return checked

    async def ensure_proven(
        call: RequestContext, user: User, current: str | None, why: str
    ) -> None:
        """Checks the password of a user that changes or deletes its own account, so that a stolen
        token is not enough to take the account over. Admins don't need the password."""
        if call.by.user.id != user.id or await users.credentials(user.username) is None:
            return
        if current is None:
            raise UserInvalid.field("current_password", f"is required {why}")
        await password_check.of_caller(call, current)

    async def change_password(call: RequestContext, user: User, hash_: str) -> User:
        own = call.by.user.id == user.id
        revoked = await users.change_password(
            user.id,
            hash_,
            keep=call.by.session_id if own else None,
            keep_token=call.by.token_hash if own else None,
        )
        for session_id in revoked.sessions:
            await deps.session_ended(session_id)
        for token in revoked.tokens:
            deps.token_revoked(token)
        note(log_events.PASSWORD_CHANGED, call, user)
        return await users.by_id(user.id) or user

    def forget(deleted: DeletedUser) -> None:
        auth.forget_user(deleted.user.id)
        for session_id in deleted.sessions:  # those of its services, too
            auth.forget_session(session_id)

    async def deletable(call: RequestContext) -> User:
        """The user of the path. Raises UserCannotDelete unless the caller may delete it."""
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
        temporary=True,
    )
    async def delete_user(call: RequestContext, params: UserDelete) -> NothingView:
        """Deletes an account and its private data. The user itself and admins may do this.

        The server's own account becomes the owner of its worlds, instances and services. The
        server's own account and the main admin can't be deleted.
        """
        user = await deletable(call)
        call.audit.about(user)
        await ensure_proven(call, user, params.current_password, "to delete one's own account")
        user = await deletable(call)  # rights can change while the password is checked
        await node.delete_user(user.id, forget)
        note(log_events.ACCOUNT_DELETED, call, user)
        return NothingView()

    return routes


def may_change(call: RequestContext, user: User) -> bool:
    """Whether the caller is the user or an admin."""
    return call.admin or (call.by.user.id == user.id and not call.by.guest)


def ensure_may_change(call: RequestContext, user: User) -> None:
    """Raises UserCannotUpdate unless the caller is the user or an admin."""
    if not may_change(call, user):
        raise UserCannotUpdate
