"""A nursery for what runs beside a context manager's body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery out of which a single error comes as it is, not in a group of one.

    Those who use the context manager need not know that it has a nursery inside: what their body
    raises reaches them as they raised it.
    """
    failure: BaseException
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
        return
    except BaseExceptionGroup as group:
        failure = group.exceptions[0] if len(group.exceptions) == 1 else group
    # Outside the handler, so that the group does not become the error's context.
    raise failure
