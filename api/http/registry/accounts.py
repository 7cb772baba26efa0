"""Endpoint that creates accounts: `POST /api/users`, for admins."""

from __future__ import annotations

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server
from api.http.password_check import PasswordCheck
from api.http.presenters import ANY_USER, AnyUserView, show_user
from api.rate_limits import LOGIN
from reileta.errors import AuthInvalid, ServerNotFound, UserInvalid
from reileta.observability import log_events
from reileta.protocol.input_types import CreateInput, DisplayName, Email, Flag, Password, Username
from reileta.security.passwords import Passwords


class AccountCreate(CreateInput):
    """A new account. It can log in once it has a password; an admin can set one later."""

    username: Username
    password: Password | None = Field(default=None, repr=False)
    displayname: DisplayName | None = Field(default=None, description="Default: the username.")
    email: Email | None = Field(default=None, repr=False)
    autopilot: Flag = Field(default=False, description="Whether an Autopilot uses this account.")


def account_routes(deps: ApiDeps, passwords: Passwords) -> Routes:
    """Declares the endpoint."""
    node = deps.node
    password_check = PasswordCheck(deps, passwords)
    routes = Routes("accounts", deps, invalid=UserInvalid)

    @routes.add(
        "POST",
        "/api/users",
        summary="Create an account",
        takes=AccountCreate,
        gives=ANY_USER,
        need="required",
        only="admin",
        errors=(AuthInvalid, ServerNotFound),
        rate=LOGIN,
    )
    async def create_account(call: RequestContext, params: AccountCreate) -> AnyUserView:
        """Creates an account, even if registration is closed. Admins only."""
        ensure_own_server(node, call)
        hash_ = (
            None if params.password is None else await password_check.hashed(call, params.password)
        )
        user = await node.store.users.create(
            username=params.username,
            displayname=params.displayname or params.username,
            password_hash=hash_,
            email=params.email,
            autopilot=params.autopilot,
        )
        call.audit.about(user)
        node.activity.note(
            log_events.ACCOUNT_CREATED,
            call.by.user.id,
            user=user.id,
            username=user.username,
            by=call.by.user.id,
            by_username=call.by.user.username,
        )
        node.changed("user", user)
        return await show_user(node, call, user)

    return routes
