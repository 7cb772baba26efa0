"""The credential of a session, kept and refreshed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anyio

from reileta_client.emitter import Emitter
from reileta_client.errors import ErrorCode, Refused, ReiletaError
from reileta_client.http import Http

EARLY: Final = 0.25
"""Keys are replaced when so much of their life is left, …"""
EARLY_LIMIT_S: Final = 600.0
"""… but not earlier than so long before their end."""
AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of one token. `…_until`: seconds of `time.monotonic()`."""

    session: str
    token: str
    refresh: str
    token_until: float
    refresh_until: float

    @classmethod
    def of_login(cls, login: Mapping[str, Any], now_ms: int) -> Credentials:
        """Those of a login of the registry API; `now_ms` is the server's clock."""

        def here(end_ms: int) -> float:
            return time.monotonic() + (end_ms - now_ms) / 1000

        return cls(
            login["id"],
            login["token"],
            login["refresh"],
            here(login["access_expires"]),
            here(login["refresh_expires"]),
        )

    @classmethod
    def of_token(cls, token: Mapping[str, Any], now_ms: int) -> Credentials:
        """Those of a token of the session API."""

        def here(text: str) -> float:
            return time.monotonic() + datetime.fromisoformat(text).timestamp() - now_ms / 1000

        return cls(
            token["session"]["id"],
            token["access"],
            token["refresh"],
            here(token["access_expires"]),
            here(token["refresh_expires"]),
        )


class CredentialKeeper(Emitter):
    """Keeps the credential of one session fresh while `run` runs.

    Event: `changed`, with the new credentials, or None if there are none any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current: Credentials | None = None
        self._lock = anyio.Lock()
        self._wake = anyio.Event()

    def set(self, credentials: Credentials | None) -> None:
        """Takes the keys of a login, or forgets those it has."""
        self.current = credentials
        self._wake.set()
        self._emit("changed", credentials)

    async def refresh(self, http: Http) -> None:
        """Gets new keys. If the token has ended, there are none any more."""
        before = self.current
        async with self._lock:
            if before is None or self.current is not before:
                return  # somebody else has done it
            try:
                answer = await http.whole(
                    "POST", "/auth/refresh", body={"refresh": before.refresh}, token=None
                )
            except Refused as refused:
                if refused.code != ErrorCode.CREDENTIAL_INVALID:
                    raise
                self.set(None)
            else:
                self.set(Credentials.of_token(answer["token"], answer["time"]))

    async def run(self, http: Http) -> None:
        """Refreshes in time, until cancelled."""
        while True:
            self._wake = anyio.Event()
            current = self.current
            if current is None:
                await self._wake.wait()
                continue
            left = min(current.token_until, current.refresh_until) - time.monotonic()
            with anyio.move_on_after(max(0.0, left - min(left * EARLY, EARLY_LIMIT_S))):
                await self._wake.wait()
            if self.current is not current:
                continue
            try:
                await self.refresh(http)
            except ReiletaError:
                await anyio.sleep(AGAIN_S)
