"""Context managers for code that may fail or be cancelled in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio


@contextmanager
def undone_on_failure(undo: Callable[[], object]) -> Iterator[None]:
    """Calls `undo` if the body raises or is cancelled, and lets that pass. `undo` can't wait."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            undo()


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that re-raises a single exception as it is, not in a group of one.

    Users of the context manager need not know that it has a nursery: an exception of their body
    reaches them unchanged.
    """
    failure: BaseException
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
        return
    except BaseExceptionGroup as group:
        failure = group.exceptions[0] if len(group.exceptions) == 1 else group
    # Raised outside the handler, so that the group does not become the exception's context.
    raise failure
