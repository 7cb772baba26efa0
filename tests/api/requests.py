"""Asking the application as a connection does, and through Quart: both ways of one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from quart.wrappers import Request
from werkzeug.datastructures import Headers

from api.app import ReiletaApp
from api.http.answer import answer_of
from api.http.bodies import ReceivedRequest

Way = Literal["directly", "through Quart"]
WAYS: tuple[Way, Way] = ("directly", "through Quart")


@dataclass(frozen=True)
class RawAnswer:
    """An answer; `headers` are sorted, and the trace's id is left out of them."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header that is given at most once."""
        values = [value for key, value in self.headers if key == name.lower().encode()]
        assert len(values) <= 1
        return values[0].decode() if values else None


async def _no_push(path: str, headers: Headers) -> None:
    raise AssertionError("nothing is pushed")


def request(
    app: ReiletaApp,
    method: str,
    target: str,
    *,
    body: bytes = b"",
    token: str | None = None,
    headers: dict[str, str] | None = None,
    client: str = "192.0.2.1",
) -> Request:
    """A request that has come whole."""
    path, _, query = target.partition("?")
    sent = Headers({"Remote-Addr": client, "Host": "localhost", **(headers or {})})
    if token is not None:
        sent.set("Authorization", f"Bearer {token}")
    if body:
        sent.setdefault("Content-Type", "application/json")
        sent["Content-Length"] = str(len(body))
    made = ReceivedRequest(
        method,
        "http",
        unquote(path),
        query.encode(),
        sent,
        "",
        "1.1",
        max_content_length=app.config["MAX_CONTENT_LENGTH"],
        body_timeout=app.config["BODY_TIMEOUT"],
        send_push_promise=_no_push,
        scope={  # type: ignore[typeddict-item]
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "client": (client, 40000),
            "server": ("127.0.0.1", 3032),
        },
    )
    if body:
        made.body.append(body)
    made.body.set_complete()
    return made


async def ask(app: ReiletaApp, way: Way, made: Request) -> RawAnswer:
    """The answer to a request. The body is read to its end."""
    if way == "directly":
        answer = await app.answer(made)
    else:
        answer = answer_of(await app.handle_request(made))
    body = b""
    if isinstance(answer.body, bytes):
        body = answer.body
    else:
        async with answer.body as parts:
            async for part in parts:
                body += part
    traces = [value for name, value in answer.headers if name == b"x-trace-id"]
    assert [len(trace) for trace in traces] == [16]
    others = sorted(one for one in answer.headers if one[0] != b"x-trace-id")
    return RawAnswer(answer.status, tuple(others), body)
