"""A token's socket of the session API at another node of the cluster.

A token has one socket at all nodes together. A node that is to open one asks the node that has it.
As at a single node, a socket whose client does not answer a ping gives way. So does one at a node
that does not answer: it is gone, or will close the socket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from actors.directory import Directory
from reileta.cluster.calls import Calls, NodeUnreachable

VACATE: Final = "session-socket-vacate"
CALL_S: Final = 5.0
"""Seconds for the answer; the client has about one for the ping."""


class TokenAsked(msgspec.Struct, array_like=True):
    """The hash of a token that is to get a socket elsewhere."""

    token: bytes


class Vacant(msgspec.Struct, array_like=True):
    """Whether the token has no socket here any more."""

    vacant: bool


class SocketsElsewhere:
    """The sockets at other nodes. `vacate` frees a token's place here, if its client is gone."""

    def __init__(
        self, directory: Directory, calls: Calls, vacate: Callable[[bytes], Awaitable[bool]]
    ) -> None:
        self._directory = directory
        self._calls = calls
        self._vacate_here = vacate
        calls.serve(VACATE, TokenAsked, self._vacate)

    async def vacate(self, session_id: str, token: bytes) -> bool:
        """Whether the token has no socket at any other node, now."""
        for node, session in list(self._directory.sessions_elsewhere(session_id).items()):
            if token not in session.tokens:
                continue
            try:
                answer = await self._calls.call(node, VACATE, TokenAsked(token), Vacant, CALL_S)
            except NodeUnreachable:
                continue
            if not answer.vacant:
                return False
        return True

    async def _vacate(self, asked: TokenAsked, _: str) -> Vacant:
        return Vacant(await self._vacate_here(asked.token))
