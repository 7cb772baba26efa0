"""Captures failures: the one place in the runtime that catches every `Exception`.

Cancellation, and everything else that ends the process, passes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

import structlog

from reileta.observability import log_events


class CapturedFailure:
    """A block whose exception is kept as `error` instead of being raised."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> CapturedFailure:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        if isinstance(error, BaseExceptionGroup):
            failed, passing = error.split(Exception)
            if failed is not None and passing is not None:
                # The work failed while it was being cancelled. The cancellation goes on; the
                # failure must not reach the nursery that all siblings share.
                structlog.get_logger().error(
                    log_events.HOOK_FAILED, hook="cancelled work", exc_info=failed
                )
                raise passing from None
        return False


async def capture_failure(work: Callable[[], Awaitable[None]]) -> Exception | None:
    """Runs the work, and returns the exception that it raised, or None."""
    with CapturedFailure() as captured:
        await work()
    # Without this, the exception would refer to itself through its traceback and this frame, and
    # keep all its frames alive until the collector of cycles runs.
    try:
        return captured.error
    finally:
        captured.error = None
