"""What a benchmark can't go on with, in one line that a person can act on."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A server that can't be started or reached, a token file that is too short, …"""


class ConnectionLost(BenchmarkError):
    """The server closed a connection; `code` is its close code, None when it gave none."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code
