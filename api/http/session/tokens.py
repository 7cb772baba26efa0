"""`/auth/…`: how S's Tokens are got, made anew, and killed (S "Authentication", PROTOCOL §4)."""

from __future__ import annotations

import structlog
from msgspec import Struct
from pydantic import Field

from api.credentials import credential_from
from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.login import Login, LoginService
from api.http.session.session import show_session
from api.rate_limits import LOGIN
from reileta.errors import AuthInvalid, CredentialInvalid, LoginInvalid
from reileta.observability import log_events
from reileta.protocol.input_types import Input, Reference
from reileta.protocol.views.session import TokenView, token_view
from reileta.records import Session, User
from reileta.rules.session.tokens import Lifetimes
from reileta.security.credentials import digest, new_token
from reileta.security.passwords import Passwords
from reileta.store.tokens import Theft

_log = structlog.get_logger()


class SessionLogin(Login):
    """A username and its password."""

    session_id: Reference | None = Field(
        default=None,
        description="A session of the user's to recover; a new one opens if it is not alive.",
        examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"],
    )


class Refresh(Input):
    """A token's refresh key."""

    refresh: Reference = Field(repr=False, examples=["ur_4vJ9k2u7mQ"])


class TokenAnswer(Struct):
    """A token."""

    token: TokenView


def token_routes(edge: ApiDeps, passwords: Passwords) -> Routes:
    """The endpoints that make, refresh and kill tokens."""
    node, auth = edge.node, edge.auth
    tokens, settings = node.store.tokens, node.settings
    lifetimes = Lifetimes(settings.access_lifetime_s * 1000, settings.refresh_lifetime_s * 1000)
    logins = LoginService(edge, passwords)
    routes = Routes("tokens", edge, invalid=AuthInvalid, face="session")

    async def logged_in(user: User, session: Session, proof: str | None) -> TokenAnswer:
        made = await logins.issue(user, session, lifetimes, proof)
        shown = await show_session(node, session.id, user)
        return TokenAnswer(token_view(made.token, shown, made.access, made.refresh))

    @routes.add(
        "POST",
        "/auth/login",
        summary="Log in for a Token",
        takes=SessionLogin,
        gives=TokenAnswer,
        need="none",
        errors=(LoginInvalid,),
        rate=LOGIN,
    )
    async def log_in(call: RequestContext, given: SessionLogin) -> TokenAnswer:
        """Exchanges a username and password for a Token, of the session that is to be recovered or
        of a new one."""
        return await logins.log_in(given, call.ip, logged_in)

    @routes.add(
        "POST",
        "/auth/refresh",
        summary="Refresh a Token",
        takes=Refresh,
        gives=TokenAnswer,
        need="none",
        errors=(CredentialInvalid,),
        rate=LOGIN,
    )
    async def refresh_token(call: RequestContext, given: Refresh) -> TokenAnswer:
        """Makes both keys of a Token anew; its lifetimes begin again.

        The keys before are good until the new ones are first used. A refresh key that is used after
        that kills the Token: it was stolen, or its successor was.
        """
        access, refresh = new_token("ua"), new_token("ur")
        made = await tokens.rotate(
            digest(given.refresh),
            access_hash=digest(access),
            new_refresh_hash=digest(refresh),
            lifetimes=lifetimes,
        )
        if made is None:
            raise CredentialInvalid
        if isinstance(made, Theft):
            _log.warning(log_events.TOKEN_REUSED, session=made.session_id, user=made.user_id)
            logins.killed(made.token)
            raise CredentialInvalid
        auth.forget_keys(made.superseded)
        node.refreshed(made.session.id, made.token.id, made.token.refresh_expires)
        await node.store.sessions.seen([made.session.id])
        shown = await show_session(node, made.session.id, made.user)
        return TokenAnswer(token_view(made.token, shown, access, refresh))

    @routes.add(
        "POST",
        "/auth/logout",
        summary="Kill a Token",
        gives=TokenAnswer,
        need="required",
    )
    async def log_out(call: RequestContext) -> TokenAnswer:
        """Kills the Token in use, and closes its WebSockets. Its session lives on while another
        Token of it does."""
        credential = credential_from(call.request)
        assert credential is not None
        found = await tokens.by_access(digest(credential.token))
        shown = await show_session(node, call.by.session_id, call.by.user)
        await tokens.kill(call.by.token_hash, node.clock.now_ms())
        logins.killed(call.by.token_hash)
        after = await tokens.by_access(digest(credential.token)) or found
        if after is None:
            raise CredentialInvalid
        return TokenAnswer(token_view(after[0], shown, credential.token))

    return routes
