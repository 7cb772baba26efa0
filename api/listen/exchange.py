"""One request and its answer, between a connection of any protocol and the application."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import unquote

import trio
from werkzeug.datastructures import Headers

from api.http.answer import Answer
from api.http.bodies import ReceivedRequest
from api.listen.admission import Verdict
from api.listen.request_head import RequestHead, request_line_of
from api.listen.timeouts import Timeouts
from api.listen.turns import Turns
from api.listen.unsent import Unsent
from reileta.errors import Overloaded, ReiletaError, TooManyRequests
from reileta.settings import Settings

RETRY_AFTER_S: Final = 1.0


class App(Protocol):
    """What a connection needs of the application."""

    config: Any

    async def answer(self, request: ReceivedRequest) -> Answer:
        """The answer to a request. Raises nothing but cancellation."""
        ...

    def refuse(self, error: ReiletaError, line: str, address: str) -> Answer:
        """The answer to what is not a request that `answer` could take."""
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application; connections call it for an upgrade to WebSocket alone."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, and how it was let in."""

    address: str
    port: int
    server: tuple[str, int]
    """This server's own address and port, as the client reached it."""
    verdict: Verdict = Verdict.ADMITTED
    network: str = ""
    """What its address is counted as (`api.limits.network`)."""

    @property
    def refusal(self) -> ReiletaError | None:
        """Why its requests are refused; None when they are not."""
        match self.verdict:
            case Verdict.FULL | Verdict.DROPPED:
                return Overloaded(retry_after_s=RETRY_AFTER_S)
            case Verdict.OVER_SHARE:
                return TooManyRequests(RETRY_AFTER_S)
            case Verdict.ADMITTED:
                return None


@dataclass(slots=True)
class Listening:
    """What all connections of a listening port share."""

    app: App
    settings: Settings
    timeouts: Timeouts
    turns: Turns = field(default_factory=Turns)
    unsent: Unsent = field(default_factory=Unsent)
    stopping: bool = False
    """No further requests are taken; those under way are answered."""

    def affordable(self, answer: Answer, peer: Peer, head: RequestHead | None) -> Answer:
        """The answer; or a refusal, if it would have to wait beyond what may wait for its client's
        address."""
        if self.unsent.may_send(peer.network, answer.body):
            return answer
        line = "" if head is None else request_line_of(head.target)
        return self.app.refuse(Overloaded(retry_after_s=RETRY_AFTER_S), line, peer.address)

    @property
    def scheme(self) -> str:
        return "https" if self.settings.secure else "http"


class HttpConnection(Protocol):
    """A connection that speaks HTTP, as its server sees it."""

    scope: trio.CancelScope
    """Cancelled to end it, whatever any of its tasks waits for."""

    @property
    def expires_at(self) -> float:
        """When it is given up (Trio's seconds)."""
        ...

    def hung_up(self, broken: bool) -> None:
        """The client has closed its side, or (`broken`) the connection is lost."""
        ...

    def drain(self) -> None:
        """Has it end once the requests under way are answered."""
        ...


def request_of(listening: Listening, peer: Peer, head: RequestHead) -> ReceivedRequest:
    """The application's request. Its body is to be fed."""
    config = listening.app.config
    scheme = listening.scheme
    raw = head.path
    path = raw.decode("ascii")
    return ReceivedRequest(
        head.method,
        scheme,
        unquote(path) if "%" in path else path,
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
            "scheme": scheme,
            "path": path,
            "raw_path": raw,
            "query_string": head.query,
            "root_path": "",
            "client": (peer.address, peer.port),
            "server": peer.server,
        },
    )


class ReceivedHeaders(Headers):
    """Headers that were checked while they were parsed, and need not be again."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._list = pairs


def headers_of(head: RequestHead, peer: Peer) -> Headers:
    """The headers as Quart names them."""
    pairs = [("Remote-Addr", peer.address)]
    pairs += [(_title(name), value.decode("latin-1")) for name, value in head.headers]
    return ReceivedHeaders(pairs)


@functools.lru_cache(maxsize=512)
def _title(name: bytes) -> str:
    """`Content-Type` for `content-type`."""
    return name.decode("latin-1").title()


async def _no_push(path: str, headers: Headers) -> None:
    """Server push is not offered."""
