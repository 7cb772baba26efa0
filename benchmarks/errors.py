"""Errors that end a benchmark, with a message of one line."""

from __future__ import annotations


class BenchmarkError(Exception):
    """For example, a server can't be started or reached, or a token file is too short."""


class ConnectionLost(BenchmarkError):
    """The server closed a connection. `code` is its close code; None if it sent none."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code
