"""`POST /api/users`: accounts that admins make, autopilots too (S "Autopilot", PROTOCOL §4)."""

from __future__ import annotations

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import own_server
from api.http.password_check import PasswordCheck
from api.http.presenters import ANY_USER, AnyUserView, show_user
from api.rate_limits import LOGIN
from reileta.errors import AuthInvalid, ServerNotFound, UserInvalid
from reileta.protocol.input_types import DisplayName, Email, Flag, Input, Password, Username
from reileta.security.passwords import Passwords


class AccountCreate(Input):
    """A new account. It can log in once it has a password, which admins can give it later too."""

    username: Username
    password: Password | None = Field(default=None, repr=False)
    displayname: DisplayName | None = Field(
        default=None, description="The username when not given."
    )
    email: Email | None = Field(default=None, repr=False)
    autopilot: Flag = Field(default=False, description="Whether it is an Autopilot's.")


def account_routes(edge: ApiDeps, passwords: Passwords) -> Routes:
    """The endpoint by which admins make accounts."""
    node = edge.node
    proofs = PasswordCheck(edge, passwords)
    routes = Routes("accounts", edge, invalid=UserInvalid)

    @routes.add(
        "POST",
        "/api/users",
        summary="Make an account",
        takes=AccountCreate,
        gives=ANY_USER,
        need="required",
        only="admin",
        errors=(AuthInvalid, ServerNotFound),
        rate=LOGIN,
    )
    async def create_account(call: RequestContext, given: AccountCreate) -> AnyUserView:
        """Makes an account, whether or not registration is open."""
        own_server(node, call)
        hash_ = None if given.password is None else await proofs.hashed(call, given.password)
        user = await node.store.users.create(
            username=given.username,
            displayname=given.displayname or given.username,
            password_hash=hash_,
            email=given.email,
            autopilot=given.autopilot,
        )
        node.changed("user", user)
        return await show_user(node, call, user)

    return routes
