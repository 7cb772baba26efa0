"""Requests over HTTP: from the envelope to a value, or to an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import httpx

from reileta_client.backoff import Backoff
from reileta_client.errors import Disconnected, ProtocolError, Refused, TimedOut

ATTEMPTS: Final = 3
LONGEST_WAIT_S: Final = 10.0


class Http:
    """The HTTP API of one server. `token` gives the credential of requests that name none."""

    def __init__(self, client: httpx.AsyncClient, token: Callable[[], str | None]) -> None:
        self._client = client
        self._token = token

    async def get(self, path: str, **query: Any) -> Any:
        """What the path holds. Sent again if the server is busy, or not reached."""
        return _data(path, await self.whole("GET", path, query=query))

    async def put(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        return _data(path, await self.whole("PUT", path, body=body, query=query))

    async def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        return _data(path, await self.whole("POST", path, body=body, query=query))

    async def delete(self, path: str, **query: Any) -> Any:
        return _data(path, await self.whole("DELETE", path, query=query))

    async def whole(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
    ) -> dict[str, Any]:
        """The whole envelope: the session API has its results beside `message`. `token`: another
        credential than the client's own; None: none.

        Raises Refused, Disconnected, TimedOut, ProtocolError.
        """
        backoff = Backoff(0.5, LONGEST_WAIT_S)
        for attempt in range(1, ATTEMPTS + 1):
            last = method != "GET" or attempt == ATTEMPTS
            try:
                return await self._once(method, path, body, query, headers, token)
            except Refused as refused:
                wait = refused.retry_after_s
                if last or wait is None or wait > LONGEST_WAIT_S:
                    raise
                await anyio.sleep(wait)
            except Disconnected:
                if last:
                    raise
                await anyio.sleep(backoff.next())
        raise AssertionError

    async def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        token: str | None,
    ) -> dict[str, Any]:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        credential = self._token() if token == "" else token
        sent = dict(headers or {})
        if credential is not None:
            sent["Authorization"] = f"Bearer {credential}"
        try:
            answer = await self._client.request(
                method, path, json=body, params=given or None, headers=sent
            )
        except httpx.TimeoutException as error:
            raise TimedOut(f"{method} {path}: no answer in time") from error
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            raise Disconnected(f"{self._client.base_url} does not answer: {why}") from error
        try:
            envelope = answer.json()
        except ValueError:
            envelope = None
        if not isinstance(envelope, dict):
            raise ProtocolError(
                f"{answer.url.copy_with(query=None)} answered {answer.status_code}, not as a"
                " Reileta server does"
            )
        if "error" in envelope:
            raise Refused.of(
                envelope["error"],
                status=answer.status_code,
                retry_after_s=_seconds(answer.headers.get("Retry-After")),
                redirect=envelope.get("redirect"),
            )
        return envelope


def _data(path: str, envelope: Mapping[str, Any]) -> Any:
    if "data" not in envelope:
        raise ProtocolError(f"{path}: the answer has no data")
    return envelope["data"]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
