"""Credentials of requests: extracting, authenticating and caching them."""

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
from reileta.ids import At
from reileta.records import Guest, IntegrityToken, SessionRecord, Token, User
from reileta.rules.identity import Principal, ServerPrincipal
from reileta.security.credentials import digest

OLD_COOKIE: Final = SESSION_COOKIE
"""The cookie of earlier versions, accepted until it expires."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""The form of a token (RFC 6750, 2.1). Any such text is looked up, and most are unknown; the limits
of headers and queries bound its length."""
_USER_TOKEN: Final = "ua_"  # noqa: S105 - how one begins, not a token
_GUEST_TOKEN: Final = "ia_"  # noqa: S105
_SERVER_TOKEN: Final = "sa_"  # noqa: S105
_KINDS: Final = {"avr(user)": ("ua_", "ia_"), "avr(server)": ("sa_",)}
_BEARER: Final = re.compile(r"\s*bearer\s", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s/@:\[\]?#,]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_QUERIES: Final = {"authuser": "ua_", "authserver": "sa_", "integrityuser": "ia_"}

Source = Literal["header", "query", "cookie"]


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, and the part of the request that it came in.

    Answers to a `deprecated` one (`?authuser`) have a `Deprecation` header. Browsers send cookies
    by themselves, so an expired cookie is not an error: the request continues without a credential.
    """

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Credential(source={self.source!r})"

    @property
    def deprecated(self) -> bool:
        return self.source == "query" and self.token.startswith(_USER_TOKEN)

    @property
    def of_server(self) -> bool:
        """Whether it is the token of another server."""
        return self.token.startswith(_SERVER_TOKEN)


def credential_of(
    headers: Headers,
    args: Mapping[str, str],
    cookies: Mapping[str, str],
    *,
    method: str,
    scheme: str,
    cookie: str = OLD_COOKIE,
    address: str | None = None,
) -> Credential | None:
    """The credential of a request or an upgrade: from the header, else the query, else the cookie.

    Args:
        method: the HTTP method, or `WEBSOCKET` for an upgrade. A cookie alone is accepted for
            reads, and otherwise only from pages of the same origin: any page can make a browser
            send a request or open a WebSocket. Pass another method for a GET that changes
            something.
        scheme: `http`, `https`, `ws` or `wss`, to check the origin.
        cookie: the name of the server's cookie. Without it, that of earlier versions counts.
        address: the server's address: pages from there are its own, too, since a proxy can change
            the `Host` of a request.

    Raises:
        CredentialMalformed: the text can't be a token.
        CredentialInvalid: the token's type does not fit the parameter or the User-Agent.
    """
    authorization = headers.getlist("Authorization")
    if authorization:
        if len(authorization) > 1:
            raise CredentialMalformed.field("Authorization", "must be given once")
        token = _of_header(authorization[0])
        agent = headers.get("User-Agent", "").strip().lower()
        if agent in _KINDS and not token.startswith(_KINDS[agent]):
            raise CredentialInvalid.field("User-Agent", "does not match the token's type")
        return Credential(token, "header")
    for name, prefix in _QUERIES.items():
        value = args.get(name)
        if value is not None:
            if _TOKEN.fullmatch(value) is None:
                raise CredentialMalformed.field(name, "is not a valid token")
            if not value.startswith(prefix):
                raise CredentialInvalid.field(name, f"must start with {prefix}")
            return Credential(value, "query")
    token = cookies.get(cookie) or cookies.get(OLD_COOKIE, "")
    if _TOKEN.fullmatch(token) and (
        method in ("GET", "HEAD") or _same_origin(headers, scheme, method, address)
    ):
        return Credential(token, "cookie")
    return None


def credential_from(
    carrier: BaseRequestWebsocket,
    *,
    changes: bool = False,
    cookie: str = OLD_COOKIE,
    address: str | None = None,
) -> Credential | None:
    """`credential_of` for a Quart request or websocket.

    `changes`: the request changes something although it is a GET, so a cookie alone must come from
    a page of this server.
    """
    method = "WEBSOCKET" if carrier.scope["type"] == "websocket" else carrier.method
    # Parse the query and cookies only if they are used.
    in_header = "Authorization" in carrier.headers
    return credential_of(
        carrier.headers,
        {} if in_header or not carrier.query_string else carrier.args,
        {} if in_header else carrier.cookies,
        method="POST" if changes and method in ("GET", "HEAD") else method,
        scheme=carrier.scheme,
        cookie=cookie,
        address=address,
    )


def bearer_from(carrier: BaseRequestWebsocket, *, query: bool = False) -> Credential:
    """The credential of a request of the session API: only `Authorization: Bearer …`.

    Args:
        query: without a header, take the token from the query. For WebSockets, because pages can't
            set headers for them.

    Raises:
        CredentialMalformed: the header is missing, of another type, or can't be parsed.
        CredentialInvalid: as `credential_of`.
    """
    authorization = carrier.headers.get("Authorization")
    if authorization is not None and _BEARER.match(authorization) is None:
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
    if _TOKEN.fullmatch(token) is None or (not scheme and token.lower() == "bearer"):
        raise CredentialMalformed.field("Authorization", "is not a valid token")
    return token


def _same_origin(headers: Headers, scheme: str, method: str, address: str | None) -> bool:
    """Whether the browser's headers show that the request comes from a page of this server.

    `Origin` must be this server's, if there is one. Browsers omit it in a GET, but send
    `Sec-Fetch-Site`, which pages can't set either; it must be `same-origin`, if there is one. At
    least one of the two must be present. For an upgrade only `Origin` counts: browsers always send
    it then, and differ in the other header.
    """
    origins = headers.getlist("Origin")
    sites = headers.getlist("Sec-Fetch-Site") if method != "WEBSOCKET" else []
    if any(site.strip().lower() != "same-origin" for site in sites):
        return False
    if not origins:
        return bool(sites)
    http = "https" if scheme in ("https", "wss") else "http"
    own = {_origin(f"{http}://{host}") for host in (headers.get("Host"), address) if host}
    origin = _origin(origins[0]) if len(origins) == 1 else None
    return origin is not None and origin in own


def _origin(text: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of an origin, normalised; None if it is not one of HTTP."""
    match = _ORIGIN.fullmatch(text.strip().lower())
    if match is None:
        return None
    return match[1], match[2], match[3] or _DEFAULT_PORTS[match[1]]


DOUBTED_MS: Final = 15_000
"""For so long, other processes may take a key for valid that was revoked here."""


class TokenStore(Protocol):
    """The queries of authentication."""

    async def use(self, access_hash: bytes, /) -> tuple[Token, SessionRecord, User] | None:
        """The token, its session and its user, valid or not. The first use of a new key revokes the
        keys before it."""
        ...


class GuestTokens(Protocol):
    """The tokens of guests (`reileta.store.guests.Guests`)."""

    async def use(self, token_hash: bytes, /) -> tuple[IntegrityToken, Guest] | None:
        """The token and its guest, valid or not."""
        ...


class GuestAdmission(Protocol):
    """Which servers' users may be here (`actors.federation.guests.GuestPolicy`)."""

    def ensure_admitted(self, server: str, /) -> None:
        """Raises ServerBlocked, and GuestNotAllowed if only its users may not be here."""
        ...


class AccountRules(Protocol):
    """The rules about accounts (`actors.clients.ModeratedClients`)."""

    def ensure_account(self, user: str, /) -> None:
        """Raises ClientBlocked."""
        ...


class ServerTokens(Protocol):
    """Authentication of other servers."""

    async def authenticate(self, token_hash: bytes, /) -> ServerPrincipal | None:
        """The server that has that token; None if it is unknown, expired or revoked. Raises
        ServerBlocked."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    token_expires: int
    stale_at: int
    """By the clock's steady time: a revocation elsewhere must not wait for the wall time."""


class Auth:
    """Authenticates access keys, with a cache.

    The cache holds at most `size` keys, each for at most `ttl_ms`; the oldest is dropped first.
    Changes by this process take effect at once, by the `forget_…` methods; those by another process
    (`reileta admin grant`) when the entry expires.

    `cookie` and `address` are the server's: see `credential_of`.
    """

    def __init__(
        self,
        tokens: TokenStore,
        clock: Clock,
        *,
        ttl_ms: int = 5_000,
        size: int = 10_000,
        cookie: str = OLD_COOKIE,
        address: str | None = None,
        servers: ServerTokens | None = None,
        guests: GuestTokens | None = None,
        admission: GuestAdmission | None = None,
        clients: AccountRules | None = None,
    ) -> None:
        self._servers = servers
        self._guests = guests
        self._admission = admission
        self._clients = clients
        self.cookie = cookie
        """The name of the cookie that holds an access key."""
        self._address = address
        self._tokens = tokens
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._size = size
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._keys: dict[bytes, set[bytes]] = {}
        """Hashes of cached access keys, by their token's id."""
        # Counts `forget_…` calls: a query that began before such a call must not be cached.
        self._epoch = 0
        self._doubted: OrderedDict[bytes, int] = OrderedDict()
        """Hashes of keys that were forgotten by their token or session, and until when."""

    def __len__(self) -> int:
        """How many keys are cached."""
        return len(self._known)

    def credential_from(
        self, carrier: BaseRequestWebsocket, *, changes: bool = False
    ) -> Credential | None:
        """`credential_from`, for this server's cookie and address."""
        return credential_from(carrier, changes=changes, cookie=self.cookie, address=self._address)

    async def authenticate_token(self, token: str) -> Principal:
        """The principal of a user's access key, or of a guest's token.

        Raises CredentialInvalid if it is unknown, expired or revoked, if its session has ended or
        its user is suspended, and for tokens of servers. Raises ClientBlocked if a rule refuses the
        account. For a guest, raises GuestNotAllowed and
        ServerBlocked if users of its server may not be here.
        """
        if not token.startswith((_USER_TOKEN, _GUEST_TOKEN)):
            raise CredentialInvalid
        access_hash = digest(token)
        now, steady = self._clock.now_ms(), self._clock.steady_ms()
        known = self._known.get(access_hash)
        if known is not None and steady < known.stale_at and now < known.token_expires:
            self._ensure_admitted(known.principal)
            return known.principal
        epoch = self._epoch
        if token.startswith(_GUEST_TOKEN):
            principal = await self._guest(access_hash, now)
            self._ensure_admitted(principal)
            self._remember(access_hash, principal, principal.expires_at, epoch, steady)
            return principal
        row = await self._tokens.use(access_hash)
        if row is None:
            raise CredentialInvalid
        record, session, user = row
        if (
            record.killed_at is not None
            or session.ended_at is not None
            or record.access_expires <= now
            or user.suspended(now)
        ):
            raise CredentialInvalid
        principal = Principal(
            user,
            session.id,
            record.id,
            expires_at=record.access_expires,
            token_expires=max(record.access_expires, record.refresh_expires),
        )
        for earlier in self._keys.get(record.id, set()) - {access_hash}:
            self._drop(earlier)  # the first use of a key revokes the earlier ones
        self._remember(access_hash, principal, record.access_expires, epoch, steady)
        self._ensure_admitted(principal)
        return principal

    def _remember(
        self, access_hash: bytes, principal: Principal, expires: int, epoch: int, steady: int
    ) -> None:
        """Caches the principal of a key that was asked for at `steady`, unless something was
        revoked since then."""
        if epoch == self._epoch:
            self._drop(access_hash)
            self._known[access_hash] = _Known(principal, expires, steady + self._ttl_ms)
            self._keys.setdefault(principal.token_hash, set()).add(access_hash)
            self._drop_oldest(steady)

    async def _guest(self, token_hash: bytes, now_ms: int) -> Principal:
        """The principal of a guest's token. Raises CredentialInvalid."""
        row = None if self._guests is None else await self._guests.use(token_hash)
        if row is None or not row[0].valid(now_ms):
            raise CredentialInvalid
        token, guest = row
        return Principal(
            guest.as_user(),
            guest.session_id,
            token.hash,
            guest=True,
            expires_at=token.expires_at,
            token_expires=token.expires_at,
        )

    def _ensure_admitted(self, principal: Principal) -> None:
        """Raises ServerBlocked or GuestNotAllowed for a guest whose server's users may not be
        here, and ClientBlocked for an account that a rule refuses."""
        if self._clients is not None:
            self._clients.ensure_account(principal.user.id)
        if principal.guest and self._admission is not None:
            self._admission.ensure_admitted(At.parse(principal.user.id).server or "")

    async def authenticate_server(self, token: str) -> ServerPrincipal:
        """The other server whose token it is. Nothing is cached, so a block acts at once.

        Raises CredentialInvalid if the token is unknown, expired or revoked, and ServerBlocked.
        """
        server = None
        if self._servers is not None and token.startswith(_SERVER_TOKEN):
            server = await self._servers.authenticate(digest(token))
        if server is None:
            raise CredentialInvalid
        return server

    def _drop_oldest(self, steady: int) -> None:
        """Drops the entries that are too old, or too many. They are in the order of their age."""
        while self._known:
            access_hash, known = next(iter(self._known.items()))
            if len(self._known) <= self._size and steady < known.stale_at:
                return
            self._drop(access_hash)

    def _drop(self, access_hash: bytes) -> None:
        known = self._known.pop(access_hash, None)
        if known is not None:
            keys = self._keys[known.principal.token_hash]
            keys.discard(access_hash)
            if not keys:
                del self._keys[known.principal.token_hash]

    async def authenticate(self, credential: Credential | None) -> Principal | None:
        """The principal of a credential; None without one, and for an invalid cookie."""
        if credential is None:
            return None
        try:
            return await self.authenticate_token(credential.token)
        except CredentialInvalid:
            if credential.source == "cookie":
                return None
            raise

    def forget_token(self, token: bytes) -> None:
        """Call after the token of that id was revoked."""
        self._epoch += 1
        for key in tuple(self._keys.get(token, ())):
            self._doubt(key)

    def forget_keys(self, access_hashes: Iterable[bytes]) -> None:
        """Call after these keys of a token were replaced by newer ones."""
        self._epoch += 1
        for key in access_hashes:
            self._doubt(key)

    def forget_session(self, session_id: str) -> None:
        """Call after the session has ended."""
        for key in self._forget(lambda principal: principal.session_id == session_id):
            self._doubt(key)

    def forget_user(self, user_id: str) -> None:
        """Call after the user was changed or deleted."""
        self._forget(lambda principal: principal.user.id == user_id)

    def forget_all(self) -> None:
        """Call if changes by other nodes may have been missed."""
        self._forget(lambda _: True)

    @property
    def any_doubts(self) -> bool:
        """Whether there may be a token that `doubts` names."""
        return bool(self._doubted)

    def doubts(self, token: str) -> bool:
        """Whether it was revoked here a moment ago, as a rule: other processes may not have heard
        of it yet, so this one must authenticate it."""
        until = self._doubted.get(digest(token))
        return until is not None and self._clock.steady_ms() < until

    def _doubt(self, access_hash: bytes) -> None:
        self._drop(access_hash)
        now = self._clock.steady_ms()
        self._doubted[access_hash] = now + DOUBTED_MS
        self._doubted.move_to_end(access_hash)
        while len(self._doubted) > self._size or next(iter(self._doubted.values())) <= now:
            self._doubted.popitem(last=False)

    def _forget(self, matches: Callable[[Principal], bool]) -> list[bytes]:
        self._epoch += 1
        found = [key for key, known in self._known.items() if matches(known.principal)]
        for key in found:
            self._drop(key)
        return found
