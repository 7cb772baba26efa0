"""`/api/auth/…`: register, log in, log out (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, Field
from werkzeug.http import dump_cookie

from api.credentials import COOKIE, credential_from
from api.http.endpoint import ApiDeps, Reply, RequestContext, Routes
from api.http.login import Login, LoginService
from api.http.presenters import show_me
from api.rate_limits import LOGIN
from reileta.errors import (
    AuthInvalid,
    CredentialInvalid,
    LoginInvalid,
    NotLoggedIn,
    ServiceDisabled,
)
from reileta.protocol.input_types import DisplayName, Email, Input, Password, Username
from reileta.protocol.views.registry import LoginView, NothingView
from reileta.records import Session, User
from reileta.rules.session.tokens import Lifetimes
from reileta.security.passwords import Passwords


class Register(Input):
    """A new account."""

    username: Username
    password: Password = Field(repr=False)
    displayname: DisplayName | None = Field(
        default=None,
        validation_alias=AliasChoices("displayname", "display"),
        description="The username when not given. `display` is another name of this field.",
    )
    email: Email | None = Field(default=None, repr=False)


def auth_routes(edge: ApiDeps, passwords: Passwords) -> Routes:
    """The endpoints that make and end tokens and sessions."""
    node, auth = edge.node, edge.auth
    users, sessions, tokens = node.store.users, node.store.sessions, node.store.tokens
    settings = node.settings
    lifetimes = Lifetimes(settings.login_lifetime_s * 1000, settings.login_lifetime_s * 1000)
    logins = LoginService(edge, passwords)
    routes = Routes("auth", edge, invalid=AuthInvalid)

    async def logged_in(user: User, session: Session, proof: str | None) -> Reply:
        """Issues a token of the session, and answers with it in the body and as a cookie."""
        made = await logins.issue(user, session, lifetimes, proof)
        view = LoginView(
            id=session.id,
            token=made.access,
            refresh=made.refresh,
            access_expires=made.token.access_expires,
            refresh_expires=made.token.refresh_expires,
            created_at=session.created_at,
            user=await show_me(node, user),
        )
        return Reply(view, cookie(made.access, settings.login_lifetime_s))

    def cookie(value: str, max_age_s: int) -> Mapping[str, str]:
        crumb = dump_cookie(
            COOKIE,
            value,
            max_age=max_age_s,
            path="/",
            secure=node.secure,
            httponly=True,
            samesite="Lax",
        )
        return {"Set-Cookie": crumb}

    @routes.add(
        "POST",
        "/api/auth/register",
        summary="Register a new user",
        takes=Register,
        gives=LoginView,
        need="none",
        errors=(ServiceDisabled,),
        rate=LOGIN,
    )
    async def register(call: RequestContext, given: Register) -> Reply:
        """Makes an account and logs it in: a session, and a token in the body and as a cookie."""
        if settings.registration == "closed":
            raise ServiceDisabled.field("registration", "is closed on this server")
        user = await users.create(
            username=given.username,
            displayname=given.displayname or given.username,
            password_hash=await logins.proofs.hashed(call, given.password),
            email=given.email,
        )
        return await logins.register(user, call.ip, logged_in)

    @routes.add(
        "POST",
        "/api/auth/login",
        summary="Log in",
        takes=Login,
        gives=LoginView,
        need="none",
        errors=(LoginInvalid,),
        rate=LOGIN,
    )
    async def login(call: RequestContext, given: Login) -> Reply:
        """Exchanges a username and password for a token, in the body and as a cookie."""
        return await logins.log_in(given, call.ip, logged_in)

    @routes.add(
        "GET",
        "/api/auth/logout",
        summary="Log out",
        gives=NothingView,
        need="required",
        errors=(CredentialInvalid,),
    )
    async def logout(call: RequestContext) -> Reply:
        """Kills the token in use. Its session, and that session's other tokens, live on. A cookie
        alone counts from a page of this server only, for any page can have a browser ask this."""
        if credential_from(call.request, changes=True) is None:
            raise NotLoggedIn
        access_hash = call.by.token_hash
        await tokens.kill(access_hash, node.clock.now_ms())
        logins.killed(access_hash)
        return Reply(NothingView(), cookie("", 0))

    @routes.add(
        "DELETE",
        "/api/auth/logout",
        summary="End the session",
        gives=NothingView,
        need="required",
        errors=(CredentialInvalid,),
    )
    async def end_session(call: RequestContext) -> Reply:
        """Ends the whole session: all its tokens, its WebSockets (4000), its players."""
        session_id = call.by.session_id
        await sessions.end(session_id)
        auth.forget_session(session_id)
        await node.end_session(session_id)
        return Reply(NothingView(), cookie("", 0))

    return routes
