"""Requests of this server to others, as a server: tokens, bounds, backoff, the envelope.

Everything that this server asks of another one passes through `Peers`, so that rules, bounds and
backoff hold for all of it.

At most `REMEMBERED` servers' failures are remembered; beyond, the one asked longest ago is
forgotten. `reileta/federation/turns.py` bounds what is under way.

A server whose API is below a base path says so in `/.well-known/avr` (`gateways`), which is at the
root. Requests to its API go there.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

from reileta.clock import Clock
from reileta.errors import (
    BadData,
    BadRedirect,
    ChallengeRefused,
    MalformedData,
    NoData,
    NoResponse,
    ReiletaError,
    RemoteError,
    RequestNotFound,
    ServerBlocked,
)
from reileta.federation.client import RemoteAnswer
from reileta.federation.discovery import API, PATH, discovered
from reileta.federation.turns import Line, Turns, peer_line
from reileta.rules.federation import backoff
from reileta.rules.federation.server_rules import Decision

REMEMBERED: Final = 4096
LOOK_MS: Final = 5 * 60_000
"""Time after which an unknown server, whose answers make no sense, is asked again where its API
is."""
MESSAGE_LENGTH: Final = 200
"""Characters of the message of another server's error that are kept."""
UNKNOWN_PATH: Final = RequestNotFound.code
"""The code of an answer about a path or a method that the other server does not have."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes of another server: text that is not UTF-8 is no DecodeError."""

TokenUse: TypeAlias = Literal["never", "if_known", "required"]
Method: TypeAlias = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]


class HttpClient(Protocol):
    """Requests to addresses that others chose (`GuardedClient`)."""

    def secure(self, server: str) -> bool: ...

    async def request(
        self,
        method: str,
        server: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> RemoteAnswer:
        """Raises NoResponse, BadRedirect and BadData."""
        ...


class NoClient:
    """A client that reaches no server, for a server without other servers."""

    def secure(self, server: str) -> bool:
        return True

    async def request(self, *_: object, **__: object) -> RemoteAnswer:
        raise NoResponse(cause="this server has no client")


@dataclass(frozen=True, slots=True)
class PeerError:
    """The `error` of an answer's envelope."""

    code: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """An answer of another server: `data`, or an error that the other server decided on."""

    status: int
    data: msgspec.Raw | None
    error: PeerError | None = None

    @property
    def unknown_path(self) -> bool:
        """Whether the other server does not have the path or the method: an older version."""
        return self.error is not None and self.error.code == UNKNOWN_PATH

    def into(self, kind: Any) -> Any:
        """`data` as a value of that type. Raises MalformedData if it is not one, and NoData without
        data."""
        if self.data is None:
            raise NoData
        try:
            return msgspec.json.decode(self.data, type=kind)
        except UNREADABLE as error:
            raise MalformedData(cause=str(error)) from None


class TokenSource(Protocol):
    """Our tokens at other servers (`reileta/federation/challenger.py`)."""

    async def known(self, server: str, /) -> str | None:
        """Our token at that server, if we have one."""
        ...

    async def obtain(self, server: str, /) -> str:
        """Our token at that server, by a challenge if we have none.

        Raises ChallengeRefused and RemoteError.
        """
        ...

    async def rejected(self, server: str, token: str, /) -> None:
        """The server does not accept that token."""
        ...


class _NoTokens:
    async def known(self, server: str) -> str | None:
        return None

    async def obtain(self, server: str) -> str:
        raise ChallengeRefused

    async def rejected(self, server: str, token: str) -> None:
        return None


@dataclass(slots=True)
class PeerCondition:
    """How a server answered lately."""

    failures: int = 0
    """In a row."""
    retry_at: int = 0
    """By the steady clock (ms): before that, the server is not asked."""
    answered: bool = False
    """Whether it has ever answered."""
    base_path: str = ""
    """Where its API is, by its own word. Only of a server that is not known."""
    looked_at: int | None = None
    """By the steady clock (ms): when it was asked for that."""
    line: Line = field(default_factory=peer_line)

    def proven(self, token: str | None) -> bool:
        """Whether it is likely to answer: its last answer was one, or it has given this server a
        token."""
        return self.failures == 0 and (self.answered or token is not None)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request, as `Peers.ask` takes it."""

    method: Method
    server: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: object | None = None
    via: bool = False
    revocation: bool = False


class _ErrorPart(msgspec.Struct):
    code: int
    message: str = ""


class _Envelope(msgspec.Struct):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _ErrorPart | msgspec.UnsetType = msgspec.UNSET


class PeerCounters(Protocol):
    """Counts of requests to other servers (`reileta/observability/metrics.py`)."""

    def peer_answered(self, outcome: str, seconds: float) -> None: ...


async def _at_root(_: str) -> str | None:
    return None


class Peers:
    """Asks other servers. `address` is this server's own; `decide` says what the rules allow.

    `base_path`: below which path the API of a known server is; None if the server is not known.
    """

    def __init__(
        self,
        *,
        address: str,
        client: HttpClient,
        clock: Clock,
        decide: Callable[[str], Decision],
        tokens: TokenSource | None = None,
        base_path: Callable[[str], Awaitable[str | None]] = _at_root,
        counters: PeerCounters | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._address = address
        self._client = client
        self._clock = clock
        self._decide = decide
        self.tokens: TokenSource = tokens or _NoTokens()
        self._base_path = base_path
        self._counters = counters
        self._jitter = jitter
        self._conditions: OrderedDict[str, PeerCondition] = OrderedDict()
        self._turns = Turns()

    def asking(self, user: str) -> AbstractAsyncContextManager[None]:
        """A block in which a user of this server, by its id, has other servers asked.

        Raises Overloaded.
        """
        return self._turns.of(user)

    async def ask(
        self,
        method: Method,
        server: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: object | None = None,
        token: TokenUse = "if_known",  # noqa: S107 - a way to use one
        via: bool = False,
        revocation: bool = False,
    ) -> PeerAnswer:
        """The answer of another server to a request of this one.

        An error that the other server decided on (4xx, 5xx with an envelope) is in the answer.

        Args:
            server: its canonical address.
            path: begins with "/"; its parts are quoted (`client.path_of`).
            body: a value for JSON.
            token: whether to send our token there. `required`: with a challenge if there is none.
            via: the request is passed on for a user, so the other server must not pass it on again.
            revocation: it ends a token, and has turns of its own. At most one for each server.

        Raises:
            ServerBlocked: a rule or the setting `federation` excludes the server.
            NoResponse: it can't be reached, or has failed so often that it is left alone now.
            NoData, BadData, BadRedirect: its answer is not an envelope.
            ChallengeRefused: it does not accept this server.
            Overloaded: too many requests to it wait.
        """
        own = await self._token(server, token)
        sent = _Sent(method, server, path, query, body, via=via, revocation=revocation)
        answer = await self._found(sent, own)
        if answer.status == 401 and own is not None:
            await self.tokens.rejected(server, own)
            own = await self._token(server, "required")
            answer = await self._found(sent, own)
        return answer

    async def _found(self, sent: _Sent, token: str | None) -> PeerAnswer:
        """The answer to a request, which goes to where the server's API is."""
        if not sent.path.startswith(API):
            return await self._once(sent, "", token)
        known = await self._base_path(sent.server)
        base = self._condition(sent.server).base_path if known is None else known
        try:
            return await self._once(sent, base, token)
        except (BadData, BadRedirect, NoData):
            if known is not None or sent.method != "GET":
                raise
            if not await self._look(sent.server, base):
                raise
        return await self._once(sent, self._condition(sent.server).base_path, token)

    async def _look(self, server: str, base: str) -> bool:
        """Asks a server that is not known where its API is; whether that is another place."""
        condition, now = self._condition(server), self._clock.steady_ms()
        if condition.looked_at is not None and now - condition.looked_at < LOOK_MS:
            return condition.base_path != base
        condition.looked_at = now
        try:
            answer = await self._once(_Sent("GET", server, PATH), "", None)
            if answer.data is None:
                return False
            found = discovered(answer.data, server, secure=self.secure(server))
        except ReiletaError:
            return False
        condition.base_path = found.base_path
        return found.base_path != base

    async def token(self, server: str) -> str:
        """Our token at another server, by a challenge if there is none.

        Raises ServerBlocked, ChallengeRefused, RemoteError and Overloaded, as `ask`.
        """
        self.ensure_allowed(server)
        return await self.tokens.obtain(server)

    async def _token(self, server: str, use: TokenUse) -> str | None:
        self.ensure_allowed(server)
        if use == "never":
            return None
        if use == "required":
            return await self.tokens.obtain(server)
        return await self.tokens.known(server)

    def secure(self, server: str) -> bool:
        """Whether a server is reached over TLS."""
        return self._client.secure(server)

    def ensure_allowed(self, server: str) -> None:
        """Raises ServerBlocked if a rule or a setting excludes the server."""
        if self._decide(server) == "block":
            raise ServerBlocked

    def ensure_ready(self, server: str) -> None:
        """Raises NoResponse, with the time of the next try, if the server is left alone now."""
        condition = self._conditions.get(server)
        if condition is None:
            return
        wait_ms = condition.retry_at - self._clock.steady_ms()
        if wait_ms > 0:
            raise NoResponse(cause="backoff", retry_after_s=wait_ms / 1000)

    def condition(self, server: str) -> tuple[int, int | None]:
        """Failures in a row of a server, and when it is asked again (ms since 1970), if it is left
        alone now."""
        condition = self._conditions.get(server)
        if condition is None:
            return 0, None
        wait_ms = condition.retry_at - self._clock.steady_ms()
        return condition.failures, self._clock.now_ms() + wait_ms if wait_ms > 0 else None

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"peers": len(self._conditions), "askers": len(self._turns.askers)}

    async def _once(self, sent: _Sent, base: str, token: str | None) -> PeerAnswer:
        server = sent.server
        headers: dict[str, str] = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if sent.via:
            headers["Via"] = f"avr/{self._address}"
        encoded = None if sent.body is None else msgspec.json.encode(sent.body)
        async with self._turn(server, token, revocation=sent.revocation) as condition:
            self.ensure_allowed(server)  # a rule may have changed meanwhile
            started_s = self._clock.steady_ms() / 1000
            outcome = "cancelled"
            try:
                received = await self._client.request(
                    sent.method,
                    server,
                    base + sent.path,
                    query=sent.query,
                    headers=headers,
                    body=encoded,
                )
                answer = parsed(received)
                outcome = f"{answer.status // 100}xx"
            except NoResponse:
                self._failed(condition)
                outcome = "no_response"
                raise
            except RemoteError:
                outcome = "bad_answer"
                raise
            finally:
                if self._counters is not None:
                    seconds = self._clock.steady_ms() / 1000 - started_s
                    self._counters.peer_answered(outcome, seconds)
        if answer.status >= 500 or answer.status in (401, 429):
            self._failed(condition, received.headers)
        else:
            self._answered(condition)
        return answer

    def proved(self, server: str) -> None:
        """The server has just answered a question that was not asked here: the failures of before
        count no more."""
        condition = self._conditions.get(server)
        if condition is not None:
            self._answered(condition)

    def _answered(self, condition: PeerCondition) -> None:
        condition.failures = 0
        condition.retry_at = 0
        condition.answered = True

    def _failed(self, condition: PeerCondition, headers: Mapping[str, str] | None = None) -> None:
        condition.failures += 1
        asked = _SECONDS.fullmatch("" if headers is None else headers.get("retry-after", ""))
        asked_ms = None if asked is None else int(asked[0]) * 1000
        wait_ms = backoff.wait_ms(
            condition.failures, self._jitter(*backoff.JITTER), asked_ms=asked_ms
        )
        if wait_ms:
            condition.retry_at = self._clock.steady_ms() + wait_ms

    @asynccontextmanager
    async def _turn(
        self, server: str, token: str | None, *, revocation: bool
    ) -> AsyncIterator[PeerCondition]:
        """A block in which one request may be sent. Raises NoResponse and Overloaded."""
        self.ensure_ready(server)
        condition = self._condition(server)
        line, gates = condition.line, [self._turns.all]
        if revocation:
            line, gates = Line(self._turns.revocations), []
        elif not condition.proven(token):
            gates.insert(0, self._turns.unproven)
        async with line.turn(*gates):
            self.ensure_ready(server)  # it may have failed for others meanwhile
            yield condition

    def _condition(self, server: str) -> PeerCondition:
        condition = self._conditions.get(server)
        if condition is None:
            condition = self._conditions[server] = PeerCondition()
        self._conditions.move_to_end(server)
        excess = len(self._conditions) - REMEMBERED
        if excess > 0:
            idle = (
                name
                for name, one in self._conditions.items()
                if not one.line.used and name != server
            )
            for name in [name for name, _ in zip(idle, range(excess), strict=False)]:
                del self._conditions[name]
        return condition


def parsed(answer: RemoteAnswer) -> PeerAnswer:
    """The answer's envelope. Raises NoData and BadData, and NoResponse for a 5xx without one: a
    proxy answers in the place of a server that is down."""
    try:
        envelope = msgspec.json.decode(answer.body, type=_Envelope)
    except UNREADABLE as fault:
        if answer.status >= 500:
            raise NoResponse(cause=f"status {answer.status}") from None
        raise BadData(cause=str(fault)) from None
    if envelope.error is not msgspec.UNSET:
        error = PeerError(envelope.error.code, envelope.error.message[:MESSAGE_LENGTH])
        return PeerAnswer(answer.status, None, error)
    if answer.status >= 500:
        raise NoResponse(cause=f"status {answer.status} without an error")
    if answer.status >= 400:
        raise BadData(cause=f"status {answer.status} without an error")
    if envelope.data is msgspec.UNSET:
        raise NoData
    return PeerAnswer(answer.status, envelope.data)
