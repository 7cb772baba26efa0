"""The interface between connections of any HTTP version and the application."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from urllib.parse import unquote

import trio
from werkzeug.datastructures import Headers

from api.http.answer import Answer
from api.http.bodies import ReceivedRequest
from api.listen.admission import Admission, Slot, Verdict
from api.listen.forwarded import ProxyHeaders
from api.listen.gateways import TrustedGateways
from api.listen.request_head import RequestHead, request_line_of
from api.listen.timeouts import Timeouts
from api.listen.turns import Turns
from api.listen.unsent import Unsent
from reileta.errors import Detail, Overloaded, ReiletaError, TooManyRequests
from reileta.rules.gateway import Passed
from reileta.settings import Settings
from reileta.site import without_base_path
from reileta.trusted_proxies import TrustedProxies

RETRY_AFTER_S: Final = 1.0
LAST_WORD_S: Final = 0.5
"""Seconds for the answer to a request that the stopping server did not finish."""


class App(Protocol):
    """The application, as connections see it."""

    config: Any

    async def answer(self, request: ReceivedRequest) -> Answer:
        """The answer to a request. Raises nothing but cancellation."""
        ...

    def refuse(
        self,
        error: ReiletaError,
        line: str,
        address: str,
        *,
        upgrade: bool = False,
        status: int | None = None,
    ) -> Answer:
        """The answer to input that is not a valid request, or that is refused unseen.

        `upgrade`: it is for an upgrade. `status`: None: that of the error.
        """
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application. Connections call it only for upgrades to WebSocket."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a connection or of a request, and how it was admitted."""

    address: str
    port: int
    server: tuple[str, int]
    """Address and port of this server, as the client reached it."""
    verdict: Verdict = Verdict.ADMITTED
    network: str = ""
    """The key that its address is counted under (`api.rate_limits.network`)."""
    scheme: str = "http"
    """`http` or `https`, as the client reached this server or the proxy in front of it."""
    proxy: bool = False
    """It is a trusted proxy: its requests are those of clients behind it."""
    share: Slot | None = None
    """Set for a client behind a proxy."""
    gateway: str = ""
    """The address of the gateway that passed the request on to this registry; empty for none."""
    trace: str = ""
    """The id of the trace that the gateway began."""

    @property
    def refusal(self) -> ReiletaError | None:
        """The reason why its requests are refused; None if they are not."""
        match self.verdict:
            case Verdict.FULL | Verdict.DROPPED:
                return Overloaded(retry_after_s=RETRY_AFTER_S)
            case Verdict.OVER_SHARE:
                return TooManyRequests(RETRY_AFTER_S)
            case Verdict.ADMITTED:
                return None


@dataclass(slots=True)
class Listening:
    """The objects that all connections of a listening port share."""

    app: App
    settings: Settings
    timeouts: Timeouts
    turns: Turns = field(default_factory=Turns)
    unsent: Unsent = field(default_factory=Unsent)
    admission: Admission = field(default_factory=lambda: Admission(1, None))
    """Only for the shares of clients behind trusted proxies."""
    stopping: bool = False
    """The server stops: requests in progress are answered, no further ones are accepted."""
    gateways: TrustedGateways | None = None
    """Set for a registry behind gateways."""
    proxies: ProxyHeaders = field(init=False)

    def __post_init__(self) -> None:
        self.proxies = ProxyHeaders(TrustedProxies.parse(self.settings.trusted_proxies or ""))

    def enter(self, peer: Peer, head: RequestHead) -> Peer:
        """The client of a request; pass it to `leave` at the end of the request or the WebSocket.

        Of a trusted proxy's request, this is the client behind it, and the request's host becomes
        the one that this client asked for.
        """
        if not peer.proxy:
            self.proxies.ignored(head.headers, peer.address)
            if self.gateways is not None:
                self.proxies.no_gateway(head.headers, peer.address, "--trusted-proxies")
            return peer
        if self.gateways is not None:
            passed = self.gateways.passed(head)
            if passed is not None:
                return self._behind_gateway(peer, passed)
            if self.gateways.proves:
                self.proxies.no_gateway(head.headers, peer.address, "--gateway-secret")
                return peer
        origin = self.proxies.origin(head.headers, peer.address, peer.port)
        if origin.host is not None:
            head.headers = [pair for pair in head.headers if pair[0] != b"host"]
            head.headers.append((b"host", origin.host))
        share = self.admission.enter_behind(origin.address) if origin.reported else None
        full = peer.verdict is not Verdict.ADMITTED
        return replace(
            peer,
            address=origin.address,
            port=origin.port,
            scheme=origin.scheme or peer.scheme,
            verdict=peer.verdict if full or share is None else share.verdict,
            network=peer.network if share is None else share.network,
            share=share,
        )

    def _behind_gateway(self, peer: Peer, passed: Passed) -> Peer:
        """The client that a gateway reports."""
        share = self.admission.enter_behind(passed.client)
        return replace(
            peer,
            address=passed.client,
            port=0,
            scheme="https" if passed.secure else "http",
            verdict=share.verdict if peer.verdict is Verdict.ADMITTED else peer.verdict,
            network=share.network,
            share=share,
            gateway=passed.gateway,
            trace=passed.trace,
        )

    def local_path(self, path: str) -> str:
        """A path without the server's base path."""
        return without_base_path(path, self.settings.base_path or "")

    def leave(self, client: Peer) -> None:
        """The end of a client's request or WebSocket."""
        if client.share is not None:
            self.admission.leave(client.share)

    @contextmanager
    def client(self, peer: Peer, head: RequestHead) -> Iterator[Peer]:
        """`enter` and `leave`."""
        client = self.enter(peer, head)
        try:
            yield client
        finally:
            self.leave(client)

    def affordable(self, answer: Answer, peer: Peer, head: RequestHead | None) -> Answer:
        """The answer; or a refusal if too many unsent answers wait for the client's address."""
        if self.unsent.may_send(peer.network, answer.body):
            return answer
        line = "" if head is None else request_line_of(head.target)
        return self.app.refuse(Overloaded(retry_after_s=RETRY_AFTER_S), line, peer.address)


class HttpConnection(Protocol):
    """A connection that speaks HTTP, as the server sees it."""

    scope: trio.CancelScope
    """Cancel it to end the connection and all of its tasks."""

    @property
    def expires_at(self) -> float:
        """When the connection is closed for inactivity (Trio's clock, in seconds)."""
        ...

    def hung_up(self, broken: bool) -> None:
        """The client has closed its side, or (`broken`) the connection is lost."""
        ...

    def expire(self) -> None:
        """Ends it, because its deadline is over."""
        ...

    def drain(self) -> None:
        """Makes it end when the requests in progress are answered."""
        ...

    def give_up(self) -> None:
        """Answers the requests in progress with an error, and ends it."""
        ...


def unfinished() -> Overloaded:
    """The error for a request whose handler was cancelled because the server stops."""
    return Overloaded(
        Detail("server", "stops, and did not finish the request, which may have had its effect"),
        retry_after_s=RETRY_AFTER_S,
    )


def request_of(listening: Listening, peer: Peer, head: RequestHead) -> ReceivedRequest:
    """Makes the application's request. The caller must feed its body."""
    config = listening.app.config
    raw = head.path
    path = listening.local_path(decoded_path(raw.decode("ascii")))
    return ReceivedRequest(
        head.method,
        peer.scheme,
        path,
        head.query,
        headers_of(head, peer),
        "",
        head.version,
        max_content_length=config["MAX_CONTENT_LENGTH"],
        body_timeout=config["BODY_TIMEOUT"],
        send_push_promise=_no_push,
        scope={  # type: ignore[typeddict-item]
            "type": "http",
            "http_version": head.version,
            "method": head.method,
            "scheme": peer.scheme,
            "path": path,
            "raw_path": raw,
            "query_string": head.query,
            "root_path": "",
            "client": (peer.address, peer.port),
            "server": peer.server,
            "state": state_of(peer),
        },
    )


def state_of(peer: Peer) -> dict[str, str]:
    """What a gateway said of a request, in its scope; empty without one (`api/reached.py`)."""
    return {"gateway": peer.gateway, "trace": peer.trace} if peer.gateway else {}


def decoded_path(path: str) -> str:
    """A path without percent-encoding, except for `%2F`, which is a part of its segment.

    Otherwise a proxy and this server would see different segments, and `/api/users/a%2Fhome` would
    be the same as `/api/users/a/home` (RFC 3986, 2.2).
    """
    if "%" not in path:
        return path
    return "/".join(unquote(segment).replace("/", "%2F") for segment in path.split("/"))


class ReceivedHeaders(Headers):
    """Headers that were checked by the parser, and are not checked again."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._list = pairs


def headers_of(head: RequestHead, peer: Peer) -> Headers:
    """The headers with names as in Quart."""
    pairs = [("Remote-Addr", peer.address)]
    pairs += [(_title(name), value.decode("latin-1")) for name, value in head.headers]
    return ReceivedHeaders(pairs)


@functools.lru_cache(maxsize=512)
def _title(name: bytes) -> str:
    """`Content-Type` for `content-type`."""
    return name.decode("latin-1").title()


async def _no_push(path: str, headers: Headers) -> None:
    """Does nothing: server push is not supported."""
