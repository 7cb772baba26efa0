"""Credentials: where a request carries one, and whose it is (PROTOCOL §§3, 4)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import Headers

from api.http.headers import SESSION_COOKIE
from reileta.clock import Clock
from reileta.errors import CredentialInvalid, CredentialMalformed
from reileta.records import Session, Token, User
from reileta.rules.instance.access import Principal
from reileta.security.credentials import digest

COOKIE: Final = SESSION_COOKIE

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}")
_USER_TOKEN: Final = "ua_"  # noqa: S105 - how one begins, not a token
_KINDS: Final = {"avr(user)": ("ua_", "ia_"), "avr(server)": ("sa_",)}
_BEARER: Final = re.compile(r"\s*bearer\s", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s/@:\[\]?#,]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_QUERIES: Final = {"authuser": "ua_", "authserver": "sa_", "integrityuser": "ia_"}

Source = Literal["header", "query", "cookie"]


@dataclass(frozen=True, slots=True)
class Credential:
    """A token as a request carried it.

    `deprecated` marks the query's `authuser`, whose answers say so in a header. A cookie comes by
    itself, so one that is dead is no error: the request goes on without a credential.
    """

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Credential(source={self.source!r})"

    @property
    def deprecated(self) -> bool:
        return self.source == "query" and self.token.startswith(_USER_TOKEN)


def credential_of(
    headers: Headers,
    args: Mapping[str, str],
    cookies: Mapping[str, str],
    *,
    method: str,
    scheme: str,
) -> Credential | None:
    """The credential that a request or an upgrade carries: header before query before cookie.

    Args:
        method: the HTTP method; `WEBSOCKET` for an upgrade, which a browser lets any page ask for
            and which is therefore held to the same origin when only a cookie speaks for it. A GET
            that changes something is given as another method.
        scheme: `http`, `https`, `ws` or `wss`, to tell the same origin from another.

    Raises:
        CredentialMalformed: there is something that can't be a credential.
        CredentialInvalid: it is of another kind than its place or the User-Agent says.
    """
    given = headers.getlist("Authorization")
    if given:
        if len(given) > 1:
            raise CredentialMalformed.field("Authorization", "is given more than once")
        token = _of_header(given[0])
        agent = headers.get("User-Agent", "").strip().lower()
        if agent in _KINDS and not token.startswith(_KINDS[agent]):
            raise CredentialInvalid.field("User-Agent", "says another kind than the token")
        return Credential(token, "header")
    for name, prefix in _QUERIES.items():
        value = args.get(name)
        if value is not None:
            if _TOKEN.fullmatch(value) is None:
                raise CredentialMalformed.field(name, "is no token")
            if not value.startswith(prefix):
                raise CredentialInvalid.field(name, "is a token of another kind")
            return Credential(value, "query")
    token = cookies.get(COOKIE, "")
    if _TOKEN.fullmatch(token) and (
        method in ("GET", "HEAD") or _same_origin(headers, scheme, method)
    ):
        return Credential(token, "cookie")
    return None


def credential_from(carrier: BaseRequestWebsocket, *, changes: bool = False) -> Credential | None:
    """`credential_of` for a Quart request or websocket. `changes`: it changes something, whatever
    its method is, so that a cookie alone must come from a page of this server."""
    method = "WEBSOCKET" if carrier.scope["type"] == "websocket" else carrier.method
    # The query and cookies are parsed only where they count.
    alone = "Authorization" in carrier.headers
    return credential_of(
        carrier.headers,
        {} if alone or not carrier.query_string else carrier.args,
        {} if alone else carrier.cookies,
        method="POST" if changes and method in ("GET", "HEAD") else method,
        scheme=carrier.scheme,
    )


def bearer_from(carrier: BaseRequestWebsocket, *, query: bool = False) -> Credential:
    """The credential of a request of the session API: `Authorization: Bearer …`, and nothing else
    (S "Authentication").

    Args:
        query: take it from the query, too, where there is no header; for WebSockets, on which a
            browser's page can set none.

    Raises:
        CredentialMalformed: the header is missing, of another type, or can't be parsed.
        CredentialInvalid: as `credential_of`.
    """
    given = carrier.headers.get("Authorization")
    if given is not None and _BEARER.match(given) is None:
        raise CredentialMalformed.field("Authorization", "must be `Bearer TOKEN`")
    credential = credential_of(
        carrier.headers, carrier.args if query else {}, {}, method="GET", scheme=carrier.scheme
    )
    if credential is None:
        raise CredentialMalformed.field("Authorization", "is missing")
    return credential


def _of_header(value: str) -> str:
    scheme, _, token = value.strip().rpartition(" ")
    if scheme and scheme.strip().lower() != "bearer":
        raise CredentialMalformed.field("Authorization", "must be `Bearer TOKEN` or `TOKEN`")
    if _TOKEN.fullmatch(token) is None or token.lower() == "bearer":
        raise CredentialMalformed.field("Authorization", "is no token")
    return token


def _same_origin(headers: Headers, scheme: str, method: str) -> bool:
    """Whether a browser says that the page that asks is this server's own.

    An `Origin` that is there must be the server's; `null` is none. Browsers leave it out of a GET,
    where `Sec-Fetch-Site`, which no page can set, says the same. Of these two, none may say
    otherwise, and one must be there. For an upgrade `Origin` alone counts: browsers always send it,
    and differ in what else they say.
    """
    origins = headers.getlist("Origin")
    sites = headers.getlist("Sec-Fetch-Site") if method != "WEBSOCKET" else []
    if any(site.strip().lower() != "same-origin" for site in sites):
        return False
    if not origins:
        return bool(sites)
    secure = scheme in ("https", "wss")
    own = _origin(f"http{'s' if secure else ''}://{headers.get('Host', '')}")
    return own is not None and len(origins) == 1 and _origin(origins[0]) == own


def _origin(text: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of an origin, in one spelling; None for what is no such origin."""
    match = _ORIGIN.fullmatch(text.strip().lower())
    if match is None:
        return None
    return match[1], match[2], match[3] or _DEFAULT_PORTS[match[1]]


class TokenStore(Protocol):
    """What authentication asks of the database."""

    async def use(self, access_hash: bytes, /) -> tuple[Token, Session, User] | None:
        """The token, its session and its user, alive or not. From a key's first use on, the keys
        before it are dead."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    token_expires: int
    stale_at: int


class Auth:
    """Tells whose a token is, and remembers it for a few seconds.

    At most `size` tokens are remembered, each for at most `ttl_ms`; the one remembered longest
    goes first. What another process changes (`reileta admin grant`) is seen when that time is over;
    what this one changes is seen at once, by the `forget_…` methods.
    """

    def __init__(
        self, tokens: TokenStore, clock: Clock, *, ttl_ms: int = 5_000, size: int = 10_000
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._size = size
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._keys: dict[bytes, set[bytes]] = {}
        """Those that are remembered, by their token's id."""
        # Counts what was forgotten: a look-up that was under way meanwhile may not be remembered.
        self._epoch = 0

    async def authenticate_token(self, token: str) -> Principal:
        """Who a user's access key speaks for.

        Raises `CredentialInvalid` for one that is unknown, expired, killed, or of a session that
        has ended, and for the kinds that belong to servers and to users of other servers.
        """
        if not token.startswith(_USER_TOKEN):
            raise CredentialInvalid
        access_hash = digest(token)
        now = self._clock.now_ms()
        known = self._known.get(access_hash)
        if known is not None and now < known.stale_at and now < known.token_expires:
            return known.principal
        epoch = self._epoch
        found = await self._tokens.use(access_hash)
        if found is None:
            raise CredentialInvalid
        row, session, user = found
        if row.killed_at is not None or session.ended_at is not None or row.access_expires <= now:
            raise CredentialInvalid
        principal = Principal(
            user,
            session.id,
            row.id,
            expires_at=row.access_expires,
            token_expires=max(row.access_expires, row.refresh_expires),
        )
        for earlier in self._keys.get(row.id, set()) - {access_hash}:
            self._drop(earlier)  # this key may have been used for the first time
        if epoch == self._epoch:
            self._drop(access_hash)
            self._known[access_hash] = _Known(principal, row.access_expires, now + self._ttl_ms)
            self._keys.setdefault(row.id, set()).add(access_hash)
            if len(self._known) > self._size:
                self._drop(next(iter(self._known)))
        return principal

    def _drop(self, access_hash: bytes) -> None:
        known = self._known.pop(access_hash, None)
        if known is not None:
            keys = self._keys[known.principal.token_hash]
            keys.discard(access_hash)
            if not keys:
                del self._keys[known.principal.token_hash]

    async def authenticate(self, credential: Credential | None) -> Principal | None:
        """Who a credential speaks for; None without one, and for a cookie that is dead."""
        if credential is None:
            return None
        try:
            return await self.authenticate_token(credential.token)
        except CredentialInvalid:
            if credential.source == "cookie":
                return None
            raise

    def forget_token(self, token: bytes) -> None:
        """The token of that id was killed."""
        self._epoch += 1
        for key in tuple(self._keys.get(token, ())):
            self._drop(key)

    def forget_keys(self, access_hashes: Iterable[bytes]) -> None:
        """These keys of a token gave way to newer ones."""
        self._epoch += 1
        for key in access_hashes:
            self._drop(key)

    def forget_session(self, session_id: str) -> None:
        """The session has ended."""
        self._forget(lambda principal: principal.session_id == session_id)

    def forget_user(self, user_id: str) -> None:
        """The user was changed or deleted."""
        self._forget(lambda principal: principal.user.id == user_id)

    def _forget(self, concerned: Callable[[Principal], bool]) -> None:
        self._epoch += 1
        for key in [key for key, known in self._known.items() if concerned(known.principal)]:
            self._drop(key)
