"""A nursery for tasks beside a context manager's body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


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
