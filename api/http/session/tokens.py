"""Token endpoints of the session API: `/auth/login`, `/auth/refresh`, `/auth/logout`."""

from __future__ import annotations

from msgspec import Struct
from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.login import Login, LoginService
from api.http.session.session import show_session
from api.rate_limits import LOGIN
from reileta.errors import AccountSuspended, AuthInvalid, CredentialInvalid, LoginInvalid
from reileta.protocol.input_types import Input, Reference
from reileta.protocol.views.session import TokenView, token_view
from reileta.records import SessionRecord, User
from reileta.rules.session.tokens import Lifetimes
from reileta.security.credentials import digest
from reileta.security.passwords import Passwords


class SessionLogin(Login):
    """A username and its password."""

    session_id: Reference | None = Field(
        default=None,
        description="A session of the user to recover. If it has ended, a new one is opened.",
        examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"],
    )


class Refresh(Input):
    """A token's refresh key."""

    refresh: Reference = Field(
        repr=False, description="`refresh` of the token.", examples=["ur_4vJ9k2u7mQ"]
    )


class TokenAnswer(Struct):
    """A token."""

    token: TokenView


def token_routes(deps: ApiDeps, passwords: Passwords) -> Routes:
    """Declares the endpoints that issue, refresh and revoke tokens."""
    node, tokens, settings = deps.node, deps.node.store.tokens, deps.node.settings
    lifetimes = Lifetimes(settings.access_lifetime_s * 1000, settings.refresh_lifetime_s * 1000)
    logins = LoginService(deps, passwords, lifetimes)
    routes = Routes("tokens", deps, invalid=AuthInvalid, api="session")

    async def login_answer(user: User, session: SessionRecord, hash_: str | None) -> TokenAnswer:
        issued = await logins.issue(user, session, hash_)
        view = await show_session(node, session.id, user)
        return TokenAnswer(token_view(issued.token, view, issued.access, issued.refresh))

    @routes.add(
        "POST",
        "/auth/login",
        summary="Get a token",
        takes=SessionLogin,
        gives=TokenAnswer,
        need="none",
        errors=(LoginInvalid, AccountSuspended),
        rate=LOGIN,
    )
    async def issue_token(call: RequestContext, params: SessionLogin) -> TokenAnswer:
        """Exchanges a username and password for a token of the given session, or of a new one."""
        return await logins.log_in(params, call.ip, login_answer)

    @routes.add(
        "POST",
        "/auth/refresh",
        summary="Refresh a token",
        takes=Refresh,
        gives=TokenAnswer,
        need="none",
        errors=(CredentialInvalid,),
        rate=LOGIN,
    )
    async def refresh_token(call: RequestContext, params: Refresh) -> TokenAnswer:
        """Gives a token two new keys. Its lifetimes start again.

        The old keys are valid until the new ones are first used. For 10 seconds, the same refresh
        key gives the same new keys again, so that several tabs can refresh at the same time. If an
        old refresh key is used after that, one of the keys was stolen, and the token is revoked.
        """
        refreshed = await logins.refresh(params.refresh)
        view = await show_session(node, refreshed.session.id, refreshed.user)
        return TokenAnswer(token_view(refreshed.token, view, refreshed.access, refreshed.refresh))

    @routes.add(
        "POST",
        "/auth/logout",
        summary="Revoke a token",
        gives=TokenAnswer,
        need="required",
        audited=False,
        temporary=True,
    )
    async def revoke_token(call: RequestContext) -> TokenAnswer:
        """Revokes the token that was used, and closes its WebSockets. Its session ends when it has
        no other valid token."""
        credential = deps.auth.credential_from(call.request)
        assert credential is not None
        valid = await tokens.by_access(digest(credential.token))
        view = await show_session(node, call.by.session_id, call.by.user)
        await logins.log_out(call.by)
        revoked = await tokens.by_access(digest(credential.token)) or valid
        if revoked is None:
            raise CredentialInvalid
        return TokenAnswer(token_view(revoked[0], view, credential.token))

    return routes
