"""A WebSocket that comes back by itself, until the credential has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar, Final

import anyio
import anyio.abc
import httpx
from httpx_ws import (
    AsyncWebSocketSession,
    HTTPXWSException,
    WebSocketDisconnect,
    WebSocketUpgradeError,
    aconnect_ws,
)

from reileta_client.backoff import Backoff, come_back_in
from reileta_client.credentials import CredentialKeeper
from reileta_client.emitter import Emitter
from reileta_client.errors import Disconnected, ReiletaError
from reileta_client.http import Http

CREDENTIAL_GONE: Final = 4000
LOST: Final = (HTTPXWSException, httpx.HTTPError, anyio.BrokenResourceError, OSError)


class KeptSocket(Emitter, ABC):
    """One socket after another, while `run` runs. Its kinds say what happens on each."""

    _path: ClassVar[str]
    _subprotocol: ClassVar[str]

    def __init__(self, client: httpx.AsyncClient, http: Http, keeper: CredentialKeeper) -> None:
        super().__init__()
        self.ended: ReiletaError | None = None
        """The error that ended it for good."""
        self._client = client
        self._http = http
        self._keeper = keeper
        self._backoff = Backoff()
        self._socket: AsyncWebSocketSession | None = None
        self._ready = anyio.Event()
        self._opened_before = False

    async def ready(self) -> None:
        """Waits until the socket can be used. Raises Disconnected if there is none any more."""
        await self._ready.wait()
        if self.ended is not None:
            raise self.ended

    async def run(self) -> None:
        """Keeps a socket, until the credential has ended or it is cancelled."""
        code, reason = 1000, "the connection was closed"
        try:
            while self._keeper.current is not None:
                code, reason = await self._connect(self._keeper.current.token)
                if self._keeper.current is None or self._is_over(code):
                    break
                asked = come_back_in(reason)
                wait = self._backoff.next() if asked is None else asked + Backoff().next()
                wait = self._lost(code, reason, wait)
                if self._is_doubtful(code):
                    await self._replace_credential()
                await anyio.sleep(wait)
        finally:
            self.ended = Disconnected(reason or "the credential has ended")
            self._ready.set()
            self._closed(code, reason, self.ended)

    async def _connect(self, token: str) -> tuple[int, str]:
        """One socket, from its opening to its end: the code and the reason of that."""
        code, reason = 1006, ""
        try:
            async with (
                aconnect_ws(
                    self._path,
                    self._client,
                    subprotocols=[self._subprotocol],
                    headers=self._headers(token),
                    session_class=AsyncWebSocketSession,
                ) as socket,
                anyio.create_task_group() as tasks,
            ):
                self._socket = socket
                self._opened(socket, token, tasks)
                try:
                    while True:
                        self._receive(await socket.receive_text())
                except WebSocketDisconnect as closed:
                    code, reason = closed.code, closed.reason or ""
                except HTTPXWSException as error:
                    reason = str(error)
                finally:
                    self._lose()
                    tasks.cancel_scope.cancel()
        except* WebSocketUpgradeError as group:
            refused = group.exceptions[0]
            if isinstance(refused, WebSocketUpgradeError):
                code = self._refused(refused.response.status_code)
            reason = str(refused)
        except* LOST:
            pass
        finally:
            self._lose()
        return code, reason

    def _lose(self) -> None:
        """The socket is gone."""
        self._socket = None
        if self._ready.is_set() and self.ended is None:
            self._ready = anyio.Event()

    async def _replace_credential(self) -> None:
        with suppress(ReiletaError):  # without the server, the next attempt tries again
            await self._keeper.refresh(self._http)

    # What differs --------------------------------------------------------------------------------

    def _headers(self, token: str) -> dict[str, str]:
        """The headers of the upgrade."""
        return {}

    @abstractmethod
    def _opened(
        self, socket: AsyncWebSocketSession, token: str, tasks: anyio.abc.TaskGroup
    ) -> None:
        """A socket is open; `tasks` end with it."""

    @abstractmethod
    def _receive(self, text: str) -> None:
        """A message has come."""

    def _refused(self, status: int) -> int:
        """The code that stands for an upgrade that was refused with that status."""
        return 1006

    def _is_over(self, code: int) -> bool:
        """Whether no socket follows the one that ended with that code."""
        return self.ended is not None

    def _is_doubtful(self, code: int) -> bool:
        """Whether the credential is to be refreshed before the next attempt."""
        return code == CREDENTIAL_GONE

    @abstractmethod
    def _lost(self, code: int, reason: str, wait: float) -> float:
        """Tells of a lost socket; returns how many seconds to wait before the next attempt."""

    @abstractmethod
    def _closed(self, code: int, reason: str, error: ReiletaError) -> None:
        """Tells that it has ended for good."""
