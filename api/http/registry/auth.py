"""Authentication endpoints of the registry API: `/api/auth/…`."""

from __future__ import annotations

from functools import partial

from pydantic import AliasChoices, Field
from werkzeug.datastructures import Headers
from werkzeug.http import dump_cookie

from api.credentials import OLD_COOKIE
from api.http.endpoint import ApiDeps, HttpReply, RequestContext, Routes
from api.http.login import Login, LoginService
from api.http.presenters import show_me
from api.rate_limits import LOGIN, TEMPORARY, network
from reileta.errors import (
    AccountSuspended,
    AuthInvalid,
    CredentialInvalid,
    LoginInvalid,
    NotLoggedIn,
    Overloaded,
    ServiceDisabled,
)
from reileta.observability import log_events
from reileta.protocol.input_types import DisplayName, Email, Input, Password, Username
from reileta.protocol.views.registry import LoginView, NothingView
from reileta.records import SessionRecord, User
from reileta.rules.session.tokens import Lifetimes
from reileta.security.passwords import Passwords


class Register(Input):
    """A new account."""

    username: Username
    password: Password = Field(repr=False)
    displayname: DisplayName | None = Field(
        default=None,
        validation_alias=AliasChoices("displayname", "display"),
        description="Default: the username. `display` is accepted as another name of this field.",
    )
    email: Email | None = Field(default=None, repr=False)


class Temporary(Input):
    """A temporary account."""

    displayname: DisplayName | None = Field(
        default=None, description='Default: "Guest" and a number.', examples=["Ada L."]
    )


def auth_routes(deps: ApiDeps, passwords: Passwords) -> Routes:
    """Declares the endpoints that open and end sessions and tokens."""
    node, users, settings = deps.node, deps.node.store.users, deps.node.settings
    lifetimes = Lifetimes(settings.login_lifetime_s * 1000, settings.login_lifetime_s * 1000)
    logins = LoginService(deps, passwords, lifetimes)
    temporary_s = min(settings.login_lifetime_s, settings.temporary_account_s)
    temporary_logins = LoginService(
        deps, passwords, Lifetimes(temporary_s * 1000, temporary_s * 1000)
    )
    routes = Routes("auth", deps, invalid=AuthInvalid)

    async def login_reply(
        call: RequestContext,
        user: User,
        session: SessionRecord,
        hash_: str | None,
        *,
        service: LoginService = logins,
        lifetime_s: int = settings.login_lifetime_s,
    ) -> HttpReply:
        """Issues a token of the session, and answers with it in the body and in a cookie."""
        issued = await service.issue(user, session, hash_)
        view = LoginView(
            id=session.id,
            token=issued.access,
            refresh=issued.refresh,
            access_expires=issued.token.access_expires,
            refresh_expires=issued.token.refresh_expires,
            created_at=session.created_at,
            user=await show_me(node, call, user),
        )
        return HttpReply(view, await cookies(call, issued.access, lifetime_s))

    def cookie(call: RequestContext, name: str, value: str, max_age_s: int, path: str) -> str:
        return dump_cookie(
            name,
            value,
            max_age=max_age_s,
            path=path,
            secure=call.secure,
            httponly=True,
            samesite="Lax",
        )

    async def cookies(call: RequestContext, value: str, max_age_s: int) -> Headers:
        """Sets the server's cookie. Removes a cookie of an earlier version, if this server has
        issued it: else it would count again after a logout."""
        path = settings.base_path or "/"
        headers = Headers({"Set-Cookie": cookie(call, deps.auth.cookie, value, max_age_s, path)})
        old = call.request.cookies.get(OLD_COOKIE)
        if old is not None and await is_valid(old):
            headers.add("Set-Cookie", cookie(call, OLD_COOKIE, "", 0, "/"))
        return headers

    async def is_valid(token: str) -> bool:
        try:
            await deps.auth.authenticate_token(token)
        except CredentialInvalid:
            return False
        return True

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
    async def register(call: RequestContext, params: Register) -> HttpReply:
        """Creates an account and logs it in. The new session's token is in the body and in a
        cookie."""
        if settings.registration == "closed":
            raise ServiceDisabled.field("registration", "is closed on this server")
        user = await users.create(
            username=params.username,
            displayname=params.displayname or params.username,
            password_hash=await logins.password_check.hashed(call, params.password),
            email=params.email,
        )
        node.activity.note(
            log_events.ACCOUNT_CREATED,
            network(call.ip),
            address=call.ip,
            user=user.id,
            username=user.username,
        )
        return await logins.register(user, call.ip, partial(login_reply, call))

    @routes.add(
        "POST",
        "/api/auth/temporary",
        summary="Get a temporary account",
        takes=Temporary,
        gives=LoginView,
        need="none",
        errors=(ServiceDisabled, Overloaded),
        rate=TEMPORARY,
        name="make_temporary_account",
    )
    async def make_temporary(call: RequestContext, params: Temporary) -> HttpReply:
        """Creates a temporary account, without a password, and logs it in. It can look around, join
        instances and wait for a seat, but make nothing. It is deleted some time after its last
        session has ended. `POST /api/users/@me` with `username` and `password` makes it a full
        account."""
        if not settings.temporary_accounts:
            raise ServiceDisabled.field("temporary_accounts", "are not allowed on this server")
        user = await users.create_temporary(params.displayname, limit=settings.temporary_accounts)
        node.activity.note(
            log_events.ACCOUNT_CREATED,
            network(call.ip),
            address=call.ip,
            user=user.id,
            username=user.username,
            temporary=True,
        )
        answer = partial(login_reply, call, service=temporary_logins, lifetime_s=temporary_s)
        return await temporary_logins.register(user, call.ip, answer)

    @routes.add(
        "POST",
        "/api/auth/login",
        summary="Log in",
        takes=Login,
        gives=LoginView,
        need="none",
        errors=(LoginInvalid, AccountSuspended),
        rate=LOGIN,
    )
    async def login(call: RequestContext, params: Login) -> HttpReply:
        """Exchanges a username and password for a token. It is in the body and in a cookie."""
        return await logins.log_in(params, call.ip, partial(login_reply, call))

    @routes.add(
        "GET",
        "/api/auth/logout",
        summary="Log out",
        guests="no",
        gives=NothingView,
        need="required",
        errors=(CredentialInvalid,),
    )
    async def logout(call: RequestContext) -> HttpReply:
        """Revokes the token that was used. Its session and the session's other tokens stay valid.
        A cookie is accepted only from a page of this server, because any page can make a browser
        send this request."""
        if deps.auth.credential_from(call.request, changes=True) is None:
            raise NotLoggedIn
        headers = await cookies(call, "", 0)
        await logins.log_out(call.by)
        return HttpReply(NothingView(), headers)

    @routes.add(
        "DELETE",
        "/api/auth/logout",
        summary="End the session",
        gives=NothingView,
        need="required",
        errors=(CredentialInvalid,),
        audited=False,
        temporary=True,
    )
    async def end_session(call: RequestContext) -> HttpReply:
        """Ends the session: revokes its tokens, closes its WebSockets (4000) and removes its
        players."""
        headers = await cookies(call, "", 0)
        await logins.end_session(call.by)
        return HttpReply(NothingView(), headers)

    return routes
